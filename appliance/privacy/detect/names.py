"""Every word of a text is weighed: is it a name, might it be one, does nobody know it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from appliance.privacy.detect.doubts import Doubts
from appliance.privacy.detect.grammar import (
    ADJECTIVES,
    NOUNS,
    dated,
    described,
    finite,
    genitive,
    instruction,
    polite,
    subject,
    without_article,
)
from appliance.privacy.detect.neighbours import Tags, Weighed, spread
from appliance.privacy.detect.nouns import PROPER, Language, Nouns
from appliance.privacy.detect.places import towns
from appliance.privacy.detect.standing import COMMON, NAME, ORDINARY, UNKNOWN, Standings
from appliance.privacy.detect.tokens import Sentence, Word
from appliance.privacy.kinds import Kind, Span

_FIRST_TOO = frozenset(("will", "may", "june", "april", "august"))
_LAST_TOO = frozenset(("Will", "Gut", "Best"))
"""Names among the commonest words."""
_ACRONYM = 5


@dataclass(frozen=True, slots=True)
class Levels:
    """How likely (by the neural network) a word must be a name, by what else is known of it."""

    common: float
    ordinary: float
    either: float
    doubting: bool = False
    """Takes words that may be names for names also where nothing else speaks for it."""


USUAL = Levels(common=0.8, ordinary=0.35, either=0.08)
STRICT = Levels(common=0.8, ordinary=0.25, either=0.05, doubting=True)
Chance = Callable[[Word], float]
Ruled = Mapping[int, bool]
"""Where words begin that a rule takes for a name: surely, or if nothing speaks against it."""


class Names:
    """Weighs the words of a sentence."""

    def __init__(self, nouns: Nouns, standings: Standings) -> None:
        self._nouns = nouns
        self._standings = standings
        self._towns = towns()

    def find(
        self, sentence: Sentence, language: Language, chance: Chance, ruled: Ruled, levels: Levels
    ) -> Iterator[Span]:
        """The words of the sentence that are, or may be, somebody's name, and those that nobody knows."""
        shown = [word.text.capitalize() if sentence.shouted else word.text for word in sentence.words]
        tags = Tags(lambda: self._nouns.tags(shown, language, cased=not sentence.lower))
        words = [
            Weighed(word, at, self._standings.of(text, language), tags, chance(word), ruled.get(word.start),
                    word.text[0].isupper() and not sentence.lower)
            for at, (word, text) in enumerate(zip(sentence.words, shown, strict=True))
        ]  # fmt: skip
        weighing = _Weighing(self._standings, sentence, language, levels)
        for at, each in enumerate(words):
            before = words[at - 1] if at else None
            each.named = weighing.named(each, before, words[at + 1] if at + 1 < len(words) else None)
        spread(words, lower=sentence.lower, language=language)
        if levels.doubting and not sentence.titled:
            doubts = Doubts(self._standings, words, language, lower=sentence.lower)
            for each in words:
                each.named = each.named or doubts.of(each)
        found: Span | None = None
        for each in words:
            if not each.named:
                continue
            kind = self._kind(each, levels)
            span = Span(each.word.start, each.word.end, kind, 0.5 if kind is Kind.WORD else 0.8, "names")
            if (
                found is not None
                and span.start - found.end == 1
                and (each.word.joined or found.kind is kind is Kind.PERSON)
            ):
                span = Span(found.start, span.end, found.kind, found.score, "names")
            elif found is not None:
                yield found
            found = span
        if found is not None:
            yield found

    def _kind(self, each: Weighed, levels: Levels) -> Kind:
        lower = each.word.text.lower()
        if lower in self._towns and not each.ruled and not self._standings.name(lower):
            return Kind.PLACE
        sure = each.standing is NAME or each.chance > levels.either or each.ruled is not None
        return Kind.PERSON if sure else Kind.WORD


@dataclass(frozen=True, slots=True)
class _Weighing:
    """What holds for all words of a sentence."""

    standings: Standings
    sentence: Sentence
    language: Language
    levels: Levels

    def named(self, each: Weighed, before: Weighed | None, after: Weighed | None) -> bool:
        """Whether the word by itself, where it stands, is taken for a name."""
        if each.ruled:
            return True
        if each.standing is COMMON:
            return self._though_common(each, before, after)
        lower = self.sentence.lower
        if self._plain(each, after):
            return False
        if each.chance >= self.levels.ordinary and (each.capital or lower or each.standing is not ORDINARY):
            return True
        if each.standing is ORDINARY:
            return self._though_ordinary(each, before, after)
        text = each.word.text
        if each.ruled is not None:
            return True
        if each.standing is NAME:
            return each.capital or len(text) > 2
        if each.standing is UNKNOWN:
            if text.isupper() and len(text) <= _ACRONYM and not self.sentence.shouted:
                return False
            return each.capital or len(text) > (2 if lower else 3)
        return self._either(each, before, after)

    def _plain(self, each: Weighed, after: Weighed | None) -> bool:
        """Whether an ordinary word is one for sure: an everyday one, a key, or what the reader is told to do."""
        word = each.word
        if word.key and self.standings.everyday(word.text):
            return True
        if each.standing is not ORDINARY:
            return False
        if word.text.lower() in self.standings.everyday_words:
            return True
        return word.first and self.standings.small_only(word.text) and instruction(each, after)

    def _either(self, each: Weighed, before: Weighed | None, after: Weighed | None) -> bool:
        """Of a word that is a name for some and an ordinary word for others."""
        if each.chance >= self.levels.either:
            return True
        lower, first = self.sentence.lower, each.word.first
        if not each.capital and not lower:
            return False
        if each.tag == PROPER or subject(each, after, self.language):
            return True
        if each.capital and self.language == "en":
            return not first and not self.sentence.titled
        listed = lower or first or self.standings.name(each.word.text.lower())
        if self.levels.doubting and listed and (each.tag in NOUNS | ADJECTIVES or finite(after)):
            return not (lower and described(each, before))
        return not first and (each.capital or each.tag in NOUNS) and without_article(before)

    def _though_ordinary(self, each: Weighed, before: Weighed | None, after: Weighed | None) -> bool:
        """Of a word that no list knows as a name: where it stands and how it is written may tell."""
        if self.sentence.lower:
            return self.levels.doubting and subject(each, after, self.language)
        if not each.capital or self.sentence.titled:
            return False
        if self.language == "de" and not each.word.first and self.standings.small_only(each.word.text):
            return without_article(before)
        if each.word.first:
            return subject(each, after, self.language)
        return self.language == "en" or (genitive(each, before) and not self.standings.usual(each.word.text.lower()))

    def _though_common(self, each: Weighed, before: Weighed | None, after: Weighed | None) -> bool:
        """Of one of the commonest words: Will, May, Gut."""
        text, inside = each.word.text, each.capital and not each.word.first
        lower = text.lower()
        german = inside and self.language == "de" and not self.sentence.titled and not polite(text)
        if german and self.standings.small_only(text) and without_article(before):
            return True
        if self.levels.doubting and inside and text in _LAST_TOO:
            return True
        if text == "Will" and (inside or (self.levels.doubting and self.language == "de" and finite(after))):
            return True
        if lower not in _FIRST_TOO:
            label = text.isupper() or self.standings.nobody(lower)
            return each.capital and each.chance >= self.levels.common and not label
        if each.chance >= (self.levels.ordinary if each.capital else self.levels.common):
            return each.capital or self.sentence.lower
        return inside and self.language == "en" and not self.sentence.titled and not dated(before, after)
