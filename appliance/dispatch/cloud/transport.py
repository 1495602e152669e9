"""How an SDK's request gets to the outlet: its final bytes, for which the gate gives its word, and nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2

from appliance.clearance import HEADER, NotCleared
from appliance.dispatch.cloud.provider import Clear, Failed, Why, failure

_MOST_BYTES = 256 * 2**20
_MOST_ERROR = 2**20
_LARGEST_EVENT, _MOST_LINES = 2 * 2**20, 1000
"""Bytes and lines of one event. Anthropic's SDK copies it with each line, while everybody waits."""
_END_OF_EVENT = re.compile(rb"\n\n|\r\n\r\n")
_TIMEOUT = {"connect": 15.0, "read": None, "write": 60.0, "pool": 15.0}
"""Seconds. For how long an answer may be silent is watched by whoever reads it."""


class ToOutlet(httpx2.AsyncBaseTransport):
    """The way of one request to a provider: the Unix socket of the outlet that leads there."""

    def __init__(self, provider: str, socket: Path, clear: Clear) -> None:
        self._provider = provider
        self._clear = clear
        # no connection is kept: the outlet takes one request on each
        self._way = httpx2.AsyncHTTPTransport(
            uds=str(socket), verify=False, trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0)
        )  # fmt: skip

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises what `provider.failure` makes of anything but 200, `NotCleared`, and `Failed`."""
        body = await request.aread()
        target = request.url.raw_path
        try:
            clearance = await self._clear(self._provider, request.method, target.decode("ascii"), body)
        except NotCleared:
            raise
        except Exception as bug:
            raise NotCleared("the gate failed") from bug
        headers = {
            "host": "outlet",
            "content-type": "application/json",
            "accept": request.headers.get("accept", "application/json"),
            HEADER: clearance,
        }
        url = httpx2.URL(scheme="http", host="outlet", raw_path=target)
        cleared = httpx2.Request(
            request.method, url, headers=headers, content=body, extensions={"timeout": _TIMEOUT}
        )  # fmt: skip
        try:
            response = await self._way.handle_async_request(cleared)
        except httpx2.TransportError:
            raise Failed(Why.UNREACHABLE) from None
        stream = _Bounded(response)
        if response.status_code != 200:
            try:
                refused = b"".join([part async for part in stream.up_to(_MOST_ERROR)])
            finally:
                await response.aclose()
            raise failure(response.status_code, response.headers, refused)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)

    async def aclose(self) -> None:
        """Break off what is still open."""
        await self._way.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """An answer's bytes, as long as it is no endless one and none of its events is."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    async def up_to(self, most: int) -> AsyncIterator[bytes]:
        """The bytes; no more than about `most` of them."""
        size = event = lines = 0
        tail = b""
        assert isinstance(self._response.stream, httpx2.AsyncByteStream)  # noqa: S101 - of an asynchronous transport
        try:
            async for part in self._response.stream:
                size += len(part)
                whole = tail + part
                tail = whole[-3:]  # in which an end may have begun
                for number, piece in enumerate(_END_OF_EVENT.split(whole)):
                    if number:
                        event = lines = 0
                    event += len(piece)
                    lines += piece.count(b"\n") + piece.count(b"\r")
                    if size > most or event > _LARGEST_EVENT or lines > _MOST_LINES:
                        raise Failed(Why.BROKEN)
                yield part
        except httpx2.TransportError:
            raise Failed(Why.BROKEN) from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self.up_to(_MOST_BYTES):
            yield part

    async def aclose(self) -> None:
        """Break off."""
        await self._response.aclose()
