"""Nothing of an engine outlives the appliance, whoever is killed and in whatever order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from appliance.engines.nursery import program
from appliance.engines.process import Nursery
from appliance.errors import EngineFailed, SealUnavailable

ROOT = Path(__file__).parents[2]
PYTHON = [Path(sys.prefix), Path(sys.base_prefix)]
PATIENCE = 20.0

# A leader, a child, and a daemon that double-forked into a session of its own; all ignore SIGTERM.
TREE = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
leader = os.getpid()
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
held = socket.socket(socket.AF_UNIX)
held.connect(sys.argv[1])
held.sendall(b"leader" if os.getpid() == leader else b"other")
held.recv(1)
"""
TREE_SIZE = 3

# An appliance in little: nursery, seal, event loop, one engine.
APPLIANCE = """
import asyncio, json, os, sys, uvloop
from pathlib import Path
from appliance.engines.process import Nursery
from appliance.seal import kernel, view
from appliance.seal.gateway import seal_gateway

run, level, folder, command = json.loads(sys.argv[1])
folder = Path(folder)
if level == "best-effort":  # a kernel that grants no namespace, as in Docker by default
    kernel._X86["unshare"], kernel._ARM["unshare"] = 272, 97
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.seccomp([kernel.never("unshare")])
nursery = Nursery.start(folder, folder / "models", Path(sys.prefix), level)
seal_gateway([*view.interpreter(), folder], best_effort=level == "best-effort")

async def main():
    engine = await nursery.spawn(command, {}, folder / "logs" / "e.log", [], [folder / "run" / "e1"], seal=level)
    print(json.dumps([nursery.pid, engine.pid, engine.seal.holds, engine.seal.missing]), flush=True)
    print(await engine.wait(), flush=True)
    await nursery.close()

{"asyncio": asyncio.run, "uvloop": uvloop.run}[run](main())
"""


class House:
    """A running appliance whose engine is TREE, with a handle on every process of it."""

    def __init__(self, folder: Path, level: str, run: str = "asyncio") -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        tree = str(folder / "run" / "e1" / "tree")
        self._listener.bind(tree)
        self._listener.listen()
        self._listener.settimeout(PATIENCE)
        asked = json.dumps([run, level, str(folder), [sys.executable, "-c", TREE, tree]])
        self.process = subprocess.Popen(
            [sys.executable, "-c", APPLIANCE, asked], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.nursery, self.keeper, self.holds, self.missing = json.loads(self.process.stdout.readline())
        self._connections = [self._listener.accept()[0] for _ in range(TREE_SIZE)]
        self.handles = [os.pidfd_open(self._peer(connection)) for connection in self._connections]

    def end_leader(self) -> None:
        """Have the engine's first process end by itself."""
        for connection in self._connections:
            if connection.recv(6) == b"leader":
                connection.sendall(b".")

    @staticmethod
    def _peer(connection: socket.socket) -> int:
        pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid

    def all_gone(self) -> bool:
        """Whether every process of the engine ends in time; a pidfd is readable from then on."""
        return all(select.select([handle], [], [], PATIENCE)[0] for handle in self.handles)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        for connection in (self._listener, *self._connections):
            connection.close()
        for handle in self.handles:
            os.close(handle)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A state folder, with the folder of an engine's start in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        for name in ("logs", "cache", "run/e1"):
            Path(made, name).mkdir(parents=True)
        yield Path(made)


@contextlib.contextmanager
def house(folder: Path, level: str, run: str = "asyncio") -> Iterator[House]:
    made = House(folder, level, run)
    try:
        yield made
    finally:
        made.close()


def kill(*pids: int) -> None:
    """SIGKILL all at the same moment: stopped first, none can act on another's end."""
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, signum)


VICTIMS = {
    "appliance": lambda h: [h.process.pid],
    "keeper": lambda h: [h.keeper],
    "nursery": lambda h: [h.nursery],
    "appliance and keeper": lambda h: [h.process.pid, h.keeper],
    "keeper and appliance": lambda h: [h.keeper, h.process.pid],
    "appliance, nursery and keeper": lambda h: [h.process.pid, h.nursery, h.keeper],
    "keeper, nursery and appliance": lambda h: [h.keeper, h.nursery, h.process.pid],
}


@pytest.mark.parametrize("victims", VICTIMS)
def test_no_sigkill_leaves_a_process_of_the_engine(folder: Path, victims: str) -> None:
    with house(folder, "required") as running:
        assert running.missing == []
        kill(*VICTIMS[victims](running))
        assert running.all_gone()


@pytest.mark.parametrize("victims", [name for name in VICTIMS if "nursery and" not in name])
def test_without_namespaces_it_takes_nursery_and_keeper_at_once_to_leave_one(folder: Path, victims: str) -> None:
    with house(folder, "best-effort") as running:
        assert not any("namespace" in part for part in running.holds)
        assert any("process namespace" in line and "user namespaces" in line for line in running.missing)
        kill(*VICTIMS[victims](running))
        assert running.all_gone()


@pytest.mark.parametrize("level", ["required", "best-effort"])
def test_an_engine_that_ends_leaves_no_process(folder: Path, level: str) -> None:
    with house(folder, level) as running:
        running.end_leader()
        assert running.process.stdout
        assert running.process.stdout.readline() == "0\n"
        assert all(select.select([handle], [], [], 0)[0] for handle in running.handles)


def test_a_sealed_appliance_hears_of_a_killed_keeper_when_all_of_the_engine_is_gone(folder: Path) -> None:
    with house(folder, "required", "uvloop") as running:
        kill(running.keeper)
        assert running.process.stdout
        assert running.process.stdout.readline() == "137\n"
        assert all(select.select([handle], [], [], 0)[0] for handle in running.handles)


def test_a_required_seal_that_the_kernel_refuses_says_which_why_and_how(folder: Path) -> None:
    refused = APPLIANCE.replace('level == "best-effort"', "True").replace("seal_gateway()\n", "\n", 1)
    asked = json.dumps(["asyncio", "required", str(folder), [sys.executable]])
    done = subprocess.run([sys.executable, "-c", refused, asked], cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "SealUnavailable: the seal lacks" in last
    assert "namespace: Operation not permitted (EPERM)" in last
    assert "Docker" in last


@pytest.fixture
async def nursery(folder: Path) -> AsyncIterator[Nursery]:
    made = Nursery.start(folder, folder / "models", Path(sys.prefix))
    yield made
    await made.close()


async def run(nursery: Nursery, folder: Path, code: str, *, grace: float = 10.0) -> tuple[int, str]:
    log = folder / "logs" / "e.log"
    command = [sys.executable, "-c", code]
    engine = await nursery.spawn(command, {"LANG": "C"}, log, [], [folder / "run" / "e1"], grace=grace)
    return await asyncio.wait_for(engine.wait(), PATIENCE), log.read_text()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 11)", 139),
        ("import os; os.kill(0, 10)", 138),
    ],
)
async def test_the_engines_exit_status_is_passed_on(nursery: Nursery, folder: Path, code: str, status: int) -> None:
    assert (await run(nursery, folder, code))[0] == status


async def test_output_and_environment_are_the_engines_own(nursery: Nursery, folder: Path) -> None:
    (folder / "logs" / "e.log").write_text("before\n")
    code = "import os, sys; print('out', flush=True); print('err', file=sys.stderr); print(sorted(os.environ))"
    _, log = await run(nursery, folder, code)
    assert log.splitlines()[:3] == ["before", "out", "err"]
    assert "'LANG'" in log
    assert "'PATH'" not in log


async def test_an_engine_gives_way_to_the_gateway(nursery: Nursery, folder: Path) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    code = f"import os, sys; sys.exit(os.getpriority(os.PRIO_PROCESS, 0) - {own})"
    assert (await run(nursery, folder, code))[0] > 0


async def test_the_environment_of_an_engine_is_not_that_of_its_keeper(nursery: Nursery, folder: Path) -> None:
    """Else LD_PRELOAD would run in the keeper, before the seal."""
    ready = folder / "run" / "e1" / "ready"
    os.mkfifo(ready)
    code = f"import os; open({str(ready)!r}, 'w').write(os.environ['LD_PRELOAD']); open({str(ready)!r}).read()"
    engine = await nursery.spawn(
        [sys.executable, "-c", code], {"LD_PRELOAD": "libnone.so"}, folder / "logs" / "e.log", [], [ready.parent]
    )
    assert await asyncio.to_thread(ready.read_text) == "libnone.so"
    environ = Path(f"/proc/{engine.pid}/environ")
    assert b"LD_PRELOAD" not in await asyncio.to_thread(environ.read_bytes)
    engine.kill()
    await asyncio.wait_for(engine.wait(), PATIENCE)


WAITS = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, {handler})
pathlib.Path({ready!r}).open("w").close()
while True:
    signal.pause()
"""


async def started(nursery: Nursery, folder: Path, handler: str, grace: float) -> tuple[int, float]:
    """Exit status of an engine with that handler, and the seconds from SIGTERM to its end."""
    ready = folder / "run" / "e1" / "ready"
    os.mkfifo(ready)
    code = WAITS.format(handler=handler, ready=str(ready))
    command = [sys.executable, "-c", code]
    engine = await nursery.spawn(command, {}, folder / "logs" / "e.log", [], [ready.parent], grace=grace)
    await asyncio.to_thread(ready.read_text)
    engine.terminate()
    begun = asyncio.get_running_loop().time()
    status = await asyncio.wait_for(engine.wait(), PATIENCE)
    return status, asyncio.get_running_loop().time() - begun


async def test_sigterm_reaches_the_engine_which_may_end_in_its_own_way(nursery: Nursery, folder: Path) -> None:
    status, took = await started(nursery, folder, "lambda *_: sys.exit(5)", grace=PATIENCE)
    assert status == 5
    assert took < PATIENCE / 2


async def test_an_engine_that_ignores_sigterm_is_killed_after_the_grace(nursery: Nursery, folder: Path) -> None:
    status, took = await started(nursery, folder, "signal.SIG_IGN", grace=0.2)
    assert status == 137
    assert took >= 0.2


async def test_several_engines_at_once(nursery: Nursery, folder: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    engines = await asyncio.gather(
        *(nursery.spawn(command, {}, folder / "logs" / f"{n}.log", [], []) for n in range(3))
    )
    assert len({engine.pid for engine in engines}) == 3
    engines[0].kill()
    assert await asyncio.wait_for(engines[0].wait(), PATIENCE) == 137
    engines[1].terminate()
    assert await asyncio.wait_for(engines[1].wait(), PATIENCE) == 143
    engines[1].terminate()
    still = asyncio.create_task(engines[2].wait())
    await nursery.close()
    assert await asyncio.wait_for(still, PATIENCE) == 137


async def test_a_nursery_starts_nothing_under_less_than_its_seal(nursery: Nursery, folder: Path) -> None:
    with pytest.raises(SealUnavailable, match="nothing without the whole seal"):
        await nursery.spawn([sys.executable], {}, folder / "logs" / "e.log", [], [], seal="best-effort")


async def test_a_missing_program_fails_at_once(nursery: Nursery, folder: Path) -> None:
    with pytest.raises(EngineFailed, match="no such program"):
        await nursery.spawn([str(folder / "none")], {}, folder / "logs" / "e.log", [], [])


async def test_without_a_nursery_spawn_says_to_restart(nursery: Nursery, folder: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    engine = await nursery.spawn(command, {}, folder / "logs" / "e.log", [], [])
    os.kill(nursery.pid, signal.SIGKILL)
    assert await asyncio.wait_for(engine.wait(), PATIENCE) == 137
    with pytest.raises(EngineFailed, match="restart the appliance"):
        await nursery.spawn(command, {}, folder / "logs" / "e.log", [], [])


def test_a_command_that_cannot_run_shows_as_127_and_in_the_log(folder: Path) -> None:
    options = [f"--log={folder / 'log'}"]
    done = subprocess.run(
        program("engines.keeper", *options, "--", "/none"), stdout=subprocess.DEVNULL, timeout=PATIENCE, check=False
    )
    assert done.returncode == 127
    assert (folder / "log").read_text() == "keeper: /none: No such file or directory\n"


def test_an_engine_inherits_no_descriptor(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        leaked = opened.fileno()
        code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
        options = [f"--log={folder / 'log'}", *(f"--readable={path}" for path in PYTHON)]
        subprocess.run(
            program("engines.keeper", *options, "--", sys.executable, "-c", code),
            pass_fds=[leaked],
            stdout=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=True,
        )
    assert (folder / "log").read_text() == "[0, 1, 2, 3]\n"  # 3 is the listing itself
