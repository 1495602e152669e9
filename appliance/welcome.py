"""What whoever starts the appliance is told: what it waits for, then the address, and at first a key."""

from __future__ import annotations

import asyncio

from appliance import console
from appliance.accounts.registry import KeyOrder
from appliance.administration import Appliance
from appliance.audit.archive import Actor
from appliance.core import Role
from appliance.engines.engine import Engine, State


async def welcome(appliance: Appliance, show: console.Progress) -> None:
    """Say what is being waited for, then the address, the first key and a line to paste."""
    while True:
        engines = [served.engine for served in appliance.fleet.served.values() if served.engine]
        waiting = [engine for engine in engines if engine.state is not State.READY and not engine.resting]
        if not waiting:
            break
        show.say("; ".join(_waiting_for(engine) for engine in waiting))
        await asyncio.sleep(0.2)
    show.done("ready")
    key = await _first_key(appliance)
    chat = next((name for name, served in appliance.fleet.served.items() if served.task == "chat"), None)
    console.welcome(
        appliance.base_url,
        key,
        chat,
        sorted({part for seal in (appliance.seal, *appliance.probing.seals().values()) for part in seal.missing}),
    )


async def _first_key(appliance: Appliance) -> str | None:
    """A key for whoever starts the appliance for the first time; None where there are keys."""
    watch = appliance.office.watch
    if not await watch.ask(lambda keys: keys.empty):
        return None
    async with appliance.archive.act("keys.create", Actor.appliance(), role=str(Role.USER)) as act:
        record, key = await watch.ask(lambda keys: keys.create(KeyOrder(name="first key")))
        act.tell(key=record.id)
    return key


def _waiting_for(engine: Engine) -> str:
    again = f" again, since {engine.reason}" if engine.reason else ""
    return f"{engine.spec.name}: {engine.stage}{again}"
