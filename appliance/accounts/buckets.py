"""Limits per minute: buckets that fill evenly. Pure; the caller says what time it is.

A bucket holds a minute's worth at most, so that a pause lets no more than that through at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from appliance.accounts.entries import Bucket, Level

MINUTE = 60.0
_ROUNDING = 1e-9
"""Share of a bucket's size that sums of floats may be off."""
_REQUESTS, _TOKENS = (
    (b"x-ratelimit-limit-" + unit, b"x-ratelimit-remaining-" + unit, b"x-ratelimit-reset-" + unit)
    for unit in (b"requests", b"tokens")
)


class Filling:
    """What one bucket holds. Its level stays between nothing and its size, whatever the clock does."""

    __slots__ = ("at", "bucket", "level", "rate", "size", "slack", "told")

    def __init__(self, bucket: Bucket, size: int, level: Level | None) -> None:
        """A bucket of `size` per minute, full unless its level is known."""
        self.bucket = bucket
        self.level, self.at = (float(size), -math.inf) if level is None else (level.level, level.at)
        self.size = float(size)
        self.resize(size)

    def resize(self, size: int) -> None:
        """Another limit holds from now on; what was used of the old one in this minute stays used."""
        grown = max(size - self.size, 0)
        self.size = float(size)
        self.rate = size / MINUTE
        self.slack = size * _ROUNDING
        self.told = b"%d" % size
        self.level = min(max(self.level + grown, 0.0), self.size)

    def fill(self, clock: float) -> float:
        """Bring the level to the moment `clock`, which may also have been set back; return it."""
        if clock > self.at:
            level = self.level + (clock - self.at if clock - self.at < MINUTE else MINUTE) * self.rate
            self.level = level if level < self.size else self.size
        self.at = clock
        return self.level

    def lacks(self, amount: int, clock: float) -> bool:
        """Whether `amount` isn't there at `clock`."""
        if clock != self.at:
            self.fill(clock)
        return self.level + self.slack < amount

    def move(self, amount: int, clock: float) -> None:
        """Take `amount` out, or what is there; put back a negative one, or what there is place for."""
        if clock != self.at:
            self.fill(clock)
        level = self.level - amount
        self.level = 0.0 if level < 0 else level if level < self.size else self.size

    def seconds_to(self, amount: float) -> float:
        """How long until it holds `amount`."""
        return max(amount - self.level, 0.0) / self.rate

    @property
    def known(self) -> Level:
        """For the store."""
        return Level(self.level, self.at)


def headers(requests: Sequence[Filling], tokens: Sequence[Filling]) -> tuple[tuple[bytes, bytes], ...]:
    """OpenAI's `x-ratelimit-*` headers, of the scope that has least left; only for what is limited."""
    if not requests:
        return _headers(_TOKENS, tokens) if tokens else ()
    return _headers(_REQUESTS, requests) + _headers(_TOKENS, tokens) if tokens else _headers(_REQUESTS, requests)


def _headers(names: tuple[bytes, bytes, bytes], fillings: Sequence[Filling]) -> tuple[tuple[bytes, bytes], ...]:
    tightest = fillings[0]
    for filling in fillings:
        if filling.level < tightest.level:
            tightest = filling
    limit, remaining, reset = names
    level = tightest.level
    return (
        (limit, tightest.told),
        (remaining, b"%d" % (level + tightest.slack)),
        (reset, duration((tightest.size - level) / tightest.rate)),
    )


def duration(seconds: float) -> bytes:
    """As OpenAI writes it: `20ms`, `1s`, `1.5s`, `6m0s`; rounded up to a millisecond."""
    milliseconds = math.ceil(seconds * 1000 - _ROUNDING)
    if milliseconds < 1000:
        return b"%dms" % milliseconds
    minutes, rest = divmod(milliseconds, 60_000)
    whole, thousandths = divmod(rest, 1000)
    told = b"%d" % whole if not thousandths else (b"%d.%03d" % (whole, thousandths)).rstrip(b"0")
    return (b"%dm%ss" % (minutes, told)) if minutes else told + b"s"
