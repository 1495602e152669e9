"""Ways out, as the outlet has them: it asks the dialler for a connection and speaks TLS on it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from appliance.dispatch.dialler import AT_ONCE, LONGEST_ANSWER, ORDER, Destination

_SECONDS = 15.0
"""For a connection with all that belongs to it; the dialler gives up somewhat earlier."""
_GONE = "the process that opens connections has ended; the appliance has to be started again"


@dataclass(frozen=True, slots=True)
class Route:
    """Where one Unix socket of the outlet leads, whose word counts there, and the key that opens it."""

    destination: Destination
    ca: str | None = None
    """PEM file; None takes the system's authorities."""
    key: str | None = field(default=None, repr=False)
    """Of a provider. Endpoints in the house get theirs from the gateway, with the request."""
    api: str = "openai"
    """What a provider speaks, as in the config: by it, its key goes into one header or another."""
    end_to_end: bool = False
    """True: bytes pass as they are, since TLS is spoken by whoever comes to the socket. For what is no HTTP."""


class Dials:
    """The outlet's end of the channel to the dialler."""

    def __init__(self, channel: socket.socket, destinations: list[Destination]) -> None:
        self._channel = channel
        self._destinations = destinations
        self._waiting: list[deque[asyncio.Future[socket.socket]]] = [deque() for _ in destinations]
        self._room = [asyncio.Semaphore(AT_ONCE) for _ in destinations]
        self._gone = False
        asyncio.get_running_loop().add_reader(channel, self._on_answer)

    async def connection(self, index: int) -> socket.socket:
        """A connection to a destination. Raises `OSError` with the reason."""
        await self._room[index].acquire()
        if self._gone:
            self._room[index].release()
            raise ConnectionError(_GONE)
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[index].append(waiter)
        self._channel.send(ORDER.pack(index))
        connection: socket.socket = await waiter
        # checked here again, so that a dialler that isn't itself any more leads nowhere either
        destination, peer = self._destinations[index], connection.getpeername()
        right = connection.proto == socket.IPPROTO_TCP and peer[1] == destination.port and destination.admits(peer[0])
        if not right:
            connection.close()
            raise PermissionError(f"the dialler connected to {peer}")
        return connection

    def _on_answer(self) -> None:
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            answer, descriptors, _, _ = socket.recv_fds(self._channel, LONGEST_ANSWER, 1, flags)
        except BlockingIOError:
            return
        except OSError:
            answer, descriptors = b"", []
        if not answer:
            self._end()
            return
        (index,) = ORDER.unpack_from(answer)
        self._room[index].release()
        # connections to one destination are all alike: the next one who still waits gets it
        waiting = self._waiting[index]
        while waiting and waiting[0].done():
            waiting.popleft()
        connections = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if not waiting:
            for connection in connections:
                connection.close()
        elif connections:
            waiting.popleft().set_result(connections[0])
        else:
            waiting.popleft().set_exception(OSError(answer[ORDER.size :].decode(errors="replace")))

    def _end(self) -> None:
        self._gone = True
        asyncio.get_running_loop().remove_reader(self._channel)
        for room, waiting in zip(self._room, self._waiting, strict=True):
            for waiter in waiting:
                room.release()
                if not waiter.done():
                    waiter.set_exception(ConnectionError(_GONE))


class Way:
    """The way to one destination."""

    def __init__(self, route: Route, index: int, dials: Dials, context: ssl.SSLContext | None) -> None:
        self.route = route
        self._index = index
        self._dials = dials
        self._context = context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection, closed in the end. Raises `OSError`, of which `TimeoutError` is one, with the reason."""
        async with asyncio.timeout(_SECONDS):
            connection = await self._dials.connection(self._index)
            name = self.route.destination.host if self._context else None
            reader, writer = await asyncio.open_connection(sock=connection, ssl=self._context, server_hostname=name)
        try:
            yield reader, writer
        finally:
            writer.close()


def refusal(status: HTTPStatus, message: str) -> bytes:
    """A whole HTTP answer with an error of the outlet's own."""
    body = json.dumps({"error": {"message": message, "type": "server_error", "code": "outlet"}}).encode()
    head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + body
