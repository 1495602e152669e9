"""What is counted of one version over a time window: requests, failures, times, tokens, agreement. In memory only."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

_STEP = math.log(1.04)
"""Times are counted in classes of 4 %: a quantile is right to 2 %."""
_SLICES = 60
"""Parts of a window. The oldest goes as a whole, so what is told is of a window and up to a 60th more."""


@dataclass(slots=True)
class Times:
    """Durations, in classes: as many as there may be, they take no more room."""

    classes: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """Count one; what takes no time at all counts as a microsecond."""
        self.classes[round(math.log(max(seconds, 1e-6)) / _STEP)] += 1

    @property
    def count(self) -> int:
        """How many there are."""
        return self.classes.total()

    def quantile(self, share: float) -> float | None:
        """The duration in seconds that `share` of them don't exceed; None where there are none."""
        rank = math.ceil(share * self.count)
        for each, count in sorted(self.classes.items()):
            rank -= count
            if rank <= 0:
                return math.exp(each * _STEP)
        return None

    def over(self, seconds: float) -> int:
        """How many are surely longer than that: those of the same class don't count."""
        bound = round(math.log(max(seconds, 1e-6)) / _STEP)
        return sum(count for each, count in self.classes.items() if each > bound)


@dataclass(slots=True)
class Numbers:
    """What is known of one version."""

    requests: int = 0
    """Those that were answered or failed; not those that the caller left, or that were wrong in themselves."""
    failures: int = 0
    refused: int = 0
    """Those that the engine would not do: too long, say."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token: Times = field(default_factory=Times)
    """From its turn on the engine to the first token, of streams."""
    token: Times = field(default_factory=Times)
    """Between tokens, each stream's mean."""
    total: Times = field(default_factory=Times)
    """From end to end."""
    good: int = 0
    bad: int = 0
    compared: int = 0
    agreed: float = 0.0
    """Sum of the agreement of all that were compared."""

    @property
    def agreement(self) -> float | None:
        """The mean, 0 to 1; None where nothing was compared."""
        return self.agreed / self.compared if self.compared else None

    @property
    def figures(self) -> dict[str, float | None]:
        """What is compared, by name; times in seconds, None where there is none."""
        return {
            "requests": self.requests, "failures": self.failures, "good": self.good, "bad": self.bad,
            "agreement": self.agreement,
            **{
                f"{name}_p{share}_seconds": getattr(self, name).quantile(share / 100)
                for name in _TIMES
                for share in (50, 95)
            },
        }  # fmt: skip

    @classmethod
    def of(cls, parts: Iterable[Numbers]) -> Self:
        """All of `parts` together."""
        whole = cls()
        for part in parts:
            for name in _COUNTS:
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            for name in _TIMES:
                getattr(whole, name).classes.update(getattr(part, name).classes)
        return whole


_TIMES = ("first_token", "token", "total")
_COUNTS = (
    "requests", "failures", "refused", "prompt_tokens", "completion_tokens", "good", "bad", "compared", "agreed",
)  # fmt: skip


class Window:
    """The numbers of the last `seconds`, which roll on."""

    def __init__(self, seconds: float) -> None:
        self._slice = seconds / _SLICES
        self._parts: deque[tuple[int, Numbers]] = deque(maxlen=_SLICES + 1)

    def at(self, now: float) -> Numbers:
        """Where to count what happens now, in seconds of a clock that never goes back."""
        number = int(now // self._slice)
        if not self._parts or self._parts[-1][0] != number:
            self._parts.append((number, Numbers()))
        return self._parts[-1][1]

    def sums(self, now: float) -> Numbers:
        """What was counted in the window that ends now."""
        oldest = int(now // self._slice) - _SLICES
        return Numbers.of(part for number, part in self._parts if number >= oldest)
