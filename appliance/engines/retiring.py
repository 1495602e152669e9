"""Engines that finish the requests that they have, and end: and whether the memory that they held came back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from appliance.engines.engine import Engine

OVERDUE_SECONDS = 30.0
"""So long after its drain an engine has ended, with all that it started, or something keeps its memory."""

Held = Callable[[Engine], float]
"""GiB of memory that an engine's processes hold."""


class Retiring:
    """Those on their way out. One per fleet."""

    def __init__(self, held: Held, complain: Callable[[Engine, str], None]) -> None:
        """`complain` is told of an engine that doesn't end, and why that matters."""
        self._held = held
        self._complain = complain
        self._ends: dict[asyncio.Task[None], Engine] = {}

    @property
    def engines(self) -> Collection[Engine]:
        """Those that haven't ended yet."""
        return self._ends.values()

    def add(self, engine: Engine) -> None:
        """Let it finish its requests for as long as its config says, and end it; returns at once."""
        task = asyncio.create_task(self._end(engine))
        self._ends[task] = engine
        task.add_done_callback(self._ends.pop)

    async def ended(self) -> None:
        """Return when all have ended."""
        await asyncio.gather(*self._ends)

    async def _end(self, engine: Engine) -> None:
        held, seconds = self._held(engine), engine.spec.settings.drain_seconds
        await until_gone(engine, asyncio.create_task(engine.drain(seconds)), seconds, self._held, self._complain)
        logging.getLogger("appliance.engines").info(
            "engine %s: %s has ended; %.1f GiB are free again", engine.spec.name, engine.spec.version, held
        )


async def until_gone(
    engine: Engine, leaving: asyncio.Task[None], seconds: float, held: Held, complain: Callable[[Engine, str], None]
) -> None:
    """Wait for `leaving`, which may take `seconds`; `complain` once it is overdue: what it raises ends the waiting."""
    try:
        done, _ = await asyncio.wait([leaving], timeout=seconds + OVERDUE_SECONDS)
        if not done:
            why = (
                f"{engine.spec.version} hasn't ended {OVERDUE_SECONDS:g} s after its time, so {held(engine):.1f} GiB "
                "of memory aren't free; end what is left of it, or restart the appliance"
            )
            logging.getLogger("appliance.engines").error("engine %s: %s", engine.spec.name, why)
            complain(engine, why)
        await leaving
    finally:
        leaving.cancel()
