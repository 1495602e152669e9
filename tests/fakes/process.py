"""A fake engine process for tests of the state machine: ends when a test says so, answers as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from appliance.engines.command import Launch
from appliance.seal.evidence import ThreadEvidence
from appliance.seal.parts import Seal


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeProcess:
    """An `engines.engine.Process` without a process."""

    launch: Launch
    pid: int
    seal: Seal = Seal(())  # noqa: RUF009 - frozen
    evidence: list[ThreadEvidence] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)

    def hurry(self) -> None:
        self.signals.append("HURRY")

    def terminate(self) -> None:
        self.signals.append("TERM")
        self.end(0)

    def kill(self) -> None:
        self.signals.append("KILL")
        self.end(137)

    def end(self, status: int) -> None:
        """The process ends by itself."""
        if not self.ended.done():
            self.ended.set_result(status)


class Nursery:
    """Spawns fake processes whose sockets answer; each `answers`, `work` and `refuses` as a test wants."""

    def __init__(self) -> None:
        self.spawned: list[FakeProcess] = []
        self.answers = True
        self.running = 0
        self.tokens = 0
        self.refuses: list[Exception] = []
        self._servers: list[asyncio.Server] = []

    async def spawn(self, launch: Launch) -> FakeProcess:
        if self.refuses:
            raise self.refuses.pop(0)
        process = FakeProcess(launch, pid=len(self.spawned) + 1)
        launch.socket.parent.mkdir(parents=True, exist_ok=True)
        self._servers.append(await asyncio.start_unix_server(self._serve, launch.socket))
        self.spawned.append(process)
        return process

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"POST" in head:
                    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
                    await reader.readexactly(length)
                    while not self.answers and b"count_tokens" not in head:  # noqa: ASYNC110 - a test flips it
                        await asyncio.sleep(0.005)
                    body = json.dumps({"choices": []}).encode()
                else:
                    numbers = {"num_requests_running": self.running, "generation_tokens_total": self.tokens}
                    body = "".join(f"vllm:{name} {value}\n" for name, value in numbers.items()).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def close(self) -> None:
        for server in self._servers:
            server.close()


@asynccontextmanager
async def nursery() -> AsyncIterator[Nursery]:
    """A nursery whose sockets are closed in the end."""
    made = Nursery()
    yield made
    await made.close()
