"""Two ways compared in pairs, each measured right after the other, so that a drift of the machine hits both alike."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Way = TypeVar("Way")
MARKS = {True: "✓", False: "✗", None: "?"}
_FEWEST = 6
"""Pairs; that all of fewer lie on one side of the true median is likelier than the 5 % that the interval allows."""
UNDECIDED = "undecided; take more of them, or a machine with nothing else to do"


@dataclass(frozen=True, slots=True)
class Ratio:
    """What the pairs say of one way over the other: the median, and the ends of its 95 % interval."""

    median: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """The interval is a bootstrap of 2,000, seeded. `ratios` has one of each pair, one at least.

        A pair that wasn't measured (`nan`) leaves nothing known of all.
        """
        if not all(map(math.isfinite, ratios)):
            return cls(math.nan, math.nan, math.nan, len(ratios))
        chance = random.Random(1)  # noqa: S311 - statistics, no secret
        medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
        return cls(statistics.median(ratios), medians[49], medians[1949], len(ratios))

    def at_least(self, reach: float) -> bool | None:
        """Whether the whole interval is at `reach` or above, or the whole below.

        None where it lies over both, and of fewer than six pairs.
        """
        return None if self.pairs < _FEWEST else True if self.low >= reach else False if self.high < reach else None

    def at_most(self, reach: float) -> bool | None:
        """The same the other way round."""
        return None if self.pairs < _FEWEST else True if self.high <= reach else False if self.low > reach else None


def in_turn(first: Way, second: Way, number: int) -> tuple[Way, Way]:
    """The order in which pair `number` measures: each way goes first in every other pair."""
    return (second, first) if number % 2 else (first, second)
