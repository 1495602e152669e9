"""The gateway's handle on engine processes: start one sealed, wait for it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from appliance.engines.given import Given
from appliance.engines.nursery import LONGEST_LINE, program
from appliance.errors import EngineFailed, SealUnavailable
from appliance.seal.evidence import ThreadEvidence
from appliance.seal.parts import Seal

SealLevel = Literal["required", "best-effort"]
_PROBE_SECONDS = 4.0


class EngineProcess(Protocol):
    """One engine: its keeper, and with it every process that the engine starts."""

    @property
    def pid(self) -> int:
        """The keeper's process id."""

    @property
    def folder(self) -> Path:
        """The first folder that it may write to, which holds its socket."""

    @property
    def seal(self) -> Seal:
        """Which parts of the seal hold, and which are missing and why."""

    @property
    def evidence(self) -> list[ThreadEvidence]:
        """What /proc showed inside the seal just before the engine was started."""

    async def probe(self, order: Mapping[str, Any]) -> dict[str, str]:
        """Carry out an order of `appliance.seal.probes` inside the seal: what became of each attempt.

        Raises EngineFailed when the engine ends meanwhile, TimeoutError after some seconds without an answer.
        """

    async def wait(self) -> int:
        """Exit status, 128 + n after signal n; returns when nothing of the engine runs any more."""

    def hurry(self) -> None:
        """Let it no longer give way to others, where it was started so. No-op when it has ended."""

    def terminate(self) -> None:
        """SIGTERM to the engine, SIGKILL to all of it when the grace is over. No-op when it has ended."""

    def kill(self) -> None:
        """SIGKILL to all of it at once. No-op when it has ended."""


class _Kept:
    """An EngineProcess of a Nursery."""

    def __init__(self, nursery: Nursery, number: int, name: str, folder: Path) -> None:
        self._nursery = nursery
        self.number = number
        self.name = name
        self.folder = folder
        self.pid = 0
        self.seal = Seal(())
        self.evidence: list[ThreadEvidence] = []
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = loop.create_future()
        self._exited: asyncio.Future[int] = loop.create_future()
        self._probing = asyncio.Lock()
        self._probed: asyncio.Future[dict[str, str]] | None = None

    async def probe(self, order: Mapping[str, Any]) -> dict[str, str]:
        async with self._probing:
            self._probed = asyncio.get_running_loop().create_future()
            self._nursery.send({"id": self.number, "probe": order})
            return await asyncio.wait_for(self._probed, _PROBE_SECONDS)

    async def wait(self) -> int:
        return await asyncio.shield(self._exited)

    def hurry(self) -> None:
        if not self._exited.done():
            self._nursery.send({"id": self.number, "hurry": True})

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        if not self._exited.done():
            self._nursery.send({"id": self.number, "signal": signum})

    def on(self, message: dict[str, Any]) -> bool:
        """Take a message of the nursery; True with the last one."""
        match message:
            case {"pid": int(pid)}:
                self.pid = pid
            case {"seal": {"holds": holds, "missing": missing, "evidence": threads}} if not self.started.done():
                self.seal = Seal(tuple(holds), tuple(missing))
                self.evidence = [ThreadEvidence(**thread) for thread in threads]
                self._start(None)
            case {"probe": dict(outcome)}:
                if self._probed and not self._probed.done():
                    self._probed.set_result(outcome)
            case {"error": str(error)}:
                self._start(SealUnavailable(error))
                return not self.pid
            case {"exit": int(status)}:
                self._start(EngineFailed(f"the engine's keeper ended with status {status} before it started"))
                self._exited.set_result(status)
                if self._probed and not self._probed.done():
                    self._probed.set_exception(EngineFailed("the engine ended while it was probed"))
                return True
        return False

    def _start(self, error: Exception | None) -> None:
        if self.started.done():
            return
        if error is None:
            self.started.set_result(None)
        else:
            self.started.set_exception(error)


class Nursery:
    """The process that starts engines' keepers. See `appliance.engines.nursery` for why it exists.

    Make it with `start` in the gateway's main thread, before `seal_gateway` and before any thread;
    the kernel ends it with that thread. Then use it from one event loop, asyncio's or uvloop's.
    Should it die, every engine dies with it and `spawn` raises EngineFailed: the gateway, sealed by
    then, can't start another and has to be restarted.
    """

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self._process = process
        self._socket = connection
        self._numbers = itertools.count(1)
        self._kept: dict[int, _Kept] = {}
        self._connected = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    def start(cls, state: Path, models: Path, environment: Path, least: SealLevel = "required") -> Nursery:
        """Start the process. It never starts an engine under less than the seal `least`.

        Whatever the gateway asks for later, engines are shown the Python `environment` and what lies below `models`;
        they write to the folder `cache` and below `run`, their logs below `logs`, all three of `state`.
        """
        given = Given.open(state, models, environment)
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                program("engines.nursery", str(theirs.fileno()), str(os.getpid()), least, given.tell()),
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *given.descriptors],
                start_new_session=True,
            )
        for descriptor in given.descriptors:
            os.close(descriptor)
        ours.setblocking(False)  # noqa: FBT003 - no keyword there
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """The nursery's process id."""
        return self._process.pid

    @property
    def running(self) -> dict[str, EngineProcess]:
        """Every engine that runs now, also one that is being replaced, by its name and, after `#`, a number where
        there are several."""
        found: dict[str, EngineProcess] = {}
        for number, kept in self._kept.items():
            if kept.started.done() and not kept.started.exception():
                found[kept.name if kept.name not in found else f"{kept.name} #{number}"] = kept
        return found

    async def spawn(
        self,
        command: Sequence[str],
        env: dict[str, str],
        log: Path,
        readable: Sequence[Path],
        writable: Sequence[Path],
        seal: SealLevel = "required",
        grace: float = 10.0,
        *,
        gives_way: bool = False,
        name: str | None = None,
    ) -> EngineProcess:
        """Start `command` sealed; returns once the seal holds and the command runs.

        Its environment is exactly `env`, its working directory /, its output appended to `log` (0600).
        Of the folders that `view.covered` names it sees only `readable` and `writable`, and besides those
        the environment with the Python installation around it. Only `writable` paths can be written to;
        the folder of its socket belongs there. All paths in `command` have to be absolute. With `gives_way` it takes
        only the processor time that others leave, as far as that can be taken back, until `hurry`. Without a `name` it
        goes by that of its log.

        Raises SealUnavailable when the kernel refuses a part and `seal` is "required", or the nursery
        doesn't give what was asked for; EngineFailed when the program is missing, when it ends before the
        seal holds, or when the nursery is gone.
        """
        _require_program(Path(command[0]))
        wanted = {
            "command": list(command),
            "env": env,
            "log": _absolute([log])[0],
            "readable": _absolute(readable),
            "writable": _absolute(writable),
            "best_effort": seal == "best-effort",
            "grace": grace,
            "gives_way": gives_way,
        }
        await self._connect()
        kept = _Kept(self, next(self._numbers), name or log.stem, next(iter(writable), Path()))
        self.send({"id": kept.number, "spawn": wanted})
        self._kept[kept.number] = kept
        try:
            await kept.started
        except asyncio.CancelledError:
            kept.kill()
            raise
        return kept

    async def ended(self) -> None:
        """Return when the nursery has ended, for whatever reason: no engine can be started from then on."""
        await self._connect()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def close(self) -> None:
        """End the nursery, and with it whatever engine still runs."""
        if self._reading and self._writer:
            self._writer.close()
            await asyncio.wait([self._reading])
        self._socket.close()
        await asyncio.to_thread(self._process.wait)

    def send(self, message: dict[str, Any]) -> None:
        """Send a request. Raises EngineFailed when the nursery is gone."""
        if self._writer is None or self._reading is None or self._reading.done():
            raise EngineFailed("the process that starts engines has ended; restart the appliance")
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _connect(self) -> None:
        async with self._connected:
            if self._writer is None:
                reader, self._writer = await asyncio.open_unix_connection(sock=self._socket, limit=8 * LONGEST_LINE)
                self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                message = json.loads(line)
                number = message["id"]
                if (kept := self._kept.get(number)) and kept.on(message):
                    del self._kept[number]
        # The kernel killed every keeper with it.
        for kept in self._kept.values():
            kept.on({"exit": 128 + signal.SIGKILL})
        self._kept.clear()


def _absolute(paths: Sequence[Path]) -> list[str]:
    return [str(path.absolute()) for path in paths]


def _require_program(path: Path) -> None:
    if not path.is_absolute() or not path.exists():
        raise EngineFailed(f"{path}: no such program (an absolute path is needed)")
