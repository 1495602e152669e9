"""Engines to accept or refuse: the fake vLLM within this process, under the appliance's own supervision."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.acceptance import Acceptance
from appliance.config import LocalModel
from appliance.engines import command, engine, specs
from appliance.engines.command import Launch
from appliance.engines.engine import Engine
from tests.fakes.engine import Engine as FakeEngine
from tests.fakes.engine import parsed
from tests.fakes.house import House
from tests.fakes.process import FakeProcess

Ready = Callable[..., Awaitable[Engine]]


class _Fake(FakeEngine):
    """Its faults are a test's, who may change them at any time."""

    def __init__(self, options: argparse.Namespace, faults: dict[str, Any]) -> None:
        super().__init__(options)
        self._faults = faults

    def fault(self, name: str) -> Any:
        return self._faults.get(name)


@pytest.fixture
def acceptance(house: House) -> Acceptance:
    """The gate of a house."""
    house.card("base")
    house.serve("chat", "base")
    loaded = config.load(house.write())
    loaded.state.mkdir(exist_ok=True)
    return Acceptance(loaded)


@pytest.fixture
async def ready(house: House, acceptance: Acceptance, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ready]:
    """Gives an engine of a card, with faults, that has answered its first request."""
    monkeypatch.setattr(engine, "_PROBE_EVERY", 0.01)
    home = house.folder / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    begun: list[Engine] = []
    servers: list[asyncio.Server] = []
    connections: list[asyncio.Task[None]] = []

    async def spawn(launch: Launch, faults: dict[str, Any]) -> FakeProcess:
        fake = _Fake(parsed(list(launch.argv[3:])), faults)

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(asyncio.create_task(fake.connection(reader, writer)))

        servers.append(await asyncio.start_unix_server(connected, launch.socket, limit=2**26))
        return FakeProcess(launch, pid=1)

    async def make(
        card: str, faults: dict[str, Any] | None = None, adapters: tuple[str, ...] = (), **changed: Any
    ) -> Engine:
        if not (house.folder / "models" / card).exists():
            house.card(card, **changed)
            for name in adapters:
                house.adapter(card, name)
        loaded = config.load(house.config)
        spec = specs.spec(loaded, "chat", LocalModel(card=card, adapters={name: name for name in adapters}), "cpu")
        run = house.folder / f"e{len(begun)}"
        run.mkdir()

        async def launch() -> Launch:
            return command.launch(spec, run, home, run / "log")

        its = {} if faults is None else faults
        begun.append(made := Engine(spec, launch, lambda each: spawn(each, its), backoff=60))  # type: ignore[arg-type, return-value]
        made.start()
        async with asyncio.timeout(30):
            await made.until_ready()
        return made

    yield make
    for each in begun:
        await each.drain(0)
    for server in servers:
        server.close()
    for connection in connections:
        connection.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


@pytest.fixture
def kept(house: House) -> Callable[[], list[Path]]:
    """The records so far."""
    return lambda: sorted((house.state / "acceptance").glob("*.json"))
