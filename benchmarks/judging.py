"""How well what is personal was found, and what of it is left in a masked text. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from appliance.privacy.kinds import Kind, Span
from benchmarks.labelled import Label, Labelled

_Z = 1.959963984540054
"""Of the normal distribution: 95 % lie between minus and plus this."""
TOLERABLE = frozenset({Kind.ORGANISATION, Kind.PLACE, Kind.POSTCODE, Kind.DATE, Kind.AGE, Kind.PROJECT, Kind.WORD})
"""What may be left in a released text without its being a leak: it names nobody by itself."""
_WORD = re.compile(r"\w+", re.UNICODE)
_PART = re.compile(r"\w+|\W", re.UNICODE)
_GENITIVE = re.compile(r"(?:['’]?s|['’])\Z")
_PARTICLE = re.compile("of|the|von|van|vom|zu[mr]?|d[aei]|de[lrn]|dos|und|a[lfv]|el|la|le|te[nr]|bin|ibn", re.I)
"""Words of names that name nobody."""
_LEAST = 4
"""So many letters or digits of an identifier are a leak."""


@dataclass(slots=True)
class Share:
    """`hits` of `of`."""

    hits: int = 0
    of: int = 0

    def add(self, hit: bool) -> None:  # noqa: FBT001 - it is what is counted
        """Count one more."""
        self.hits += hit
        self.of += 1

    @property
    def value(self) -> float:
        """From 0 to 1; NaN of nothing."""
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, 95 %; of nothing it is everything."""
        if not self.of:
            return 0.0, 1.0
        square = _Z * _Z / self.of
        middle = (self.value + square / 2) / (1 + square)
        half = _Z * math.sqrt(self.value * (1 - self.value) / self.of + square / self.of / 4) / (1 + square)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        if not self.of:
            return "-"
        low, high = (f"{100 * bound:.1f}" for bound in self.interval)
        return f"{100 * self.value:.1f} % ({low} to {high})"


def covered(label: Label, text: str, spans: Sequence[Span]) -> bool:
    """Is every letter and digit of a label within what was found? A genitive's ending may lie outside, as it is left
    behind a placeholder."""
    found = {at for span in spans for at in range(span.start, span.end)}
    end = label.start + len(_GENITIVE.sub("", text[label.start : label.end]))
    return all(at in found for at in range(label.start, end) if text[at].isalnum())


def right(span: Span, labelled: Labelled) -> bool | None:
    """Does a find touch what is labelled? None where nobody can tell: its kind isn't labelled throughout, or what it
    touches doesn't count."""
    touched = [label for label in labelled.labels if label.start < span.end and span.start < label.end]
    if any(label.kind is not None for label in touched):
        return True
    return None if touched or span.kind not in labelled.complete else False


def overmasked(labelled: Labelled, spans: Sequence[Span]) -> int:
    """Characters that were found and aren't labelled at all."""
    personal = {at for label in labelled.labels for at in range(label.start, label.end)}
    return len({at for span in spans for at in range(span.start, span.end)} - personal)


def left(original: str, masked: str) -> set[int]:
    """Indices of the characters of `original` that still stand in `masked`.

    The two are laid beside each other word by word, so that a name counts as left where it was, and not because the
    same word is part of what may stay elsewhere.
    """
    words, others = _PART.findall(original), _PART.findall(masked)
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word))
    kept: set[int] = set()
    for block in SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks():
        kept.update(range(starts[block.a], starts[block.a + block.size]))
    return kept


def leaks(labels: Sequence[Label], original: str, masked: str) -> Iterator[Label]:
    """Persons and identifiers of which something is left in a masked text: of a name a word, of a date of birth
    anything but its year, of anything else four letters or digits."""
    kept = left(original, masked)
    for label in labels:
        if label.kind is None or label.kind in TOLERABLE:
            continue
        words = [
            match[0]
            for match in _WORD.finditer(original, label.start, label.end)
            if all(at in kept for at in range(*match.span()))
        ]
        if _is_left(label.kind, words, original[label.start : label.end]):
            yield label


def _is_left(kind: Kind, words: Collection[str], value: str) -> bool:
    match kind:
        case Kind.PERSON | Kind.CLIENT | Kind.EMPLOYEE:
            return any(len(word) > 1 and not _PARTICLE.fullmatch(word) for word in words)
        case Kind.DATE_OF_BIRTH:
            return any(not re.fullmatch(r"\d{4}", word) for word in words)
    count = sum(map(len, words))
    return count >= _LEAST or count >= sum(map(str.isalnum, value))
