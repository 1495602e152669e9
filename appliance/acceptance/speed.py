"""How fast an engine is, by a few short answers, and whether another is too slow beside it."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass

from appliance.acceptance.asking import Asked
from appliance.acceptance.texts import Tongue
from appliance.core import Task

_TOKENS = 16
_SEVERAL = 8
_TEXT = 200
"""Characters of a text that is made a vector of."""
_UNNOTICED = 0.005
"""Seconds a token: 200 a second, faster than anybody reads, so what lies below counts as equally fast."""
_UNNOTICED_FIRST = 0.5
"""Seconds to the first token that nobody would refuse a model for."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds: of a token (or of a text, where vectors are made) in one answer, and in each of several at once."""

    first: float
    """Until the first token."""
    one: float
    several: float | None
    """None: it had callers and wasn't asked for more than one."""

    def best(self, other: Speed) -> Speed:
        """The quicker of both in each: what was slower was held up by something else."""
        several = [each for each in (self.several, other.several) if each is not None]
        return Speed(min(self.first, other.first), min(self.one, other.one), min(several, default=None))


async def measure(asked: Asked, task: Task, tongue: Tongue, *, busy: bool) -> Speed:
    """Ask for one answer, and unless it is `busy` with callers, for several at once."""
    began = time.monotonic()
    if task is Task.CHAT:
        alone = await asked.timed(_prompt(tongue), _TOKENS)
        if busy:
            return Speed(alone.first, alone.each, None)
        several = await asyncio.gather(*(asked.timed(_prompt(tongue), _TOKENS) for _ in range(_SEVERAL)))
        return Speed(alone.first, alone.each, sum(each.each for each in several) / _SEVERAL)
    texts = [_prompt(tongue)[:_TEXT] for _ in range(_SEVERAL)]

    async def read(texts: list[str]) -> float:
        since = time.monotonic()
        await (asked.vectors(texts) if task is Task.EMBEDDING else asked.scores(tongue.unlike, texts))
        return time.monotonic() - since

    alone_seconds = await read(texts[:1])
    return Speed(time.monotonic() - began, alone_seconds, None if busy else await read(texts) / _SEVERAL)


def _prompt(tongue: Tongue) -> str:
    return f"{secrets.token_hex(4)} {tongue.plain}"  # else all but the first would be read from the cache


def times_slower(new: Speed, old: Speed) -> float:
    """How many times as long as `old` the new one takes, in what it does worst; 1 where nobody would notice.

    An old one that had callers was in a batch with them, so the new one's figure for several stands beside it.
    """
    ratios = [_ratio(new.one, old.one), _ratio(new.several, old.several)]
    if old.several is None:
        ratios = [_ratio(new.several, old.one)]
    if new.first - old.first > _UNNOTICED_FIRST:
        ratios.append(new.first / old.first)
    return max(ratios)


def _ratio(new: float | None, old: float | None) -> float:
    if new is None or old is None:
        return 1.0
    return max(1.0, new / max(old, _UNNOTICED))
