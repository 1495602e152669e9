"""The hot path's HTTP client, against a peer that does exactly what a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from appliance.engines.upstream import Upstream
from appliance.errors import Unreachable, UpstreamFailed

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Script = Callable[["Talk"], Awaitable[None]]


class Talk:
    """One connection at the peer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def hear(self) -> tuple[bytes, bytes]:
        """A request: head and body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        return head, await self.reader.readexactly(length)

    async def say(self, *data: bytes) -> None:
        """Send, in as many writes."""
        for part in data:
            self.writer.write(part)
            await self.writer.drain()


class Peer:
    """A server whose every connection follows `script`."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "peer.sock"
        self.connections = 0
        self.script: Script

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.script(Talk(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def start(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._serve, self.socket)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    with TemporaryDirectory() as folder:
        peer = Peer(Path(folder))
        server = await peer.start()
        yield peer
        server.close()


@pytest.fixture
async def upstream(peer: Peer) -> AsyncIterator[Upstream]:
    upstream = Upstream(peer.socket)
    yield upstream
    upstream.close()


async def ask(upstream: Upstream, body: bytes = b"{}") -> bytes:
    response = await upstream.post("/v1/x", body)
    try:
        return await response.whole()
    finally:
        response.close()


async def always_ok(talk: Talk) -> None:
    while True:
        await talk.hear()
        await talk.say(OK)


async def test_a_request_is_one_json_body_with_what_was_asked_for(peer: Peer) -> None:
    heard: list[tuple[bytes, bytes]] = []

    async def script(talk: Talk) -> None:
        heard.append(await talk.hear())
        await talk.say(OK)

    peer.script = script
    upstream = Upstream(peer.socket, prefix="/base", headers={"authorization": "Bearer k"})
    assert await ask(upstream, b'{"a":1}') == b"{}"
    upstream.close()
    head, body = heard[0]
    assert head.startswith(b"POST /base/v1/x HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer k\r\n" in head
    assert b"\r\ncontent-type: application/json\r\n" in head
    assert body == b'{"a":1}'


async def test_connections_are_reused(peer: Peer, upstream: Upstream) -> None:
    peer.script = always_ok
    for _ in range(20):
        assert await ask(upstream) == b"{}"
    assert peer.connections == 1
    await asyncio.gather(*(ask(upstream) for _ in range(10)))
    assert peer.connections <= 10
    before = peer.connections
    await asyncio.gather(*(ask(upstream) for _ in range(10)))
    assert peer.connections == before


async def test_a_connection_that_was_closed_while_idle_is_replaced_unnoticed(peer: Peer, upstream: Upstream) -> None:
    closed = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(OK)
        if peer.connections == 1:
            talk.writer.close()
            await talk.writer.wait_closed()
            closed.set()
        else:
            await always_ok(talk)

    peer.script = script
    await ask(upstream)
    await closed.wait()
    assert await ask(upstream) == b"{}"
    assert peer.connections == 2


async def test_a_stale_connection_found_only_on_use_is_replaced_too(peer: Peer, upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(OK)
        if peer.connections == 1:
            await talk.reader.readexactly(1)  # hangs up over the second request, unanswered
        else:
            await always_ok(talk)

    peer.script = script
    await ask(upstream)
    assert await ask(upstream) == b"{}"
    assert peer.connections == 2


async def test_a_peer_that_hangs_up_on_a_fresh_connection_has_failed(peer: Peer, upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()

    peer.script = script
    with pytest.raises(UpstreamFailed):
        await ask(upstream)
    assert peer.connections == 1, "asked once: it might have begun to work"


async def test_a_peer_that_is_not_there_has_failed(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="can't be reached"):
        await ask(Upstream(tmp_path / "none.sock"))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}",
        CHUNKED + b"2\r\n{}\r\n",
        CHUNKED + b"zz\r\n{}\r\n",
        CHUNKED,
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9",
        b"",
    ],
)
async def test_an_answer_that_breaks_off_or_is_no_http_is_never_whole(
    peer: Peer, upstream: Upstream, answer: bytes
) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(answer)

    peer.script = script
    async with asyncio.timeout(30):
        with pytest.raises(UpstreamFailed):
            await ask(upstream)


async def test_an_announcement_is_not_the_answer(peer: Peer, upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", OK)
        await always_ok(talk)

    peer.script = script
    for _ in range(2):
        assert await ask(upstream) == b"{}"
    assert peer.connections == 1


async def test_an_answer_is_the_same_however_its_bytes_arrive(peer: Peer, upstream: Upstream) -> None:
    answer = CHUNKED + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"

    async def script(talk: Talk) -> None:
        while True:
            await talk.hear()
            for byte in answer:
                await talk.say(bytes([byte]))
                await asyncio.sleep(0)

    peer.script = script
    for _ in range(3):
        assert await ask(upstream) == b"abcdefg"
    assert peer.connections == 1


async def test_a_peer_that_says_close_is_not_kept(peer: Peer, upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(OK.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n"))
        await talk.reader.read()

    peer.script = script
    for _ in range(2):
        assert await ask(upstream) == b"{}"
    assert peer.connections == 2


async def test_closing_in_the_middle_tells_the_peer_at_once(peer: Peer, upstream: Upstream) -> None:
    gone = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(CHUNKED + b"3\r\nabc\r\n")
        await talk.reader.read()
        gone.set()

    peer.script = script
    response = await upstream.post("/v1/x", b"{}")
    assert await response.read() == b"abc"
    response.close()
    async with asyncio.timeout(30):
        await gone.wait()


async def test_giving_up_while_waiting_tells_the_peer_at_once(peer: Peer, upstream: Upstream) -> None:
    heard, gone = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.hear()
        heard.set()
        await talk.reader.read()
        gone.set()

    peer.script = script
    asking = asyncio.create_task(ask(upstream))
    await heard.wait()
    asking.cancel()
    async with asyncio.timeout(30):
        await gone.wait()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_what_nobody_reads_stays_with_the_peer(peer: Peer, upstream: Upstream) -> None:
    sent = 0

    async def script(talk: Talk) -> None:
        nonlocal sent
        await talk.hear()
        await talk.say(CHUNKED)
        while True:
            await talk.say(b"10000\r\n" + bytes(65_536) + b"\r\n")
            sent += 65_536

    peer.script = script
    response = await upstream.post("/v1/x", b"{}")
    before = -1
    while before != sent:  # until the peer is held back
        before = sent
        await asyncio.sleep(0.1)
    assert sent < 2**20 + 2**18 * 4
    read = 0
    while read < 16 * 2**20:  # reading lets it go on
        read += len(await response.read())
    assert sent < read + 4 * 2**20
    response.close()


async def test_closing_the_upstream_breaks_off_answers_in_flight(peer: Peer, upstream: Upstream) -> None:
    heard = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.hear()
        heard.set()
        await talk.reader.read()

    peer.script = script
    asking = asyncio.create_task(ask(upstream))
    await heard.wait()
    upstream.close()
    async with asyncio.timeout(30):
        with pytest.raises(UpstreamFailed):
            await asking


async def test_a_request_over_which_a_peer_hangs_up_is_asked_twice_at_most(peer: Peer, upstream: Upstream) -> None:
    together = asyncio.Barrier(5)
    heard = 0

    async def script(talk: Talk) -> None:
        nonlocal heard
        await talk.hear()
        await together.wait()
        await talk.say(OK)
        await talk.hear()  # and hangs up over it
        heard += 1

    async def deadly(talk: Talk) -> None:
        nonlocal heard
        await talk.hear()
        heard += 1

    peer.script = script
    await asyncio.gather(*(ask(upstream) for _ in range(5)))
    assert peer.connections == 5
    peer.script = deadly
    with pytest.raises(UpstreamFailed):
        await ask(upstream)
    assert heard == 2
    assert peer.connections == 6


async def test_a_pooled_connection_lost_amid_an_answer_is_not_asked_again(peer: Peer, upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(OK)
        await talk.hear()
        await talk.say(b"HTTP/1.1 2")

    peer.script = script
    await ask(upstream)
    with pytest.raises(UpstreamFailed):
        await ask(upstream)
    assert peer.connections == 1


async def test_a_pooled_connection_given_up_for_silence_is_not_asked_again(peer: Peer) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(OK)
        await talk.hear()
        await talk.reader.read()

    peer.script = script
    upstream = Upstream(peer.socket, patience=0.1)
    await ask(upstream)
    async with asyncio.timeout(30):
        with pytest.raises(UpstreamFailed):
            await ask(upstream)
    assert peer.connections == 1
    upstream.close()


@pytest.mark.parametrize("first", [OK, CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"])
async def test_a_second_answer_to_one_request_reaches_nobody(peer: Peer, upstream: Upstream, first: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(first + OK.replace(b"{}", b"[]") if peer.connections == 1 else OK)
        await talk.reader.read()

    peer.script = script
    for _ in range(2):
        assert await ask(upstream) == b"{}"
    assert peer.connections == 2


async def test_an_answer_that_nobody_asked_for_ends_its_connection(peer: Peer, upstream: Upstream) -> None:
    idle, gone = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(OK)
        if peer.connections == 1:
            await idle.wait()
            await talk.say(OK.replace(b"{}", b"[]"))
            with contextlib.suppress(ConnectionError):
                await talk.reader.read()
            gone.set()
        else:
            await always_ok(talk)

    peer.script = script
    assert await ask(upstream) == b"{}"
    idle.set()
    async with asyncio.timeout(30):
        await gone.wait()
    assert await ask(upstream) == b"{}"
    assert peer.connections == 2


async def test_a_priority_goes_into_the_engines_own_header_and_into_no_other_request(
    peer: Peer, upstream: Upstream
) -> None:
    heads: list[bytes] = []

    async def script(talk: Talk) -> None:
        while True:
            heads.append((await talk.hear())[0])
            await talk.say(OK)

    peer.script = script
    for priority in (20, None):
        response = await upstream.post("/v1/messages", b"{}", priority=priority)
        await response.whole()
        response.close()
    assert [b"x-vllm-priority: 20\r\n" in head for head in heads] == [True, False]
    assert b"x-vllm-priority" not in heads[1]


async def test_a_body_that_is_longer_than_it_may_be_is_refused(peer: Peer, upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n", b"12345", b"678901")

    peer.script = script
    for most, whole in ((11, b"12345678901"), (10, None)):
        response = await upstream.post("/v1/x", b"{}")
        if whole:
            assert await response.whole(most) == whole
        else:
            with pytest.raises(UpstreamFailed):
                await response.whole(most)
        response.close()
    upstream.close()


async def test_headers_are_heard_where_somebody_listens(peer: Peer) -> None:
    async def script(talk: Talk) -> None:
        head, _ = await talk.hear()
        assert b"content-type: application/x\r\n" in head
        await talk.say(b"HTTP/1.1 429 Later\r\nRetry-After:  7 \r\ncontent-length: 0\r\n\r\n")
        await talk.hear()
        await talk.say(OK)

    peer.script = script
    upstream = Upstream(peer.socket, content_type="application/x", hears_headers=True)
    for told in ("7", ""):  # on one connection
        response = await upstream.post("/v1/x", b"{}")
        assert response.retry_after == told
        assert await response.whole() in (b"", b"{}")
        response.close()
    assert peer.connections == 1
    upstream.close()
