"""Finds the site's own names in a text, however they are written there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from appliance.privacy.kinds import Kind, Span
from appliance.privacy.site.entry import SiteEntry
from appliance.privacy.site.forms import HEAD, TOKEN, folded, heads, lowered, stems
from appliance.privacy.site.readings import ARTICLES, JOINING, LEGAL, LEGAL_WORDS, PARTICLES, TITLES, phrases

_SOURCE = "site"
_SURE, _LIKELY, _PERHAPS = 1.0, 0.95, 0.6
_BETWEEN = re.compile(r"[ \t\u00a0\u202f]{0,3}[\r]?\n?[ \t>]{0,8}|[ \t]?[-.,&+/_'’*·]{1,2}[ \t\n]?")
_COMMA = re.compile(r"[ \t]?[,;|\t][ \t]?\n?")
_SAME_LINE = re.compile(r"[^.!?:\n•]*")
_MOST_FORMS_OF_LAW = 6
"""Words of a legal form: GmbH & Co. KG."""


@dataclass(slots=True)
class _Name:
    """What is known of some words: of whose name they are, if they are a whole one."""

    person: Kind | None = None
    """As a surname; None: it is nobody's."""
    other: Kind | None = None
    given: Set[str] = frozenset()
    exact: str = ""
    longer: bool = False
    """Whether there are names that begin with these words and go on."""

    def take(self, kind: Kind, given: frozenset[str] | None, exact: str) -> None:
        if given is None:
            self.other = self.other or kind
            self.exact = exact if self.person is None else ""
        else:
            self.person = self.person or kind
            if isinstance(self.given, set):  # of a surname that many have
                self.given |= given
            else:
                self.given = set(self.given | given) if self.given else given
            self.exact = ""


class Matcher:
    """The site's entries, ready to be looked for. Building takes a second or so for 50,000."""

    def __init__(self, entries: Iterable[SiteEntry], ordinary: Callable[[str], bool] = lambda _: False) -> None:
        """`ordinary`: whether a word in small letters is one of everyday language, so that it says little alone."""
        self._ordinary = ordinary
        self._names: dict[str, _Name] = {}
        """By folded words with a space between: all names, and what longer ones begin with."""
        for entry in entries:
            for phrase in phrases(entry):
                self._add(phrase.words, phrase.kind, phrase.given, phrase.exact)
        self._heads = {head for words in self._names for head in heads(words.partition(" ")[0])}

    def _add(self, words: str, kind: Kind, given: frozenset[str] | None, exact: str) -> None:
        name = self._names.get(words)
        if name is None:
            name = self._names[words] = _Name()
            at = words.find(" ")
            while at > 0:
                self._names.setdefault(words[:at], _Name()).longer = True
                at = words.find(" ", at + 1)
        name.take(kind, given, exact)

    def find(self, text: str) -> list[Span]:
        """What of the lists stands in `text`, sorted, without overlaps.

        A genitive's ending is no part of a find; titles before a name are none either. `text` is as
        `detect.normalise` leaves it: without what is invisible, and with look-alikes as the letters that they are for.
        """
        names = self._names
        if not names:
            return []
        low = lowered(text)
        words = TOKEN.findall(low)
        begins = {word for word in set(words) if self._begins(word)}
        if not begins:
            return []
        hits = [number for number, word in enumerate(words) if word in begins]
        starts, at = [], 0
        for word in words:  # what is between two words is part of none, so the next one is where its letters are
            at = low.index(word, at)
            starts.append(at)
            at += len(word)
        return _Search(text, words, starts, names, self._ordinary).among(hits)

    def _begins(self, word: str) -> bool:
        """Whether a name may begin with this word."""
        if not word.isascii():
            word = folded(word)
        if word in self._names:
            return True
        # most words end here: what follows takes ten times as long
        return word[:HEAD] in self._heads and any(stem in self._names for stem, _ in stems(word))


class _Search:
    """One text, being looked through."""

    def __init__(
        self,
        text: str,
        words: Sequence[str],
        starts: Sequence[int],
        names: Mapping[str, _Name],
        ordinary: Callable[[str], bool],
    ) -> None:
        self._text = text
        self._words = words
        self._starts = starts
        self._names = names
        self._ordinary = ordinary

    def _word(self, at: int) -> str:
        word = self._words[at]
        return word if word.isascii() else folded(word)

    def _start(self, at: int) -> int:
        return self._starts[at]

    def _end(self, at: int) -> int:
        return self._starts[at] + len(self._words[at])

    def among(self, hits: Iterable[int]) -> list[Span]:
        """What begins at one of these words."""
        found: list[Span] = []
        done = -1
        for first in hits:
            if first <= done:
                continue
            longest = self._longest(first)
            if longest is None:
                continue
            last, name, ending = longest
            span = self._judged(first, last, name, ending)
            if span is None:
                continue
            done, new = span
            if found and new.start < found[-1].end:  # it was extended to the left, over what was found before
                new = Span(min(found[-1].start, new.start), new.end, new.kind, new.score, new.source)
                found.pop()
            found.append(new)
        return found

    def _longest(self, first: int) -> tuple[int, _Name, int] | None:
        """The longest name that begins there: its last word, what it is, and the letters of its genitive."""
        best: tuple[int, _Name, int] | None = None
        ways = [(first, stem, ending) for stem, ending in stems(self._word(first)) if stem in self._names]
        for last, key, ending in ways:  # it grows; of two as long, the one more as it is written comes first
            name = self._names[key]
            if (name.person or name.other) and (best is None or last > best[0]):
                best = last, name, ending
            if name.longer:
                ways += self._further(last, key)
        return best

    def _further(self, last: int, key: str) -> list[tuple[int, str, int]]:
        found = []
        for after in (last + 1, last + 2):
            if after >= len(self._words) or not self._touch(after - 1, after):
                break
            for stem, ending in stems(self._word(after)):
                if (longer := f"{key} {stem}") in self._names:
                    found.append((after, longer, ending))
            if self._word(after) not in JOINING:
                break
        return found

    def _judged(self, first: int, last: int, name: _Name, ending: int) -> tuple[int, Span] | None:
        """Whether it is that name, with all that belongs to it: the number of its last word, and the find."""
        begin, end, closed = self._start(first), self._end(last) - ending, last
        kind = name.person or name.other
        front = self._particles(first) if name.person is not None else first
        left = self._given_before(front, name.given)
        sure = left != front or self._title(front)
        right = self._given_after(last, name) if left == front else last
        if sure or (right != last and self._word(front) not in ARTICLES):  # not of `der Müller, Anna`
            begin = self._start(left)
        if right != last:
            sure, closed, end = True, right, self._end(right)
        if not sure or name.person is None:
            legal = self._legal(last)
            if legal != last:
                sure, kind, closed, end = True, name.other or kind, legal, self._end(legal)
        assert kind is not None  # noqa: S101 - a name is somebody's
        if sure or last > first:
            return closed, Span(begin, end, kind, _SURE, _SOURCE)
        return self._alone(first, name, Span(begin, end, kind, _LIKELY, _SOURCE))

    def _alone(self, at: int, name: _Name, span: Span) -> tuple[int, Span] | None:
        """A single word with nothing beside it that says that it is a name."""
        written = self._text[self._start(at) : self._end(at)]
        if name.exact and self._text[span.start : span.end] != name.exact:
            return None
        low = written.lower()
        if name.exact.isupper():
            return at, span
        if self._ordinary(low) or self._ordinary(low[: span.end - span.start]):
            if not (written[0].isupper() and self._in_mid_sentence(at)):
                return None
            span = Span(span.start, span.end, span.kind, _PERHAPS, _SOURCE)
        return at, span

    def _in_mid_sentence(self, at: int) -> bool:
        if at == 0:
            return False
        gap = self._text[self._end(at - 1) : self._start(at)]
        return _SAME_LINE.fullmatch(gap) is not None or (len(self._words[at - 1]) == 1 and gap == ". ")

    def _touch(self, one: int, other: int) -> bool:
        """Whether nothing but what may stand inside a name is between two words."""
        if self._text[self._end(one) : self._start(other)] == " ":
            return True
        return _BETWEEN.fullmatch(self._text, self._end(one), self._start(other)) is not None

    def _follow(self, one: int, other: int) -> bool:
        """The same, without a comma in between."""
        return self._touch(one, other) and "," not in self._text[self._end(one) : self._start(other)]

    def _particles(self, first: int) -> int:
        """The first of the small words before a surname, as in `von der Heide`."""
        while first > 0 and self._word(first - 1) in PARTICLES and self._touch(first - 1, first):
            first -= 1
        return first

    def _title(self, first: int) -> bool:
        return first > 0 and self._word(first - 1) in TITLES and self._touch(first - 1, first)

    def _is_given(self, at: int, given: Set[str]) -> bool:
        word = self._word(at)
        if len(word) == 1:
            return word in given and self._text[self._start(at)].isupper()
        return word in given or any(stem in given for stem, _ in stems(word))

    def _given_before(self, first: int, given: Set[str]) -> int:
        """The first of the given names that stand before a surname; one that isn't known may be among them."""
        left = first
        while left > 0:
            if self._is_given(left - 1, given) and self._follow(left - 1, left):
                left -= 1
            elif (left == first > 1 and self._is_given(left - 2, given) and self._follow(left - 2, left - 1)
                  and self._text[self._start(left - 1)].isupper() and self._follow(left - 1, left)):  # fmt: skip
                left -= 2
            else:
                break
        return left

    def _given_after(self, last: int, name: _Name) -> int:
        """The last of the given names that stand behind a surname, unless it comes once more behind them."""
        right = last
        while right + 1 < len(self._words) and self._is_given(right + 1, name.given):
            gap = self._end(right), self._start(right + 1)
            if not (self._touch(right, right + 1) or _COMMA.fullmatch(self._text, *gap)):
                break
            right += 1
        if right != last and right + 1 < len(self._words) and self._names.get(self._word(right + 1)) is name:
            return last
        return right

    def _legal(self, last: int) -> int:
        """The last word of the legal form that follows; `last` where none does."""
        form, at = "", last
        for number in range(last + 1, min(last + 1 + _MOST_FORMS_OF_LAW, len(self._words))):
            if self._word(number) not in LEGAL_WORDS or not self._touch(number - 1, number):
                break
            form += f" {self._word(number)}"
            if LEGAL.match(form):
                at = number
        return at
