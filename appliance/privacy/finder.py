"""Looks for known values in a text, however they are spelt there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from appliance.privacy.ordinary import ORDINARY
from appliance.privacy.spelling import Word, plain, shortened, words, written_out

LONGEST = 100
"""Characters of a value; a longer one is not looked for, which would take time and memory by the square of them."""
_WIDEST_GAP = 3
"""Characters between two words of a value; names split by markup have two."""
_FEWEST_DIGITS = 4
_ENOUGH_DIGITS = 5
"""A number with so many is the same with spaces inside it."""
_LONG_NAME = 6
"""Letters of a name that are no coincidence inside a word."""
_SENTENCE_ENDS = ".!?:\n•*"


class Found(NamedTuple):
    """A value in a text: its characters there, a genitive's s not among them, and what was looked for."""

    start: int
    end: int
    value: str


class _Needle(NamedTuple):
    value: str
    joints: frozenset[int]
    """Where its own words end, in characters of the whole without what stands between them."""
    numeric: bool
    only_as_name: bool


class Finder:
    """Finds any of some values: in any case, with umlauts written in any way, with other separators or none between
    words, with spaces, hyphens or markup between letters. Only whole words, though also parts of identifiers.

    A value that is one ordinary word, such as Lange, is found where it is capitalised within a sentence.
    Numbers of three digits and less aren't looked for, nor are single characters, nor what is longer than `LONGEST`.
    Those of `names` are found inside longer words too, such as Müllersche; then it is the whole word that is found.
    """

    def __init__(self, values: Iterable[str], names: Iterable[str] = ()) -> None:
        self._needles: dict[str, list[_Needle]] = {}
        self._beginnings: set[str] = set()
        for value in dict.fromkeys(values):
            parts = [value[word.start : word.end] for word in words(value)]
            digits = sum(len(part) for part in parts if part.isdigit())
            short_number = digits < _FEWEST_DIGITS and digits == sum(map(len, parts))
            if not 1 < len(value) <= LONGEST or not parts or short_number:
                continue
            only_as_name = len(parts) == 1 and written_out(parts[0]) in ORDINARY
            for spell in (plain, written_out, shortened):
                spelt = [spell(part) for part in parts]
                whole = "".join(spelt)
                needle = _Needle(
                    value, frozenset(accumulate(map(len, spelt))), digits >= _ENOUGH_DIGITS, only_as_name
                )  # fmt: skip
                known = self._needles.setdefault(whole, []) if whole else [needle]
                if needle not in known:
                    known.append(needle)
                    self._beginnings.update(whole[:length] for length in range(1, len(whole) + 1))

        self._inside: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name in dict.fromkeys(names):
            if len(words(name)) == 1 and written_out(name) not in ORDINARY:
                for letters in {spell(name) for spell in (plain, written_out, shortened)}:
                    if len(letters) >= _LONG_NAME:
                        self._inside[letters[:_LONG_NAME]].append((letters, name))

    def find(self, text: str) -> Iterator[Found]:
        """All of them, in order; the longest of those that begin at the same place, and none inside another."""
        all_words, index = words(text), 0
        while index < len(all_words):
            word = all_words[index]
            if word.plain in self._beginnings or word.plain[:-1] in self._needles:
                match = self._longest(text, all_words, index)
                if match is not None:
                    index, found = match
                    yield found
                    continue
            if self._inside and (name := self._within(word.plain)) is not None:
                yield Found(word.start, word.end, name)
            index += 1

    def _within(self, word: str) -> str | None:
        for at in range(len(word) - _LONG_NAME + 1):
            for letters, name in self._inside.get(word[at : at + _LONG_NAME], ()):
                if word.startswith(letters, at):
                    return name
        return None

    def _longest(self, text: str, all_words: list[Word], first: int) -> tuple[int, Found] | None:
        best: tuple[int, Found] | None = None
        start = before = all_words[first].start
        so_far, spaces, letters_only = "", [], True
        for index in range(first, len(all_words)):
            word = all_words[index]
            gap = text[before : word.start]
            if len(gap) > _WIDEST_GAP:
                break
            if any(map(str.isspace, gap)):
                spaces.append(len(so_far))
            letters_only = letters_only and word.end - word.start == 1
            so_far, before = so_far + word.plain, word.end
            split = [] if letters_only else spaces  # M ü l l e r
            if (needle := self._needle(so_far, split, text, start)) is not None:
                best = index + 1, Found(start, word.end, needle.value)
            if so_far[-1] == "s" and not letters_only:
                needle = self._needle(so_far[:-1], split, text, start)
                if needle is not None and not needle.numeric:
                    best = index + 1, Found(start, word.end - 1, needle.value)
            if so_far not in self._beginnings:
                break
        return best

    def _needle(self, whole: str, spaces: Sequence[int], text: str, start: int) -> _Needle | None:
        for needle in self._needles.get(whole, ()):
            if needle.only_as_name and not _named(text, start):
                continue
            if needle.numeric or all(offset in needle.joints for offset in spaces):
                return needle
        return None


def _named(text: str, start: int) -> bool:
    """Whether the word at `start` is capitalised though it doesn't begin a sentence."""
    before = text[max(0, start - 4) : start].rstrip(" ")[-1:]
    return text[start].isupper() and bool(before) and before not in _SENTENCE_ENDS
