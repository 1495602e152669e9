"""The wire, with real sockets against the real server on uvloop in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.api.wire import PEER, Certificate, WireLimits, build_server, listen_tcp, listen_unix

LIMITS = WireLimits(
    header_seconds=5,
    body_seconds=5,
    idle_seconds=5,
    write_seconds=5,
    linger_seconds=0.5,
    header_bytes=4096,
    header_count=16,
    body_bytes=100_000,
    connections=64,
    pipelined=4,
)
PATIENCE = 30.0  # seconds after which a test gives up


@dataclass
class App:
    """An ASGI application that notes what reached it."""

    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    scopes: list[dict[str, Any]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    sent: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.scopes.append(scope)
        path, body = scope["path"], b""
        while path != "/early":
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.append(path)
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.seen.append((scope["method"], path, body))
        if path == "/wait":
            self.gone.append(path if (await receive())["type"] == "http.disconnect" else "?")
            return
        while path == "/held" and not self.release.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)
        body = path.encode() + body
        endless = path == "/endless"
        headers = [] if endless else [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while endless:
            await send({"type": "http.response.body", "body": bytes(16_384), "more_body": True})
            self.sent += 16_384
            await asyncio.sleep(0)
            if self.release.is_set():
                break
        await send({"type": "http.response.body", "body": b"" if endless else body})


@dataclass
class Door:
    app: App
    address: Any
    server: Any
    thread: threading.Thread

    def connect(self, **options: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        for name, value in options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        sock.settimeout(PATIENCE)
        sock.connect(self.address)
        return sock

    def afresh(self) -> Door:
        """Itself, once nothing of an earlier test is going on, with nothing noted."""
        until(lambda: not self.server.server_state.tasks)
        for notes in (self.app.seen, self.app.scopes, self.app.gone):
            notes.clear()
        return self

    def say(self, *pieces: bytes) -> bytes:
        """Sends the pieces, each in its own packet; everything the server says until it closes."""
        with self.connect() as sock:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(0.02)
                sock.sendall(piece)
            return everything(sock)


@contextmanager
def door(limits: WireLimits = LIMITS, *, unix: Path | None = None, **options: Any) -> Iterator[Door]:
    app = App()
    server = build_server(app, limits, drain_seconds=options.pop("drain_seconds", 1), **options)
    sock = listen_unix(unix) if unix else listen_tcp("127.0.0.1", 0)
    address = sock.getsockname()

    def life() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve(sockets=[sock]))

    thread = threading.Thread(target=life, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield Door(app, address, server, thread)
    finally:
        app.release.set()
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def until(condition: Callable[[], Any]) -> None:
    """Waits for it; fails when patience ends."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def everything(sock: socket.socket) -> bytes:
    said = b""
    while piece := sock.recv(65_536):
        said += piece
    return said


def answers(said: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """(status, headers, body) of each response; fails on anything incomplete."""
    found = []
    while said:
        head, _, rest = said.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        length = int(headers.get("content-length", 0))
        assert len(rest) >= length, "incomplete answer"
        found.append((status, headers, rest[:length]))
        said = rest[length:]
    return found


def refused(said: bytes, status: int, code: str) -> None:
    """It is one complete refusal in OpenAI's envelope, and nothing else."""
    [(got, headers, body)] = answers(said)
    assert (got, json.loads(body)["error"]["code"]) == (status, code)
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    assert "server" not in headers


@pytest.fixture(scope="module")
def shared() -> Iterator[Door]:
    with door() as opened:
        yield opened


@pytest.fixture
def plain(shared: Door) -> Door:
    return shared.afresh()


def get(path: str = "/", *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def post(body: bytes, *lines: str, path: str = "/echo") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


CHUNKED = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
MALFORMED = [
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost: a\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\n" + SMUGGLED,
    b"GET / HTTP/1.1\rHost: a\r\r",
    b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tfolded\r\n\r\n",
    b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
    b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    b"GET / http/1.1\r\nHost: a\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\n" + b"a" * 11,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello",
    CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    CHUNKED.replace(b": chunked", b": chunked, chunked") + b"\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
]
MALFORMED_BODIES = [
    CHUNKED + b"\r\nzz\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"\r\n-5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"\r\n 5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"\r\n5 \r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"\r\n5\nhello\r\n0\r\n\r\n",
    CHUNKED + b"\r\n5\r\nhello\n0\r\n\r\n",
    CHUNKED + b"\r\n5\r\nhelloX0\r\n\r\n",
    CHUNKED + b"\r\n5\r\nhello0\r\n\r\n",
    CHUNKED + b"\r\n\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"\r\n5;\nhello\r\n0\r\n\r\n",
    CHUNKED + b"\r\n5;a=\0\r\nhello\r\n0\r\n\r\n",
]
AMBIGUOUS = [
    (b"GET / HTTP/1.1\r\n\r\n", "invalid_host_header"),
    (b"GET / HTTP/1.0\r\n\r\n", "invalid_host_header"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "invalid_host_header"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", "invalid_host_header"),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "invalid_host_header"),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "invalid_host_header"),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "invalid_host_header"),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "invalid_host_header"),
    (b"GET /\r\n\r\n", "unsupported_http_version"),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", "unsupported_http_version"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "unsupported_http_version"),
    (get("/", "Content-Type: a", "Content-Type: b"), "repeated_header"),
    (CHUNKED.replace(b": chunked", b": gzip, chunked") + b"\r\n0\r\n\r\n", "invalid_body_framing"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "invalid_body_framing"),
    (CHUNKED.replace(b": chunked", b": xchunked") + b"\r\n0\r\n\r\n", "invalid_body_framing"),
    (CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n0\r\n\r\n", "invalid_body_framing"),
    (get("/", "Connection: Upgrade", "Upgrade: websocket"), "upgrade_not_supported"),
    (get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c") + SMUGGLED, "upgrade_not_supported"),
    (post(SMUGGLED, "Connection: Upgrade", "Upgrade: h2c"), "upgrade_not_supported"),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "invalid_request_target"),
    (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", None),
    (CHUNKED + b"\r\n0\r\nAuthorization: a\r\n\r\n" + SMUGGLED, "trailers_not_supported"),
    (CHUNKED + b"\r\n5\r\nhello\r\n0\r\nX: a\r\nY: b\r\n\r\n", "trailers_not_supported"),
]
TARGETS = [
    *("http://a/", "//a/", "/a//b", "/a/../b", "/..", "/.", "/./a", "/a/.", "/a/..?b", "/%2e%2e/a", "/%2E/a"),
    *("/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/a%0a", "/a%7f", "/a%252f", "/a%", "/a%2", "/a%zz"),
    *("/ä", "/a#b", "/a|b", '/a"', "/a<", "*", "a", "?a", "/a?ä", "/a?b#c"),
]
ADMITTED = {
    "/": "/",
    "/v1/chat/completions": "/v1/chat/completions",
    "/v1/models/": "/v1/models/",
    "/v1/models/llama%3A8b": "/v1/models/llama:8b",
    "/v1/models/m%C3%BCller": "/v1/models/müller",
    "/?a": "/",
    "/a/...": "/a/...",
    "/a/.b/..c": "/a/.b/..c",
    "/a/b?c=%2F..//&d=[1]|x": "/a/b",
}


@pytest.mark.parametrize("raw", MALFORMED)
def test_what_no_parser_should_guess_about_is_refused(plain: Door, raw: bytes) -> None:
    refused(plain.say(raw), 400, "malformed_request")
    assert not plain.app.scopes


@pytest.mark.parametrize("raw", MALFORMED[:5] + MALFORMED[-10:])
def test_it_is_refused_byte_by_byte_too(plain: Door, raw: bytes) -> None:
    with plain.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            for byte in raw:
                sock.send(bytes([byte]))
                time.sleep(0.0005)
        refused(everything(sock), 400, "malformed_request")
    assert not plain.app.scopes


@pytest.mark.parametrize("raw", MALFORMED_BODIES)
def test_a_broken_body_is_refused_and_the_application_sees_a_disconnect(plain: Door, raw: bytes) -> None:
    refused(plain.say(raw), 400, "malformed_request")
    until(lambda: plain.app.gone == ["/echo"])
    assert not plain.app.seen


@pytest.mark.parametrize(("raw", "code"), AMBIGUOUS)
def test_what_has_two_readings_is_refused(plain: Door, raw: bytes, code: str | None) -> None:
    refused(plain.say(raw), 400, code or "upgrade_not_supported")
    assert not plain.app.seen


@pytest.mark.parametrize("target", TARGETS)
def test_an_ambiguous_target_is_refused(plain: Door, target: str) -> None:
    said = plain.say(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    [(status, _, body)] = answers(said)
    assert (status, json.loads(body)["error"]["type"]) == (400, "invalid_request_error")
    assert not plain.app.scopes


@pytest.mark.parametrize(("target", "path"), ADMITTED.items())
def test_an_ordinary_target_is_admitted(plain: Door, target: str, path: str) -> None:
    [(status, headers, _)] = answers(plain.say(get(target, "Connection: close")))
    assert (status, plain.app.seen) == (200, [("GET", path, b"")])
    assert "server" not in headers
    assert "date" in headers


def test_upgrade_without_the_connection_option_is_ignored(plain: Door) -> None:
    assert answers(plain.say(get("/", "Upgrade: h2c", "Connection: close")))[0][0] == 200


def test_expect_100_continue_still_works(plain: Door) -> None:
    with plain.connect() as sock:
        sock.sendall(post(b"", "Expect: 100-continue", "Connection: close").replace(b": 0", b": 5"))
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert answers(everything(sock))[0][2] == b"/echohello"


def test_a_body_too_large_is_refused_before_the_client_is_told_to_continue(plain: Door) -> None:
    head = post(b"", "Expect: 100-continue").replace(b": 0", b": 100001")
    refused(plain.say(head), 413, "request_body_too_large")
    assert not plain.app.scopes


def test_a_client_that_sends_all_of_a_body_too_large_can_read_why(plain: Door) -> None:
    """A plain close() would answer its bytes with RST, which destroys the answer."""
    refused(plain.say(post(bytes(4_000_000))), 413, "request_body_too_large")
    assert not plain.app.scopes


def test_a_chunked_body_is_counted_as_it_comes(plain: Door) -> None:
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    refused(plain.say(CHUNKED + b"\r\n" + chunk * 100), 413, "request_body_too_large")
    until(lambda: plain.app.gone == ["/echo"])
    assert not plain.app.seen


def test_a_body_of_exactly_the_limit_is_served(plain: Door) -> None:
    body = os.urandom(LIMITS.body_bytes)
    assert answers(plain.say(post(body, "Connection: close")))[0][2] == b"/echo" + body
    chunks = b"186a0\r\n" + body + b"\r\n0\r\n\r\n"
    assert answers(plain.say(CHUNKED + b"Connection: close\r\n\r\n" + chunks))[0][2] == b"/echo" + body


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"a" * 5000,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 5000,
        get("/", "X: " + "a" * 4090),
        get("/" + "a" * 4090),
        get("/", *("X: a" for _ in range(16))),
        b"\r\n" * 3000,
    ],
)
def test_too_much_head_is_refused_also_before_it_ends(plain: Door, raw: bytes) -> None:
    refused(plain.say(raw), 431, "request_headers_too_large")
    assert not plain.app.seen


@pytest.mark.parametrize("start", [b"0\r\nX: ", b"5;"])
def test_endless_trailers_and_chunk_extensions_are_refused(plain: Door, start: bytes) -> None:
    """They are no body bytes, so the body's limit would not see them."""
    refused(plain.say(CHUNKED + b"\r\n" + start, b"a" * 5000), 431, "request_headers_too_large")
    assert not plain.app.seen


def test_a_head_is_measured_also_behind_another_request(plain: Door) -> None:
    """In one packet, where counting what arrives tells nothing about the second."""
    said = plain.say(get("/a") + get("/b", "X: " + "a" * 4090))
    assert [status for status, _, _ in answers(said)] in ([200], [])
    assert all(path == "/a" for _, path, _ in plain.app.seen)


def test_pipelined_requests_are_answered_in_order(plain: Door) -> None:
    said = plain.say(get("/a") + post(b"b") + get("/c") + get("/d", "Connection: close") + SMUGGLED)
    assert [body for _, _, body in answers(said)] == [b"/a", b"/echob", b"/c", b"/d"]
    assert [path for _, path, _ in plain.app.seen] == ["/a", "/echo", "/c", "/d"]


def test_pipelining_is_bounded(plain: Door) -> None:
    assert len(answers(plain.say(get() * 500))) <= 1
    assert len(plain.app.scopes) <= 1


def test_pipelined_bodies_together_are_bounded(plain: Door) -> None:
    with plain.connect() as sock, suppress(ConnectionError):
        sock.sendall(get("/wait") + post(bytes(60_000)) * 3)
        assert everything(sock) == b""
    until(lambda: plain.app.gone == ["/wait"])
    assert len(plain.app.scopes) == 1


def test_no_refusal_is_written_into_the_place_of_another_answer(plain: Door) -> None:
    said = plain.say(get("/wait") + b"garbage\r\n\r\n")
    assert said == b""
    until(lambda: plain.app.gone == ["/wait"])


def test_after_an_error_nothing_more_is_served(plain: Door) -> None:
    refused(plain.say(get("/", "Host: b") + SMUGGLED, SMUGGLED), 400, "invalid_host_header")
    assert not plain.app.scopes


def test_a_client_that_goes_takes_its_running_request_with_it_though_another_waits(plain: Door) -> None:
    """uvicorn tells only the newest request of a connection."""
    with plain.connect() as sock:
        sock.sendall(get("/wait"))
        until(lambda: plain.app.seen)
        sock.sendall(get("/b"))
        time.sleep(0.05)
    until(lambda: plain.app.gone == ["/wait"])
    assert len(plain.app.scopes) == 1


def test_trailers_never_become_headers_of_this_or_the_next_request(plain: Door) -> None:
    plain.say(CHUNKED + b"\r\n0\r\nAuthorization: a\r\n\r\n" + SMUGGLED)
    assert all(b"authorization" not in dict(scope["headers"]) for scope in plain.app.scopes)


def test_an_answer_before_the_body_can_be_read(plain: Door) -> None:
    """Closing with `Connection: close` must not destroy it while the client still sends."""
    with plain.connect() as sock:
        sock.sendall(post(b"", "Connection: close", path="/early").replace(b": 0", b": 99999"))
        until(lambda: plain.app.seen)
        sock.sendall(bytes(50_000))
        assert answers(everything(sock))[0][2] == b"/early"


def test_what_follows_an_early_answer_on_a_kept_connection_is_the_next_request(plain: Door) -> None:
    with plain.connect() as sock:
        sock.sendall(post(b"", path="/early").replace(b": 0", b": %d" % len(SMUGGLED)))
        assert answers(sock.recv(1000))[0][2] == b"/early"
        sock.sendall(SMUGGLED + get("/next", "Connection: close"))
        assert answers(everything(sock))[0][2] == b"/next"
    assert [path for _, path, _ in plain.app.seen] == ["/early", "/next"]


BRIEF = replace(
    LIMITS,
    header_seconds=0.3,
    body_seconds=0.3,
    idle_seconds=0.4,
    write_seconds=0.4,
    body_bytes_per_second=1e4,
)


@pytest.fixture(scope="module")
def hurried() -> Iterator[Door]:
    with door(BRIEF) as opened:
        yield opened


@pytest.fixture
def hasty(hurried: Door) -> Door:
    return hurried.afresh()


def drip(sock: socket.socket, piece: bytes) -> float:
    """Sends the piece again and again until the server hangs up; the seconds it took."""
    begun = time.monotonic()
    sock.settimeout(0.02)
    while time.monotonic() < begun + PATIENCE:
        with suppress(TimeoutError, ConnectionError):
            if sock.recv(1, socket.MSG_PEEK) is not None:
                break
        with suppress(ConnectionError):
            sock.send(piece)
    sock.settimeout(PATIENCE)
    return time.monotonic() - begun


@pytest.mark.parametrize("head", [b"G", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_headers_that_drip_are_refused(hasty: Door, head: bytes) -> None:
    with hasty.connect() as sock:
        sock.sendall(head)
        assert drip(sock, b"" if head == b"G" else b"X: a\r\n") < 1
        refused(everything(sock), 408, "request_headers_timeout")
    assert not hasty.app.scopes


def test_a_body_that_drips_is_refused_and_the_application_sees_a_disconnect(hasty: Door) -> None:
    with hasty.connect() as sock:
        sock.sendall(post(b"").replace(b": 0", b": 99999"))
        assert drip(sock, b"a") < 1
        refused(everything(sock), 408, "request_body_timeout")
    until(lambda: hasty.app.gone == ["/echo"])
    assert not hasty.app.seen


def test_a_long_body_at_a_fair_rate_is_served(hasty: Door) -> None:
    with hasty.connect() as sock:
        sock.sendall(post(b"", "Connection: close").replace(b": 0", b": 20000"))
        for _ in range(20):  # a second, with 0.3 and one for each 10,000 bytes allowed
            time.sleep(0.05)
            sock.sendall(bytes(1000))
        assert answers(everything(sock))[0][0] == 200


@pytest.mark.parametrize("before", [b"", b"\r\n", get()])
def test_an_idle_connection_is_closed_without_a_word(hasty: Door, before: bytes) -> None:
    with hasty.connect() as sock:
        sock.sendall(before)
        begun = time.monotonic()
        said = everything(sock)
        assert time.monotonic() - begun < 10
    assert len(answers(said)) == (1 if before.startswith(b"GET") else 0)


def test_empty_lines_don_t_keep_a_connection(hasty: Door) -> None:
    with hasty.connect() as sock:
        assert drip(sock, b"\r\n") < 1


def test_a_slow_application_is_not_the_clients_fault(hasty: Door) -> None:
    hasty.app.release.clear()
    with hasty.connect() as sock:
        sock.sendall(get("/held", "Connection: close"))
        time.sleep(1)
        hasty.app.release.set()
        assert answers(everything(sock))[0][0] == 200


def test_a_client_that_takes_nothing_holds_back_only_itself_and_is_dropped(hasty: Door) -> None:
    hasty.app.release.clear()
    hasty.app.sent = 0
    with hasty.connect(SO_RCVBUF=4096) as deaf:
        deaf.sendall(get("/endless"))
        until(lambda: hasty.app.sent)
        most = 0
        while not hasty.app.release.is_set():
            begun = time.monotonic()
            assert answers(hasty.say(get("/a", "Connection: close")))[0][2] == b"/a"
            assert time.monotonic() - begun < 10
            buffers = [one.transport.get_write_buffer_size() for one in list(hasty.server.server_state.connections)]
            most = max([most, *buffers])
            if not any(buffers) and most:
                hasty.app.release.set()
        assert 0 < most <= 65_536 + 16_384 + 16


def test_a_client_that_reads_slowly_keeps_its_answer(hasty: Door) -> None:
    hasty.app.release.clear()
    with hasty.connect(SO_RCVBUF=4096) as slow:
        slow.sendall(get("/endless", "Connection: close"))
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert slow.recv(65_536)
            time.sleep(0.002)
        hasty.app.release.set()
        last = b""
        while piece := slow.recv(65_536):
            last = (last + piece)[-5:]
        assert last == b"0\r\n\r\n"


def test_too_many_connections_are_told_so() -> None:
    with door(replace(LIMITS, connections=3)) as opened:
        kept = [opened.connect() for _ in range(3)]
        until(lambda: len(opened.server.server_state.connections) == 3)
        said = opened.say(get())
        refused(said, 503, "too_many_connections")
        assert answers(said)[0][1]["retry-after"] == "1"
        kept.pop().close()
        until(lambda: len(opened.server.server_state.connections) <= 2)
        assert answers(opened.say(get("/", "Connection: close")))[0][0] == 200
        for sock in kept:
            sock.close()


def test_a_unix_socket_replaces_a_stale_one_and_serves(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    for _ in range(2):
        with door(unix=path) as opened:
            assert answers(opened.say(get("/", "Connection: close")))[0][0] == 200
            refused(opened.say(get("//")), 400, "invalid_request_target")
    assert path.stat().st_mode & 0o777 == 0o660


def test_the_application_learns_whose_process_is_behind_a_unix_socket(tmp_path: Path) -> None:
    with door(unix=tmp_path / "door.sock") as opened:
        opened.say(get("/") + get("/", "Connection: close"))
        assert [scope["extensions"] for scope in opened.app.scopes] == [{PEER: {"uid": os.getuid()}}] * 2
    with door() as opened:
        opened.say(get("/", "Connection: close"))
        assert "extensions" not in opened.app.scopes[0]


def test_stop_lets_a_request_in_flight_finish_and_accepts_no_more() -> None:
    with door(drain_seconds=4) as opened, opened.connect() as sock, opened.connect() as idle:
        sock.sendall(get("/held"))
        until(lambda: opened.app.seen)
        opened.server.stop()
        assert everything(idle) == b""
        with pytest.raises(ConnectionRefusedError):
            opened.connect()
        opened.app.release.set()
        [(status, headers, _)] = answers(everything(sock))
        assert (status, headers["connection"]) == (200, "close")
        opened.thread.join(PATIENCE)


def test_stop_does_not_wait_for_ever() -> None:
    with door(drain_seconds=1) as opened, opened.connect() as sock:
        sock.sendall(get("/held"))
        until(lambda: opened.app.seen)
        begun = time.monotonic()
        opened.server.stop()
        opened.thread.join(PATIENCE)
        assert time.monotonic() - begun < 10


def certify(folder: Path, name: str) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", "new.key", "-out", "new.pem", "-days", "1", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], cwd=folder, check=True, capture_output=True)
    (folder / "new.pem").replace(folder / "tls.pem")
    (folder / "new.key").replace(folder / "tls.key")


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    certify(tmp_path, "first")
    certificate = Certificate(tmp_path / "tls.pem", tmp_path / "tls.key")
    with door(certificate=certificate) as opened:

        def shown() -> bytes:
            with trusting().wrap_socket(opened.connect()) as sock:
                assert sock.version() in ("TLSv1.2", "TLSv1.3")
                sock.sendall(get("/", "Connection: close"))
                assert answers(everything(sock))[0][0] == 200
                return sock.getpeercert(binary_form=True) or b""

        with trusting().wrap_socket(opened.connect()) as early:
            first = shown()
            (tmp_path / "tls.pem").write_text("half a file")
            assert not certificate.refresh()
            assert shown() == first
            certify(tmp_path, "second")
            until(lambda: shown() != first)
            early.sendall(get("/", "Connection: close"))
            assert answers(everything(early))[0][0] == 200


def test_tls_refuses_old_versions_slow_handshakes_and_plain_text(tmp_path: Path) -> None:
    certify(tmp_path, "first")
    certificate = Certificate(tmp_path / "tls.pem", tmp_path / "tls.key")
    assert certificate.context.minimum_version >= ssl.TLSVersion.TLSv1_2
    with door(BRIEF, certificate=certificate) as opened:
        with opened.connect() as silent:
            begun = time.monotonic()
            with suppress(ConnectionError):
                everything(silent)
            assert time.monotonic() - begun < 10
        with suppress(ConnectionError):
            assert b"HTTP" not in opened.say(get())
        with trusting().wrap_socket(opened.connect()) as sock:
            sock.sendall(get("/", "Host: b"))
            refused(everything(sock), 400, "invalid_host_header")
        assert len(opened.app.scopes) == 0


def test_over_tls_answers_arrive_and_deaf_clients_are_dropped_too(tmp_path: Path) -> None:
    certify(tmp_path, "first")
    with door(BRIEF, certificate=Certificate(tmp_path / "tls.pem", tmp_path / "tls.key")) as opened:
        with trusting().wrap_socket(opened.connect()) as sock:
            with suppress(ConnectionError, ssl.SSLError):
                sock.sendall(post(bytes(1_000_000)))
            refused(everything(sock), 413, "request_body_too_large")
        with trusting().wrap_socket(opened.connect()) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n")
            refused(everything(sock), 408, "request_headers_timeout")
        with trusting().wrap_socket(opened.connect(SO_RCVBUF=4096)) as deaf:
            deaf.sendall(get("/endless"))
            until(lambda: opened.app.sent)
            until(lambda: not opened.server.server_state.connections)


def test_a_certificate_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Certificate(tmp_path / "tls.pem", tmp_path / "tls.key")


PIECES = st.sampled_from(
    [
        *MALFORMED,
        *MALFORMED_BODIES,
        *(raw for raw, _ in AMBIGUOUS),
        get(),
        post(b"a"),
        CHUNKED,
        b"\r\n",
        b"0\r\n\r\n",
    ]
)
NOISE = st.lists(st.one_of(PIECES, st.binary(max_size=200)), min_size=1, max_size=6).map(b"".join)


@pytest.mark.long
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=NOISE, seed=st.integers(0, 2**32))
def test_noise_never_breaks_the_server(plain: Door, raw: bytes, seed: int) -> None:
    """Cut anywhere, mutated anywhere: no more answers than requests, whole answers only, and it lives."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    noise = bytearray(raw)
    for _ in range(chance.randrange(3)):
        noise[chance.randrange(len(noise) or 1) : 0] = b"" if not noise else bytes([chance.randrange(256)])
    reached = len(plain.app.scopes)
    with plain.connect() as sock, suppress(ConnectionError):
        while noise:
            cut = chance.randrange(1, len(noise) + 1)
            sock.sendall(noise[:cut])
            del noise[:cut]
        said = b""
        sock.settimeout(0.03)  # then it waits for more
        with suppress(TimeoutError):
            while piece := sock.recv(65_536):
                said += piece
        for status, _, _ in answers(said):
            assert status in (100, 200, 400, 413, 431)
    assert len(plain.app.scopes) - reached <= raw.count(b"HTTP/") + 1
    assert answers(plain.say(get("/alive", "Connection: close")))[0][2] == b"/alive"


def test_a_refusal_has_the_envelope_of_its_path_and_an_id(plain: Door) -> None:
    for path, shape in (("/v1/messages", {"type", "error", "request_id"}), ("/v1/chat/completions", {"error"})):
        with plain.connect() as sock:
            sock.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {10**12}\r\n\r\n".encode())
            status, headers, body = answers(everything(sock))[0]
        assert status == 413
        assert set(json.loads(body)) == shape
        assert headers["x-request-id"].startswith("req_")
