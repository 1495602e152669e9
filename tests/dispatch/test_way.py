"""The outlet's end of the channel: every order has an answer, and no connection is taken on trust."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from appliance.dispatch.dialler import AT_ONCE, ORDER, Destination
from appliance.dispatch.way import Dials


class Dialler:
    """Stands in for the dialler: answers what a test tells it to."""

    def __init__(self) -> None:
        self.outlets_end, self.channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)

    async def ordered(self) -> int:
        (index,) = ORDER.unpack(await asyncio.get_running_loop().sock_recv(self.channel, 64))
        return int(index)

    def answer(self, index: int, reason: str = "", connection: socket.socket | None = None) -> None:
        descriptors = [connection.fileno()] if connection else []
        socket.send_fds(self.channel, [ORDER.pack(index) + reason.encode()], descriptors)


@pytest.fixture
def dialler() -> Iterator[Dialler]:
    made = Dialler()
    with made.outlets_end, made.channel:
        yield made


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def in_house(server: socket.socket) -> Destination:
    return Destination("far", "127.0.0.1", server.getsockname()[1], "in-house", tls=False)


async def test_a_connection_is_handed_to_whoever_ordered_it(dialler: Dialler, server: socket.socket) -> None:
    dials = Dials(dialler.outlets_end, [in_house(server), in_house(server)])
    waiting = asyncio.create_task(dials.connection(1))
    assert await dialler.ordered() == 1
    with socket.create_connection(server.getsockname()) as opened:
        dialler.answer(1, connection=opened)
        with await waiting as connection:
            assert connection.getpeername() == server.getsockname()


async def test_a_reason_is_an_error(dialler: Dialler, server: socket.socket) -> None:
    dials = Dials(dialler.outlets_end, [in_house(server)])
    waiting = asyncio.create_task(dials.connection(0))
    dialler.answer(await dialler.ordered(), "no such name")
    with pytest.raises(OSError, match="no such name"):
        await waiting


async def test_a_connection_to_anywhere_else_is_not_taken(dialler: Dialler, server: socket.socket) -> None:
    elsewhere = [
        Destination("far", "127.0.0.1", 9, "in-house", tls=False),
        Destination("far", "cloud.test", server.getsockname()[1], "provider", tls=True),
    ]
    dials = Dials(dialler.outlets_end, elsewhere)
    for index in range(len(elsewhere)):
        waiting = asyncio.create_task(dials.connection(index))
        await dialler.ordered()
        with socket.create_connection(server.getsockname()) as opened:
            dialler.answer(index, connection=opened)
        with pytest.raises(PermissionError, match="the dialler connected to"):
            await waiting


async def test_what_comes_too_late_goes_to_the_next_or_is_closed(dialler: Dialler, server: socket.socket) -> None:
    dials = Dials(dialler.outlets_end, [in_house(server)])
    impatient = asyncio.create_task(dials.connection(0))
    await dialler.ordered()
    impatient.cancel()
    patient = asyncio.create_task(dials.connection(0))
    await dialler.ordered()
    callers = []
    for _ in range(2):
        with socket.create_connection(server.getsockname()) as opened:
            dialler.answer(0, connection=opened)
        callers.append(server.accept()[0])
    with await patient:
        callers[1].settimeout(10)
        assert await asyncio.to_thread(callers[1].recv, 1) == b""  # nobody waited for it
    for caller in callers:
        caller.close()


async def test_no_more_orders_are_open_than_the_dialler_takes(dialler: Dialler, server: socket.socket) -> None:
    dials = Dials(dialler.outlets_end, [in_house(server)])
    waiting = [asyncio.create_task(dials.connection(0)) for _ in range(AT_ONCE + 1)]
    for _ in range(AT_ONCE):
        await dialler.ordered()
    with pytest.raises(BlockingIOError):
        dialler.channel.recv(64)
    dialler.answer(0, "no")
    assert await dialler.ordered() == 0  # the one that had to wait
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_without_a_dialler_every_order_fails_at_once(dialler: Dialler, server: socket.socket) -> None:
    dials = Dials(dialler.outlets_end, [in_house(server)])
    waiting = asyncio.create_task(dials.connection(0))
    await dialler.ordered()
    dialler.channel.close()
    with pytest.raises(ConnectionError, match="has to be started again"):
        await waiting
    for _ in range(2 * AT_ONCE):
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                await dials.connection(0)
                pytest.fail("there is nothing to connect with")
