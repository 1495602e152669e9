"""The fleet with fake processes: names move only when every new engine has answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance import config
from appliance.config import Config, RemoteModel
from appliance.engines import engine
from appliance.engines.engine import State
from appliance.engines.fleet import Fleet, Machine, specs
from appliance.engines.upstream import Upstream
from appliance.errors import ConfigInvalid, EngineFailed, NotFound, WeightsInvalid
from tests.fakes.house import House
from tests.fakes.process import Nursery, nursery

HERE = Machine(cuda=False)


@pytest.fixture
async def started(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Nursery]:
    monkeypatch.setattr(engine, "_PROBE_EVERY", 0.01)
    async with nursery() as started:
        yield started


@pytest.fixture
async def fleet(house: House, started: Nursery) -> AsyncIterator[Fleet]:
    for name in ("one", "two"):
        house.card(name)
    house.serve("chat", "one")
    loaded = config.load(house.write())
    (house.state / "run").mkdir(parents=True)

    async def connect(_: str, model: RemoteModel) -> Upstream:
        return Upstream(Path(model.endpoint.removeprefix("unix:")))

    fleet = Fleet(loaded, started.spawn, connect)
    await fleet.start(specs(loaded, HERE))
    await ready(fleet, "chat")
    yield fleet
    await fleet.stop(0)


async def ready(fleet: Fleet, name: str) -> None:
    found = fleet.find(name).engine
    assert found is not None
    async with asyncio.timeout(5):
        await found.until_ready()


def load(house: House) -> Config:
    return config.load(house.write())


async def change(fleet: Fleet, loaded: Config) -> list[str]:
    return await fleet.change(loaded, specs(loaded, HERE), lambda _: None)


async def test_a_name_moves_when_the_new_engine_has_answered(house: House, fleet: Fleet, started: Nursery) -> None:
    old = fleet.find("chat").engine
    started.answers = False
    house.serve("chat", "two")
    changing = asyncio.create_task(change(fleet, load(house)))
    async with asyncio.timeout(5):
        while len(started.spawned) < 2:  # noqa: ASYNC110 - the fleet spawns in a task of its own
            await asyncio.sleep(0)
    assert fleet.find("chat").engine is old
    assert old is not None
    old.lease()
    started.answers = True
    assert await changing == ["chat: now answered by two"]
    assert fleet.find("chat").engine is not old
    async with asyncio.timeout(5):
        while old.state is not State.DRAINING:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    assert not started.spawned[0].signals, "its request is under way"
    old.release()
    async with asyncio.timeout(5):
        await started.spawned[0].wait()


async def test_one_bad_engine_of_two_leaves_everything(house: House, fleet: Fleet, started: Nursery) -> None:
    before = dict(fleet.served)
    house.serve("chat", "two")
    house.serve("more", "one")
    loaded = load(house)
    started.refuses = [EngineFailed("no memory")]
    with pytest.raises(EngineFailed, match="no memory"):
        await change(fleet, loaded)
    assert dict(fleet.served) == before
    assert [process.ended.done() for process in started.spawned] == [False] + [True] * (len(started.spawned) - 1)


async def test_giving_up_a_change_ends_what_it_had_started(house: House, fleet: Fleet, started: Nursery) -> None:
    started.answers = False
    house.serve("chat", "two")
    changing = asyncio.create_task(change(fleet, load(house)))
    async with asyncio.timeout(5):
        while len(started.spawned) < 2:  # noqa: ASYNC110 - the fleet spawns in a task of its own
            await asyncio.sleep(0)
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing
    assert started.spawned[1].ended.done()
    assert not started.spawned[0].ended.done()


async def test_an_unknown_name_is_told_the_known_ones(fleet: Fleet) -> None:
    with pytest.raises(NotFound, match="there is no model 'x'; there are: chat"):
        fleet.find("x")


def test_what_can_not_run_here_is_refused_before_anything_starts(house: House) -> None:
    house.card("gpu", hardware={"devices": ["cuda"], "memory_gib": 1})
    house.serve("chat", "gpu")
    with pytest.raises(ConfigInvalid, match="card gpu runs on cuda, this host's engines on cpu"):
        specs(load(house), HERE)
    house.settings["engines"]["device"] = "auto"
    assert specs(load(house), Machine(cuda=True))["chat"].device == "cuda"
    (house.folder / "models" / "gpu" / "weights" / "model.safetensors").unlink()
    with pytest.raises(WeightsInvalid, match="is missing"):
        specs(load(house), Machine(cuda=True))
