"""What is measured of one request while it runs."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import Histogram

from appliance.core import Request, Usage
from appliance.errors import Refused


class Record:
    """What is measured of one request while it runs. Times are `time.perf_counter` seconds."""

    __slots__ = (
        "_gaps", "began", "code", "counted", "dispatched", "ended", "finish", "first", "last", "outcome", "provider",
        "request", "sent_to", "status", "turned", "usage",
    )  # fmt: skip

    def __init__(self, request: Request, gaps: Histogram) -> None:
        self.request = request
        self.began = self.turned = self.ended = time.perf_counter()
        self.first = 0.0
        self.last = 0.0
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
        self._gaps = gaps

    def anew(self) -> Record:
        """The same request at another attempt: what was measured of the first stays with that."""
        again = Record(self.request, self._gaps)
        again.began, again.counted = self.began, self.counted
        return again

    def turn(self) -> None:
        """Its turn on the engine has come."""
        self.turned = time.perf_counter()

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
        if self.last:
            self._gaps.observe(now - self.last)
        else:
            self.first = now
        self.last = now
