"""The sealed side of a verification: carries orders to probe into every seal of the running appliance.

What it answers is a sealed process's own word, and is taken as that: whether anything got out, the canary says,
and what holds, the kernel.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from appliance.dispatch.endpoints import Endpoints
from appliance.engines.nursery import program
from appliance.engines.process import EngineProcess, Nursery
from appliance.errors import ApplianceError
from appliance.privacy.guard import PLACE, Guard
from appliance.seal.parts import Seal

Order = Mapping[str, Any]
"""As `appliance.seal.probes` takes it."""

_SECONDS = 4.0


class Probing:
    """Knows every place that has a seal of its own."""

    def __init__(self, nursery: Nursery, endpoints: Endpoints, guard: Guard | None = None) -> None:
        self._nursery = nursery
        self._endpoints = endpoints
        self._guard = guard

    def engines(self) -> dict[str, EngineProcess]:
        """Each engine that runs now, by its place."""
        return {_place(name): process for name, process in self._nursery.running.items()}

    def seals(self) -> dict[str, Seal]:
        """What holds around each place but the gateway, by its own word: way out, gate, and engines that run."""
        aside = self._endpoints.seals | (self._guard.seals if self._guard else {})
        return aside | {place: process.seal for place, process in self.engines().items()}

    async def probe(self, orders: Mapping[str, Order]) -> dict[str, dict[str, str] | str]:
        """Carry out each place's order; what became of its attempts, or in a word why it could not be."""
        ways: dict[str, Callable[[Order], Awaitable[dict[str, str]]]] = {
            "gateway": _from_here,
            "outlet": self._endpoints.probe,
            **({PLACE: self._guard.probe} if self._guard else {}),
            **{place: process.probe for place, process in self.engines().items()},
        }

        async def one(place: str, order: Order) -> dict[str, str] | str:
            if place not in ways:
                return "it doesn't run any more"
            try:
                return await ways[place](order)
            except TimeoutError:
                return "it gave no answer in time"
            except (ApplianceError, OSError, ValueError) as error:
                return str(error) or type(error).__name__

        outcomes = await asyncio.gather(*(one(place, order) for place, order in orders.items()))
        return dict(zip(orders, outcomes, strict=True))


def _place(name: str) -> str:
    return f"engine {name.removeprefix('engine-')}"


async def _from_here(order: Order) -> dict[str, str]:
    """Try from a child of this process: it inherits every confinement that the kernel put on the gateway."""
    child = await asyncio.create_subprocess_exec(
        *program("seal.probes"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={"PATH": os.defpath},
    )  # fmt: skip
    try:
        asked = json.dumps({**order, "interpreter": sys.executable}).encode()
        told, _ = await asyncio.wait_for(child.communicate(asked), _SECONDS)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        raise ApplianceError(f"what tries ended with status {child.returncode}; its error is in the appliance's output")
    outcome: dict[str, str] = json.loads(told)
    return outcome
