"""Refusals that are said on the wire, before any application is asked."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from http import HTTPStatus

from appliance.api import envelope


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer given without the application. `code` is a stable word for programs."""

    status: int
    code: str
    message: str
    retry_after: int | None = None

    @property
    def kind(self) -> str:
        """OpenAI's `type`."""
        return "server_error" if self.status >= 500 else "invalid_request_error"

    @property
    def param(self) -> None:
        """No field is to blame: none was read."""

    def answer(self, headers: list[tuple[bytes, bytes]], path: bytes) -> bytes:
        """The complete HTTP response in the envelope that goes with `path`; `headers` are the server's own (date)."""
        id_ = f"req_{secrets.token_hex(12)}"
        body = envelope.whole(self, envelope.dialect_of(path.decode("latin-1")), id_)
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in headers]
        if self.retry_after is not None:
            lines.append(b"retry-after: %d" % self.retry_after)
        lines += [b"content-type: application/json", b"content-length: %d" % len(body), b"connection: close"]
        lines.append(b"x-request-id: " + id_.encode())
        return b"\r\n".join([*lines, b"", body])


MALFORMED = Refusal(400, "malformed_request", "This is not a well-formed HTTP/1.1 request.")
VERSION = Refusal(400, "unsupported_http_version", "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
TARGET = Refusal(
    400,
    "invalid_request_target",
    "The request target must be a plain path: no host, no '//', '.' or '..' segment, backslash, fragment, "
    "encoded slash, dot, percent sign or control character, nothing outside ASCII.",
)
HOST = Refusal(400, "invalid_host_header", "Exactly one valid Host header is required.")
REPEATED = Refusal(400, "repeated_header", "A header that may be there once is there more than once.")
FRAMING = Refusal(
    400,
    "invalid_body_framing",
    "Use either Content-Length or 'Transfer-Encoding: chunked', in HTTP/1.1 only.",
)
UPGRADE = Refusal(400, "upgrade_not_supported", "This server stays with HTTP/1.1; send no Upgrade header.")
TRAILERS = Refusal(400, "trailers_not_supported", "Header fields after the body are not accepted.")
PIPELINE = Refusal(400, "too_many_pipelined_requests", "Wait for answers before sending more requests.")
HEADERS_LATE = Refusal(408, "request_headers_timeout", "The request's headers took too long to arrive.")
BODY_LATE = Refusal(408, "request_body_timeout", "The request's body took too long to arrive.")
BODY_SIZE = Refusal(413, "request_body_too_large", "The request's body is too large.")
HEADERS_SIZE = Refusal(431, "request_headers_too_large", "The headers are too large or too many.")
CROWDED = Refusal(503, "too_many_connections", "Too many connections are open; try again soon.", retry_after=1)
