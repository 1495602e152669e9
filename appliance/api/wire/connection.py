"""One client connection: uvicorn's httptools protocol with deadlines, sizes and one reading of every request."""

from __future__ import annotations

import asyncio
import fcntl
import math
import re
import socket
import struct
import sys
import termios
from contextlib import suppress
from enum import Enum
from itertools import chain
from typing import Any

import httptools
import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from appliance.api.wire.limits import WireLimits
from appliance.api.wire.refusal import (
    BODY_LATE,
    BODY_SIZE,
    CROWDED,
    FRAMING,
    HEADERS_LATE,
    HEADERS_SIZE,
    HOST,
    MALFORMED,
    PIPELINE,
    REPEATED,
    TARGET,
    TRAILERS,
    UPGRADE,
    VERSION,
    Refusal,
)

# Access is decided on the decoded path, so a path that two programs could read differently is refused
# and not left to miss every route: a route with a free part in it (a model's name) would still match.
_TARGET = re.compile(
    rb"""(?=/)
         (?:/(?!\.{0,2}(?:[/?]|\Z))                                      # no empty, '.' or '..' segment
            [A-Za-z0-9\-._~!$&'()*+,;=:@]*
            (?:%(?![01]|2[5EFef]|5[Cc]|7[Ff])[0-9A-Fa-f]{2}              # no control, '%', '.', '/', '\'
               [A-Za-z0-9\-._~!$&'()*+,;=:@]*)*)*
         /?(?:\?[!"$-~]*)?""",
    re.VERBOSE,
)
_HOST = re.compile(rb"(?:[A-Za-z0-9\-._]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")

# Two of one of these would be read as the first by one program and as the last by another. So would two credentials:
# those get the 401 of every wrong one (api/admission.py).
_ONCE = (b"content-length", b"content-type", b"expect", b"host", b"transfer-encoding")


PEER = "appliance.peer"
"""The ASGI extension with the `uid` of whoever is at the other end of a Unix socket, as the kernel says."""
_CREDENTIALS = struct.Struct("3i")


class _Phase(Enum):
    IDLE = "waiting for the first byte of a request"
    HEAD = "inside the request line or headers"
    BODY = "inside the body"
    WHOLE = "the request has arrived, its answer is not complete"
    CLOSING = "nothing more is read or answered"


class _Stop(Exception):
    """Raised inside a parser callback after the refusal was sent."""


class _Outlet:
    """The transport as a response sees it, whose `close` does not cut off a client still sending."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, connection: WireProtocol) -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.hang_up


class WireProtocol(HttpToolsProtocol):
    """One client connection: uvicorn's, with limits. `lingering` is shared by all connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: WireLimits,
        lingering: set[WireProtocol],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = limits
        self._lingering = lingering
        self._phase = _Phase.IDLE
        self._deadline = math.inf
        self._barren = 0  # bytes since a head ended, a body grew or a request was complete
        self._received = 0  # body bytes of this request, and of those queued before it
        self._follows = False  # this request began in the packet in which the last one ended
        self._admitted = b"/", b"localhost"  # the last target and Host: most clients repeat them
        self._running: RequestResponseCycle | None = None
        self._unwritten = 0
        self._taken_at = 0.0  # when the client was last seen to take something
        self._outlet: _Outlet
        self._peer: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a client in, tells it to come back later, or drops it."""
        super().connection_made(transport)
        self._taken_at = now = self.loop.time()
        self._deadline = now + self.limits.header_seconds
        self._outlet = _Outlet(self)
        self._peer = _user_of(transport.get_extra_info("socket"))
        if len(self.connections) - len(self._lingering) <= self.limits.connections:
            return
        if len(self._lingering) < self.limits.connections:
            self._refuse(CROWDED)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells every request of this connection that its client has gone."""
        self._lingering.discard(self)
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser; whatever it can't read is refused."""
        if self._phase is _Phase.CLOSING:
            return
        self._barren += len(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(MALFORMED)  # unless a callback has refused already, with a better reason
        else:
            # Counted raw: the parser reports a header only when the next one begins.
            if self._barren > self.limits.header_bytes:
                self._refuse(HEADERS_SIZE)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        if self._peer is not None:
            self.scope["extensions"] = {PEER: {"uid": self._peer}}
        self._phase = _Phase.HEAD
        self._follows = not self._barren
        self._deadline = self.loop.time() + self.limits.header_seconds

    def on_headers_complete(self) -> None:
        """Admits a request whose head has one reading and is within limits, and starts it."""
        length = self._judge_head()
        # While earlier requests are unanswered their bodies count too: a connection holds one at most.
        held = sum(len(cycle.body) for cycle, _ in self.pipeline) if self.pipeline else 0
        if held + length > self.limits.body_bytes:
            self._stop(BODY_SIZE)
        super().on_headers_complete()
        if self.pipeline:
            self.flow.resume_reading()  # still bounded; a paused socket hides that its client is gone
        self.headers = []  # the application owns the old list; trailers must not slip into it
        self._barren = 0
        self._received = held
        self._phase = _Phase.BODY
        self._deadline = self.loop.time() + self.limits.body_seconds

    def on_body(self, body: bytes) -> None:
        """A piece of a body, decoded."""
        self._barren = 0
        self._received += len(body)
        if self._received > self.limits.body_bytes:
            self._stop(BODY_SIZE)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        if self.headers:
            self._stop(TRAILERS)
        super().on_message_complete()
        self._barren = 0
        self._phase = _Phase.WHOLE
        self._deadline = math.inf
        if self.cycle.response_complete:
            self._rest()

    def on_response_complete(self) -> None:
        """Starts the next pipelined request, or waits for one. uvicorn's own, without its timer."""
        self.server_state.total_requests += 1
        if self._phase is _Phase.CLOSING or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._phase is _Phase.WHOLE:
            self._rest()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        cycle.transport = self._outlet  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def resume_writing(self) -> None:
        """The client took what held the application back."""
        self._unwritten = sys.maxsize
        super().resume_writing()

    def shutdown(self) -> None:
        """Hangs up now when idle, after the answer when one is under way."""
        if self._phase is _Phase.CLOSING:
            self.transport.close()
        else:
            super().shutdown()

    def sweep(self, now: float, elapsed: float) -> None:
        """Ends what is past its deadline. `now` is the loop's time, `elapsed` the seconds since the last."""
        waiting = self._waiting()
        if not waiting or waiting < self._unwritten:
            self._taken_at = now
        self._unwritten = waiting
        if now - self._taken_at > self.limits.write_seconds:
            self.transport.abort()
        elif self.flow.read_paused or (waiting and self._phase is _Phase.CLOSING):
            self._deadline += elapsed  # we are the slow one, or an answer is still being read
        elif now > self._deadline:
            self._expire(now)

    def _waiting(self) -> int:
        """Bytes the client has not taken; 0 while the kernel holds them all.

        The kernel's share counts once ours is there: it takes more from us only after a good part of its
        own megabytes has gone, so that a client reading slowly looks like one not reading at all.
        """
        waiting = self.transport.get_write_buffer_size()
        if waiting:
            with suppress(OSError, ValueError):  # closed in this moment
                file = self.transport.get_extra_info("socket").fileno()
                waiting += int.from_bytes(fcntl.ioctl(file, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return waiting

    def _expire(self, now: float) -> None:
        match self._phase:
            case _Phase.HEAD:
                self._refuse(HEADERS_LATE)
            case _Phase.BODY:
                if now > self._deadline + self._received / self.limits.body_bytes_per_second:
                    self._refuse(BODY_LATE)
            case _Phase.CLOSING:
                self.transport.abort()
            case _:
                self.hang_up()

    def _judge_head(self) -> int:
        """The declared length of the body in bytes; 0 if unknown or none. Stops at what is not admitted.

        The parser has refused by now: a bare LF or CR, folded lines, space before a colon, NUL and
        control characters, a length that is no number, and a length beside a transfer encoding.
        """
        limits, headers = self.limits, self.headers
        if len(headers) > limits.header_count:
            self._stop(HEADERS_SIZE)
        if self._follows or self._barren > limits.header_bytes:  # else what arrived was little enough
            size = len(self.url) + sum(map(len, chain.from_iterable(headers))) + 4 * len(headers)
            if size > limits.header_bytes:
                self._stop(HEADERS_SIZE)
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            self._stop(VERSION)
        if self.url != self._admitted[0] and not _TARGET.fullmatch(self.url):
            self._stop(TARGET)
        if self.parser.should_upgrade():
            # Not merely ignored: the parser would take the body of this request for the next one.
            self._stop(UPGRADE)
        fields = dict(headers)
        if len(fields) != len(headers):
            names = [name for name, _ in headers]
            if any(names.count(name) > 1 for name in _ONCE):
                self._stop(HOST if names.count(b"host") > 1 else REPEATED)
        host = fields.get(b"host", b"")
        if host != self._admitted[1] and not _HOST.fullmatch(host):
            self._stop(HOST)
        self._admitted = self.url, host
        encoding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        if encoding is not None and (
            length is not None or encoding.lower() != b"chunked" or self.parser.get_http_version() != "1.1"
        ):
            self._stop(FRAMING)
        if len(self.pipeline) >= limits.pipelined:
            self._stop(PIPELINE)
        return int(length) if length else 0

    def _stop(self, refusal: Refusal) -> None:
        """Refuses from inside a parser callback. Never returns."""
        self._refuse(refusal)
        raise _Stop

    def _refuse(self, refusal: Refusal) -> None:
        """Answers where the client can only take it for the answer to this request; hangs up in any case."""
        if self._phase is _Phase.CLOSING:
            return
        cycle = self.cycle
        if self._phase is _Phase.BODY:
            unanswered = not cycle.response_started
        else:
            unanswered = cycle is None or cycle.response_complete
        if unanswered and not self.pipeline:
            self.transport.write(refusal.answer(self.server_state.default_headers, getattr(self, "url", None) or b""))
        self._forget()
        self._linger()

    def _forget(self) -> None:
        """Lets every request of this connection see `http.disconnect`; what they send goes nowhere.

        uvicorn tells only the newest: an answer being made for an older one would go on for nobody.
        """
        for cycle in (self._running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        self.flow.resume_writing()

    def _rest(self) -> None:
        self._phase = _Phase.IDLE
        self._deadline = self.loop.time() + self.limits.idle_seconds

    def hang_up(self) -> None:
        """Closes after what is written; a client still sending its request may read that first."""
        if self._phase in (_Phase.HEAD, _Phase.BODY):
            self._linger()
        else:
            self._phase = _Phase.CLOSING
            self._deadline = self.loop.time() + self.limits.linger_seconds
            self.transport.close()

    def _linger(self) -> None:
        """Ends our side only: closing a socket with unread bytes sends RST, which can destroy the answer."""
        self._phase = _Phase.CLOSING
        self._deadline = self.loop.time() + self.limits.linger_seconds
        if self.transport.is_closing():
            return
        self._lingering.add(self)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()


def _user_of(sock: Any) -> int | None:
    """Whose process has connected to a Unix socket; None for any other."""
    if sock.family != socket.AF_UNIX:
        return None
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)
