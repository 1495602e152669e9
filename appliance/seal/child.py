"""A process of the appliance's with a seal of its own, from both ends: of whoever starts it, and its own.

It is started before the gateway seals itself. It gets its orders once, as a line of JSON on standard input, seals
itself, and says on standard output what holds. After that, standard input brings orders to try the seal from inside.
It ends when standard input closes, as it does when the gateway ends: the kernel's signal at a parent's death wouldn't
come, since the gateway's seal keeps it from signalling whoever isn't under that seal, and that is held against it even
while it dies.

Imports the standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import appliance
from appliance.errors import ApplianceError, SealUnavailable
from appliance.seal import probes
from appliance.seal.evidence import as_json, evidence
from appliance.seal.parts import Seal

PROBE_SECONDS = 4


class Child:
    """The process, as the gateway holds it."""

    def __init__(
        self, name: str, command: Sequence[str], handed: Sequence[socket.socket], failed: type[ApplianceError],
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Start Python with `command`, to which the numbers of the descriptors `handed` are added.

        `failed` is what is raised when it is gone.
        """
        self.name = name
        self._failed = failed
        numbers = [each.fileno() for each in handed]
        self._process = subprocess.Popen(
            [sys.executable, *command, *map(str, numbers)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={
                "PATH": os.defpath, "PYTHONPATH": str(Path(appliance.__file__).parents[1]), **(environment or {})
            },
            pass_fds=numbers,
        )  # fmt: skip
        self._probing = asyncio.Lock()
        self._numbers = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def say(self, message: Mapping[str, Any]) -> None:
        """Write a line to its standard input. Raises `OSError` when it has ended."""
        assert self._process.stdin is not None  # noqa: S101 - asked for at the start
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def sealed(self) -> tuple[Seal, dict[str, Any]]:
        """Wait until it is sealed: what holds around it, and all that it said then.

        Raises `SealUnavailable` when the kernel refused a part, and the error for one that is gone or could not start.
        """
        assert self._process.stdout is not None  # noqa: S101 - asked for at the start
        told = json.loads(self._process.stdout.readline() or b"null")
        if told is None:
            raise self._failed(f"the {self.name} ended before it was sealed; what it printed says why")
        if "error" in told:
            raise SealUnavailable(told["error"])
        if "failed" in told:
            raise self._failed(told["failed"])
        return Seal(tuple(told["holds"]), tuple(told["missing"])), told

    async def probe(self, order: Mapping[str, Any]) -> dict[str, str]:
        """Carry out an order of `appliance.seal.probes` inside its seal: what became of each attempt.

        It is a sealed process's word. Raises the error for one that is gone, also when nothing could be tried, and
        `TimeoutError` after some seconds without an answer.
        """
        async with self._probing:
            self._numbers += 1
            try:
                self.say({"number": self._numbers, "order": dict(order)})
            except OSError as cause:
                raise self._failed(f"the {self.name} has ended") from cause
            async with asyncio.timeout(PROBE_SECONDS):
                return await self._outcome(self._numbers)

    async def _outcome(self, number: int) -> dict[str, str]:
        output = self._process.stdout
        assert output is not None  # noqa: S101 - asked for at the start
        readable, loop = asyncio.Event(), asyncio.get_running_loop()
        os.set_blocking(output.fileno(), False)
        loop.add_reader(output, readable.set)
        received = b""
        try:
            while True:
                await readable.wait()
                readable.clear()
                data = os.read(output.fileno(), 1 << 16)
                if not data:
                    raise self._failed(f"the {self.name} has ended")
                *lines, received = (received + data).split(b"\n")
                for line in lines:
                    if (outcome := self._parsed(line, number)) is not None:
                        return outcome
        finally:
            loop.remove_reader(output)

    def _parsed(self, line: bytes, number: int) -> dict[str, str] | None:
        """The outcome of probe `number`; None for a line about something else, such as a probe that came too late."""
        with contextlib.suppress(ValueError):
            match json.loads(line):
                case {"probe": int(told), "outcome": dict(outcome)} if told == number:
                    return {str(attempt): str(became) for attempt, became in outcome.items()}
                case {"probe": int(told), "error": str(error)} if told == number:
                    raise self._failed(error)
        return None

    def end(self) -> None:
        """Have it end; `wait` waits until it has."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def wait(self) -> None:
        """Wait until it has ended, some seconds at most: sealed, the gateway may not signal it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)


async def any_ended(lives: Sequence[int]) -> None:
    """Return when one of the processes has ended for which `lives` has descriptors (`os.pidfd_open`).

    One caller at a time; cancel it before they are closed.
    """
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    for life in lives:
        loop.add_reader(life, gone.set)
    try:
        await gone.wait()
    finally:
        for life in lives:
            loop.remove_reader(life)


def read_orders() -> dict[str, Any] | None:
    """Of the process itself: its orders; None when the gateway ended before it could say anything."""
    # not a byte more than the line: the rest is read later, and otherwise
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    told: dict[str, Any] | None = json.loads(line) if line else None
    return told


def tell(message: Mapping[str, Any]) -> None:
    """Of the process itself: write a line to standard output."""
    os.write(1, json.dumps(message).encode() + b"\n")


def tell_sealed(seal: Seal, **more: Any) -> None:
    """Of the process itself: say what holds, with the evidence for it and whatever else is to be known."""
    tell(as_json(seal, evidence()) | more)


def start_probe(line: bytes) -> int:
    """Of the process itself: carry out an order to probe in a child, which inherits the seal, and tell what came of it.

    The child's process id; whoever calls reaps it.
    """
    child = os.fork()
    if child == 0:
        _tell_probe(line)
    return child


def _tell_probe(line: bytes) -> None:
    try:
        signal.alarm(PROBE_SECONDS)  # whatever it hangs in, it doesn't keep this process' sockets open for long
        asked = json.loads(line)
        try:
            # not a program of the gateway's choice: it could be one that takes over this process, and its clearances
            order = {**asked["order"], "interpreter": sys.executable}
            told: dict[str, Any] = {"outcome": probes.run(probes.attempts(order))}
        except OSError as error:
            told = {"error": f"it could not be tried: {error}"}
        tell({"probe": asked["number"], **told})
    finally:
        os._exit(0)
