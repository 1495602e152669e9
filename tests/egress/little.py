"""An appliance in little, whose seals a test leaves open in one place: gateway, nursery and one engine."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from appliance.egress import processes, started
from appliance.egress.findings import Process

ROOT = Path(__file__).parents[2]
PLACE = "engine chat"
IDLE = "import signal; signal.pause()"

_APPLIANCE = """
import asyncio, json, os, socket, subprocess, sys, threading
from pathlib import Path
from appliance.engines.process import Nursery
from appliance.seal import kernel, parts, view
from appliance.seal.gateway import seal_gateway

folder, before, after, engine = json.loads(sys.argv[1])
folder = Path(folder)
public = socket.create_server(("127.0.0.1", 0))
control = socket.socket(socket.AF_UNIX)
control.bind(str(folder / "state" / "control.sock"))
control.listen()
nursery = Nursery.start(folder / "nest", folder / "models", Path(sys.prefix))
exec(before)
seal = seal_gateway(view.interpreter(), [folder / "state"], best_effort=bool(before))
exec(after)

async def main():
    kept = await nursery.spawn(
        [sys.executable, "-c", engine, str(folder / "nest/run/e1")], {}, folder / "nest/logs/engine.log", [],
        [folder / "nest/run/e1"],
    )
    print(json.dumps([nursery.pid, kept.pid, public.getsockname()[1]]), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await nursery.close()

asyncio.run(main())
"""


class Little:
    """Runs from `with` to its end. `folder` holds `state`, which the gateway sees; `engine` is what its engine sees."""

    def __init__(self, *, before: str = "", after: str = "", engine: str = IDLE) -> None:
        """`before` and `after` its seal the gateway runs some code; the engine gets its folder as an argument.

        With code before it, the seal is best-effort.
        """
        self._made = tempfile.TemporaryDirectory(dir="/var/tmp")
        self.folder = Path(self._made.name)
        self.engine = self.folder / "nest" / "run" / "e1"
        for name in ("state", "nest/logs", "nest/cache", "nest/run/e1"):
            (self.folder / name).mkdir(parents=True)
        self._asked = json.dumps([str(self.folder), before, after, engine])

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _APPLIANCE, self._asked],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.nursery, self.keeper, self.port = json.loads(self.process.stdout.readline())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self.process:
            pass  # its input ends, and so does it
        self._made.cleanup()

    def look(self, trouble: list[str] | None = None) -> list[Process]:
        """Its processes. Without a list for it there may be no trouble."""
        lines: list[str] = [] if trouble is None else trouble
        trusted = {self.nursery: started.known(self.nursery, "nursery")}
        seen = processes.look(self.process.pid, {self.keeper: PLACE}, trusted, lines)
        assert trouble is not None or lines == []
        return seen

    def of(self, role: str) -> list[Process]:
        """Its processes of one role."""
        return [process for process in self.look() if process.role == role]


def enter(pid: int, *kinds: str, thread: bool = False) -> None:
    """Have this process, which has one thread, live in another's namespaces, the user's too where it has its own.

    Or this `thread` alone, in the network.
    """
    flags = {"net": 0x40000000, "user": 0x10000000}
    wanted = {"net", *kinds}
    if not thread and Path("/proc/self/ns/user").stat().st_ino != Path(f"/proc/{pid}/ns/user").stat().st_ino:
        wanted.add("user")
    if ctypes.CDLL(None, use_errno=True).setns(os.pidfd_open(pid), sum(flags[kind] for kind in wanted)):
        raise OSError(ctypes.get_errno(), "setns")


def beside(pid: int, code: str) -> subprocess.Popen[str]:
    """A process that runs `code` in the network of process `pid`, and says a line when it is there."""
    return started_by(f"from tests.egress.little import enter; enter({pid}); print('there', flush=True); {code}")


def started_by(code: str, *descriptors: int) -> subprocess.Popen[str]:
    """A process that runs `code`, in which it says that it is `there`."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, pass_fds=descriptors
    )
    assert process.stdout
    assert process.stdout.readline() == "there\n"
    return process


def daemon(path: Path) -> socket.socket:
    """A service of the host's that listens at `path`."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener
