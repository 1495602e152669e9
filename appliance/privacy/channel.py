"""What the gate's processes say to each other and to the gateway: frames of JSON, each after its length."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

from appliance.core import DataClass
from appliance.privacy.asked import Asked, Explained, Explanation
from appliance.privacy.kinds import Kind, Span
from appliance.privacy.verdict import Held, Verdict

MOST = 8 * 2**20
"""Bytes of one frame: a request of the largest size, with every letter written as an escape."""
_LENGTH = struct.Struct("!I")

Frame = dict[str, Any]


class Malformed(Exception):
    """What came is no frame, or none that belongs here. The message holds nothing of it."""


def packed(message: Mapping[str, Any]) -> bytes:
    """`message` as a frame. Raises `Malformed` when it is too large."""
    # escapes for all but ASCII: half a surrogate pair, which a caller's JSON may hold, has no other form
    data = json.dumps(message).encode()
    if len(data) > MOST:
        raise Malformed(f"a frame has {len(data)} bytes")
    return _LENGTH.pack(len(data)) + data


async def received(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame; None when the other side has ended. Raises `Malformed`."""
    try:
        return _parsed(await reader.readexactly(_length(await reader.readexactly(_LENGTH.size))))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def taken(channel: socket.socket) -> Frame | None:
    """The same from a socket that blocks."""
    head = channel.recv(_LENGTH.size, socket.MSG_WAITALL)
    if len(head) < _LENGTH.size:
        return None
    length = _length(head)
    data = channel.recv(length, socket.MSG_WAITALL)
    return _parsed(data) if len(data) == length else None


def _length(head: bytes) -> int:
    (length,) = _LENGTH.unpack(head)
    if length > MOST:
        raise Malformed(f"a frame claims {length} bytes")
    return int(length)


def _parsed(data: bytes) -> Frame:
    try:
        frame = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("a frame is no JSON") from None
    if not isinstance(frame, dict):
        raise Malformed("a frame is no JSON object")
    return frame


def bytes_as_text(data: bytes) -> str:
    """Any bytes as a JSON string."""
    return base64.b64encode(data).decode()


def text_as_bytes(text: str) -> bytes:
    """The bytes again. Raises `ValueError`."""
    return base64.b64decode(text, validate=True)


def asked_as_json(asked: Asked) -> Frame:
    """`asked` as JSON values."""
    return {
        "operation": asked.operation, "payload": bytes_as_text(asked.payload), "floor": asked.floor,
        "use_case": asked.use_case, "seconds": asked.limit_seconds,
    }  # fmt: skip


def asked_from(told: Frame) -> Asked:
    """The other way. Raises `Malformed`."""
    match told:
        case {
            "operation": str(operation), "payload": str(payload), "floor": str(floor),
            "use_case": str() | None as use_case, "seconds": int() | float() as seconds,
        }:  # fmt: skip
            try:
                return Asked(operation, text_as_bytes(payload), DataClass(floor), use_case, seconds)
            except ValueError:
                pass
    raise Malformed("a request is not written as requests are")


def verdict_as_json(verdict: Verdict) -> Frame:
    """`verdict` as JSON values."""
    return {
        "data_class": verdict.data_class, "found": dict(verdict.found), "held": verdict.held, "why": verdict.why,
        "providers": list(verdict.providers), "rule": verdict.rule, "purpose": verdict.purpose,
        "payload": bytes_as_text(verdict.payload), "originals": dict(verdict.originals), "ticket": verdict.ticket,
    }  # fmt: skip


def verdict_from(told: object) -> Verdict:
    """The other way. Raises `Malformed`."""
    match told:
        case {
            "data_class": str(data_class), "found": dict(found), "held": str() | None as held, "why": str(why),
            "providers": [*providers], "rule": str(rule), "purpose": str(purpose), "payload": str(payload),
            "originals": dict(originals), "ticket": str(ticket),
        }:  # fmt: skip
            try:
                return Verdict(
                    DataClass(data_class), {Kind(kind): int(count) for kind, count in found.items()},
                    None if held is None else Held(held), why, tuple(map(str, providers)), rule, purpose,
                    text_as_bytes(payload), {str(stands): str(what) for stands, what in originals.items()}, ticket,
                )  # fmt: skip
            except (ValueError, TypeError):
                pass
    raise Malformed("a verdict is not written as verdicts are")


def explanation_as_json(explanation: Explanation) -> Frame:
    """`explanation` as JSON values."""
    texts = [
        {"path": list(each.path), "text": each.text, "spans": [span_as_json(span) for span in each.spans]}
        for each in explanation.texts
    ]
    return {"verdict": verdict_as_json(explanation.verdict), "texts": texts}


def explanation_from(told: object) -> Explanation:
    """The other way. Raises `Malformed`."""
    match told:
        case {"verdict": dict(verdict), "texts": [*texts]}:
            return Explanation(verdict_from(verdict), tuple(map(_explained_from, texts)))
    raise Malformed("an explanation is not written as explanations are")


def _explained_from(told: object) -> Explained:
    match told:
        case {"path": [*path], "text": str(text), "spans": [*spans]} if all(type(step) in (int, str) for step in path):
            return Explained(tuple(path), text, tuple(spans_from(text, spans)))
    raise Malformed("an explanation is not written as explanations are")


def span_as_json(span: Span) -> list[Any]:
    """`span` as JSON values."""
    return [span.start, span.end, span.kind, span.score, span.source]


def spans_from(text: str, told: object) -> list[Span]:
    """Spans of `text`. Raises `Malformed` also where they aren't in order, overlap or lie outside it."""
    spans: list[Span] = []
    for each in told if isinstance(told, list) else [None]:
        at = spans[-1].end if spans else 0
        match each:
            case [int(start), int(end), str(kind), int() | float() as score, str(source)] if (
                at <= start < end <= len(text) and 0 <= score <= 1 and len(source) < 100 and kind in _KINDS
            ):
                spans.append(Span(start, end, Kind(kind), score, source))
            case _:
                raise Malformed("what was found is nowhere in the text")
    return spans


_KINDS = frozenset(Kind)
