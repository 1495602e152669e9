"""How sure a score is. The examples of a set are a sample of what people ask, so each score comes with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Z95 = 1.959963984540054


class Interval(NamedTuple):
    """A share from 0 to 1, or a difference of two from -1 to 1, and the 95 % interval around it."""

    value: float
    low: float
    high: float


def wilson(passed: float, of: int) -> Interval:
    """The share `passed` of `of` cases, with Wilson's interval, which holds for few cases and for shares near 0 or 1.

    A case that passed in some of its repetitions counts as a part: repetitions make no more cases.
    """
    if not of:
        return Interval(0.0, 0.0, 1.0)
    share, square = passed / of, Z95 * Z95
    middle = (share + square / (2 * of)) / (1 + square / of)
    reach = Z95 * math.sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))


def difference(one: Sequence[float], other: Sequence[float]) -> Interval:
    """By how much the share of `one` is over that of `other`: shares passed of the same cases, in the same order.

    Newcombe's interval for paired shares (1998, method 10), from Wilson's two and how much the cases agree; with his
    correction, without which a few cases that all agree would leave no doubt.
    """
    count = len(one)
    if not count:
        return Interval(0.0, -1.0, 1.0)
    a, b = wilson(sum(one), count), wilson(sum(other), count)
    agree = _correlation(one, other)
    below = (a.value - a.low) ** 2 - 2 * agree * (a.value - a.low) * (b.high - b.value) + (b.high - b.value) ** 2
    above = (a.high - a.value) ** 2 - 2 * agree * (a.high - a.value) * (b.value - b.low) + (b.value - b.low) ** 2
    apart = a.value - b.value
    return Interval(apart, max(-1.0, apart - math.sqrt(max(0.0, below))), min(1.0, apart + math.sqrt(max(0.0, above))))


def _correlation(one: Sequence[float], other: Sequence[float]) -> float:
    mean, theirs = sum(one) / len(one), sum(other) / len(other)
    spread = math.sqrt(sum((x - mean) ** 2 for x in one) * sum((y - theirs) ** 2 for y in other))
    shared = sum((x - mean) * (y - theirs) for x, y in zip(one, other, strict=True))
    return (max(0.0, shared - 0.5) if shared > 0 else shared) / spread if spread else 0.0
