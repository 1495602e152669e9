"""What goes to a provider: whole requests for which a clearance is shown, and of them only what it was given for.

The request is written anew: method, target and body, for which the clearance answers, and headers of the outlet's
own. No header of a caller's or of the gateway's leaves, since nobody has cleared it. One request per connection.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from http import HTTPStatus

import httptools

from appliance.clearance import HEADER, Clearances, NotCleared
from appliance.dispatch.way import Way, refusal

_CHUNK = 64 * 1024
_MOST_HEAD, _MOST_BODY = 32 * 1024, 16 * 2**20
_SECONDS = 30.0
_TARGET = re.compile(rb"/[!-~]*")
_KEY_HEADERS = {"openai": "authorization: Bearer ", "azure": "api-key: ", "anthropic": "x-api-key: "}
_MORE_HEADERS = {"anthropic": "anthropic-version: 2023-06-01\r\n"}


class _Request:
    """One request, as httptools reads it."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._begun = self._headed = self.complete = False
        self._head = 0
        self.target = b""
        self.clearances: list[bytes] = []
        self.body = bytearray()

    @property
    def method(self) -> bytes:
        return bytes(self._parser.get_method())

    def feed(self, data: bytes) -> None:
        """Raises `NotCleared` for what is no request, or not one alone, or too large."""
        self._head += 0 if self._headed else len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise NotCleared("this is not one whole request") from None
        if self._head > _MOST_HEAD + _CHUNK or len(self.body) > _MOST_BODY:
            raise NotCleared("the request is too large")

    def on_message_begin(self) -> None:
        if self._begun:
            raise httptools.HttpParserError("more than one request")
        self._begun = True

    def on_url(self, data: bytes) -> None:
        self.target += data

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == HEADER.encode():
            self.clearances.append(value)

    def on_headers_complete(self) -> None:
        self._headed = True

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


class Gate:
    """Stands before the way to one provider."""

    def __init__(self, way: Way, key: bytes | None, note: Callable[[Way, Exception], None]) -> None:
        """`key` is the raw public key that clearances are signed for; None lets nothing through."""
        destination = way.route.destination
        self._way = way
        self._clearances = Clearances(key, destination.name)
        self._note = note
        host = destination.host if destination.port == 443 else f"{destination.host}:{destination.port}"
        route = way.route
        more = (f"{_KEY_HEADERS[route.api]}{route.key}\r\n" if route.key else "") + _MORE_HEADERS.get(route.api, "")
        self._headers = (
            f"host: {host}\r\n{more}content-type: application/json\r\n"
            "accept: application/json, text/event-stream\r\nconnection: close\r\n"
        )

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the gateway's. What isn't cleared is answered 403, and nothing is dialled."""
        try:
            data = await self._cleared(reader)
            async with self._way.open() as (far_reader, far_writer):
                far_writer.write(data)
                await _answer(far_reader, reader, writer)
        except NotCleared as why:
            writer.write(refusal(HTTPStatus.FORBIDDEN, str(why)))
        except OSError as why:
            self._note(self._way, why)
            writer.write(refusal(HTTPStatus.BAD_GATEWAY, "the provider can't be reached"))
        finally:
            writer.close()

    async def _cleared(self, reader: asyncio.StreamReader) -> bytes:
        """The next request, checked and written anew."""
        request = _Request()
        try:
            async with asyncio.timeout(_SECONDS):
                while not request.complete:
                    if not (data := await reader.read(_CHUNK)):
                        raise NotCleared("the request is not whole")
                    request.feed(data)
        except TimeoutError:
            raise NotCleared("the request did not come in time") from None
        if len(request.clearances) != 1 or not _TARGET.fullmatch(request.target):
            raise NotCleared("the request has no clearance")
        method, target, body = request.method.decode(), request.target.decode(), bytes(request.body)
        clearance = request.clearances[0].decode("latin-1")
        self._clearances.spend(clearance, method=method, path=target, body=body, now=time.time())
        head = f"{method} {target} HTTP/1.1\r\n{self._headers}content-length: {len(body)}\r\n\r\n"
        return head.encode() + body


async def _answer(
    far: asyncio.StreamReader, near: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:  # fmt: skip
    """Pass the answer on until it ends, or whoever asked has gone or says anything more."""

    async def pump() -> None:
        while data := await far.read(_CHUNK):
            writer.write(data)
            await writer.drain()

    tasks = {asyncio.create_task(pump()), asyncio.create_task(near.read(1))}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
