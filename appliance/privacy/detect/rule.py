"""A regular expression and what it finds; the stretches of a text in which it is worth looking."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as Set
from dataclasses import dataclass, field

from appliance.privacy.kinds import Kind, Span

Window = tuple[int, int]
_DIGITS = re.compile(r"[0-9]+")
_GOES_ON = frozenset("./- ")


@dataclass(frozen=True, slots=True)
class Rule:
    """Finds what its pattern's group `find` holds (the whole match where there is no such group)."""

    source: str
    kind: Kind
    score: float
    pattern: re.Pattern[str]
    accept: Callable[[re.Match[str]], bool] | None = None
    group: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.pattern.groupindex.get("find", 0))


def all_of(rules: Iterable[Rule], text: str, windows: Sequence[Window]) -> list[Span]:
    """What any of the rules finds in any of the windows, with the characters before a window in sight."""
    found: list[Span] = []
    if windows:
        for rule in rules:
            find, accept = rule.pattern.finditer, rule.accept
            for start, end in windows:
                found += [
                    Span(*match.span(rule.group), rule.kind, rule.score, rule.source)
                    for match in find(text, start, end)
                    if accept is None or accept(match)
                ]
    return found


def runs_of_digits(text: str) -> list[Window]:
    """Where its runs of digits start and end."""
    return [match.span() for match in _DIGITS.finditer(text)]


def heads(text: str, runs: Iterable[Window]) -> list[Window]:
    """Runs that don't go on with a number that began before a point, comma, colon, stroke or hyphen.

    What begins behind a comma with four digits, or goes on with points or strokes, stands in a cell of its own.
    """
    return [
        (start, end)
        for start, end in runs
        if start < 2
        or text[start - 1] not in ".,:/-"
        or not text[start - 2].isdigit()
        or (
            text[start - 1] == ","
            and (end - start > 3 or (text[end : end + 1] in _GOES_ON and text[end + 1 : end + 2].isalnum()))
        )
    ]


def around(runs: Iterable[Window], before: int, after: int) -> list[Window]:
    """From `before` characters ahead of each run to `after` behind it; windows that touch are one."""
    result: list[Window] = []
    for start, end in runs:
        if result and start - before <= result[-1][1]:
            result[-1] = result[-1][0], end + after
        else:
            result.append((max(start - before, 0), end + after))
    return result


def beside_letters(text: str, runs: Iterable[Window]) -> Iterator[Window]:
    """Runs that touch a letter, or with nothing but a separator between them and one in upper case."""
    for start, end in runs:
        before, after = text[max(start - 3, 0) : start], text[end : end + 3]
        if (
            before[-1:].isalpha()
            or after[:1].isalpha()
            or (before and before[-1] in " -_/:–•.#<" and (before[-2:-1].isupper() or before[-1] == "#"))
            or (before[1:] in (": ", ". ", "- ") and before[0].isupper())
            or (after[:1] in ("-", "_", "/", "<", " ") and after[1:2].isupper() and not after[2:].islower())
        ):
            yield start, end


def words(text: str) -> frozenset[str]:
    """Those that stand in it, between spaces."""
    return frozenset(text.split())


def has(text: str, parts: Iterable[str]) -> bool:
    """Whether any of them stands in it. Much quicker than an expression, to know where one is worth its time."""
    for part in parts:  # noqa: SIM110 - a loop is quicker than any()
        if part in text:
            return True
    return False


class Parts:
    """Parts of words without one of which nothing is found, and a quick way to tell that none stands in a text.

    Knowing a text's grams, it takes one look at a set, however many parts there are.
    """

    __slots__ = ("_keys", "_short", "parts")

    def __init__(self, *parts: str) -> None:
        self.parts = parts
        self._keys = frozenset(lowered(part)[:3] for part in parts if len(part) > 2)
        self._short = tuple(part for part in parts if len(part) < 3)

    def __len__(self) -> int:
        return len(self.parts)

    def may(self, text: str, grams: Set[str]) -> bool:
        """Whether one of them may stand in the text; `grams` are those of all of it."""
        return not self._keys.isdisjoint(grams) or (bool(self._short) and has(text, self._short))

    def within(self, text: str, grams: Set[str]) -> bool:
        """Whether one of them does."""
        return self.may(text, grams) and has(text, self.parts)

    def near(self, text: str, grams: Set[str], before: int, after: int) -> list[Window]:
        """From `before` characters ahead of each of them to `after` behind where it starts."""
        return near(text, self.parts, before, after) if self.may(text, grams) else []


def grams_of(lower: str) -> Set[str]:
    """Each three characters that stand together in a text in lower case."""
    return {lower[at : at + 3] for at in range(len(lower) - 2)}


def lowered(text: str) -> str:
    """In lower case, and as long as before."""
    lower = text.lower()
    return (
        lower if len(lower) == len(text) else "".join(low if len(low := char.lower()) == 1 else char for char in text)
    )


def near(text: str, parts: Iterable[str], before: int, after: int) -> list[Window]:
    """From `before` characters ahead of each of those parts to `after` behind where it starts."""
    if not has(text, parts):
        return []
    places: list[int] = []
    for part in parts:
        at = text.find(part)
        while at >= 0:
            places.append(at)
            at = text.find(part, at + 1)
    return around(sorted((at, at) for at in places), before, after)


def word_before(text: str, at: int) -> str:
    """What stands between spaces just before there, 40 characters at most; what touches that place counts too."""
    end = at - 1 if at and text[at - 1] in " \n" else at
    start = max(text.rfind(" ", max(end - 40, 0), end), text.rfind("\n", max(end - 40, 0), end)) + 1
    return text[max(start, end - 40) : end]


def left_of(text: str, at: int, allowed: Collection[str], most: int) -> int:
    """Where the run of allowed characters that ends before `at` starts; at most `most` characters long."""
    start, least = at, max(at - most, 0)
    while start > least and (text[start - 1] in allowed):
        start -= 1
    return start


def count_digits(text: str) -> int:
    """How many digits it holds."""
    return sum(map(str.isdigit, text))
