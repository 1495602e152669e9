"""What is measured of one request while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from prometheus_client import Histogram

from appliance.core import Request, Usage
from appliance.errors import Refused


class Record:
    """What is measured of one request while it runs. Times are `time.perf_counter` seconds.

    As a context it is closed and ended with what leaves the context, also where that is nothing.
    """

    __slots__ = (
        "_gaps", "_gaps_of", "began", "chunks", "code", "counted", "dispatched", "ended", "finish", "first", "last",
        "outcome", "provider", "request", "sent_to", "status", "turned", "usage", "version",
    )  # fmt: skip

    def __init__(self, request: Request, gaps_of: Callable[[Record], Histogram]) -> None:
        """`gaps_of` gives what its times between tokens are counted in; asked with the first of them."""
        self.request = request
        self.version = ""
        """Which of the versions that serve its model answers it; empty before one is to, and outside the house."""
        self.began = self.turned = self.ended = time.perf_counter()
        self.first = 0.0
        self.last = 0.0
        self.chunks = 0
        """How often tokens have passed to the caller."""
        self.status = 500
        self.outcome = "failed"
        self.counted = False
        """Whether limits of requests per minute have counted it."""
        self.dispatched = False
        """Whether an engine or a provider was asked and did not refuse."""
        self.finish: str | None = None
        """Why the engine ended its answer, in its own word."""
        self.code: str | None = None
        """Of the refusal, where it was one."""
        self.provider: str | None = None
        """Who answered, where it was nobody in the house."""
        self.sent_to: dict[str, None] = {}
        """Providers that it was sent to, in order, whatever came of it."""
        self.usage = Usage()
        self._gaps_of = gaps_of
        self._gaps: Histogram | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, why: BaseException | None, __: TracebackType | None) -> None:
        self.close(why)
        self.end()

    @property
    def gap(self) -> float | None:
        """Seconds between its tokens on the mean; None of fewer than two."""
        return (self.last - self.first) / (self.chunks - 1) if self.chunks > 1 else None

    def anew(self) -> Record:
        """The same request at another attempt: what was measured of the first stays with that."""
        again = Record(self.request, self._gaps_of)
        again.began, again.counted = self.began, self.counted
        return again

    def turn(self, version: str) -> None:
        """Its turn has come, and this version is to answer it."""
        self.turned = time.perf_counter()
        self.version = version

    def close(self, why: BaseException | None) -> None:
        """Note how it ended: None stands for an answer."""
        if why is None:
            self.outcome, self.status = "answered", 200
        elif isinstance(why, Refused):
            self.outcome, self.status = "refused" if why.status < 500 else "failed", why.status
            self.code = why.code
        elif isinstance(why, asyncio.CancelledError):
            self.outcome, self.status, self.code = "caller_gone", 499, "caller_gone"

    def end(self) -> None:
        """It is over, however it ended."""
        self.ended = time.perf_counter()

    def token(self) -> None:
        """Tokens have just passed to the caller."""
        now = time.perf_counter()
        if self._gaps is not None:
            self._gaps.observe(now - self.last)
        else:
            self.first = now
            self._gaps = self._gaps_of(self)
        self.last = now
        self.chunks += 1
