"""The outlet and the dialler, as the gateway holds them: started before the gateway seals itself, used after."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import appliance
from appliance.dispatch.outlet import PROBE_SECONDS
from appliance.dispatch.way import Route
from appliance.errors import OutletFailed, SealUnavailable
from appliance.seal.parts import Seal

# -P: nothing is imported from wherever the appliance was started.
_MODULES = {
    "outlet": ["-P", "-m", "appliance.dispatch.outlet"],
    "dialler": ["-P", "-S", "-m", "appliance.dispatch.dialler"],
}


class Pair:
    """Both processes. They end when `close` is called, and when this process ends, however it ends."""

    def __init__(
        self, routes: Mapping[Path, Route], folder: Path, *, clearance_key: bytes | None, best_effort: bool
    ) -> None:
        """Start them and wait until both are sealed; `routes` has the Unix socket for each, in `folder`.

        The sockets are bound here, so that a request that comes before the outlet is up waits and doesn't fail.
        Raises `SealUnavailable` when the kernel refuses a part and `best_effort` isn't set, and `OutletFailed`.
        """
        listeners = [_listen(path) for path in routes]
        # The gateway keeps neither end: whoever takes it over can give the dialler no orders.
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._processes = {
            "outlet": _start("outlet", [near, *listeners]),
            "dialler": _start("dialler", [far]),
        }
        for opened in (near, far, *listeners):
            opened.close()
        destinations = [asdict(route.destination) for route in routes.values()]
        orders: dict[str, dict[str, Any]] = {
            "outlet": {
                "routes": [asdict(route) for route in routes.values()],
                "folder": str(folder),
                "clearance_key": clearance_key.hex() if clearance_key else None,
            },
            "dialler": {"destinations": destinations},
        }
        self.seals: dict[str, Seal] = {}
        """What holds around each, by name."""
        try:
            for name, process in self._processes.items():
                _say(process, orders[name] | {"best_effort": best_effort})
            self.seals = {name: _heard(name, process) for name, process in self._processes.items()}
        except BaseException:
            self._end()
            raise
        self._lives = [os.pidfd_open(process.pid) for process in self._processes.values()]
        self._probing = asyncio.Lock()
        self._numbers = 0

    @property
    def pids(self) -> dict[int, str]:
        """What each process id is: `outlet` or `dialler`."""
        return {process.pid: name for name, process in self._processes.items()}

    async def ended(self) -> None:
        """Return when one of them has ended, for whatever reason: nothing can be reached from then on.

        One caller at a time; cancel it before `close`.
        """
        gone, loop = asyncio.Event(), asyncio.get_running_loop()
        for life in self._lives:
            loop.add_reader(life, gone.set)
        try:
            await gone.wait()
        finally:
            for life in self._lives:
                loop.remove_reader(life)

    async def probe(self, order: Mapping[str, Any]) -> dict[str, str]:
        """Carry out an order of `appliance.seal.probes` inside the outlet's seal: what became of each attempt.

        It is a sealed process's word. Raises `OutletFailed`, and `TimeoutError` after some seconds without an answer.
        """
        async with self._probing:
            self._numbers += 1
            try:
                _say(self._processes["outlet"], {"number": self._numbers, "order": dict(order)})
            except OSError as cause:
                raise OutletFailed("the outlet has ended") from cause
            async with asyncio.timeout(PROBE_SECONDS):
                return await self._outcome(self._numbers)

    async def _outcome(self, number: int) -> dict[str, str]:
        output = self._processes["outlet"].stdout
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
                    raise OutletFailed("the outlet has ended")
                *lines, received = (received + data).split(b"\n")
                for line in lines:
                    if (outcome := _parsed(line, number)) is not None:
                        return outcome
        finally:
            loop.remove_reader(output)

    def close(self) -> None:
        """End both."""
        for life in self._lives:
            os.close(life)
        self._lives = []
        self._end()

    def _end(self) -> None:
        for process in self._processes.values():
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):  # sealed, this process may not signal them
                process.wait(5)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)  # before listen(): nobody connects under the wider mode
    listener.listen(1024)
    return listener


def _start(name: str, handed: Sequence[socket.socket]) -> subprocess.Popen[bytes]:
    numbers = [each.fileno() for each in handed]
    return subprocess.Popen(
        [sys.executable, *_MODULES[name], *map(str, numbers)],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={"PATH": os.defpath, "PYTHONPATH": str(Path(appliance.__file__).parents[1])},
        pass_fds=numbers,
    )


def _say(process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    assert process.stdin is not None  # noqa: S101 - asked for at the start
    process.stdin.write(json.dumps(message).encode() + b"\n")


def _heard(name: str, process: subprocess.Popen[bytes]) -> Seal:
    assert process.stdout is not None  # noqa: S101 - asked for at the start
    told = json.loads(process.stdout.readline() or b"null")
    if told is None:
        raise OutletFailed(f"the {name} ended before it was sealed; what it printed says why")
    if "error" in told:
        raise SealUnavailable(told["error"])
    return Seal(tuple(told["holds"]), tuple(told["missing"]))


def _parsed(line: bytes, number: int) -> dict[str, str] | None:
    """The outcome of probe `number`, None for a line about something else, such as a probe that came too late."""
    with contextlib.suppress(ValueError):
        match json.loads(line):
            case {"probe": int(told), "outcome": dict(outcome)} if told == number:
                return {str(attempt): str(became) for attempt, became in outcome.items()}
            case {"probe": int(told), "error": str(error)} if told == number:
                raise OutletFailed(error)
    return None
