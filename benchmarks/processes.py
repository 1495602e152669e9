"""What a program and all it started takes of the machine, and how it is started and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import psutil

from appliance.seal.kernel import die_with_parent


class Broken(Exception):
    """A program did not come up, or has ended by itself; the message says which and what it last said."""


def tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def processor_seconds(pid: int, *, alone: bool = False) -> float:
    """User and system time so far of the tree (with that of children it has waited for), or of `pid` `alone`.

    Counts in steps of 10 ms.
    """
    if alone:
        return sum(psutil.Process(pid).cpu_times()[:2])
    total = 0.0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def resident_bytes(pid: int) -> int:
    """Resident memory of the tree; pages that processes share count in each, so this is an upper bound."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: list[str], log: Path, answers: Callable[[], bool], *, seconds: float, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a group of its own, from when it `answers` until the end of the block.

    Its output goes to `log`; when this process is killed, it is ended too. Raises `Broken` when it ends before
    it has answered, or takes over `seconds`.
    """
    with log.open("wb") as output:
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, **environment},
            preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - no threads here
        )  # fmt: skip
    try:
        until = time.monotonic() + seconds
        while not answers():
            if program.poll() is not None or time.monotonic() > until:
                said = log.read_text(errors="replace").strip()[-2000:]
                what = "took too long" if program.returncode is None else f"ended with status {program.returncode}"
                raise Broken(f"{Path(command[0]).name} {what}:\n{said}")
            time.sleep(0.1)
        yield program
    finally:
        _end(program)


def _end(program: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGTERM)
    try:
        program.wait(20)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
