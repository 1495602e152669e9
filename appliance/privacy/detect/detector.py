"""All detectors together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from appliance.config.privacy import Detectors
from appliance.privacy import placeholders
from appliance.privacy.detect import neural, organisations, records, tables
from appliance.privacy.detect.language import Languages
from appliance.privacy.detect.lexicon import Lexicon
from appliance.privacy.detect.names import STRICT, USUAL, Levels, Names
from appliance.privacy.detect.normalise import normalise
from appliance.privacy.detect.nouns import Nouns
from appliance.privacy.detect.patterns import patterns
from appliance.privacy.detect.people import People
from appliance.privacy.detect.standing import COMMON, ORDINARY, Standings
from appliance.privacy.detect.tokens import BLANK, sentences
from appliance.privacy.detect.union import union
from appliance.privacy.kinds import Span
from appliance.privacy.site.entry import SiteEntry
from appliance.privacy.site.matcher import Matcher

_FEW = 0.03
"""The least chance of being a name that says anything."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Detector:
    """Finds what is personal in a text. Loads its models when made; usable after a fork, one text at a time."""

    def __init__(self, settings: Detectors, site: Sequence[SiteEntry] = ()) -> None:
        lexicon = Lexicon()
        self._neural = neural.Neural(settings.rampart)
        nouns = Nouns()
        self._standings = Standings(lexicon, nouns)
        self._names = Names(nouns, self._standings)
        self._people = People()
        self._languages = Languages()
        self._patterns = patterns()
        self._site = Matcher(site, self._standings.everyday)

    def find(self, text: str, *, strict: bool = False) -> list[Span]:
        """What all detectors find: sorted, without overlaps, as indices into `text`.

        `strict`: with lower thresholds, for a second look at text that is masked already. Placeholders are no finds.
        """
        normal = normalise(_SURROGATE.sub("\ufffd", _blanked(text)))
        spans = union(self._found(normal.text, STRICT if strict else USUAL))
        return [Span(*normal.given(span.start, span.end), span.kind, span.score, span.source) for span in spans]

    def language(self, text: str) -> str:
        """`de`, `en`, `other`; empty for a text that is too short to tell, or holds hardly a word."""
        return self._languages.of([word.text for each in sentences(text) for word in each.words])

    def known(self, text: str) -> list[tuple[int, int]]:
        """Words that are on no list of ordinary words."""
        language = "en" if self.language(text) == "en" else "de"
        return [
            (word.start, word.end)
            for each in sentences(_blanked(text))
            for word in each.words
            if self._standings.of(word.text, language) not in (COMMON, ORDINARY)
        ]

    def _found(self, text: str, levels: Levels) -> Iterator[Span]:
        yield from self._patterns.find(text, strict=levels is STRICT)
        yield from self._site.find(text)
        yield from organisations.find(text)
        yield from tables.find(text)
        yield from records.find(text)
        tokens = self._neural.tokens(text, _FEW)
        yield from neural.numbers(text, tokens)
        chances = neural.Chances(tokens)
        ruled: dict[int, bool] = {}
        for start, certain in self._people.find(text):
            ruled[start] = certain or ruled.get(start, False)
        parts = sentences(text)
        whole = self._languages.of([word.text for each in parts for word in each.words])
        for each in parts:
            language = self._languages.of([word.text for word in each.words]) or whole
            yield from self._names.find(each, "en" if language == "en" else "de", chances.of, ruled, levels)


def _blanked(text: str) -> str:
    """The text with its placeholders as signs that mean nothing to any detector; as long as before."""
    parts = []
    done = 0
    for each in placeholders.find(text):
        end = each.end + len(each.ending)
        parts += [text[done : each.start], BLANK * (end - each.start)]
        done = end
    return "".join(parts) + text[done:]
