"""One engine's life, event by event, with processes and a clock that do what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from appliance.config import LocalModel
from appliance.engines import engine as module
from appliance.engines import health
from appliance.engines.command import Launch, Spec
from appliance.engines.engine import Engine, State, describe
from appliance.engines.process import Nursery as RealNursery
from appliance.engines.upstream import Upstream
from appliance.errors import EngineFailed, Loading, SealUnavailable, UpstreamFailed, WeightsInvalid
from appliance.weights.card import Card
from tests.fakes.process import Clock, Nursery, nursery

CARD = Card.model_validate(
    {
        "title": "T", "description": "d", "task": "chat", "source": {"folder": "x"}, "licence": "MIT",
        "quantization": "none", "context_length": 512, "languages": ["en"],
        "hardware": {"devices": ["cpu"], "memory_gib": 1}, "intended_use": "tests",
    }
)  # fmt: skip


async def until(what: Callable[[], Any], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not what():  # noqa: ASYNC110 - states change in the engine's own task
            await asyncio.sleep(0.005)


class Bench:
    """An engine with everything around it in a test's hand."""

    def __init__(self, folder: Path, nursery: Nursery, **settings: Any) -> None:
        self.folder, self.nursery, self.clock = folder, nursery, Clock()
        self.broken: Exception | None = None
        model = LocalModel.model_validate({"card": "t", "startup_seconds": 5, "stall_seconds": 0.3} | settings)
        spec = Spec("chat", CARD, model, folder / "weights", folder / "python", "cpu", "f")
        self.engine = Engine(spec, self.launch, nursery.spawn, backoff=0.01, clock=self.clock)
        self.history: list[tuple[State, str | None]] = []
        become = self.engine._become

        def noted(state: State, reason: str | None = None) -> None:
            self.history.append((state, reason))
            become(state, reason)

        self.engine._become = noted  # type: ignore[method-assign]

    async def launch(self) -> Launch:
        if self.broken:
            raise self.broken
        number = len(self.nursery.spawned)
        log = self.folder / "log"
        return Launch(("python",), {}, self.folder / f"e{number}" / "s", log, (), ())

    @property
    def states(self) -> list[State]:
        return [state for state, _ in self.history]


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "_PROBE_EVERY", 0.01)
    with TemporaryDirectory() as folder:
        async with nursery() as started:
            bench = Bench(Path(folder), started)
            yield bench
            started.answers = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(30):
                    await bench.engine.drain(0)


async def test_it_is_ready_when_it_has_answered_and_not_before(bench: Bench) -> None:
    bench.nursery.answers = False
    bench.engine.start()
    await until(lambda: bench.nursery.spawned)
    await asyncio.sleep(0.05)
    assert bench.engine.state is State.STARTING
    with pytest.raises(Loading) as refused:
        bench.engine.lease()
    assert refused.value.retry_after
    bench.nursery.answers = True
    await bench.engine.until_ready()
    assert bench.states == [State.STARTING, State.READY]


async def test_a_crash_is_visible_and_followed_by_a_restart(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    (bench.folder / "log").write_text("ValueError: out of luck\n")
    bench.nursery.spawned[0].end(1)
    await until(lambda: bench.states[-2:] == [State.STARTING, State.READY] and bench.engine.starts == 2)
    assert bench.states == [State.STARTING, State.READY, State.FAILED, State.STARTING, State.READY]
    assert "exit status 1): ValueError: out of luck" in (bench.history[2][1] or "")


async def test_a_proper_exit_is_a_crash_too(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    bench.nursery.spawned[0].end(0)
    await until(lambda: State.FAILED in bench.states)
    assert "exit status 0" in (bench.history[2][1] or "")


async def test_a_start_that_takes_too_long_has_failed(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    bench.nursery.answers = False
    bench.engine.spec = Spec("chat", CARD, LocalModel(card="t", startup_seconds=0.05), Path(), Path(), "cpu", "f")
    bench.engine.start()
    with pytest.raises(EngineFailed, match="no answer within startup_seconds"):
        await bench.engine.until_ready()
    assert bench.nursery.spawned[0].signals == ["KILL"]
    assert not bench.nursery.spawned[0].launch.socket.exists()


@pytest.mark.parametrize("why", [SealUnavailable("no namespaces"), EngineFailed("the nursery has ended")])
async def test_what_can_not_be_spawned_has_failed_for_a_visible_reason(bench: Bench, why: Exception) -> None:
    bench.nursery.refuses = [why]
    bench.engine.start()
    await until(lambda: State.FAILED in bench.states)
    assert bench.history[1] == (State.FAILED, str(why))
    await until(lambda: bench.engine.state is State.READY)


async def test_a_full_disk_is_a_failed_start_and_not_the_end_of_its_owner(bench: Bench) -> None:
    bench.broken = OSError(28, "No space left on device")
    bench.engine.start()
    async with asyncio.timeout(30):
        with pytest.raises(EngineFailed, match="No space left on device"):
            await bench.engine.until_ready()
    bench.broken = None
    await until(lambda: bench.engine.state is State.READY)


async def test_weights_that_are_not_the_prepared_ones_are_a_failed_start_too(bench: Bench) -> None:
    bench.broken = WeightsInvalid("its checksum differs")
    bench.engine.start()
    async with asyncio.timeout(30):
        with pytest.raises(EngineFailed, match="its checksum differs"):
            await bench.engine.until_ready()
    await until(lambda: bench.engine.starts > 2)
    assert not bench.nursery.spawned
    bench.broken = None
    await until(lambda: bench.engine.state is State.READY)


async def test_it_can_be_ended_while_its_weights_are_read(bench: Bench) -> None:
    reading = asyncio.Event()

    async def read_for_ever() -> Launch:
        reading.set()
        await asyncio.Event().wait()
        raise AssertionError

    engine = Engine(bench.engine.spec, read_for_ever, bench.nursery.spawn, backoff=0.01)
    engine.start()
    await reading.wait()
    assert (engine.state, engine.stage) == (State.STARTING, "checking weights")
    async with asyncio.timeout(30):
        await engine.drain(60)
    assert engine.state is State.STOPPED
    assert not bench.nursery.spawned


async def test_restarts_come_slower_and_slower_and_quick_again_after_a_steady_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    wait_for = asyncio.wait_for

    async def noted(what: Any, delay: float) -> Any:
        waits.append(delay)
        return await wait_for(what, 0)

    monkeypatch.setattr(asyncio, "wait_for", noted)
    bench.nursery.refuses = [EngineFailed("no")] * 14
    bench.engine.start()
    await until(lambda: bench.engine.state is State.READY)
    assert waits[:4] == [0.01, 0.02, 0.04, 0.08]
    assert max(waits) == 60
    bench.clock.now += 3600
    bench.nursery.spawned[-1].end(1)
    await until(lambda: bench.engine.starts == 16)
    assert waits[-1] == 0.01
    bench.engine.backoff = 0.03
    bench.clock.now += 3600
    bench.nursery.spawned[-1].end(1)
    await until(lambda: bench.engine.starts == 17)
    assert waits[-1] == 0.03


async def test_a_stall_is_found_although_it_says_that_it_is_alive(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    bench.nursery.running = 1
    bench.nursery.answers = False
    for _ in range(40):
        bench.clock.now += 0.05
        await asyncio.sleep(0.02)
        if State.FAILED in bench.states:
            break
    assert "stalled" in (bench.history[2][1] or "")
    assert bench.nursery.spawned[0].signals == ["KILL"]


async def test_answers_that_take_no_model_hide_no_stall(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    upstream = bench.engine.upstream
    assert isinstance(upstream, Upstream)
    bench.nursery.running = 1
    bench.nursery.answers = False
    with contextlib.suppress(UpstreamFailed):  # with which the engine ends
        async with asyncio.timeout(20):
            while State.FAILED not in bench.states:
                response = await upstream.post("/v1/messages/count_tokens", b"{}")
                await response.whole()
                response.close()
                bench.clock.now += 0.005
    assert "stalled" in (bench.history[2][1] or "")


async def test_moving_tokens_are_no_stall(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    bench.nursery.running = 1
    for _ in range(30):
        bench.clock.now += 0.05
        bench.nursery.tokens += 1
        await asyncio.sleep(0.02)
    assert bench.states == [State.STARTING, State.READY]


async def test_it_is_read_while_there_are_requests_and_hardly_when_there_are_none(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    told: list[tuple[State, int]] = []
    monkeypatch.setattr(health, "_READ_EVERY", 0.01)
    bench.engine.spec = Spec("chat", CARD, LocalModel(card="t", stall_seconds=3600), Path(), Path(), "cpu", "f")
    bench.engine.listeners.append(lambda: told.append((bench.engine.state, bench.engine.load.running)))
    bench.engine.start()
    await bench.engine.until_ready()
    await asyncio.sleep(0.2)
    assert told == [(State.STARTING, 0), (State.READY, 0)], "its life is asked for every ten minutes here"
    bench.nursery.running = 3
    with bench.engine.lease():
        await until(lambda: told.count((State.READY, 3)) > 3)
    bench.nursery.running = 0
    await until(lambda: bench.engine.load.idle)
    count = len(told)
    await asyncio.sleep(0.2)
    assert len(told) <= count + 1
    bench.nursery.spawned[0].end(1)
    await until(lambda: (State.FAILED, 0) in told)


async def test_draining_waits_for_leases_and_takes_no_new_ones(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    lease = bench.engine.lease()
    draining = asyncio.create_task(bench.engine.drain(60))
    await until(lambda: bench.engine.state is State.DRAINING)
    with pytest.raises(Loading):
        bench.engine.lease()
    await asyncio.sleep(0.05)
    assert not draining.done()
    assert not bench.nursery.spawned[0].signals
    with lease:
        pass
    await draining
    assert bench.engine.state is State.STOPPED
    assert bench.nursery.spawned[0].signals == ["TERM"]
    assert bench.engine.leases == 0


async def test_draining_ends_with_its_time(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    bench.engine.lease()
    bench.engine._clock = time.monotonic
    async with asyncio.timeout(30):
        await bench.engine.drain(0.05)
    assert bench.engine.state is State.STOPPED


async def test_draining_ends_with_the_process(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    bench.engine.lease()
    draining = asyncio.create_task(bench.engine.drain(60))
    await until(lambda: bench.engine.state is State.DRAINING)
    bench.nursery.spawned[0].end(137)
    async with asyncio.timeout(30):
        await draining
    assert bench.engine.starts == 1, "what is to go is not restarted"


async def test_one_that_rests_gives_its_memory_back_until_it_is_woken(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    lease = bench.engine.lease()
    resting = asyncio.create_task(bench.engine.rest(60))
    await until(lambda: bench.engine.state is State.DRAINING)
    with lease:
        assert not bench.nursery.spawned[0].signals
    await resting
    assert bench.engine.state is State.IDLE
    assert bench.nursery.spawned[0].signals == ["KILL"]
    bench.engine.wake()
    await bench.engine.until_ready()
    assert bench.states[3:] == [State.IDLE, State.STARTING, State.READY]
    await bench.engine.rest(0)
    await bench.engine.drain(0)
    assert bench.states[-1] is State.STOPPED


async def test_one_that_is_woken_before_all_have_left_goes_on_as_it_was(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    with bench.engine.lease():
        resting = asyncio.create_task(bench.engine.rest(60))
        await until(lambda: bench.engine.state is State.DRAINING)
        bench.engine.wake()
        await resting
        await bench.engine.until_ready()
    assert bench.engine.starts == 1
    assert not bench.nursery.spawned[0].signals


async def test_one_that_starts_can_be_told_to_rest(bench: Bench) -> None:
    bench.nursery.answers = False
    bench.engine.start()
    await until(lambda: bench.nursery.spawned)
    async with asyncio.timeout(30):
        await bench.engine.rest(60)
    assert bench.engine.state is State.IDLE
    assert bench.nursery.spawned[0].ended.done()


async def test_one_that_crashes_can_be_told_to_rest(bench: Bench) -> None:
    bench.nursery.refuses = [EngineFailed("no")] * 100
    bench.engine.backoff = 60
    bench.engine.start()
    await until(lambda: bench.engine.state is State.FAILED)
    async with asyncio.timeout(30):
        await bench.engine.rest(60)
    assert bench.engine.starts == 1


async def test_one_that_sleeps_keeps_its_process(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    bench.engine.can_sleep = True
    await bench.engine.rest(60, asleep=True)
    assert bench.engine.state is State.ASLEEP
    assert not bench.nursery.spawned[0].signals
    bench.engine.wake()
    await bench.engine.until_ready()
    assert bench.engine.starts == 1
    await bench.engine.rest(60, asleep=True)
    bench.nursery.spawned[0].end(137)
    await until(lambda: bench.engine.state is State.IDLE)
    bench.engine.wake()
    await bench.engine.until_ready()
    assert bench.engine.starts == 2


async def test_one_that_sleeps_and_is_to_rest_has_rested_when_its_process_is_gone(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    bench.engine.can_sleep = True
    await bench.engine.rest(60, asleep=True)
    async with asyncio.timeout(30):
        await bench.engine.rest(60)
    assert (bench.engine.state, bench.engine.process) == (State.IDLE, None)


async def test_one_that_gives_way_does_so_until_it_has_answered_and_only_once(bench: Bench) -> None:
    bench.engine.gives_way = True
    bench.engine.start()
    await bench.engine.until_ready()
    assert bench.nursery.spawned[0].launch.gives_way
    assert bench.nursery.spawned[0].signals == ["HURRY"]
    bench.nursery.spawned[0].end(1)
    await until(lambda: bench.engine.starts == 2 and bench.engine.state is State.READY)
    assert not bench.nursery.spawned[1].launch.gives_way


@pytest.mark.parametrize("answers", [True, False])
async def test_it_can_be_ended_at_any_moment(bench: Bench, answers: bool) -> None:
    bench.nursery.answers = answers
    for moment in range(6):
        engine = Engine(bench.engine.spec, bench.launch, bench.nursery.spawn, backoff=0.01)
        engine.start()
        for _ in range(moment):
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await engine.drain(0)
        assert engine.state is State.STOPPED
        assert engine.process is None
        assert engine.upstream is None
    assert all(process.ended.done() for process in bench.nursery.spawned)


async def test_what_it_tells_of_itself(bench: Bench) -> None:
    bench.engine.start()
    await bench.engine.until_ready()
    with bench.engine.lease():
        told = dict(describe(bench.engine))
    assert told == {
        "state": "ready", "card": "t", "quantization": "none", "reason": None, "stage": None,
        "starts": 1, "requests": 1, "pid": 1, "seal_missing": (), "weights": "f", "device": "cpu",
    }  # fmt: skip


async def test_whoever_waits_for_the_nurserys_end_is_told(tmp_path: Path) -> None:
    for name in ("logs", "run", "cache"):
        (tmp_path / name).mkdir()
    nursery = RealNursery.start(tmp_path, tmp_path / "models", Path(sys.prefix))
    ended = asyncio.create_task(nursery.ended())
    done, _ = await asyncio.wait([ended], timeout=0.05)
    assert not done
    os.kill(nursery.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await ended
    await nursery.close()
