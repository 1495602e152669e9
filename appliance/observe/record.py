"""What is measured of one request while it runs."""

from __future__ import annotations

import time

from prometheus_client import Histogram

from appliance.core import Request, Usage


class Record:
    """What is measured of one request while it runs. Times are `time.perf_counter` seconds."""

    __slots__ = (
        "_gaps", "began", "code", "dispatched", "ended", "finish", "first", "last", "outcome", "request", "status",
        "turned", "usage",
    )  # fmt: skip

    def __init__(self, request: Request, gaps: Histogram) -> None:
        self.request = request
        self.began = self.turned = self.ended = time.perf_counter()
        self.first = 0.0
        self.last = 0.0
        self.status = 500
        self.outcome = "failed"
        self.dispatched = False
        """Whether an engine was asked and did not refuse."""
        self.finish: str | None = None
        """Why the engine ended its answer, in its own word."""
        self.code: str | None = None
        """Of the refusal, where it was one."""
        self.usage = Usage()
        self._gaps = gaps

    def turn(self) -> None:
        """Its turn on the engine has come."""
        self.turned = time.perf_counter()

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
