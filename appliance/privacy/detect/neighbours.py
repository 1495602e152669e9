"""Names of several words: what one word that is a name says of those beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.privacy.detect.nouns import PROPER, Language
from appliance.privacy.detect.standing import COMMON, EITHER, NAME, ORDINARY, UNKNOWN, Standing
from appliance.privacy.detect.tokens import Word

_GERMAN = frozenset(("von", "vom", "zu", "zur", "zum", "der", "den", "v", "d"))
_FOREIGN = frozenset(
    ("van", "de", "del", "della", "di", "da", "dos", "du", "la", "le", "el", "al", "ibn", "ben", "ter", "te")
)
_PARTICLES = _GERMAN | _FOREIGN | {"do", "bin", "ten", "af", "av", "of", "the"}
"""Small words inside names."""
_OUTSIDE = {"de": _FOREIGN - {"da", "du"}, "en": _FOREIGN | {"von", "zu", "der", "den"}}
"""Those that are no words of the language, so that they belong to the name behind them."""
_LETTERS = "aious"
"""Letters that are words of their own, or pieces of some."""
_SYLLABLE = 4
"""Letters of the second half of a first name such as Su-min."""
_FIRST_TOO = frozenset(("Will", "May", "June", "April", "August"))
"""First names among the commonest words."""
_LAST_TOO = frozenset(("Freitag", "Sonntag", "Montag", "März", "May", "Will", "Gut", "Best"))
"""Surnames among the commonest words."""
_LOOSE = _FOREIGN | {"of", "the"}
"""Of the small words, those that make any word with a capital behind them part of the name."""
_BEHIND = re.compile(r"[IVX]{1,5}|[ivx]{2,4}|Jr|Sr|jr|sr|Junior|Senior")
_SECOND = frozenset((PROPER, "NN", "NNA", "NN0", "NN1", "NN2", "AJ0", "ADJ(A)", "ADJ(D)", "XY", "FM", "UNC"))
"""What a surname may look like beside a first name, where capitals say nothing."""


class Tags:
    """The parts of speech of a sentence, worked out once somebody asks."""

    def __init__(self, tag: Callable[[], Sequence[str]]) -> None:
        self._tag = tag
        self._known: Sequence[str] | None = None

    def __getitem__(self, at: int) -> str:
        if self._known is None:
            self._known = self._tag()
        return self._known[at]


@dataclass(slots=True)
class Weighed:
    """A word with what is known of it."""

    word: Word
    at: int
    """Its number in the sentence."""
    standing: Standing
    tags: Tags
    chance: float
    ruled: bool | None
    capital: bool
    """Has a capital, in a sentence where capitals say something."""
    named: bool = False

    @property
    def tag(self) -> str:
        """Its part of speech."""
        return self.tags[self.at]


def spread(words: Sequence[Weighed], *, lower: bool, language: Language) -> None:
    """Marks what belongs to the names beside it: surnames, initials, kings' numbers, small words in between."""
    for at in range(1, len(words)):
        before, each = words[at - 1], words[at]
        after = words[at + 1] if at + 1 < len(words) and _touch(each, words[at + 1]) else None
        if not _touch(before, each):
            continue
        if before.named and not each.named:
            each.named = _continues(before, each, after, lower=lower)
            if not each.named:
                _bridge(words, at, lower=lower)
        elif each.named and not before.named:
            foreign = before.word.text.lower() in _OUTSIDE[language] and (at == 1 or not words[at - 2].named)
            initial = lower and len(before.word.text) == 1 and before.word.text not in _LETTERS
            before.named = (
                foreign
                or initial
                or (
                    each.capital
                    and before.capital
                    and (before.standing is EITHER or before.word.text in _FIRST_TOO or _adjective(before, each))
                )
            )
    for at in range(1, len(words) - 1):
        if lower and words[at].word.text in ("und", "and", "&"):
            _pair(words, at)


def _adjective(before: Weighed, each: Weighed) -> bool:
    """Whether a name that nobody knows has a first name before it that looks like an adjective: Zivile Balciunaite."""
    return (
        before.word.first and before.standing is ORDINARY and before.tag.startswith("ADJ") and each.standing is UNKNOWN
    )


def _pair(words: Sequence[Weighed], at: int) -> None:
    """Of two that are named in one breath, one a name, the other is another; in text without capitals."""
    for one, other in ((words[at - 1], words[at + 1]), (words[at + 1], words[at - 1])):
        if one.named and not other.named and other.standing is not COMMON and other.tag in _SECOND:
            behind = at + 2 == len(words) or words[at + 2].tag not in _SECOND
            before = at < 2 or words[at - 2].standing is COMMON
            other.named = behind if other is words[at + 1] else before


def _touch(one: Weighed, other: Weighed) -> bool:
    return other.word.start - one.word.end in (1, 2)


def _continues(before: Weighed, each: Weighed, after: Weighed | None, *, lower: bool) -> bool:
    """Whether a word behind a name is part of it."""
    text = each.word.text
    if _BEHIND.fullmatch(text) or (len(text) == 1 and (each.capital or (lower and text not in _LETTERS))):
        return True
    if text.isupper() and before.word.text.isupper() and len(before.word.text) > 2:
        return each.standing not in (COMMON, ORDINARY)
    if each.word.start - before.word.end != 1:
        return False
    first = before.chance >= 0.2 or before.standing is NAME
    if each.word.joined and len(text) <= _SYLLABLE and before.standing is not ORDINARY:
        return True
    if text in _LAST_TOO and not lower:
        return before.standing is NAME
    if lower:
        return first and each.standing in (EITHER, ORDINARY) and each.tag in _SECOND
    if not each.capital:
        return False
    return (
        (after is not None and after.named)
        or each.standing is EITHER
        or (first and before.capital and each.standing is ORDINARY)
    )


def _bridge(words: Sequence[Weighed], at: int, *, lower: bool) -> None:
    """Marks small words between two parts of a name, and the part behind them: von der Heyde."""
    end = at
    while (
        end < len(words)
        and end < at + 3
        and words[end].word.text.rstrip(".") in _PARTICLES
        and _touch(words[end - 1], words[end])
    ):
        end += 1
    if end == at or end == len(words) or not _touch(words[end - 1], words[end]):
        return
    last = words[end]
    foreign = words[at].word.text in _LOOSE and last.capital
    if (last.standing is COMMON and not foreign) or not (lower or last.capital):
        return
    if last.named or foreign or end - at > 1:
        for each in words[at : end + 1]:
            each.named = True
