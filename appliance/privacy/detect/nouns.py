"""What part of speech a word is, above all: a proper noun or an ordinary one (HanTa, German and English)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from HanTa.HanoverTagger import HanoverTagger

Language = Literal["de", "en"]
CODES: tuple[Language, ...] = ("de", "en")
_LONGEST = 32
"""Letters; the time for a word that was never seen grows with the third power of its length."""
_SENTENCE = 60
_FAR = 30.0
PROPER = "PROPER"


class Nouns:
    """Hidden Markov models of words and sentences. What was worked out for a word is kept, up to a limit."""

    def __init__(self) -> None:
        self._taggers = {"de": _Tagger("morphmodel_ger.pgz"), "en": _Tagger("morphmodel_en.pgz")}
        self._proper = {"de": "NE", "en": "NP0"}
        self.ordinary = lru_cache(maxsize=50_000)(self._ordinary)

    def _ordinary(self, word: str, language: Language) -> float:
        """How much likelier (natural logarithm) the word is anything but a proper noun, whatever its case."""
        if len(word) > _LONGEST:
            return 0.0
        chances = dict(self._taggers[language].tag_word(word, cutoff=100, casesensitive=False))
        proper = chances.pop(self._proper[language], -100.0)
        return float(max(-_FAR, min(_FAR, max(chances.values(), default=-100.0) - proper)))

    def seen(self, word: str, language: Language) -> bool:
        """Whether the model learned this very word, and not as a foreign one, so that it is a common one."""
        return word.lower() in self._taggers[language].common

    def tags(self, words: Sequence[str], language: Language, *, cased: bool = True) -> list[str]:
        """The parts of speech of a sentence's words, judged by their neighbours and, if `cased`, their capitals.

        A proper noun is `PROPER`, others are as HanTa has them."""
        result: list[str] = []
        tagger = self._taggers[language]
        for start in range(0, len(words), _SENTENCE):
            some = [word[:_LONGEST] for word in words[start : start + _SENTENCE]]
            tags = (tagger.int2tag[tag] for tag in tagger.tag_sent_viterbi(some, cased))
            result += [PROPER if tag == self._proper[language] else tag for tag in tags]
        return result


class _Tagger(HanoverTagger):  # type: ignore[misc] # has no types
    """HanTa's tagger, that does not analyse a word twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        foreign = {self.tag2int[tag] for tag in ("FM", "XY", "UNC") if tag in self.tag2int}
        self.common = frozenset(
            word for word, chances in self.cache.items() if max(chances, key=lambda each: each[1])[0] not in foreign
        )
        self.analyze_forward = lru_cache(maxsize=20_000)(super().analyze_forward)
        self._tag_word = lru_cache(maxsize=20_000)(super()._tag_word)

    def tag_sent_viterbi(self, sent: Sequence[str], casesensitive: bool = True) -> Any:  # noqa: FBT001,FBT002 - HanTa's own
        """As HanTa's, but a sentence that it finds no way through is one of unknown words."""
        try:
            return super().tag_sent_viterbi(sent, casesensitive)
        except (KeyError, IndexError, ValueError):
            return [self.tag2int["UNKNOWN"]] * len(sent)
