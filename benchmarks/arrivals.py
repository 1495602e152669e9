"""An open-loop client: requests come at a rate of their own, however slowly they are answered, as from many people.

Each goes onto a connection that is free, else onto a new one. In its own process, over the loopback only.

    python -m benchmarks.arrivals < work.json > outcome.json
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import httptools
import uvloop

_SHED, _ANSWERED = 429, 200
_TICK = 0.005


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What to ask at `port` of 127.0.0.1, how often, and for how long."""

    port: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    per_second: float
    seconds: float
    patience: float = 120.0
    """For what is still unanswered at the end."""
    path: str = "/v1/chat/completions"


@dataclass(slots=True)
class Outcome:
    """What came of them. Times are seconds since the beginning, lengths milliseconds."""

    answered: list[float] = field(default_factory=list)
    """When each good answer was complete."""
    shed: list[tuple[float, float]] = field(default_factory=list)
    """When each 429 came, and how long after its request was sent."""
    failed: int = 0
    first_failure: str = ""
    late: int = 0
    """Without any answer at the end."""
    behind_ms: float = 0.0
    """The most by which this client was behind with its sending: beyond some ms it was the bottleneck itself."""


class _Run:
    def __init__(self, work: Arrivals) -> None:
        self.work = work
        self.outcome = Outcome()
        self.began = time.perf_counter()
        self.free: list[_Connection] = []
        self.open = 0
        body = json.dumps(work.body).encode()
        headers = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **work.headers}.items())
        self.request = f"POST {work.path} HTTP/1.1\r\n{lines}\r\n".encode() + body

    def fail(self, why: str) -> None:
        self.outcome.failed += 1
        self.outcome.first_failure = self.outcome.first_failure or why

    async def ask(self) -> None:
        if self.free:
            self.free.pop().ask()
            return
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), "127.0.0.1", self.work.port
            )
        except OSError as refused:
            self.fail(str(refused))
            self.open -= 1
        else:
            connection.ask()


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._sent = 0.0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def ask(self) -> None:
        self._sent = time.perf_counter()
        self._tail = b""
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        self._tail = body if len(body) > 64 else self._tail[-64:] + body

    def on_message_complete(self) -> None:
        now, run = time.perf_counter(), self._run
        status = self._parser.get_status_code()
        if status == _SHED:
            run.outcome.shed.append((now - run.began, (now - self._sent) * 1000))
        elif status == _ANSWERED and (not run.work.body.get("stream") or self._tail.rstrip().endswith(b"[DONE]")):
            run.outcome.answered.append(now - run.began)
        else:
            run.fail(f"status {status}: {self._tail[:300]!r}")
        self._sent = 0.0
        run.open -= 1
        if self._parser.should_keep_alive():
            run.free.append(self)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._run.free:
            self._run.free.remove(self)
        if self._sent:
            self._run.fail("the connection broke")
            self._run.open -= 1


async def drive(work: Arrivals) -> Outcome:
    """Do `work` in this process."""
    run = _Run(work)
    asking: set[asyncio.Task[None]] = set()
    sent = 0
    while (passed := time.perf_counter() - run.began) < work.seconds:
        due = int(passed * work.per_second) + 1
        if due > sent:
            run.outcome.behind_ms = max(run.outcome.behind_ms, (passed - sent / work.per_second) * 1000)
        for _ in range(due - sent):
            run.open += 1
            task = asyncio.create_task(run.ask())
            asking.add(task)
            task.add_done_callback(asking.discard)
        sent = due
        await asyncio.sleep(_TICK)
    until = time.perf_counter() + work.patience
    while run.open and time.perf_counter() < until:  # noqa: ASYNC110 - answers come by callback
        await asyncio.sleep(0.05)
    run.outcome.late = run.open
    return run.outcome


def begin(work: Arrivals) -> subprocess.Popen[str]:
    """Have `work` done in a process of its own; `finish` gives what comes of it."""
    client = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.arrivals"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdin is not None  # noqa: S101 - asked for above
    client.stdin.write(json.dumps(asdict(work)))
    client.stdin.close()
    client.stdin = None  # else `communicate` would flush it
    return client


def finish(client: subprocess.Popen[str]) -> Outcome:
    """Wait for what was begun. Raises `RuntimeError` when the client itself failed."""
    said, _ = client.communicate()
    if client.returncode:
        raise RuntimeError(f"the client ended with status {client.returncode}")
    found = json.loads(said)
    return Outcome(**{**found, "shed": [(at, length) for at, length in found["shed"]]})


def main() -> None:
    """Read work from standard input, write its outcome to standard output."""
    outcome = uvloop.run(drive(Arrivals(**json.load(sys.stdin))))
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
