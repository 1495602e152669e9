"""One change of the fleet, carried out: what has to make room rests, what is new starts and is accepted, or all is
as before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Literal

from appliance.engines.engine import Engine, State
from appliance.engines.planning import name_of
from appliance.engines.retiring import Held, until_gone
from appliance.engines.served import Accept, Coming, Served, Tell
from appliance.errors import ApplianceError, EngineFailed


class Swap:
    """From `old` to `new`, both by slot. `prepare`, then either `finish` or `undo`."""

    def __init__(
        self,
        old: Mapping[str, Served],
        new: Mapping[str, Served],
        early: Mapping[str, Literal["replace", "sleep"]],
        accept: Accept | None,
        tell: Tell,
        make_room: Callable[[Iterable[Engine], Collection[Engine]], Awaitable[None]],
        held: Held,
    ) -> None:
        """`early`: the old ones that give their memory back before anything starts.

        `make_room` has models that may idle do so, as far as the new engines take it, but for those in its second
        argument; it raises `DoesNotFit`.
        """
        self._old = old
        self._early = early
        self._accept = accept
        self._tell = tell
        self._make_room = make_room
        self._held = held
        self._started: dict[str, Engine] = {
            slot: served.engine for slot, served in new.items() if served.engine and served not in old.values()
        }
        self._idled = {slot for slot in early if (engine := old[slot].engine) is not None and engine.resting}
        self._going = [served.engine for served in old.values() if served.engine and served not in new.values()]
        self._log = logging.getLogger("appliance.engines")

    @property
    def started(self) -> Collection[Engine]:
        """The engines that are new."""
        return self._started.values()

    @property
    def slots(self) -> set[str]:
        """Those that something happens to."""
        return {*self._started, *self._early}

    async def prepare(self) -> None:
        """Return when all that is new has answered and is accepted. Raises `EngineFailed`."""
        await self._make_way()
        await self._make_room(self._started.values(), self._going)
        for slot, engine in self._started.items():
            beside = "" if slot in self._early or slot not in self._old else " beside what serves now"
            self._tell(f"{slot}: starting {engine.spec.settings.card}{beside}")
            engine.gives_way = not self._early
            engine.start()
        await self._until_ready()
        for slot, engine in self._started.items():
            await self._until_accepted(slot, engine)
        for slot, engine in self._started.items():
            if engine.state is not State.READY:
                raise EngineFailed(f"{slot}: {engine.reason or 'the new engine has ended'}")

    def finish(self) -> None:
        """The names have moved: whoever waited goes on."""
        for slot in self._early:
            self._old[slot].keep()

    async def undo(self, stopping: Callable[[], bool]) -> None:
        """End all that was started, and start again what made room; returns when that answers, or has failed.

        What idled before does so again, until somebody asks for it.
        """
        await asyncio.gather(*(engine.drain(0) for engine in self._started.values()))
        if not stopping():
            await asyncio.gather(*(self._restore(slot) for slot in self._early))

    async def _make_way(self) -> None:
        """Have those rest that go early. When one doesn't, nobody waits for the others any more."""
        resting = [asyncio.create_task(self._rest(slot, how)) for slot, how in self._early.items()]
        try:
            await asyncio.gather(*resting)
        finally:
            for each in resting:
                each.cancel()
            await asyncio.gather(*resting, return_exceptions=True)

    async def _rest(self, slot: str, how: Literal["replace", "sleep"]) -> None:
        served = self._old[slot]
        engine = served.engine
        assert engine is not None  # noqa: S101 - an endpoint has no memory to give back
        seconds, card, held = engine.spec.settings.drain_seconds, engine.spec.settings.card, self._held(engine)
        self._tell(f"{slot}: {card} finishes its {engine.leases} requests; new ones wait")
        served.promise(Coming(self._started.get(slot, engine).spec.settings.wait_seconds))
        resting = asyncio.create_task(engine.rest(seconds, asleep=how == "sleep"))
        await until_gone(engine, resting, seconds, self._held, self._complain)
        self._tell(f"{slot}: {card} has made room{f', {held:.1f} GiB' if held else ''}")

    def _complain(self, engine: Engine, why: str) -> None:
        self._tell(f"{engine.spec.name}: {why}")
        raise EngineFailed(f"{engine.spec.name}: {why}")

    async def _restore(self, slot: str) -> None:
        served = self._old[slot]
        engine = served.engine
        assert engine is not None  # noqa: S101 - as above
        if slot in self._idled:
            served.keep()
            return
        self._tell(f"{slot}: starting {engine.spec.settings.card} again")
        engine.wake()
        try:
            await engine.until_ready()
        except EngineFailed as failure:
            self._log.error("%s: %s did not come back: %s", slot, engine.spec.settings.card, failure)
            self._tell(f"{slot}: {engine.spec.settings.card} did not come back, and is tried again: {failure}")
        finally:
            served.keep()

    async def _until_ready(self) -> None:
        waits = {asyncio.create_task(engine.until_ready()): slot for slot, engine in self._started.items()}
        told: dict[str, str] = {}
        pending = set(waits)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    slot = waits[task]
                    if (failure := task.exception()) is not None:
                        raise EngineFailed(f"{slot}: {failure}") from failure
                    self._tell(f"{slot}: the new engine has answered")
                for task in pending:
                    slot = waits[task]
                    if told.get(slot) != self._started[slot].stage:
                        told[slot] = self._started[slot].stage
                        self._tell(f"{slot}: {told[slot]}")
        finally:
            for task in pending:
                task.cancel()

    async def _until_accepted(self, slot: str, engine: Engine) -> None:
        """Have it looked at. An engine that ends meanwhile isn't accepted, whoever looks."""
        if self._accept is None:
            return
        served = self._old.get(name_of(slot))
        old = served.engine if served is not None else None
        looking = asyncio.ensure_future(self._accept(engine, old, self._tell))
        failing = asyncio.create_task(engine.until_failed())
        try:
            await asyncio.wait({looking, failing}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                raise EngineFailed(f"{slot}: {engine.reason or 'the new engine has ended'}")
            looking.result()
        except EngineFailed:
            raise
        except ApplianceError as failure:
            raise EngineFailed(f"{slot}: {engine.reason or failure}") from failure
        finally:
            looking.cancel()
            failing.cancel()
            await asyncio.gather(looking, failing, return_exceptions=True)
