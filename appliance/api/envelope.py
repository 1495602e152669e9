"""Errors in the shape that each SDK expects: OpenAI's, Anthropic's, whole or inside a stream."""

from __future__ import annotations

import json
from typing import Protocol

from appliance.core import Dialect
from appliance.errors import Refused

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Refusal(Protocol):
    """What an error answer is made from: a `Refused`, or a refusal on the wire."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def kind(self) -> str:
        """OpenAI's `type`."""

    @property
    def message(self) -> str:
        """What to do, for a person."""

    @property
    def code(self) -> str | None:
        """A stable word for programs."""

    @property
    def param(self) -> str | None:
        """The offending field."""


def dialect_of(path: str) -> Dialect:
    """The dialect of errors under `path`."""
    return Dialect.MESSAGES if path.startswith("/v1/messages") else Dialect.CHAT_COMPLETIONS


def headers(refusal: Refused) -> list[tuple[bytes, bytes]]:
    """What goes with an error answer at its head."""
    again = [(b"retry-after", b"%d" % refusal.retry_after)] if refusal.retry_after is not None else []
    return [*refusal.headers, *again]


def whole(refusal: Refusal, dialect: Dialect, request_id: str) -> bytes:
    """The body of an error answer."""
    if dialect is Dialect.MESSAGES:
        message = refusal.message
        if refusal.param and refusal.param not in message:  # there is no other place for the field's name
            message = f"{refusal.param}: {message}"
        error = {"type": _ANTHROPIC_TYPES.get(refusal.status, "api_error"), "message": message}
        return _json({"type": "error", "error": error, "request_id": request_id})
    return _json({"error": _openai(refusal)})


def event(refusal: Refusal, dialect: Dialect, request_id: str) -> bytes:
    """The event that ends a stream which can't go on."""
    if dialect is Dialect.MESSAGES:
        return b"event: error\ndata: " + whole(refusal, dialect, request_id) + b"\n\n"
    if dialect is Dialect.RESPONSES:
        # the SDKs count events; one that ends a broken stream has no place in that order
        detail = {"type": "error", "code": refusal.code, "message": refusal.message, "param": refusal.param}
        return b"event: error\ndata: " + _json({**detail, "sequence_number": 0}) + b"\n\n"
    return b"data: " + whole(refusal, dialect, request_id) + b"\n\n"


def _openai(refusal: Refusal) -> dict[str, str | None]:
    return {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.code}


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
