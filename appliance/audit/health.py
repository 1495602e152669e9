"""Whether the log takes records, since when it doesn't, and how many requests that has cost."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from appliance.errors import AuditUnavailable

_WORDS = {
    "audit_torn": "what stood behind record {after} was half written, as a power cut leaves it, and acknowledged to "
    "nobody; it lies in state/audit-work/{file}",
    "audit_broken": "it was found damaged: something else than the appliance changed it. It goes on behind record "
    "{signed}, the last that is signed; `appliance audit verify` names the place",
    "audit_note_lost": "it can't be told whether its end was cut off: audit-keys holds no newest checkpoint to compare "
    "with, as after it was restored; the log's own is {checkpoint}",
    "audit_key_changed": "another key signs it than before, whose fingerprint is {is}; it was {was}",
}
"""What a start finds, for the log of the appliance."""

_log = logging.getLogger("appliance.audit")


class Health:
    """Says no to everything from the first failure until all is on disk again. For the event loop."""

    def __init__(self) -> None:
        self.well = True
        self.failures = 0
        """Attempts to write that failed, since the start."""
        self.trouble: str | None = None
        """Why nothing can be written at the moment: the file or folder, and what the kernel says."""
        self._refused = 0
        self._since = 0.0

    def require(self) -> None:
        """Raise `AuditUnavailable` while nothing can be written."""
        if not self.well:
            raise self.refusal()

    def refusal(self) -> AuditUnavailable:
        """What callers are told, counted; `reason` is for administrators of this host."""
        self._refused += 1
        return AuditUnavailable(
            "what happens can't be put on record at the moment, so nothing is answered; try again in a few seconds",
            code="audit_unavailable", retry_after=5, reason=self.trouble,
        )  # fmt: skip

    def failed(self, why: str) -> None:
        """An attempt to write failed; told once, until it works again."""
        self.failures += 1
        if self.well:
            _log.error("the audit log can't be written, so nothing is answered: %s", why)
            self._since = time.monotonic()
        self.well, self.trouble = False, why

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
        self.well, self.trouble = True, None
        self._refused = 0
        return told


def in_words(incident: Mapping[str, Any]) -> str:
    """What an incident says, for people."""
    told = _WORDS.get(incident["incident"])
    return told.format(**incident) if told else "; ".join(f"{name} {value}" for name, value in incident.items())
