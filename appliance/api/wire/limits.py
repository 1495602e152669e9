"""What a client may cost before it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from appliance.config import Limits


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What one client may cost. Seconds, bytes and counts; all above zero."""

    header_seconds: float = 10.0
    """For the headers, from the first byte of a request or the opened connection; and for a TLS handshake."""
    body_seconds: float = 30.0
    """For the whole body, plus one second for each `body_bytes_per_second` that arrived."""
    body_bytes_per_second: float = 16_384.0
    idle_seconds: float = 75.0
    """Between an answer and the next request."""
    write_seconds: float = 30.0
    """For a client that takes nothing while an answer waits for it."""
    linger_seconds: float = 2.0
    """For a refused client to read why; what it still sends is thrown away."""
    header_bytes: int = 32_768
    """Request line and headers."""
    header_count: int = 64
    body_bytes: int = 16_777_216
    connections: int = 1024
    """Open at once. As many again may be hearing that they are refused."""
    pipelined: int = 8
    """Requests waiting on one connection behind the one that is being answered."""

    @classmethod
    def of(cls, limits: Limits) -> Self:
        """The configured limits that concern connections."""
        return cls(
            header_seconds=limits.header_seconds,
            body_seconds=limits.body_seconds,
            body_bytes_per_second=limits.body_bytes_per_second,
            idle_seconds=limits.idle_seconds,
            write_seconds=limits.write_seconds,
            header_bytes=limits.header_bytes,
            header_count=limits.header_count,
            body_bytes=limits.body_bytes,
            connections=limits.connections,
        )
