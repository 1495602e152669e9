"""HTTP/1.1 over a Unix socket, to an engine or to the outlet: the hot path's own client.

A general client spends more time on a request than the whole gateway may (docs/architecture.md has the
figures). Here every peer is a Unix socket, every request is one JSON body, and redirects, cookies,
compression and TLS don't occur, so what is left is a parser, a pool and back-pressure.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import httptools

from appliance.errors import Unreachable, UpstreamFailed

_PAUSE_BYTES = 256 * 1024


class _Connection(asyncio.Protocol):
    """One connection; carries one exchange at a time and is pooled between them."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.waiter: asyncio.Future[None] | None = None
        self.waiting_since = 0.0
        self.chunks: list[bytes] = []
        self.buffered = 0
        self.status = 0
        self.complete = True  # no exchange is open
        self.reusable = False
        self.heard = False
        self.lost = False
        self.aborted = False
        self.paused = False
        self.retry_after = ""

    # transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is no subclass of asyncio's, only alike
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.complete:  # nothing was asked: whoever is next would take it for the answer
            self.abort()
            return
        self.heard = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()
            return
        if self.buffered > _PAUSE_BYTES and not self.paused and self.transport is not None:
            self.paused = True
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.upstream.forget(self)
        self._wake()

    # parser

    def on_message_begin(self) -> None:
        if self.complete:  # a second answer to one question; the parser stops and hands none of it on
            raise httptools.HttpParserError("more than one answer")

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status >= 200:  # 1xx only announces the answer
            self.status = status

    def on_body(self, data: bytes) -> None:
        self.chunks.append(data)
        self.buffered += len(data)

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True
            self.reusable = self.parser.should_keep_alive()  # the parser knows it only in this moment

    # exchange

    def send(self, data: bytes) -> None:
        self.chunks.clear()
        self.buffered = self.status = 0
        self.retry_after = ""
        self.complete = self.heard = False
        assert self.transport is not None  # noqa: S101 - set before a connection is handed out
        self.transport.write(data)

    async def more(self) -> None:
        """Wait until something new was received, or the connection is lost."""
        loop = self.upstream.loop
        self.waiter = loop.create_future()
        self.waiting_since = loop.time()
        try:
            await self.waiter
        finally:
            self.waiter = None

    def resume(self) -> None:
        if self.paused and self.transport is not None:
            self.paused = False
            self.transport.resume_reading()

    def abort(self) -> None:
        self.lost = self.aborted = True
        self.upstream.forget(self)  # now, since connection_lost comes a turn of the loop later
        if self.transport is not None:
            self.transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class _HearsHeaders(_Connection):
    """Looks at the headers of answers, too: for each one the parser calls it."""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = value.decode("latin-1").strip()


class Response:
    """An answer whose status is known and whose body is still coming. Close it in any case."""

    __slots__ = ("_connection", "retry_after", "status")

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.retry_after = connection.retry_after
        """What the header of this name says; empty without one, and where the upstream doesn't listen for it."""

    async def read(self) -> bytes:
        """The bytes that came since the last call; empty at the proper end.

        Raises `UpstreamFailed` if the connection broke before the end.
        """
        connection = self._connection
        while not connection.chunks:
            if connection.complete:
                return b""
            if connection.lost:
                raise UpstreamFailed("the engine broke off its answer; try again", code="engine_failed")
            await connection.more()
        data = connection.chunks[0] if len(connection.chunks) == 1 else b"".join(connection.chunks)
        connection.chunks.clear()
        connection.buffered = 0
        connection.resume()
        return data

    async def whole(self, most: int | None = None) -> bytes:
        """The whole body. Raises `UpstreamFailed` if it breaks off, or has more than `most` bytes."""
        parts, size = [], 0
        while data := await self.read():
            parts.append(data)
            size += len(data)
            if most is not None and size > most:
                raise UpstreamFailed(f"the answer has more than {most} bytes", code="engine_failed")
        return b"".join(parts)

    def close(self) -> None:
        """Give the connection back, or break it off, which makes the engine stop generating."""
        connection = self._connection
        if connection.complete and connection.reusable and not connection.lost:
            connection.resume()
            connection.upstream.keep(connection)
        else:
            connection.abort()


class Upstream:
    """One peer behind a Unix socket, with a pool of idle connections to it."""

    def __init__(
        self,
        socket: Path,
        *,
        prefix: str = "",
        headers: dict[str, str] | None = None,
        patience: float | None = None,
        content_type: str = "application/json",
        hears_headers: bool = False,
    ) -> None:
        """`prefix` goes before each path, `headers` (such as authorization) into each request.

        A peer that sends nothing for `patience` seconds while an answer is due is given up; None waits,
        for engines, whose owners see by other signs that they stall. `content_type` is that of all bodies.
        With `hears_headers`, a `Response` tells `retry_after`.
        """
        self.socket = str(socket)
        self.loop = asyncio.get_running_loop()
        self._prefix = prefix
        extra = {"host": "engine"} | (headers or {})
        lines = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
        self._head = f"{lines}content-type: {content_type}\r\ncontent-length: "
        self._kind = _HearsHeaders if hears_headers else _Connection
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        if patience is not None:
            self._sweeping = self.loop.call_later(patience / 4, self._sweep, patience)

    async def post(self, path: str, body: bytes, *, priority: int | None = None) -> Response:
        """Send `body` (JSON) to `path` and wait for the status of the answer.

        `priority` goes into vLLM's header, for bodies that have no field for it: Anthropic's.
        Raises `Unreachable` when nobody listens there, `UpstreamFailed` when the peer breaks off.
        """
        more = f"x-vllm-priority: {priority}\r\n" if priority is not None else ""
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{more}{self._head}{len(body)}\r\n\r\n"
        return await self._exchange(head.encode() + body)

    async def get(self, path: str) -> Response:
        """As `post`, without a body."""
        return await self._exchange(f"GET {self._prefix}{path} HTTP/1.1\r\n{self._head}0\r\n\r\n".encode())

    async def _exchange(self, data: bytes) -> Response:
        pooled = self._idle.pop() if self._idle else None
        connection = pooled or await self._connect()
        answered = await self._begun(connection, data)
        if not answered and pooled is not None and not (pooled.heard or pooled.aborted):
            # its peer had closed it meanwhile and answered nothing; asked once more, and on a fresh one, since a
            # peer that hangs up over this very request would get it once for each connection in the pool
            connection = await self._connect()
            answered = await self._begun(connection, data)
        if not answered:
            raise UpstreamFailed("the engine broke off before it answered; try again", code="engine_failed")
        return Response(connection)

    async def _begun(self, connection: _Connection, data: bytes) -> bool:
        """Whether an answer to `data` has begun; False when the connection was lost before."""
        connection.send(data)
        try:
            while not connection.status:
                if connection.lost:
                    return False
                await connection.more()
        except BaseException:
            connection.abort()
            raise
        return True

    async def _connect(self) -> _Connection:
        try:
            _, connection = await self.loop.create_unix_connection(lambda: self._kind(self), self.socket)
        except OSError as cause:
            raise Unreachable("the engine can't be reached; try again", code="engine_failed") from cause
        self._open.add(connection)
        return connection

    def keep(self, connection: _Connection) -> None:
        """Take an idle connection into the pool."""
        self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Drop a lost connection."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _sweep(self, patience: float) -> None:
        # one walk now and then, since a timer for each chunk would cost more than the chunk
        latest = self.loop.time() - patience
        for connection in list(self._open):
            if connection.waiter is not None and connection.waiting_since < latest:
                connection.abort()
        self._sweeping = self.loop.call_later(patience / 4, self._sweep, patience)

    def close(self) -> None:
        """Break off everything: idle connections and answers in flight."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._open):
            connection.abort()
