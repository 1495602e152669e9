"""Whatever happens to a detector, to the gate or to whoever starts them: a request is released right, or it stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest

from appliance.privacy.guard import Guard
from appliance.privacy.verdict import Held, Verdict
from tests.fakes.guards import asked, configured, guarded, process, soon, workers
from tests.fakes.house import ROOT, House, over, until

FAULTS = {
    "CRASH": "it is killed",
    "RAISE": "it raises an error",
    "MEMORY": "it asks for more memory than it may have",
    "BABBLE": "it answers with what is no JSON",
    "OUTSIDE": "it finds something beyond the text",
    "BACKWARDS": "its finds are not in order",
    "EMPTY": "it finds nothing between two letters",
    "MANY": "it finds more than there can be",
    "STOP": "it is stopped",
    "HANG": "it hangs inside C code",
    "SLOW": "it is too slow",
}

SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 25))]


def fine(verdict: Verdict, *originals: str) -> bool:
    """Whether it was released, and rightly: with each of `originals` replaced."""
    hidden = all(original.encode() not in verdict.payload for original in originals)
    return verdict.held is None and hidden and sorted(verdict.originals.values()) == sorted(originals)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: FAULTS[fault])
async def test_a_detector_that_fails_holds_that_request_and_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    async with guarded(house, monkeypatch, seconds=1) as guard:
        (before,) = await soon(lambda: workers(guard))
        verdict = await guard.protect(asked(f"Anna Weber {fault}"))
        assert (verdict.held, verdict.payload, verdict.ticket, verdict.originals) == (Held.DETECTOR, b"", "", {})
        assert "Anna" not in verdict.why
        await soon(lambda: over(before))  # none goes on after a fault: the next is a fresh one
        assert fine(await guard.protect(asked("Anna Weber")), "Anna Weber")
        assert guard.describe()["detectors_started"] == 2


async def test_a_detector_that_is_killed_while_it_waits_is_replaced(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch) as guard:
        assert fine(await guard.protect(asked("Anna Weber")), "Anna Weber")
        (worker,) = workers(guard)
        worker.kill()
        await soon(lambda: guard.describe()["detectors_started"] == 2)
        assert fine(await guard.protect(asked("Anna Weber")), "Anna Weber")


async def test_a_request_may_take_less_time_than_the_config_allows(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch, seconds=60) as guard:
        async with asyncio.timeout(20):
            verdict = await guard.protect(asked("SLOW", seconds=0.2))
        assert verdict.held is Held.DETECTOR


async def test_a_gate_that_is_killed_holds_all_at_once_and_takes_the_detectors_along(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch, seconds=60) as guard:
        family = [process(guard, "template"), *await soon(lambda: workers(guard))]
        waiting = [asyncio.create_task(guard.protect(asked("SLOW"))) for _ in range(3)]
        await soon(lambda: guard.describe()["looking"] == 3)
        process(guard, "gate").kill()
        async with asyncio.timeout(30):
            await guard.ended()
            assert {verdict.held for verdict in await asyncio.gather(*waiting)} == {Held.GATE}
            assert (await guard.protect(asked("Guten Tag"))).held is Held.GATE
        assert guard.describe()["gone"] == 1
        until(lambda: all(map(over, family)))


async def test_a_gate_that_is_stopped_answers_nobody_and_holds_nobody_up_for_long(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch) as guard:
        gate = process(guard, "gate")
        gate.suspend()
        async with asyncio.timeout(10):
            verdict = await guard.protect(asked("Guten Tag", seconds=0.2))
        assert verdict.held is Held.GATE
        gate.resume()
        assert (await guard.protect(asked("Guten Tag"))).held is None


async def test_without_the_template_detectors_work_on_until_they_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch, processes=2) as guard:
        assert fine(await guard.protect(asked("Anna Weber")), "Anna Weber")
        await soon(lambda: guard.describe()["detectors"] == 2)
        template = process(guard, "template")
        left = workers(guard)
        template.kill()
        async with asyncio.timeout(30):
            await guard.ended()
        await soon(lambda: not guard.describe()["detectors_replaced"])
        assert fine(await guard.protect(asked("Anna Weber")), "Anna Weber")
        for fault in range(2):
            assert (await guard.protect(asked("CRASH"))).held is Held.DETECTOR, fault
        await soon(lambda: guard.describe()["detectors"] == 0)
        async with asyncio.timeout(5):  # at once, not when its time is over
            verdict = await guard.protect(asked("Guten Tag"))
        assert verdict.held is Held.DETECTOR
        assert all(map(over, left))


GATEWAY = """
import asyncio, sys
from pathlib import Path
from appliance import config
from appliance.privacy import guard as guards
from tests.fakes import detector
from tests.fakes.guards import asked, soon, workers

async def run():
    guards._COMMAND = detector.COMMAND
    guard = guards.Guard.start(config.load(Path(sys.argv[1])))
    await soon(lambda: workers(guard))
    for text in sys.argv[2:]:
        busy = asyncio.create_task(guard.protect(asked(text)))
        await soon(lambda: guard.describe()["looking"])
    print(*guard.pids, *(each.pid for each in workers(guard)), flush=True)
    await asyncio.Event().wait()

asyncio.run(run())
"""


@pytest.mark.parametrize("work", [["HANG"], ["STOP"], []], ids=["hanging", "stopped", "idle"])
def test_nothing_outlives_a_gateway_that_is_killed(house: House, work: list[str]) -> None:
    made = configured(house, detectors={"seconds": 60})
    command = [sys.executable, "-c", GATEWAY, str(made.file), *work]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout
        family = [psutil.Process(int(pid)) for pid in gateway.stdout.readline().split()]
        assert len(family) == 3
        gateway.kill()
        until(lambda: all(map(over, family)))


@pytest.mark.parametrize("first", ["template", "gate"])
def test_nothing_outlives_a_gateway_that_lost_one_of_them_before(house: House, first: str) -> None:
    made = configured(house, detectors={"seconds": 2})
    command = [sys.executable, "-c", GATEWAY, str(made.file), "HANG"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout
        family = [psutil.Process(int(pid)) for pid in gateway.stdout.readline().split()]
        family[0 if first == "template" else 1].kill()
        gateway.kill()
        until(lambda: all(map(over, family)))


async def beset(guard: Guard, requests: int, attack: Callable[[random.Random], None], seed: int) -> list[Verdict]:
    """Many requests at once, while something happens to the processes again and again."""
    chance, done = random.Random(seed), asyncio.Event()  # noqa: S311

    async def attacks() -> None:
        while not done.is_set():
            with contextlib.suppress(psutil.NoSuchProcess):
                attack(chance)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), chance.uniform(0, 0.05))

    attacking = asyncio.create_task(attacks())
    verdicts = await asyncio.gather(
        *(guard.protect(asked(f"Person-{at} und Person-{at + 1000} {'lang ' * chance.randrange(500)}"))
          for at in range(requests))
    )  # fmt: skip
    done.set()
    await attacking
    return verdicts


@pytest.mark.parametrize("seed", SEEDS)
async def test_under_load_and_under_fire_each_verdict_is_right_or_holds(
    house: House, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    def attack(chance: random.Random) -> None:
        running = workers(guard)
        if running:
            victim = chance.choice(running)
            victim.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP]))

    async with guarded(house, monkeypatch, processes=16, seconds=3) as guard:
        verdicts = await beset(guard, 64, attack, seed)
        for at, verdict in enumerate(verdicts):
            right = fine(verdict, f"Person-{at}", f"Person-{at + 1000}")
            assert right or (verdict.held is Held.DETECTOR and verdict.payload == b""), (at, verdict)
        counted = guard.describe()
        assert counted["released"] + counted["held_detector"] == 64
        # and with fresh ones it is well again
        left = workers(guard)
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        await soon(lambda: len(now := workers(guard)) == 16 and not {*now} & {*left})
        await soon(lambda: guard.describe()["detectors"] == 16)
        assert fine(await guard.protect(asked("Anna Weber")), "Anna Weber")


@pytest.mark.parametrize("seed", SEEDS)
async def test_when_the_gate_dies_under_load_each_verdict_is_right_or_holds(
    house: House, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    async with guarded(house, monkeypatch, processes=16) as guard:
        gate = process(guard, "gate")
        verdicts = await beset(guard, 64, lambda chance: gate.kill() if chance.random() < 0.3 else None, seed)
        for at, verdict in enumerate(verdicts):
            right = fine(verdict, f"Person-{at}", f"Person-{at + 1000}")
            assert right or (verdict.held in (Held.GATE, Held.DETECTOR) and verdict.payload == b""), (at, verdict)


async def test_nothing_of_a_request_is_printed_whatever_fails(
    house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with guarded(house, monkeypatch, seconds=1) as guard:
        for fault in FAULTS:
            await guard.protect(asked(f"Anna Weber {fault}"))
        await guard.protect(asked("Anna Weber \ud800"))
    printed = json.dumps(capfd.readouterr())
    assert "Anna" not in printed
    assert "Weber" not in printed
