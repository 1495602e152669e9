"""A closed-loop client: so many connections, each asking again as soon as it was answered, in its own process.

Why not wrk: it tells nothing of a stream's first token, and knows no Unix sockets; one client for all figures
keeps them comparable. On uvloop with a C parser it spends some 25 us on a request, a tenth of what the lightest
Python gateway does, and no figure of a gateway's processor time includes it. It speaks to the loopback and to
Unix sockets only, and is bounded in requests and in time.

    python -m benchmarks.load < work.json > outcome.json
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import httptools
import uvloop


@dataclass(frozen=True, slots=True)
class Work:
    """What to ask, where, and how often. `target` is a port on 127.0.0.1 or the path of a Unix socket."""

    target: int | str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    connections: int = 1
    requests: int = 100
    seconds: float = 60.0
    """Nothing new is asked after so long; what is still unanswered at four times that has failed."""


@dataclass(slots=True)
class Outcome:
    """What came of some work. Times are milliseconds, one entry per request that was answered well."""

    wall_seconds: float = 0.0
    end_to_end_ms: list[float] = field(default_factory=list)
    first_token_ms: list[float] = field(default_factory=list)
    """Of streams: from sending the request to the event after the one that only names the role."""
    chunks: int = 0
    failed: int = 0
    first_failure: str = ""

    @property
    def answered(self) -> int:
        """Requests that were answered well."""
        return len(self.end_to_end_ms)


class _Run:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.left = work.requests
        self.outcome = Outcome()
        self.until = time.perf_counter() + work.seconds
        body = json.dumps(work.body).encode()
        headers = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **work.headers}.items())
        self.request = f"POST {work.path} HTTP/1.1\r\n{lines}\r\n".encode() + body
        self.streams = bool(work.body.get("stream"))

    def take(self) -> bool:
        if self.left == 0 or time.perf_counter() > self.until:
            return False
        self.left -= 1
        return True

    def fail(self, why: str) -> None:
        self.outcome.failed += 1
        self.outcome.first_failure = self.outcome.first_failure or why


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run, over: asyncio.Future[None]) -> None:
        self._run = run
        self._over = over
        self._began = self._first = 0.0
        self._events = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._ask()

    def _ask(self) -> None:
        self._began = self._first = 0.0
        if not self._run.take():
            self._transport.close()
            return
        self._events = 0
        self._tail = b""
        self._began = time.perf_counter()
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        if self._run.streams:
            self._events += body.count(b"data: ")
            if not self._first and self._events > 1:
                self._first = time.perf_counter()
        self._tail = body if len(body) > 64 else self._tail[-64:] + body

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        run, outcome = self._run, self._run.outcome
        status = self._parser.get_status_code()
        if status != 200:
            run.fail(f"status {status}: {self._tail[:300]!r}")
        elif run.streams and not self._tail.rstrip().endswith(b"data: [DONE]"):
            run.fail("the stream ended early")
        else:
            outcome.end_to_end_ms.append((now - self._began) * 1000)
            if run.streams:
                outcome.first_token_ms.append(((self._first or now) - self._began) * 1000)
                outcome.chunks += self._events
        if self._parser.should_keep_alive():
            self._ask()
        else:
            self._began = 0.0
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._began:
            self._run.fail("the connection broke")
        if not self._over.done():
            self._over.set_result(None)


async def _connection(run: _Run) -> None:
    loop = asyncio.get_running_loop()
    target = run.work.target
    while run.left and time.perf_counter() < run.until:  # some gateways hang up after an answer
        over = loop.create_future()
        made = lambda over=over: _Connection(run, over)  # noqa: E731
        if isinstance(target, int):
            await loop.create_connection(made, "127.0.0.1", target)
        else:
            await loop.create_unix_connection(made, target)
        await over


async def drive(work: Work) -> Outcome:
    """Do `work` in this process. Raises `OSError` when the target can't be reached."""
    run = _Run(work)
    began = time.perf_counter()
    tasks = [asyncio.create_task(_connection(run)) for _ in range(work.connections)]
    done, late = await asyncio.wait(tasks, timeout=4 * work.seconds)
    run.outcome.wall_seconds = time.perf_counter() - began
    for task in late:
        run.fail("no answer in time")
        task.cancel()
    for task in done:
        task.result()
    return run.outcome


def apply(work: Work) -> Outcome:
    """Do `work` in a process of its own. Raises `ConnectionError` when the target can't be reached."""
    client = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(asdict(work)),
        capture_output=True,
        text=True,
        check=False,
    )
    if client.returncode:
        raise ConnectionError(client.stderr.strip().splitlines()[-1])
    return Outcome(**json.loads(client.stdout))


def batch(target: int | str, body: Mapping[str, Any], headers: Mapping[str, str], streams: int) -> Outcome:
    """So many streams at once, until all have ended. Raises `RuntimeError` when one fails, and as `apply` does."""
    outcome = apply(Work(target, body, headers, connections=streams, requests=streams, seconds=300))
    if outcome.failed:
        raise RuntimeError(f"{outcome.failed} of {streams} streams failed: {outcome.first_failure}")
    return outcome


@contextlib.contextmanager
def under(work: Work) -> Iterator[None]:
    """`work` goes on in a process of its own until the block ends; what comes of it is not told."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as client:
        try:
            assert client.stdin is not None  # noqa: S101 - asked for above
            client.stdin.write(json.dumps(asdict(work)))
            client.stdin.close()
            yield
        finally:
            client.kill()


def main() -> None:
    """Read work from standard input, write its outcome to standard output."""
    outcome = uvloop.run(drive(Work(**json.load(sys.stdin))))
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
