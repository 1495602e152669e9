"""Models that nobody asks for give their memory back, and come back when somebody does.

One task does all of it, so that nothing is started and stopped at once: it ends what has been idle for long enough,
and brings back, one after the other and in the order in which they were called, what is asked for. Where memory
is short, others that may idle make room first (`eviction`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from appliance.engines.account import Account
from appliance.engines.engine import Engine, State
from appliance.engines.eviction import Choice, Resident, choose
from appliance.errors import DoesNotFit

_EVERY = 1.0
"""Seconds from one look to the next where nothing happens."""
_SOON = 0.2
"""The same while somebody waits for memory."""
REFUSED_SECONDS = 5.0
"""For how long it is told that a model can't come back, before it is tried anew."""
_OVERDUE_SECONDS = 10.0
"""So long a model waits for those that are busy; then they take no new requests until it has come."""


@dataclass(slots=True)
class _Call:
    """Somebody asks for a model that rests."""

    engine: Engine
    since: float


@dataclass(slots=True)
class _Stay:
    """What is known of an engine's time here."""

    began: float = 0.0
    ready: float | None = None

    def seconds(self, now: float) -> float:
        """How long it stays yet: at least as long as its start took."""
        return 0.0 if self.ready is None else 2 * self.ready - self.began - now


class Idling:
    """Has models rest and come back. One per fleet."""

    def __init__(
        self,
        account: Callable[[], Account | None],
        engines: Callable[[], Iterable[tuple[str, Engine]]],
        leaving: Callable[[], Iterable[Engine]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`account` may change; without one everything fits. `engines` are all that are served, by slot.

        `leaving` are those that only finish their requests.
        """
        self._account = account
        self._engines = engines
        self._leaving = leaving
        self._clock = clock
        self._calls: dict[Engine, _Call] = {}
        self._stays: dict[Engine, _Stay] = {}
        self._refused: dict[Engine, float] = {}
        self._claims: set[Engine] = set()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, engines: Iterable[Engine]) -> None:
        """Start engines for the first time: those that may idle only while there is room. Then look after them all."""
        account, taken = self._account(), 0.0
        for engine in sorted(engines, key=may_idle):
            need = account.need(engine.spec).gib if account else 0.0
            fits = account is None or need <= account.room(taken)
            engine.start(resting=may_idle(engine) and not fits)
            taken += need if fits or not may_idle(engine) else 0.0
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._look())]

    def call(self, engine: Engine) -> None:
        """Have a model that rests come back, as soon as there is memory for it; returns at once."""
        if engine not in self._calls:
            self._calls[engine] = _Call(engine, self._clock())
            self._news.set()

    async def make_room(self, engines: Iterable[Engine], going: Collection[Engine] = ()) -> None:
        """Have models that may idle leave until there is room for `engines` besides; it is theirs until `release`.

        Those `going` stay until their time has come. Raises `DoesNotFit` where that isn't enough.
        """
        if self._account() is None or not (claims := set(engines)):
            return
        began = self._clock()
        while True:
            served = dict(self._engines())
            overdue = self._clock() - began > _OVERDUE_SECONDS
            choice = self._choice(claims, served, going, overdue=overdue)
            if choice.never:
                raise DoesNotFit("; ".join(f"{each.spec.name}: {self._numbers(each, served)}" for each in claims))
            if not choice.later:
                break
            await asyncio.sleep(_SOON)
        self._claims |= claims
        await asyncio.gather(*(rest(served[slot]) for slot in choice.leave))

    def forget(self, engines: Iterable[Engine | None]) -> None:
        """Whoever calls for them is answered otherwise."""
        for engine in engines:
            if engine is not None:
                self._calls.pop(engine, None)
                self._claims.discard(engine)

    def release(self, engines: Iterable[Engine]) -> None:
        """They are served now, or have ended."""
        self._claims -= set(engines)
        self._news.set()

    async def stop(self) -> None:
        """Have nothing rest or come back any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Read what engines hold: also while one finishes its requests for another."""
        while True:
            if account := self._account():
                account.look([*dict(self._engines()).values(), *self._leaving()])
            await asyncio.sleep(_EVERY)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):  # not wait_for: in Python 3.11 it may swallow a cancellation
                async with asyncio.timeout(_SOON if self._calls else _EVERY):
                    await self._news.wait()
            self._news.clear()
            engines = dict(self._engines())
            self._note(engines)
            await self._answer(engines)
            self._end_idle(engines)

    def _note(self, engines: Mapping[str, Engine]) -> None:
        """Follow how long each has been here."""
        now = self._clock()
        for engine in self._stays.keys() - set(engines.values()):
            del self._stays[engine]
        for engine in self._calls.keys() - set(engines.values()):
            del self._calls[engine]
        for engine in engines.values():
            stay = self._stays.get(engine)
            if engine.state in (State.IDLE, State.ASLEEP, State.STOPPED) or stay is None:
                stay = self._stays[engine] = _Stay(now)
            if engine.state is State.READY and stay.ready is None:
                stay.ready = now
        for engine, until in list(self._refused.items()):
            if now >= until or not engine.resting:
                del self._refused[engine]
                engine.object(None)

    async def _answer(self, engines: Mapping[str, Engine]) -> None:
        """Bring back those who are called, as far as there is memory; the first called, first."""
        for call in list(self._calls.values()):
            engine = call.engine
            if not engine.resting:
                del self._calls[engine]
                continue
            overdue = self._clock() - call.since > _OVERDUE_SECONDS
            choice = self._choice({engine}, engines, overdue=overdue)
            if choice.never:
                del self._calls[engine]
                self._refused[engine] = self._clock() + REFUSED_SECONDS
                engine.object(self._numbers(engine, engines))
                continue
            if choice.later:
                engine.stage = "waiting for memory"
                return
            self._claims.add(engine)
            try:
                await asyncio.gather(*(rest(engines[slot]) for slot in choice.leave))
            finally:
                self._claims.discard(engine)
            if not all(engines[slot].resting for slot in choice.leave):
                return  # a change that was given up has started one of them again
            if self._calls.pop(engine, None) is not None:  # else a change has taken it meanwhile
                self._stays[engine] = _Stay(self._clock())
                engine.wake()

    def _choice(
        self, wanted: Collection[Engine], engines: Mapping[str, Engine], going: Collection[Engine] = (),
        *, overdue: bool,
    ) -> Choice:  # fmt: skip
        account = self._account()
        if account is None:
            return Choice()
        residents = [
            Resident(
                slot, account.need(each.spec).gib if each in self._claims else account.taken(each),
                bool(each.leases), each.quiet_seconds, self._stays_seconds(each),
            )
            for slot, each in engines.items()
            if each not in wanted and each not in going and may_idle(each)
        ]  # fmt: skip
        residents += [
            Resident(each.spec.version, account.taken(each), busy=True, quiet_seconds=0.0, stays_seconds=math.inf)
            for each in self._leaving()
        ]
        needed = sum(account.need(each.spec).gib for each in wanted)
        return choose(needed, self._room(account, wanted, engines), residents, overdue=overdue)

    def _stays_seconds(self, engine: Engine) -> float:
        """How long it stays yet: one that is coming or going can't be told to leave, and is waited for."""
        if not _evictable(engine):
            return math.inf
        return self._stays[engine].seconds(self._clock()) if engine in self._stays else 0.0

    def _room(self, account: Account, wanted: Collection[Engine], engines: Mapping[str, Engine]) -> float:
        """What those `wanted` may take, with all others as they are."""
        others = {*engines.values(), *self._leaving()} - self._claims
        taken = sum(account.taken(each) for each in others if each not in wanted)
        return account.room(taken + sum(account.need(each.spec).gib for each in self._claims if each not in wanted))

    def _numbers(self, engine: Engine, engines: Mapping[str, Engine]) -> str:
        account = self._account()
        assert account is not None  # noqa: S101 - without one everything fits
        need = account.need(engine.spec)
        room = max(0.0, self._room(account, {engine}, engines))
        gives = sum(account.taken(each) for each in engines.values() if _evictable(each))
        others = f", and models that may idle would give {gives:.1f}" if gives else ""
        return f"it needs {need.gib:.1f} GiB of memory ({need.words}); {room:.1f} GiB can be had now{others}"

    def _end_idle(self, engines: Mapping[str, Engine]) -> None:
        for engine in engines.values():
            after = engine.spec.settings.idle.after_seconds
            if after is not None and _evictable(engine) and engine.quiet_seconds >= after:
                engine.begin_rest(asleep=engine.spec.settings.idle.then == "sleep")


def may_idle(engine: Engine) -> bool:
    """Whether its config lets it give its memory back."""
    return engine.spec.settings.idle.after_seconds is not None


def _evictable(engine: Engine) -> bool:
    return may_idle(engine) and not engine.resting and engine.state in (State.READY, State.FAILED)


async def rest(engine: Engine) -> None:
    """Have it give its memory back, after the requests that it has."""
    settings = engine.spec.settings
    await engine.rest(settings.drain_seconds, asleep=settings.idle.then == "sleep")
