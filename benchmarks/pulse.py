"""A client that writes down when each piece of each answer came: so many connections, each asking again when answered.

In a process of its own, over the loopback only, until its standard input ends.

    python -m benchmarks.pulse < work.json > outcome.json
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
    """What to ask at `port` of 127.0.0.1 over `connections` at once. `body` is of a stream."""

    port: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    connections: int
    path: str = "/v1/chat/completions"


@dataclass(slots=True)
class Answer:
    """One stream. Times are on the machine's monotonic clock, in seconds."""

    sent: float
    pieces: list[float] = field(default_factory=list)
    """When each piece with tokens came; what came in one read is one piece."""
    failure: str = ""
    """Why it ended early; empty as well for one that was still running at the end."""
    whole: bool = False

    def gaps(self, begin: float, end: float) -> list[float]:
        """Seconds between a piece and the one before it, of those that came from `begin` to `end`."""
        pairs = zip(self.pieces, self.pieces[1:], strict=False)
        return [after - before for before, after in pairs if begin <= after < end]


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, answers: list[Answer]) -> None:
        self._request = request
        self._answers = answers
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._ask()

    def _ask(self) -> None:
        self._tail, self._head = b"", True
        self._answer = Answer(time.monotonic())
        self._answers.append(self._answer)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        self._tail = body if len(body) > 64 else self._tail[-64:] + body
        if b'"content":"' not in body.replace(b'"content":""', b""):  # the role, the usage, the end
            return
        self._answer.pieces.append(time.monotonic())

    def on_message_complete(self) -> None:
        status, answer = self._parser.get_status_code(), self._answer
        if status == 200 and self._tail.rstrip().endswith(b"data: [DONE]"):
            answer.whole = True
        else:
            answer.failure = f"status {status}: {self._tail[-300:]!r}"
        if self._parser.should_keep_alive() and answer.whole:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self._answer.whole:
            self._answer.failure = f"the connection broke: {exc}"


async def drive(work: Work, over: asyncio.Event) -> list[Answer]:
    """Do `work` in this process until it is `over`."""
    body = json.dumps(work.body).encode()
    headers = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **work.headers}.items())
    request = f"POST {work.path} HTTP/1.1\r\n{lines}\r\n".encode() + body
    answers: list[Answer] = []
    loop = asyncio.get_running_loop()
    for _ in range(work.connections):
        await loop.create_connection(lambda: _Connection(request, answers), "127.0.0.1", work.port)
    await over.wait()
    return answers


class Pulse:
    """Work that goes on in a process of its own."""

    def __init__(self, client: subprocess.Popen[str]) -> None:
        self._client = client

    def end(self) -> list[Answer]:
        """Hang up, and tell what came. Raises `RuntimeError` when the client itself failed."""
        said, _ = self._client.communicate()
        if self._client.returncode:
            raise RuntimeError(f"the client ended with status {self._client.returncode}")
        return [Answer(**each) for each in json.loads(said)]


@contextlib.contextmanager
def going(work: Work) -> Iterator[Pulse]:
    """`work` goes on while the block lasts, or until `end`."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pulse"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        try:
            assert client.stdin is not None  # noqa: S101 - asked for above
            client.stdin.write(json.dumps(asdict(work)) + "\n")
            client.stdin.flush()
            yield Pulse(client)
        finally:
            client.kill()


async def _main() -> None:
    over = asyncio.Event()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    work = Work(**json.loads(await reader.readline()))

    async def until_told() -> None:
        await reader.read()
        over.set()

    telling = asyncio.create_task(until_told())
    answers = await drive(work, over)
    await telling
    json.dump([asdict(each) for each in answers], sys.stdout)


def main() -> None:
    """Read work from the first line of standard input, write what came to standard output when the input ends."""
    uvloop.run(_main())


if __name__ == "__main__":
    main()
