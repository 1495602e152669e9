"""An engine that starts gives way, and is as any other once it has answered: also where nobody is privileged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from appliance.engines.priority import Ways
from appliance.engines.process import Nursery
from tests.fakes.people import EVERYBODYS, PEOPLE

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
SLEEPS = "import time; time.sleep(601.25)"
# an engine with a thread and a child of its own; says when it has both, and what they weigh whenever it is asked
BROOD = """
import json, os, sys, threading, time
from appliance.engines.priority import Ways, join_group, lead_group, stop_giving_way
def weights(pid):
    group = open(f"/proc/{pid}/autogroup").read().split()[-1] if os.path.exists(f"/proc/{pid}/autogroup") else "0"
    return int(group), sorted(os.getpriority(os.PRIO_PROCESS, int(each)) for each in os.listdir(f"/proc/{pid}/task"))
ways = Ways.here()
done, tell = os.pipe()
init = os.fork()
if init == 0:
    lead_group(ways)
    if os.fork():
        time.sleep(60)
    join_group(ways)
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    child = os.fork()
    if child:
        os.write(tell, f"{os.getpid()} {child}".encode())
    time.sleep(60)
    os._exit(0)
engine, child = map(int, os.read(done, 32).split())
before = weights(engine), weights(child)
stop_giving_way(os.getpid())
print(json.dumps([[ways.group, ways.nice], before, [weights(engine), weights(child)]]))
for pid in (init, engine, child):
    os.kill(pid, 9)
"""


@pytest.mark.parametrize("user", PEOPLE)
def test_what_gives_way_is_as_any_other_afterwards(user: int | None) -> None:
    command = [sys.executable if user is None else str(EVERYBODYS), "-c", BROOD]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    (group, nice), before, after = json.loads(told)
    least = 10 if nice else 5
    assert before == [[5 if group else 0, [least] * 2], [5 if group else 0, [least]]]
    assert after == [[0, [5, 5]], [0, [5]]]


def weight(pid: int) -> tuple[int, int]:
    """What a process weighs: its session, and itself."""
    file = Path(f"/proc/{pid}/autogroup")
    group = file.read_text().split()[-1] if file.exists() else "0"
    return int(group), os.getpriority(os.PRIO_PROCESS, pid)


async def test_an_engine_under_its_seal_gives_way_until_it_is_told_to_hurry() -> None:
    with TemporaryDirectory(dir="/var/tmp") as folder:
        state = Path(folder)
        for name in ("logs", "run/e1", "cache"):
            (state / name).mkdir(parents=True)
        nursery = Nursery.start(state, state / "models", Path(sys.prefix))
        try:
            engine = await nursery.spawn(
                [str(Path(sys.prefix) / "bin" / "python"), "-c", SLEEPS], {},
                state / "logs" / "chat.log", [], [state / "run" / "e1"], gives_way=True,
            )  # fmt: skip
            ways = Ways.here()
            least = (5 if ways.group else 0, 10 if ways.nice else 5)
            await until_all_weigh(least)
            engine.hurry()
            await until_all_weigh((0, 5))
        finally:
            await nursery.close()


async def until_all_weigh(expected: tuple[int, int]) -> None:
    """Wait until the engine's process weighs that."""
    async with asyncio.timeout(PATIENCE):
        while weights() != [expected]:  # noqa: ASYNC110 - only looking tells
            await asyncio.sleep(0.02)


def weights() -> list[tuple[int, int]]:
    """What those processes weigh that sleep for so long."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and SLEEPS.encode() in (folder / "cmdline").read_bytes():
                found.append(weight(int(folder.name)))
    return found


KILLED = """
import os, signal
from appliance.engines import priority
priority._tried(lambda: None, lambda child: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_nothing_outlives_a_nursery_that_is_killed_while_it_tries() -> None:
    held, holds = os.pipe()
    command = [sys.executable, "-c", KILLED, str(holds)]
    assert subprocess.run(command, cwd=ROOT, pass_fds=[holds], timeout=PATIENCE, check=False).returncode == -9
    os.close(holds)
    assert select.select([held], [], [], PATIENCE)[0]  # the last one that could write has ended
    os.close(held)
