"""The rollouts under way, on a real fleet with fake processes and a clock that a test moves."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from appliance import config as configuration
from appliance.audit.archive import Actor
from appliance.core import Caller, Operation, Request, Task
from appliance.engines import engine as engine_module
from appliance.engines.engine import State
from appliance.engines.fleet import Fleet
from appliance.engines.served import Served
from appliance.engines.specs import Machine, specs
from appliance.errors import ApplianceError, AuditUnavailable, BadRequest, Conflict, EngineFailed, NotFound
from appliance.observe import Metrics, Record
from appliance.rollout import rollouts as rollouts_module
from appliance.rollout.decisions import Decisions
from appliance.rollout.rollouts import Rollouts
from appliance.rollout.verdict import Quality
from tests.fakes import journal
from tests.fakes.house import House
from tests.fakes.process import Clock, Nursery, nursery

CHAT = Operation("chat", "/v1/chat/completions", Task.CHAT, "messages")
HERE = Machine(cuda=False)
ANNA = Caller("k", user="anna")
BOSS = Actor.host()


async def until(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110 - states change in the engine's own task
            await asyncio.sleep(0.005)


class Bench:
    """`chat` on the card `one` with the candidate `two`, and the rollouts of it."""

    def __init__(self, house: House, started: Nursery) -> None:
        self.house, self.started, self.clock = house, started, Clock()
        self.archive = journal.archive(house.state)
        self.metrics = Metrics()
        self.config = configuration.load(house.config)
        self.decisions = Decisions(house.state)
        self.quality: Quality | None = None

        async def connect(*_: object) -> Any:
            raise AssertionError("there is no endpoint")

        self.fleet = Fleet(self.config, started.spawn, connect)
        self.by_rule = Actor.appliance()
        self.rollouts = Rollouts(
            self.config.settings, self.decisions, self.fleet, self.archive.act, self.by_rule, self.metrics,
            quality=lambda *_: self.quality, clock=self.clock, wall=lambda: 1.5,
        )  # fmt: skip

    async def start(self) -> None:
        await self.fleet.start(specs(self.config, HERE))
        await until(lambda: all(engine.state is State.READY for _, engine in self.fleet.engines()))
        await self.rollouts.look()

    @property
    def candidate(self) -> Served:
        found = self.fleet.arms("chat").candidate
        assert found is not None
        return found

    def asked(self, version: str, outcome: str = "answered", id_: str = "r", **more: Any) -> Record:
        """A request that has come to its end, as the pipeline tells of it."""
        request = Request(id_, ANNA, CHAT, "chat", b"{}", most_prompt_tokens=8, most_completion_tokens=8)
        record = self.metrics.open(request)
        with record:
            record.turn(version)
        record.outcome = outcome
        for name, value in more.items():
            setattr(record, name, value)
        return record

    def settle(self, served: Served, count: int = 1, outcome: str = "answered", **more: Any) -> None:
        for _ in range(count):
            self.rollouts.settle(self.asked(served.version, outcome, **more))

    def end_candidate(self) -> None:
        """Its process dies."""
        mine = [each for each in self.started.spawned if any("models/two/" in part for part in each.launch.argv)]
        mine[-1].end(1)

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self.rollouts.describe()["running"]["chat"]
        return found

    @property
    def decided(self) -> str | None:
        found = self.decisions.known.get("chat")
        return found.what if found is not None else None


@pytest.fixture
async def made(house: House, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    monkeypatch.setattr(engine_module, "_PROBE_EVERY", 0.01)
    benches: list[Bench] = []
    async with nursery() as started:

        async def make(quality: Quality | None = None, **rollout: Any) -> Bench:
            for name in ("one", "two"):
                house.card(name)
            tried = {"card": "two", "window_seconds": 100, "least_requests": 10, **rollout}
            house.serve("chat", "one", rollout=tried, idle={"after_seconds": 9999})
            house.write()
            (house.state / "run").mkdir(parents=True)
            benches.append(Bench(house, started))
            benches[-1].quality = quality
            await benches[-1].start()
            return benches[-1]

        yield make
        for each in benches:
            await each.fleet.stop(0)
            each.archive.subjects.close()


async def test_within_bounds_it_takes_over_at_the_windows_end_and_not_before(made: Any) -> None:
    bench = await made()
    bench.settle(bench.fleet.find("chat"), 50)
    bench.settle(bench.candidate, 50)
    bench.clock.now += 99
    await bench.rollouts.look()
    assert bench.shown()["verdict"] == "within bounds after 99 of 100 s"
    bench.settle(bench.candidate, 10)
    bench.clock.now += 1
    await bench.rollouts.look()
    assert bench.decided == "promoted"
    assert bench.fleet.find("chat").version.startswith("two@")
    assert bench.rollouts.describe()["running"] == {}
    assert bench.archive.journal.acts() == [("rollout.promote", "intent"), ("rollout.promote", "done")]
    (intent, _) = bench.archive.journal.records
    assert intent["body"]["by"] == {"role": "appliance"}
    assert intent["body"]["why"] == "within all bounds over 100 s and 60 requests"


async def test_requests_that_are_long_ago_count_no_more(made: Any) -> None:
    bench = await made()
    bench.settle(bench.candidate, 50)
    bench.clock.now += 300
    await bench.rollouts.look()
    assert bench.shown()["verdict"] == "it has answered 0 of at least 10 requests"


async def test_what_fails_goes_at_once_and_is_told_to_prometheus(made: Any) -> None:
    bench = await made()
    told = 'appliance_rollout_decisions_total{by="rule",model="chat",what="dropped"}'
    assert f"{told} 0.0" in bench.metrics.render().decode(), "before it increases"
    bench.settle(bench.fleet.find("chat"), 50)
    bench.settle(bench.candidate, 5, "failed")
    await bench.rollouts.look()
    assert (bench.decided, bench.decisions.known["chat"].by) == ("dropped", "rule")
    assert bench.fleet.arms("chat").candidate is None
    assert f"{told} 1.0" in bench.metrics.render().decode()


async def test_what_callers_left_or_got_wrong_is_no_failure(made: Any) -> None:
    bench = await made()
    bench.settle(bench.candidate, 30, "caller_gone")
    bench.settle(bench.candidate, 30, "refused")
    await bench.rollouts.look()
    shown = bench.shown()["candidate"]
    assert (shown["requests"], shown["failures"], shown["refused"], bench.decided) == (0, 0, 30, None)


async def test_of_another_version_and_of_nobody_nothing_is_counted(made: Any) -> None:
    bench = await made()
    for version in ("", "three@12345678", "endpoint"):
        bench.rollouts.settle(bench.asked(version, "failed"))
    counting = bench.asked(bench.candidate.version)
    counting.request = dataclasses.replace(counting.request, most_prompt_tokens=0, most_completion_tokens=0)
    bench.rollouts.settle(counting)
    assert bench.shown()["candidate"]["requests"] == bench.shown()["stable"]["requests"] == 0


@pytest.mark.parametrize("mode", ["ab", "blue-green"])
async def test_in_these_modes_a_person_decides(made: Any, mode: str) -> None:
    bench = await made(mode=mode)
    bench.settle(bench.candidate, 50)
    bench.clock.now += 1000
    bench.settle(bench.candidate, 50, "failed")
    await bench.rollouts.look()
    assert bench.decided is None
    told = await bench.rollouts.promote("chat", BOSS)
    assert "write `card: two` into models.chat and remove its `rollout`" in told
    assert bench.decisions.known["chat"].by == "host"


async def test_a_hand_wins_over_the_rules(made: Any) -> None:
    bench = await made()
    bench.settle(bench.fleet.find("chat"), 50)
    bench.settle(bench.candidate, 3, "failed")
    await bench.rollouts.promote("chat", BOSS)
    await bench.rollouts.look()
    assert (bench.decided, bench.fleet.find("chat").version[:3]) == ("promoted", "two")


async def test_a_weight_holds_from_the_next_request_and_after_a_start(made: Any) -> None:
    bench = await made()
    await bench.rollouts.weigh("chat", 33, BOSS)
    split = bench.fleet.arms("chat").split
    assert split is not None
    assert split.percent == 33
    again = bench.rollouts.effective(configuration.load(bench.house.config)).settings.models["chat"].rollout
    assert again.percent == 33
    assert bench.shown()["percent"] == 33
    with pytest.raises(BadRequest, match="0 to 100"):
        await bench.rollouts.weigh("chat", 101, BOSS)


async def test_a_candidate_does_not_idle_until_it_has_taken_over(made: Any) -> None:
    """Nobody is sent to one that can't answer, so nobody would wake it."""
    bench = await made()
    engine = bench.candidate.engine
    assert engine is not None
    assert engine.spec.settings.idle.after_seconds is None
    await bench.rollouts.promote("chat", BOSS)
    assert engine.spec.settings.idle.after_seconds == 9999


async def test_in_blue_green_there_is_no_weight(made: Any) -> None:
    bench = await made(mode="blue-green")
    with pytest.raises(Conflict, match="all or nothing"):
        await bench.rollouts.weigh("chat", 10, BOSS)
    assert bench.decided is None


async def test_an_engine_that_fails_three_times_is_dropped(made: Any) -> None:
    bench = await made(mode="blue-green")
    for starts in range(1, 4):
        await until(lambda: bench.candidate.ready)
        await bench.rollouts.look()
        assert bench.decided is None
        engine = bench.candidate.engine
        assert engine is not None
        assert engine.starts == starts
        bench.end_candidate()
        await until(lambda: not bench.candidate.ready)
    await bench.rollouts.look()
    assert (bench.decided, bench.decisions.known["chat"].why) == ("dropped", "its engine failed 3 times")


async def test_what_cant_be_put_on_record_is_not_done(made: Any) -> None:
    bench = await made()
    bench.archive.journal.fail()
    for order in (bench.rollouts.promote("chat", BOSS), bench.rollouts.drop("chat", BOSS)):
        with pytest.raises(AuditUnavailable):
            await order
    assert bench.decided is None
    assert bench.fleet.arms("chat").candidate is not None


async def test_what_cant_be_written_is_not_done(made: Any) -> None:
    bench = await made()
    (bench.house.state / "rollouts.new").mkdir()
    with pytest.raises(ApplianceError, match="can't be written, so nothing was changed"):
        await bench.rollouts.drop("chat", BOSS)
    assert bench.fleet.arms("chat").candidate is not None
    assert bench.archive.journal.acts()[-1] == ("rollout.drop", "failed")


async def test_a_candidate_that_isnt_ready_cant_take_over(made: Any) -> None:
    bench = await made()
    bench.started.answers = False
    bench.end_candidate()
    await until(lambda: not bench.candidate.ready)
    with pytest.raises(EngineFailed, match="isn't ready"):
        await bench.rollouts.promote("chat", BOSS)
    assert bench.decided is None
    bench.started.answers = True


async def test_a_rule_leaves_one_that_isnt_ready_alone_and_puts_no_attempts_on_record(made: Any) -> None:
    bench = await made()
    bench.settle(bench.candidate, 50)
    bench.started.answers = False
    bench.end_candidate()
    await until(lambda: not bench.candidate.ready)
    bench.clock.now += 100
    for _ in range(3):
        await bench.rollouts.look()
    assert bench.archive.journal.acts() == []
    assert bench.shown()["verdict"] == "within all bounds, but its engine isn't ready"
    bench.started.answers = True
    await until(lambda: bench.candidate.ready)
    await bench.rollouts.look()
    assert bench.decided == "promoted"


async def test_by_hand_the_bounds_are_held_against_it_once(made: Any) -> None:
    """However long it waits for somebody: in the end chance would carry it over one of them."""
    bench = await made(promote="manual")
    bench.settle(bench.fleet.find("chat"), 100)
    bench.settle(bench.candidate, 100)
    bench.clock.now += 100
    await bench.rollouts.look()
    bench.settle(bench.candidate, 3, "failed")
    await bench.rollouts.look()
    assert bench.decided is None
    assert bench.shown()["verdict"] == "within all bounds at the window's end: appliance rollout promote"
    bench.settle(bench.candidate, 60, "failed")
    await bench.rollouts.look()
    assert bench.decided == "dropped", "but what is clearly worse goes at any time"


async def test_what_was_said_before_this_rollout_began_does_not_count(made: Any) -> None:
    bench = await made(mode="ab")
    for number in range(30):
        bench.settle(bench.candidate, id_=f"r{number}")
        bench.rollouts.rate(f"r{number}", ANNA, "down")
    assert bench.shown()["candidate"]["bad"] == 30
    bench.clock.now += 1
    tried = {"card": "two", "window_seconds": 100, "least_requests": 10, "percent": 5}
    bench.house.serve("chat", "one", rollout=tried, idle={"after_seconds": 9999})
    new = configuration.load(bench.house.write())
    await bench.fleet.change(new, specs(new, HERE), lambda _: None)
    await bench.rollouts.take(new)
    assert bench.shown()["candidate"]["bad"] == 0
    await bench.rollouts.look()
    assert bench.decided is None


async def test_a_shadow_of_the_same_card_is_counted_apart(made: Any) -> None:
    bench = await made(mode="shadow", card="one")
    assert bench.candidate.version == bench.fleet.find("chat").version
    bench.settle(bench.fleet.find("chat"), 5)
    bench.rollouts.copied(bench.asked(bench.candidate.version, "failed"), None)
    shown = bench.shown()
    assert (shown["stable"]["requests"], shown["stable"]["failures"]) == (5, 0)
    assert (shown["candidate"]["requests"], shown["candidate"]["failures"]) == (1, 1)


async def test_when_two_decide_at_once_the_disk_says_what_was_done(made: Any) -> None:
    bench = await made()
    orders = (bench.rollouts.promote("chat", BOSS), bench.rollouts.drop("chat", bench.by_rule, "worse"))
    results = await asyncio.gather(*orders, return_exceptions=True)
    assert sum(isinstance(each, Conflict) for each in results) == 1
    expected = {"promoted": "two", "dropped": "one"}[bench.decided or ""]
    assert bench.fleet.find("chat").version.startswith(expected)


async def test_what_was_decided_while_a_config_was_on_its_way_is_done_after(made: Any) -> None:
    bench = await made()
    bench.decisions.decide("chat", dataclasses.replace(_decision(bench), what="dropped"))
    await bench.rollouts.look()
    assert bench.fleet.arms("chat").candidate is None


async def test_what_was_promoted_while_a_config_was_on_its_way_is_promoted_after(made: Any) -> None:
    bench = await made()
    bench.decisions.decide("chat", _decision(bench))
    async with bench.rollouts.changing:
        await bench.rollouts.look()
        assert bench.fleet.arms("chat").candidate is not None, "not while something else changes"
    await bench.rollouts.look()
    assert bench.fleet.find("chat").version.startswith("two@")


def _decision(bench: Bench) -> Any:
    from appliance.rollout.decisions import Decision, standing

    return Decision(standing(bench.config.settings)["chat"], "promoted", "rule", "as it is", 1.5)


async def test_a_weight_that_is_given_while_a_config_is_on_its_way_holds_after_it(made: Any) -> None:
    bench = await made()
    await bench.rollouts.weigh("chat", 0, BOSS)
    await bench.fleet.change(bench.config, specs(bench.config, HERE), lambda _: None)
    assert bench.fleet.arms("chat").split.percent > 0, "read before the weight was given"
    await bench.rollouts.take(bench.config)
    assert bench.fleet.arms("chat").split.percent == 0


async def test_another_config_begins_anew_and_forgets(made: Any) -> None:
    bench = await made()
    await bench.rollouts.weigh("chat", 33, BOSS)
    bench.house.serve("chat", "one")
    new = configuration.load(bench.house.write())
    await bench.fleet.change(new, specs(new, HERE), lambda _: None)
    await bench.rollouts.take(new)
    assert bench.decisions.known == Decisions(bench.house.state).known == {}
    assert bench.rollouts.describe() == {"running": {}, "decided": {}}
    with pytest.raises(Conflict, match="no rollout of 'chat' under way; under way: none"):
        await bench.rollouts.drop("chat", BOSS)


async def test_copies_count_for_the_candidate_with_their_agreement(made: Any) -> None:
    bench = await made(mode="shadow")
    for alike in (1.0, 0.5, None):
        bench.rollouts.copied(bench.asked(bench.candidate.version, "failed" if alike is None else "answered"), alike)
    shown = bench.shown()["candidate"]
    assert (shown["requests"], shown["failures"], shown["compared"], shown["agreement"]) == (3, 1, 2, 0.75)
    with pytest.raises(NotFound):
        bench.rollouts.rate("r", ANNA, "up")


async def test_the_golden_set_has_its_say(made: Any) -> None:
    bench = await made(quality=Quality(90, 50, 10))
    bench.clock.now += 100
    bench.settle(bench.candidate, 10)
    await bench.rollouts.look()
    assert bench.decisions.known["chat"].why == "50 % of the golden cases passed, of the old one's 90 %"


async def test_a_bug_in_one_look_does_not_end_all_looking(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await made()
    monkeypatch.setattr(rollouts_module, "_EVERY", 0.001)
    looks: list[int] = []

    async def look() -> None:
        looks.append(1)
        raise RuntimeError("a bug")

    monkeypatch.setattr(bench.rollouts, "look", look)
    task = asyncio.create_task(bench.rollouts.run())
    await until(lambda: len(looks) > 2)
    task.cancel()
