"""The fleet with fake processes: names move only when every new engine has answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from appliance import administration, config
from appliance.administration import Appliance
from appliance.audit.archive import Actor
from appliance.config import Config, Engines, LocalModel, RemoteModel
from appliance.engines import engine, retiring
from appliance.engines.account import Account
from appliance.engines.command import Spec
from appliance.engines.engine import Engine, State
from appliance.engines.fleet import Fleet
from appliance.engines.served import Arms, Served, Split, Tell
from appliance.engines.specs import Machine, spec, specs
from appliance.engines.upstream import Upstream
from appliance.errors import ConfigInvalid, Conflict, EngineFailed, NotFound, WeightsInvalid
from appliance.observe import Metrics
from appliance.rollout.decisions import Decisions
from appliance.rollout.rollouts import Rollouts
from appliance.seal.parts import Seal
from appliance.weights import manifest
from appliance.weights.card import load_card
from tests.engines.test_idle import Host
from tests.fakes import journal
from tests.fakes.house import House, safetensors
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
    async with asyncio.timeout(30):
        await found.until_ready()


def load(house: House) -> Config:
    return config.load(house.write())


async def until(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110 - the fleet and its engines act in tasks of their own
            await asyncio.sleep(0.005)


async def change(fleet: Fleet, loaded: Config) -> list[str]:
    return await fleet.change(loaded, specs(loaded, HERE), lambda _: None)


async def test_a_name_moves_when_the_new_engine_has_answered(house: House, fleet: Fleet, started: Nursery) -> None:
    old = fleet.find("chat").engine
    started.answers = False
    house.serve("chat", "two")
    changing = asyncio.create_task(change(fleet, load(house)))
    async with asyncio.timeout(30):
        while len(started.spawned) < 2:  # noqa: ASYNC110 - the fleet spawns in a task of its own
            await asyncio.sleep(0)
    assert fleet.find("chat").engine is old
    assert old is not None
    old.lease()
    started.answers = True
    assert await changing == ["chat: now answered by two"]
    assert fleet.find("chat").engine is not old
    async with asyncio.timeout(30):
        while old.state is not State.DRAINING:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    assert not started.spawned[0].signals, "its request is under way"
    old.release()
    async with asyncio.timeout(30):
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
    async with asyncio.timeout(30):
        while len(started.spawned) < 2:  # noqa: ASYNC110 - the fleet spawns in a task of its own
            await asyncio.sleep(0)
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing
    assert started.spawned[1].ended.done()
    assert not started.spawned[0].ended.done()


async def test_weights_are_read_again_before_a_restart(house: House, fleet: Fleet, started: Nursery) -> None:
    engine = fleet.find("chat").engine
    assert engine is not None
    file = house.folder / "models" / "one" / "weights" / "model.safetensors"
    prepared = file.read_bytes()
    file.write_bytes(prepared[::-1])
    started.spawned[0].end(1)
    async with asyncio.timeout(30):
        while "its checksum differs" not in str(engine.reason):  # noqa: ASYNC110 - the engine's own task finds it
            await asyncio.sleep(0)
    assert len(started.spawned) == 1
    file.write_bytes(prepared)
    async with asyncio.timeout(30):
        while engine.state is not State.READY:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    assert len(started.spawned) == 2


async def test_weights_prepared_anew_wait_for_an_apply(house: House, fleet: Fleet, started: Nursery) -> None:
    engine = fleet.find("chat").engine
    assert engine is not None
    folder = house.folder / "models" / "one"
    (folder / "weights" / "model.safetensors").write_bytes(safetensors(b"another"))
    manifest.write(folder / "weights", load_card(folder), {})
    started.spawned[0].end(1)
    async with asyncio.timeout(30):
        while "was prepared anew meanwhile. Run `appliance apply`" not in str(engine.reason):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    assert len(started.spawned) == 1
    await change(fleet, load(house))
    assert fleet.find("chat").engine is not engine
    assert fleet.find("chat").ready


async def test_a_changed_backoff_holds_for_engines_new_and_old(house: House, fleet: Fleet) -> None:
    house.serve("more", "two")
    house.settings["engines"]["restart_backoff_seconds"] = 7
    await change(fleet, load(house))
    assert {name: served.engine.backoff for name, served in fleet.served.items() if served.engine} == {
        "chat": 7,
        "more": 7,
    }


async def test_a_short_context_leaves_room_for_a_prompt_beside_the_default_answer(house: House, fleet: Fleet) -> None:
    house.card("long", chat={"max_tokens": 100})
    house.serve("short", "long", context_length=64)
    house.serve("long", "long")
    await change(fleet, load(house))
    assert {name: fleet.find(name).default_tokens for name in ("short", "long")} == {"short": 32, "long": 100}


async def test_an_endpoint_that_is_removed_is_closed_after_its_last_request(
    house: House, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(Upstream, "close", lambda upstream: closed.append(upstream.socket))
    for name in ("idle", "busy", "stays"):
        house.settings["models"][name] = {"endpoint": f"unix:/{name}"}
    await change(fleet, load(house))
    hold = fleet.find("busy").hold()
    with hold:
        for name in ("idle", "busy"):
            del house.settings["models"][name]
        assert await change(fleet, load(house)) == ["idle: no longer served", "busy: no longer served"]
        assert closed == ["/idle"]
    assert closed == ["/idle", "/busy"]


async def test_of_two_applies_the_newer_config_stays(
    house: House, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_read, second_done = threading.Event(), threading.Event()
    calls: list[str] = []

    def slow_at_first(new: Config, machine: Machine) -> dict[str, Spec]:
        calls.append(new.settings.models["chat"].card if isinstance(new.settings.models["chat"], LocalModel) else "")
        if len(calls) == 1:
            first_read.set()
            second_done.wait(0.3)  # the first goes on when the second has overtaken it, or can't
        return specs(new, machine)

    monkeypatch.setattr(administration, "specs", slow_at_first)
    archive = journal.archive(house.state)
    rollouts = Rollouts(load(house).settings, Decisions(house.state), fleet, archive.act, Actor.appliance(), Metrics())
    appliance = Appliance(
        config=load(house), house=Mock(), fleet=fleet, turns=Mock(), office=Mock(), archive=archive, testimony=Mock(),
        outward={}, identity=None, access_log=Mock(), seal=Seal(()), wanted={}, endpoints={}, assurance=Mock(),
        probing=Mock(), rollouts=rollouts,
    )  # fmt: skip
    house.serve("chat", "two")
    house.write()
    first = asyncio.create_task(appliance.apply(lambda _: None, Actor.appliance()))
    await asyncio.to_thread(first_read.wait, 5)
    house.serve("chat", "one", stall_seconds=29)
    newest = load(house)
    second = asyncio.create_task(appliance.apply(lambda _: None, Actor.appliance()))
    second.add_done_callback(lambda _: second_done.set())
    async with asyncio.timeout(30):
        await asyncio.gather(first, second)
    assert calls == ["two", "one"]
    assert appliance.config == newest
    archive.subjects.close()
    engine = fleet.find("chat").engine
    assert engine is not None
    assert engine.spec.settings == newest.settings.models["chat"]


class Gate:
    """Takes new engines, or doesn't, as a test says."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.objection: str | None = None
        self.waits = False

    async def accept(self, new: Engine, old: Engine | None, _: Tell) -> None:
        self.asked.append((new.spec.settings.card, old.spec.settings.card if old else None))
        if self.waits:
            await asyncio.Event().wait()
        if self.objection:
            raise EngineFailed(self.objection)


@pytest.fixture
def gate(fleet: Fleet) -> Gate:
    gate = Gate()
    fleet._accept = gate.accept
    return gate


@pytest.mark.parametrize("how", ["beside", "replace"])
async def test_what_is_not_accepted_leaves_the_old_one(house: House, fleet: Fleet, gate: Gate, how: str) -> None:
    old = fleet.find("chat").engine
    gate.objection = "it talks rubbish"
    house.serve("chat", "two", swap=how)
    with pytest.raises(EngineFailed, match="it talks rubbish"):
        await change(fleet, load(house))
    assert gate.asked == [("two", "one")]
    assert fleet.find("chat").engine is old
    assert fleet.find("chat").ready
    assert fleet.find("chat").coming is None
    assert "it talks rubbish" in str(fleet.find("chat").trouble)
    gate.objection = None
    assert await change(fleet, load(house)) == ["chat: now answered by two"]
    assert fleet.find("chat").trouble is None


@pytest.mark.parametrize("how", ["beside", "replace"])
async def test_one_that_dies_while_it_is_looked_at_is_not_accepted(
    house: House, fleet: Fleet, gate: Gate, started: Nursery, how: str
) -> None:
    gate.waits = True
    house.serve("chat", "two", swap=how)
    changing = asyncio.create_task(change(fleet, load(house)))
    await until(lambda: gate.asked)
    started.spawned[1].end(137)
    with pytest.raises(EngineFailed, match="killed by signal 9"):
        await changing
    assert fleet.find("chat").ready
    assert [process.ended.done() for process in started.spawned][1:2] == [True]


async def test_of_two_one_that_dies_while_the_other_is_looked_at_stops_both(
    house: House, fleet: Fleet, gate: Gate, started: Nursery
) -> None:
    before = dict(fleet.served)
    house.serve("chat", "two")
    house.serve("more", "one")
    gate.waits = True
    changing = asyncio.create_task(change(fleet, load(house)))
    await until(lambda: gate.asked)
    gate.waits = False
    first = next(process for process in started.spawned[1:] if "two" in str(process.launch.argv))
    first.end(137)
    with pytest.raises(EngineFailed, match="killed by signal 9"):
        await changing
    assert dict(fleet.served) == before


async def test_while_one_is_replaced_its_name_is_promised_and_only_then(
    house: House, fleet: Fleet, started: Nursery
) -> None:
    old = fleet.find("chat")
    kept: list[Served] = []
    started.answers = False
    house.serve("chat", "two", swap="replace", wait_seconds=7)
    changing = asyncio.create_task(change(fleet, load(house)))
    await until(lambda: len(started.spawned) == 2)
    assert started.spawned[0].ended.done()
    assert old.coming is not None
    assert old.coming.seconds == 7
    old.coming.listeners.append(lambda: kept.append(fleet.find("chat")))
    started.answers = True
    await changing
    assert kept == [fleet.find("chat")]
    assert fleet.find("chat") is not old


async def test_a_change_that_is_given_up_while_one_is_replaced_starts_the_old_one_again(
    house: House, fleet: Fleet, started: Nursery
) -> None:
    old = fleet.find("chat").engine
    house.serve("chat", "two", swap="replace", drain_seconds=60)
    assert old is not None
    with old.lease():
        changing = asyncio.create_task(change(fleet, load(house)))
        await until(lambda: old.state is State.DRAINING)
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing
        assert fleet.find("chat").ready
    assert len(started.spawned) == 1, "it had not ended yet, so it went on"


async def test_a_candidate_is_tried_weighed_and_promoted_without_a_start(
    house: House, fleet: Fleet, gate: Gate, started: Nursery
) -> None:
    house.serve("chat", "one", rollout={"card": "two", "percent": 10})
    assert await change(fleet, load(house)) == ["chat: two is tried beside it"]
    assert gate.asked == [("two", "one")]
    arms = fleet.arms("chat")
    assert arms.candidate is not None
    assert arms.split == Split(10, "user", f"chat/{arms.candidate.version}")
    fleet.weigh("chat", 50)
    now = fleet.arms("chat").split
    assert now is not None
    assert now.percent == 50
    await fleet.promote("chat")
    assert fleet.arms("chat") == Arms(arms.candidate)
    await until(started.spawned[0].ended.done)
    house.serve("chat", "two")
    assert await change(fleet, load(house)) == []
    assert len(started.spawned) == 2


async def test_a_candidate_that_is_named_in_the_config_takes_over_without_a_start(
    house: House, fleet: Fleet, started: Nursery
) -> None:
    house.serve("chat", "one", rollout={"card": "two", "mode": "blue-green"})
    await change(fleet, load(house))
    assert (fleet.arms("chat").split, fleet.arms("chat").mirror) == (None, None)
    house.serve("chat", "two")
    assert await change(fleet, load(house)) == ["chat: now answered by two"]
    assert len(started.spawned) == 2


async def test_a_candidate_that_is_dropped_gets_no_more_and_the_reason_stays(
    house: House, fleet: Fleet, started: Nursery
) -> None:
    house.serve("chat", "one", rollout={"card": "two", "mode": "shadow"})
    await change(fleet, load(house))
    assert fleet.arms("chat").mirror is not None
    await fleet.drop("chat", "it fails")
    assert fleet.arms("chat") == Arms(fleet.find("chat"))
    assert "it fails" in str(fleet.find("chat").trouble)
    await until(started.spawned[1].ended.done)
    with pytest.raises(Conflict):
        fleet.weigh("chat", 1)
    with pytest.raises(Conflict):
        await fleet.promote("chat")


async def test_a_candidate_that_is_dropped_while_a_change_goes_on_stays_dropped(
    house: House, fleet: Fleet, gate: Gate
) -> None:
    house.serve("chat", "one", rollout={"card": "two"})
    await change(fleet, load(house))
    house.serve("more", "two")
    gate.waits = True
    changing = asyncio.create_task(change(fleet, load(house)))
    await until(lambda: len(gate.asked) == 2)
    await fleet.drop("chat", "it fails")
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing
    assert fleet.arms("chat").candidate is None


async def test_a_card_on_trial_is_found_while_that_lasts(house: House, fleet: Fleet, started: Nursery) -> None:
    wanted = spec(fleet._config, "x", LocalModel(card="two"), "cpu")
    async with fleet.trial(wanted, lambda _: None) as served:
        assert fleet.find("trial/two") is served
        assert served.ready
        assert "trial/two" not in fleet.served
        with pytest.raises(Conflict):
            async with fleet.trial(wanted, lambda _: None):
                pass
    assert started.spawned[1].ended.done()
    with pytest.raises(NotFound):
        fleet.find("trial/two")


async def test_of_two_engines_of_a_name_each_tells_its_own_last_words(
    house: House, fleet: Fleet, started: Nursery
) -> None:
    house.serve("chat", "two")
    old = fleet.find("chat").engine
    assert old is not None
    with old.lease():
        await change(fleet, load(house))
        one, two = (process.launch.log for process in started.spawned)
        assert one != two
    await until(lambda: started.spawned[0].ended.done() and not started.spawned[0].launch.socket.parent.exists())
    house.serve("chat", "one")
    await change(fleet, load(house))
    assert started.spawned[2].launch.log == one


async def test_an_engine_that_does_not_end_is_complained_of(
    house: House, fleet: Fleet, started: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retiring, "OVERDUE_SECONDS", 0.05)
    monkeypatch.setattr(started.spawned[0], "terminate", lambda: None)
    house.serve("chat", "one", drain_seconds=0.01)
    await change(fleet, load(house))
    house.serve("chat", "two", drain_seconds=0.01)
    await change(fleet, load(house))
    await until(lambda: "hasn't ended" in str(fleet.find("chat").trouble))
    started.spawned[0].end(0)


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


async def test_a_change_that_is_cancelled_twice_is_undone_to_its_end_and_gives_back_its_memory(
    house: House, fleet: Fleet, started: Nursery
) -> None:
    fleet._account = Account(house.state, Engines(reserve_gib=0), (), Host(2.5))
    house.serve("chat", "one", memory_gib=1)
    await change(fleet, load(house))
    started.answers = False
    house.serve("chat", "two", memory_gib=1, swap="replace")
    changing = asyncio.create_task(change(fleet, load(house)))
    await until(lambda: len(started.spawned) == 2)
    changing.cancel()
    await until(lambda: len(started.spawned) == 3)
    changing.cancel()
    next_one = asyncio.create_task(change(fleet, load(house)))
    await asyncio.wait([changing], timeout=0.05)
    assert not changing.done(), "the old one isn't back"
    assert len(started.spawned) == 3, "one change at a time"
    started.answers = True
    with pytest.raises(asyncio.CancelledError):
        await changing
    assert await next_one == ["chat: now answered by two"], "there is memory for it again"


async def test_when_one_does_not_make_room_nobody_goes_on_making_it(
    house: House, fleet: Fleet, started: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retiring, "OVERDUE_SECONDS", 0.05)
    house.serve("chat", "one", drain_seconds=0.01)
    house.serve("more", "one", drain_seconds=60)
    await change(fleet, load(house))
    chat, more = fleet.find("chat").engine, fleet.find("more").engine
    assert chat is not None
    assert more is not None
    monkeypatch.setattr(started.spawned[0], "kill", lambda: None)
    for name in ("chat", "more"):
        house.serve(name, "two", swap="replace")
    loaded, told = load(house), list[str]()
    with more.lease():
        changing = asyncio.create_task(fleet.change(loaded, specs(loaded, HERE), told.append))
        await until(lambda: "more: starting one again" in told)
        started.spawned[0].end(0)
        with pytest.raises(EngineFailed, match="hasn't ended"):
            await changing
        assert more.state is State.READY
    assert not [line for line in told if "has made room" in line]


async def test_a_new_endpoint_is_let_go_when_its_change_fails(
    house: House, fleet: Fleet, started: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(Upstream, "close", lambda upstream: closed.append(upstream.socket))
    house.settings["models"]["stays"] = {"endpoint": "unix:/stays"}
    await change(fleet, load(house))
    house.settings["models"]["new"] = {"endpoint": "unix:/new"}
    house.serve("chat", "two")
    started.refuses = [EngineFailed("no memory")]
    with pytest.raises(EngineFailed, match="no memory"):
        await change(fleet, load(house))
    assert [socket for socket in closed if socket in ("/new", "/stays")] == ["/new"]


async def test_another_gate_in_a_card_needs_no_other_engine(house: House, fleet: Fleet, started: Nursery) -> None:
    before = fleet.find("chat").engine
    file = house.folder / "models" / "one" / "card.yaml"
    file.write_text(file.read_text() + "gate: {golden_percent: 90}\n")
    loaded = load(house)
    assert [step.action for step in fleet.plan(loaded, specs(loaded, HERE)).steps] == ["settings"]
    assert await change(fleet, loaded) == ["chat: one has another gate, from its next start on"]
    assert await change(fleet, loaded) == []
    engine = fleet.find("chat").engine
    assert engine is before
    assert engine is not None
    assert engine.spec.card.gate.golden_percent == 90, "the next start is judged by it"
    assert len(started.spawned) == 1


async def test_one_that_idled_before_a_change_idles_after_it_was_given_up(
    house: House, fleet: Fleet, started: Nursery
) -> None:
    house.serve("chat", "one", idle={"after_seconds": 3600})
    await change(fleet, load(house))
    served = fleet.find("chat")
    assert served.engine is not None
    await served.engine.rest(0)
    house.serve("chat", "two", swap="replace")
    started.refuses = [EngineFailed("no memory")]
    with pytest.raises(EngineFailed, match="no memory"):
        await change(fleet, load(house))
    assert served.engine.state is State.IDLE
    assert not served.awaited
    assert len(started.spawned) == 1


async def test_stopping_breaks_off_a_change_with_all_that_it_has_started(
    house: House, fleet: Fleet, started: Nursery
) -> None:
    started.answers = False
    house.serve("chat", "two")
    changing = asyncio.create_task(change(fleet, load(house)))
    await until(lambda: len(started.spawned) == 2)
    await fleet.stop(0)
    assert all(process.ended.done() for process in started.spawned)
    with pytest.raises(EngineFailed, match="stopped"):
        await changing
    with pytest.raises(EngineFailed, match="stopped"):
        await change(fleet, load(house))
    assert len(started.spawned) == 2
