"""Whether what was last proven still lets the appliance serve."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from appliance.config import Verify
from appliance.errors import NotProven

_PATIENCE = 3
"""Intervals without a word from the witness, after which nothing counts as proven any more."""
_FIRST = 90.0
"""Seconds after the start, by which the first word has to be there: one verification may take a minute."""


def since_boot() -> float:
    """Seconds since this machine was started. Counts on while the machine is suspended, as time.monotonic doesn't."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification came to, as it is told to the gateway."""

    number: int
    """Of the report; 0 where none could be written."""
    time: str
    """UTC, ISO 8601."""
    timestamp: float
    """The same in seconds since 1970."""
    holds: bool
    failed: tuple[str, ...]
    """Names of the checks that failed."""
    sha256: str
    """Of the report."""


class Assurance:
    """Holds the last verdict, and what follows from it.

    With `on_failure: stop`, requests are refused from the first verdict that fails until one holds, and when
    no verdict comes for three intervals: a proof that is overdue is none. Before the first verdict the seal
    itself, which refused to start without holding, is proof enough for 90 seconds.
    """

    def __init__(self, settings: Verify, clock: Callable[[], float] = since_boot) -> None:
        self._settings = settings
        self._clock = clock
        self._heard = clock()
        self._newest = 0
        self.last: Verdict | None = None
        self.failures = 0
        """Verdicts so far that did not hold."""

    def take(self, verdict: Verdict) -> bool:
        """Note what a verification came to; False for one that changes nothing.

        That is one that holds and whose report is older than another that was told of: it came late, or the chain of
        reports was put back. An older one that fails counts.
        """
        if verdict.holds and 0 < verdict.number < self._newest:
            return False
        self._newest = max(self._newest, verdict.number)
        self.failures += not verdict.holds
        self.last = verdict
        self._heard = self._clock()
        return True

    @property
    def overdue(self) -> bool:
        """Whether the next verdict should have been here long ago."""
        every = self._settings.every_seconds
        longest = _FIRST if self.last is None else _PATIENCE * every
        return every > 0 and self._clock() - self._heard > longest

    def objection(self) -> str | None:
        """Why nothing may be answered as things stand, where the config says so; None if it may."""
        if self._settings.on_failure == "alert":
            return None
        if self.last is not None and not self.last.holds:
            return f"failed ({', '.join(self.last.failed)})"
        return "is overdue" if self.overdue else None

    def require(self) -> None:
        """Raises `NotProven` where there is an objection."""
        if (what := self.objection()) is None:
            return
        raise NotProven(
            f"the proof that nothing leaves this house {what}, and this appliance is set to answer nothing until it "
            "holds again; its administrator finds more with `appliance egress verify`",
            code="egress_not_proven",
            retry_after=60,
        )

    def describe(self) -> dict[str, Any]:
        """For `appliance status`; `refuses` is why requests are refused, or None while they aren't."""
        last = self.last
        return {
            "every_seconds": self._settings.every_seconds,
            "on_failure": self._settings.on_failure,
            "overdue": self.overdue,
            "refuses": self.objection(),
            "last": None if last is None else {
                "number": last.number, "time": last.time, "holds": last.holds, "failed": list(last.failed)
            },
        }  # fmt: skip
