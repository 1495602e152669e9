"""Asks an engine and passes its answer on, streamed or whole."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

from appliance.core import Dialect, Reply, Request
from appliance.dispatch.stream import Stream, finish_of, note_usage, word
from appliance.dispatch.turns import priority_of
from appliance.engines.served import Served
from appliance.engines.upstream import Response, Upstream
from appliance.errors import BadRequest, Loading, Refused, Unreachable, UpstreamFailed
from appliance.observe import Record

_TOO_LONG = re.compile(r"context length|maximum context|maximum model length|input length|too long", re.IGNORECASE)
_ABORTED = re.compile(rb'"finish_reason"\s*:\s*"(?:abort|error)"')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"([a-z_]{1,32})"')
_JSON = json.JSONDecoder()
_MOST_BYTES = 256 * 2**20
_MOST_ERROR_BYTES = 2**20

Kept = Callable[[], Awaitable[None]]
"""Returns once what the request may use is booked for good; raises `Refused` where it can't be."""


class Held(Protocol):
    """What is held for one request: a `Place` in the end, or what a copy goes to."""

    @property
    def upstream(self) -> Upstream:
        """Of what answers."""

    def first_token(self) -> None:
        """The first token has come."""


async def serve(request: Request, served: Served, reply: Reply, record: Record, kept: Kept, place: Held) -> None:
    """Answer one request by `served`, which `place` holds; nothing of the answer leaves before `kept` has returned.

    Raises `UpstreamFailed` when the engine breaks off, and what it refused itself as the `Refused` that fits.
    """
    rename = None
    if served.upstream_name != served.name:
        rename = (json.dumps(served.upstream_name).encode(), json.dumps(served.name).encode())
    by_header = request.operation.dialect is Dialect.MESSAGES
    priority = priority_of(request.service_class, served) if by_header else None
    record.dispatched = True
    try:
        response = await place.upstream.post(request.operation.path, request.payload, priority=priority)
    except Unreachable:
        record.dispatched = False
        raise
    try:
        if response.status != 200:
            record.dispatched = False
            raise refusal(response.status, await _read(response, _MOST_ERROR_BYTES), request)
        if request.stream:
            await _stream(Stream(request, rename), response, reply, record, kept, place)
        else:
            await _whole(request, response, reply, record, rename, kept)
    finally:
        response.close()


async def _stream(stream: Stream, response: Response, reply: Reply, record: Record, kept: Kept, place: Held) -> None:
    record.usage = stream.usage
    await kept()
    await reply.begin()
    try:
        while data := await response.read():
            frames = stream.feed(data)
            if frames:
                if not record.first:
                    place.first_token()
                record.token()
                await reply.frames(frames)
            if stream.failed:
                break
    finally:
        stream.settle()
        record.finish = stream.finish
    if last := stream.close():
        await reply.frames(last)
    await reply.end()


async def _read(response: Response, most: int) -> bytes:
    parts, size = [], 0
    while data := await response.read():
        parts.append(data)
        size += len(data)
        if size > most:
            raise UpstreamFailed("the engine sent an endless answer", code="engine_failed")
    return b"".join(parts)


async def _whole(
    request: Request, response: Response, reply: Reply, record: Record, rename: tuple[bytes, bytes] | None, kept: Kept
) -> None:
    body = await _read(response, _MOST_BYTES)
    if not body[:64].lstrip().startswith(b"{"):  # an endpoint's proxy may answer 200 with a page
        raise UpstreamFailed("the engine answered what is no JSON; try again", code="engine_failed")
    if request.operation.dialect is not Dialect.CHAT_COMPLETIONS:
        body = _parsed(body, request, record, rename)
        await kept()  # here, where what was used is known whatever comes of it
        await reply.whole(body)
        return
    # in this dialect all that a caller or a model wrote stands in strings, so nothing of it can pass for a mark
    if _ABORTED.search(body):
        raise UpstreamFailed("the engine failed while answering; try again", code="engine_failed")
    if rename is not None:
        body = re.sub(rb'"model"(\s*:\s*)' + re.escape(rename[0]), lambda m: b'"model"' + m[1] + rename[1], body)
    if finish := _FINISH.search(body):
        record.finish = word(finish[1].decode())
    # only the usage is parsed: an answer may hold megabytes of embeddings
    at = body.rfind(b'"usage":')
    if at >= 0:
        try:
            usage, _ = _JSON.raw_decode(body[at + 8 : at + 2048].decode(errors="replace").lstrip())
        except ValueError:
            usage = None
        note_usage({"usage": usage}, record.usage)
    await kept()
    await reply.whole(body)


def _parsed(body: bytes, request: Request, record: Record, rename: tuple[bytes, bytes] | None) -> bytes:
    """Look at a message or a response. They hold JSON of callers and models as it is, so marks prove nothing there."""
    try:
        answer = json.loads(body)
    except ValueError:
        raise UpstreamFailed("the engine answered what is no JSON; try again", code="engine_failed") from None
    if answer.get("status") == "failed" or answer.get("type") == "error":
        raise UpstreamFailed("the engine failed while answering; try again", code="engine_failed")
    note_usage(answer, record.usage)
    record.finish = finish_of(answer)
    if rename is None or answer.get("model") != json.loads(rename[0]):
        return body
    return json.dumps(answer | {"model": request.model}, ensure_ascii=False, separators=(",", ":")).encode()


def refusal(status: int, body: bytes, request: Request) -> Refused:
    """What an engine's error answer means to the caller."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    error = answer.get("error") if isinstance(answer, dict) else None
    told = error if isinstance(error, dict) else {}
    message = str(told.get("message") or "")[:1000]
    if status in (400, 413, 422):
        if _TOO_LONG.search(message):
            return BadRequest(message, param=request.operation.text_field, code="context_length_exceeded")
        param = told.get("param")
        return BadRequest(
            message or "the model can't serve this request",
            param=param if isinstance(param, str) else None,
            code="invalid_value",
        )
    if status in (429, 503):
        return Loading(
            "the model can't take this request now; try again in a moment", code="engine_busy", retry_after=2
        )
    if status in (401, 403):
        return UpstreamFailed(
            "the endpoint behind this model refused the appliance's key; the administrator has to renew it",
            code="endpoint_refused",
        )
    return UpstreamFailed("the engine could not answer; try again", code="engine_failed")
