"""Whether the log takes records, since when it doesn't, and how many requests that has cost."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from appliance.errors import AuditUnavailable

_log = logging.getLogger("appliance.audit")


class Health:
    """Says no to everything from the first failure until all is on disk again. For the event loop."""

    def __init__(self) -> None:
        self.well = True
        self.failures = 0
        """Attempts to write that failed, since the start."""
        self._refused = 0
        self._since = 0.0

    def require(self) -> None:
        """Raise `AuditUnavailable` while nothing can be written."""
        if not self.well:
            raise self.refusal()

    def refusal(self) -> AuditUnavailable:
        """What callers are told, counted; why it is so, only the log of the appliance tells."""
        self._refused += 1
        return AuditUnavailable(
            "what happens can't be put on record at the moment, so nothing is answered; try again in a few seconds",
            code="audit_unavailable", retry_after=5,
        )  # fmt: skip

    def failed(self, why: str) -> None:
        """An attempt to write failed; told once, until it works again."""
        self.failures += 1
        if self.well:
            _log.error("the audit log can't be written, so nothing is answered: %s", why)
            self._since = time.monotonic()
        self.well = False

    def wrote(self) -> dict[str, Any] | None:
        """All is on disk; what is to go on record about the time in which it wasn't, if there was one."""
        if self.well:
            return None
        _log.warning("the audit log is written again")
        told = {
            "incident": "audit_unwritable",
            "refused": self._refused,
            "seconds": math.ceil(time.monotonic() - self._since),
        }
        self.well = True
        self._refused = 0
        return told
