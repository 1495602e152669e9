"""Doubles of providers outside the house, which speak the documented wire formats of OpenAI and of Anthropic.

A double answers by the path that it is asked at: `.../chat/completions` as OpenAI (and Azure) does, `/v1/messages` as
Anthropic. What it does next is said beforehand; where nothing is said, it repeats what it was asked. It checks what
real ones check: key, known fields, roles. It keeps every byte that it receives.

    with provider(certificate, key="sk-1") as far:
        far.say(Play(status=529), Play("Guten Tag", tools=[("call_1", "look_up", '{"name": "Klient_001"}')]))
        ...
        assert far.heard[0].body["model"] == "gpt-x"
"""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.parser import BytesHeaderParser
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from tests.fakes.certificates import Pair
from tests.fakes.dialects import Chat, Heard, Messages, Play


class Double(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A provider."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int] | Path, pair: Pair | None, key: str | None) -> None:
        self.key = key
        self.heard: list[Heard] = []
        self.received = bytearray()
        """All bytes of all connections, once TLS is taken off."""
        self.connections = 0
        self.streamed = 0
        """Bytes of the last stream, all of it."""
        self.broken = threading.Event()
        """Set when whoever asked has broken off."""
        self._plays: deque[Play] = deque()
        self._tls = None
        if pair is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(pair.certificate, pair.key)
        self.address_family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        super().__init__(cast(Any, str(address) if isinstance(address, Path) else address), _Handler)

    def say(self, *plays: Play) -> None:
        """What it answers to the next requests, in turn."""
        self._plays.extend(plays)

    def next(self) -> Play:
        """What it answers now."""
        return self._plays.popleft() if self._plays else Play()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        with self._tls.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, *_: object) -> None:
        """A client that breaks off is what some tests are about."""


class _Handler(socketserver.StreamRequestHandler):
    server: Double

    def handle(self) -> None:
        heard = self._read()
        if heard is None:
            return
        self.server.heard.append(heard)
        play = self.server.next()
        if play.hold is not None:
            self._wait(play.hold)
        speaks = Messages(heard, play) if heard.path.split("?")[0].endswith("/messages") else Chat(heard, play)
        status, message = play.status, play.message
        if status == 200 and (problem := speaks.problem(self.server.key)):
            status, message = problem
        if play.refusal is not None:
            self._send(play.refusal[0], "application/json", json.dumps(play.refusal[1]).encode())
        elif status != 200:
            self._send(status, "application/json", json.dumps(speaks.error(status, message)).encode(), speaks.limits())
        elif play.body is not None:
            self._send(200, play.kind, play.body)
        elif heard.body.get("stream"):
            self._stream(speaks, play)
        else:
            self._send(200, "application/json", json.dumps(speaks.whole()).encode(), speaks.limits())

    def _read(self) -> Heard | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline(1 << 16)
            if not line:
                return None
            head += line
        line, _, rest = head.partition(b"\r\n")
        headers = {name.lower(): value for name, value in BytesHeaderParser().parsebytes(rest).items()}
        raw = self.rfile.read(int(headers["content-length"]))
        self.server.received += head + raw
        return Heard(line.decode(), headers, raw)

    def _wait(self, event: threading.Event) -> None:
        """Wait, and note if whoever asked goes meanwhile."""
        while not event.wait(0.01):
            self.connection.settimeout(0.01)
            with suppress(TimeoutError, ssl.SSLWantReadError):
                if not self.connection.recv(1):
                    self.server.broken.set()
                    raise ConnectionResetError
        self.connection.settimeout(None)

    def _send(self, status: int, kind: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, kind, {"content-length": str(len(data)), **(headers or {})})
        self.wfile.write(data)

    def _head(self, status: int, kind: str, headers: dict[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"content-type": kind, **headers}.items())
        self.wfile.write(f"HTTP/1.1 {status} Told\r\n{lines}connection: close\r\n\r\n".encode())

    def _stream(self, speaks: Chat | Messages, play: Play) -> None:
        events = list(speaks.events())
        self.server.streamed = sum(map(len, events))
        if play.cuts is not None:
            data = b"".join(events)
            at = sorted({0, *(cut for cut in play.cuts if cut < len(data)), len(data)})
            events = [data[start:end] for start, end in pairwise(at)]
        self._head(200, "text/event-stream", {"transfer-encoding": "chunked", **speaks.limits()})
        for number, event in enumerate(events):
            if number == play.events:
                if play.pause is None:
                    if play.error:
                        self._chunk(speaks.error_event())
                        self.wfile.write(b"0\r\n\r\n")
                    return
                self._wait(play.pause)
            self._chunk(event)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


@contextmanager
def provider(
    pair: Pair | None = None, address: tuple[str, int] | Path = ("127.0.0.1", 0), key: str | None = None
) -> Iterator[Double]:
    """A running double: over TLS where a certificate is given, at a Unix socket where the address is a path.

    With `key`, it takes no other, in the header that belongs to its dialect.
    """
    with Double(address, pair, key) as double:
        thread = threading.Thread(target=double.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield double
        finally:
            double.shutdown()
            thread.join()
