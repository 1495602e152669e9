"""What a detector reads at a time, and where what it finds stands in the request."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from appliance.privacy.kinds import Span


@dataclass(slots=True)
class View:
    """What a detector reads at a time: one text, or a form of all that a JSON document says."""

    _shown: list[str] = field(default_factory=list, repr=False)
    _runs: list[tuple[int, int, int]] = field(default_factory=list, repr=False)
    """Where a run of characters starts here, in which text it stands, and where there; -1: in none."""
    _length: int = 0

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._shown)

    def __len__(self) -> int:
        return self._length

    def add(self, index: int, pieces: Sequence[tuple[int, str]]) -> None:
        """Show pieces of the text `index`, each from its offset there, with a space between them."""
        for number, (offset, piece) in enumerate(pieces):
            if number:
                self.say(" ")
            self._show(piece, index, offset)

    def say(self, separator: str) -> None:
        """Show what stands in no text."""
        self._show(separator, -1, 0)

    def _show(self, shown: str, index: int, offset: int) -> None:
        self._runs.append((self._length, index, offset))
        self._shown.append(shown)
        self._length += len(shown)

    def places(self, span: Span) -> dict[int, Span]:
        """Where in which texts a find stands."""
        found: dict[int, Span] = {}
        first = bisect_right(self._runs, span.start, key=lambda run: run[0]) - 1
        for number in range(max(first, 0), len(self._runs)):
            begins, index, offset = self._runs[number]
            ends = self._runs[number + 1][0] if number + 1 < len(self._runs) else self._length
            start, end = max(span.start, begins), min(span.end, ends)
            if begins >= span.end:
                break
            if index < 0 or start >= end:
                continue
            here = replace(span, start=start - begins + offset, end=end - begins + offset)
            before = found.get(index, here)
            found[index] = replace(here, start=min(before.start, here.start), end=max(before.end, here.end))
        return found
