"""Who rests, who comes back and who waits for it, with fake processes and clocks that a test moves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from appliance.config import Engines, LocalModel
from appliance.engines import command, idle
from appliance.engines import engine as module
from appliance.engines.account import Account
from appliance.engines.capacity import Gpu
from appliance.engines.command import Launch, Spec
from appliance.engines.engine import Engine, State
from appliance.engines.idle import Idling
from appliance.engines.memory import Kernel
from appliance.errors import DoesNotFit, EngineFailed, Loading
from appliance.weights.card import Card
from tests.engines.test_engine import CARD, until
from tests.fakes.process import Clock, FakeProcess, Nursery, nursery


class Host(Kernel):
    """A kernel with as much memory as a test says, of which engines hold nothing yet."""

    def __init__(self, gib: float) -> None:
        super().__init__()
        self.gib = gib

    def total(self) -> float:
        return self.gib

    def free(self) -> float:
        return self.gib

    def held(self, pid: int) -> float:
        return 0.0


class Bench:
    """Models of 1 GiB each that may idle after 60 s, unless a test says otherwise, in memory for two."""

    def __init__(self, folder: Path, started: Nursery) -> None:
        self.folder, self.started, self.clock = folder, started, Clock()
        self.account = Account(folder, Engines(reserve_gib=0), (), Host(2))
        self.engines: dict[str, Engine] = {}
        self.leaving: list[Engine] = []
        self.idling = Idling(lambda: self.account, self.engines.items, lambda: self.leaving, self.clock)

    def add(self, name: str, **settings: Any) -> Engine:
        told = {"card": "t", "memory_gib": 1, "idle": {"after_seconds": 60}} | settings
        spec = Spec(name, CARD, LocalModel.model_validate(told), self.folder / "w", self.folder / "p", "cpu", "f" * 64)

        async def launch() -> Launch:
            number = len(self.started.spawned)
            return Launch((name,), {}, self.folder / f"e{number}" / "s", self.folder / "log", (), ())

        engine = Engine(spec, launch, self.started.spawn, backoff=0.01, clock=self.clock)
        engine.call = lambda: self.idling.call(engine)
        self.engines[name] = engine
        return engine

    async def start(self) -> None:
        self.idling.start(self.engines.values())
        await until(lambda: all(each.state in (State.READY, State.IDLE) for each in self.engines.values()))
        await self.rounds()

    async def rounds(self) -> None:
        """Have it looked at a few times."""
        for _ in range(20):
            await asyncio.sleep(0.005)

    @property
    def states(self) -> str:
        """Each model's first letter, in capitals while it has its memory."""
        return "".join(
            name[0] if engine.state in (State.IDLE, State.ASLEEP) else name[0].upper()
            for name, engine in self.engines.items()
        )

    @property
    def spawned(self) -> list[str]:
        return [process.launch.argv[0] for process in self.started.spawned]


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch, folder: Path) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "_PROBE_EVERY", 0.001)
    monkeypatch.setattr(idle, "_EVERY", 0.005)
    monkeypatch.setattr(idle, "_SOON", 0.005)
    async with nursery() as started:
        bench = Bench(folder, started)
        yield bench
        started.answers = True
        await bench.idling.stop()
        await asyncio.gather(*(engine.drain(0) for engine in bench.engines.values()))


async def test_who_is_not_asked_for_rests_and_who_is_stays(bench: Bench) -> None:
    asked, quiet = bench.add("asked"), bench.add("quiet")
    forever = bench.add("forever", idle={}, memory_gib=0.1)
    bench.account = Account(bench.folder, Engines(reserve_gib=0), (), Host(9))
    await bench.start()
    bench.clock.now += 50
    with asked.lease():
        pass
    bench.clock.now += 30
    await until(lambda: quiet.state is State.IDLE)
    assert (asked.state, forever.state) == (State.READY, State.READY)
    bench.clock.now += 31
    await until(lambda: asked.state is State.IDLE)
    bench.clock.now += 1000
    await bench.rounds()
    assert forever.state is State.READY


async def test_a_request_that_lasts_keeps_it(bench: Bench) -> None:
    engine = bench.add("a")
    await bench.start()
    with engine.lease():
        bench.clock.now += 1000
        await bench.rounds()
        assert engine.state is State.READY
    await bench.rounds()
    assert engine.state is State.READY, "it has been quiet since its end only"


async def test_at_the_start_those_that_may_idle_run_while_there_is_room(bench: Bench) -> None:
    for name in "abc":
        bench.add(name)
    bench.add("always", idle={})
    await bench.start()
    assert bench.states == "AbcA", "who never idles comes first"


async def test_the_least_recently_used_makes_room(bench: Bench) -> None:
    a, b, c = (bench.add(name) for name in "abc")
    await bench.start()
    assert bench.states == "ABc"
    bench.clock.now += 10
    with a.lease():
        pass
    c.call()
    await until(lambda: c.state is State.READY)
    assert bench.states == "AbC"
    b.call()
    bench.clock.now += 1
    await until(lambda: b.state is State.READY)
    assert bench.states == "aBC", "c has come later than a was asked for"


async def test_many_calls_start_it_once(bench: Bench) -> None:
    engine = bench.add("a")
    await bench.start()
    bench.clock.now += 61
    await until(lambda: engine.state is State.IDLE)
    for _ in range(32):
        engine.call()
    await until(lambda: engine.state is State.READY)
    engine.call()
    await bench.rounds()
    assert bench.spawned == ["a", "a"]


async def test_who_has_just_come_stays_as_long_as_its_start_took(bench: Bench) -> None:
    a, b, c = (bench.add(name) for name in "abc")
    await bench.start()
    bench.clock.now += 30
    bench.started.answers = False
    c.call()
    await until(lambda: "c" in bench.spawned)
    bench.clock.now += 20  # it takes so long to start
    bench.started.answers = True
    await until(lambda: c.state is State.READY)
    gone = a if a.state is State.IDLE else b
    await bench.rounds()
    with a.lease() if gone is b else b.lease():
        gone.call()
        bench.clock.now += 9
        await bench.rounds()
        assert c.state is State.READY, "it stays for 20 s"
        bench.clock.now += 12
        await until(lambda: gone.state is State.READY)
        assert c.state is State.IDLE


async def test_busy_ones_make_room_when_somebody_has_waited_for_long_and_who_is_called_first_comes_first(
    bench: Bench,
) -> None:
    a, b, c = (bench.add(name) for name in "abc")
    d = bench.add("d")
    await bench.start()
    assert bench.states == "ABcd"
    leases = [a.lease(), b.lease()]
    c.call()
    await bench.rounds()
    d.call()
    await bench.rounds()
    assert bench.states == "ABcd"
    assert c.stage == "waiting for memory"
    bench.clock.now += 11
    await until(lambda: State.DRAINING in (a.state, b.state))
    first = a if a.state is State.DRAINING else b
    with pytest.raises(Loading):
        first.lease()
    assert (c.state, d.state) == (State.IDLE, State.IDLE), "its request goes on"
    for lease in leases:
        lease.__exit__(None, None, None)
    await until(lambda: c.state is State.READY)
    bench.clock.now += 1
    await until(lambda: d.state is State.READY)
    assert bench.spawned[2:] == ["c", "d"]
    assert bench.states == "abCD"


async def test_what_never_fits_is_told_with_numbers_and_tried_again_later(bench: Bench) -> None:
    bench.add("always", idle={}, memory_gib=1.5)
    a = bench.add("a")
    await bench.start()
    assert bench.states == "Aa"
    a.call()
    await until(lambda: a.obstacle is not None)
    assert str(a.not_ready()) == (
        "the model a idles and can't come back now: it needs 1.0 GiB of memory (as `memory_gib` says); "
        "0.5 GiB can be had now"
    )
    bench.clock.now += idle.REFUSED_SECONDS
    await until(lambda: a.obstacle is None)
    bench.account = Account(bench.folder, Engines(reserve_gib=0), (), Host(4))
    a.call()
    await until(lambda: a.state is State.READY)


async def test_room_for_a_change_is_made_and_kept_until_it_is_over(bench: Bench) -> None:
    a, b = bench.add("a"), bench.add("b")
    await bench.start()
    new = bench.add("new", idle={})
    del bench.engines["new"]
    await bench.idling.make_room([new])
    assert bench.states in ("aB", "Ab")
    resting = a if a.state is State.IDLE else b
    with a.lease() if resting is b else b.lease():
        resting.call()
        await bench.rounds()
        assert resting.state is State.IDLE, "the change has its memory"
        bench.idling.release([new])
        await until(lambda: resting.state is State.READY)
    too_large = bench.add("more", memory_gib=3)
    del bench.engines["more"]
    with pytest.raises(DoesNotFit, match=r"it needs 3\.0 GiB"):
        await bench.idling.make_room([too_large])


async def test_one_that_a_change_takes_while_room_is_made_for_it_hinders_nobody(bench: Bench) -> None:
    bench.account = Account(bench.folder, Engines(reserve_gib=0), (), Host(1))
    a, b = bench.add("a"), bench.add("b")
    await bench.start()
    with a.lease():
        b.call()
        await bench.rounds()
        bench.clock.now += 11
        await until(lambda: a.state is State.DRAINING)
        bench.idling.forget([b])
    await until(lambda: a.state is State.IDLE)
    a.call()
    await until(lambda: a.state is State.READY)
    assert b.state is State.IDLE, "it is the change's to start"


async def test_what_room_is_being_made_for_is_not_given_to_a_change(bench: Bench) -> None:
    bench.account = Account(bench.folder, Engines(reserve_gib=0), (), Host(3))
    a, b = bench.add("a"), bench.add("b", memory_gib=2.5)
    await bench.start()
    new = bench.add("new", idle={}, memory_gib=1.5)
    del bench.engines["new"]
    with a.lease():
        b.call()
        await bench.rounds()
        bench.clock.now += 11
        await until(lambda: a.state is State.DRAINING)
        changing = asyncio.create_task(bench.idling.make_room([new]))
        await bench.rounds()
        assert not changing.done()
    await until(lambda: b.state is State.READY)
    await changing
    assert bench.states == "ab", "it had its turn, and made room"


async def test_who_is_woken_by_somebody_else_while_it_makes_room_has_its_memory(bench: Bench) -> None:
    bench.account = Account(bench.folder, Engines(reserve_gib=0), (), Host(1))
    a, b = bench.add("a"), bench.add("b")
    await bench.start()
    with a.lease():
        b.call()
        await bench.rounds()
        bench.clock.now += 11
        await until(lambda: a.state is State.DRAINING)
        a.wake()
        await bench.rounds()
        assert b.state is State.IDLE
    await until(lambda: b.state is State.READY)
    assert a.state is State.IDLE


async def test_one_that_is_on_its_way_is_waited_for_by_who_needs_its_memory(bench: Bench) -> None:
    bench.account = Account(bench.folder, Engines(reserve_gib=0), (), Host(1))
    a, b = bench.add("a"), bench.add("b")
    await bench.start()
    bench.started.answers = False
    b.call()
    await until(lambda: b.state is State.STARTING)
    a.call()
    await bench.rounds()
    assert a.obstacle is None
    bench.started.answers = True
    await until(lambda: a.state is State.READY)
    assert b.state is State.IDLE


async def test_one_that_finishes_its_last_requests_is_waited_for_by_who_needs_its_memory(bench: Bench) -> None:
    bench.account = Account(bench.folder, Engines(reserve_gib=0), (), Host(1))
    a, b = bench.add("a"), bench.add("b")
    await bench.start()
    bench.leaving.append(bench.engines.pop("a"))
    with a.lease():
        ending = asyncio.create_task(a.drain(60))
        b.call()
        await bench.rounds()
        assert b.obstacle is None
        assert b.state is State.IDLE
    await ending
    bench.leaving.clear()
    await until(lambda: b.state is State.READY)


async def test_one_that_keeps_crashing_rests_when_nobody_asks_and_gives_its_reason_to_who_does(bench: Bench) -> None:
    engine = bench.add("a")
    await bench.start()
    bench.started.spawned[-1].end(1)
    bench.started.answers = False
    await until(lambda: engine.starts > 1)
    bench.started.spawned[-1].end(1)
    await until(lambda: engine.state is State.FAILED)
    assert "could not be started" in str(engine.not_ready())
    bench.clock.now += 61
    bench.started.answers = True
    await until(lambda: engine.state in (State.IDLE, State.READY))


async def test_callers_are_not_told_where_files_lie(bench: Bench) -> None:
    engine = bench.add("a")
    bench.started.refuses = [EngineFailed("/srv/models/a/weights isn't there: /srv/models"), *[EngineFailed("x")] * 9]
    bench.idling.start(bench.engines.values())
    await until(lambda: engine.state is State.FAILED)
    assert "(a file isn't there)" in str(engine.not_ready())


SLEEPER = Card.model_validate(CARD.model_dump() | {"hardware": {"devices": ["cuda"], "memory_gib": 1}})


@pytest.fixture
async def sleeper(folder: Path, bench: Bench) -> AsyncIterator[Engine]:
    """A model that sleeps, of a process that is the fake of vLLM, on a GPU that isn't there."""
    weights = folder / "t" / "weights"
    weights.mkdir(parents=True)
    settings = LocalModel.model_validate({"card": "t", "idle": {"after_seconds": 60, "then": "sleep"}})
    spec = Spec("sleeper", SLEEPER, settings, weights, folder / "env/bin/python", "cuda", "f" * 64)

    async def launch() -> Launch:
        (folder / "e").mkdir(exist_ok=True)
        return command.launch(spec, folder / "e", folder, folder / "log")

    async def spawn(launch: Launch) -> Any:
        fake = Path(__file__).parents[1] / "fakes" / "engine.py"
        with launch.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, fake, *launch.argv[3:], env=launch.env, stdout=log, stderr=log
            )
        kept = FakeProcess(launch, process.pid)
        kept.terminate = lambda: _signal(process, signal.SIGTERM)  # type: ignore[method-assign]
        kept.kill = lambda: _signal(process, signal.SIGKILL)  # type: ignore[method-assign]
        ending = asyncio.create_task(process.wait())
        ending.add_done_callback(lambda done: kept.end(done.result()))
        return kept

    engine = Engine(spec, launch, spawn, backoff=0.01, clock=bench.clock)
    engine.call = lambda: bench.idling.call(engine)
    bench.account = Account(folder, Engines(), [Gpu(24)], Host(2))
    bench.engines["sleeper"] = engine
    return engine


def _signal(process: asyncio.subprocess.Process, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signum)


def heard(folder: Path) -> list[str]:
    return [line.split('"')[3] for line in (folder / "heard.jsonl").read_text().splitlines()]


async def test_one_that_sleeps_keeps_its_process_and_wakes(folder: Path, bench: Bench, sleeper: Engine) -> None:
    await bench.start()
    process = sleeper.process
    assert bench.account.taken(sleeper) == pytest.approx(0.9 * 24)
    bench.clock.now += 61
    await until(lambda: sleeper.state is State.ASLEEP)
    assert sleeper.process is process
    assert bench.account.taken(sleeper) == 0
    with pytest.raises(Loading):
        sleeper.lease()
    sleeper.call()
    await until(lambda: sleeper.state is State.READY)
    assert sleeper.process is process
    assert heard(folder) == ["start", "sleep", "wake"]


async def test_one_that_dies_in_its_sleep_is_started_again_when_it_is_called(bench: Bench, sleeper: Engine) -> None:
    await bench.start()
    bench.clock.now += 61
    await until(lambda: sleeper.state is State.ASLEEP)
    assert sleeper.process is not None
    os.kill(sleeper.process.pid, 9)
    await until(lambda: sleeper.state is State.IDLE)
    sleeper.call()
    await until(lambda: sleeper.state is State.READY)
    assert sleeper.starts == 2


async def test_one_that_will_not_sleep_ends(folder: Path, bench: Bench, sleeper: Engine) -> None:
    (folder / "faults.json").write_text('{"insomnia": true}')
    await bench.start()
    bench.clock.now += 61
    await until(lambda: sleeper.state is State.IDLE)
    assert sleeper.process is None
