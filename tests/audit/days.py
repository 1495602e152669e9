"""An archive whose days go by as a test says."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.audit import verifier
from appliance.audit.archive import Archive
from appliance.audit.holds import Holds
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.audit.segments import listed
from appliance.audit.subjects import Subjects
from appliance.audit.sweep import Sweep
from appliance.config.audit import Audit, Retention

DAY = 86_400
BEGIN = 20_454 * DAY + 12 * 3600.0
"""Noon of 2026-01-01, in seconds since 1970."""
ANNA, BEN = "p_" + "a" * 24, "p_" + "b" * 24
TERMS = Retention(requests_days=20, refusals_days=10, content_days=5, acts_days=40, incidents_days=30)


class Days:
    """A real archive below `state`, with a clock of its own that starts at `BEGIN`."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.now = BEGIN
        self.audit = Audit(checkpoint_records=4, checkpoint_seconds=3600)
        self.archive: Archive
        self.sweep: Sweep

    async def __aenter__(self) -> Days:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Open what lies there; what is made the first time is made."""
        folder, keys = self.state / "audit", self.state / "audit-keys"
        journal = await Journal.open(folder, keys, self.audit, wall=lambda: self.now)
        holds = Holds.open(self.state / "audit-work", anew=not journal.head[0])
        self.archive = Archive(journal, Subjects.open(keys), holds)
        self.sweep = Sweep(self.archive, self.state, wall=lambda: self.now, breath=0)

    async def close(self) -> None:
        """Let another open it."""
        await self.archive.close(5)

    async def put(self, kind: Kind, body: Mapping[str, Any]) -> int:
        """Write a record; its number, once it is on disk."""
        ticket = self.archive.journal.write(kind, body)
        await ticket.kept()
        return ticket.seq

    async def turn(self, days: float = 1) -> None:
        """Let days go by, and the segments before be closed and compressed."""
        self.now += days * DAY
        await self.put(Kind.INCIDENT, {"incident": "a new day"})
        await self.archive.journal.checkpoint_now()
        await self.archive.journal.exclusively(lambda: None)

    def records(self) -> dict[int, dict[str, Any]]:
        """All records that are there, by number."""
        return {told["seq"]: told for told in self.lines() if "body" in told}

    def lines(self, *, but: Path | None = None, damaged: bool = False) -> list[dict[str, Any]]:
        """All lines, also those in the place of records that are gone; but for one file, or for `damaged` ones."""
        found: list[dict[str, Any]] = []
        for each in listed(self.state / "audit"):
            try:
                found += map(json.loads, _content(each.file).splitlines() if each.file != but else ())
            except (OSError, EOFError, ValueError, zlib.error):
                if not damaged:
                    raise
        return found

    def verdict(self) -> verifier.Verdict:
        """What the verifier says of it."""
        return verifier.verify(self.state / "audit", strict=True, processes=1)


def _content(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


async def one_of_each(days: Days) -> dict[str, int]:
    """A record of each kind, on one day."""
    intent = await days.put(Kind.INTENT, {"subject": ANNA})
    return {
        "intent": intent,
        "content": await days.put(Kind.CONTENT, {"intent": intent, "subject": ANNA}),
        "outcome": await days.put(Kind.OUTCOME, {"intent": intent}),
        "refusal": await days.put(Kind.REFUSAL, {"subject": BEN}),
        "strangers": await days.put(Kind.STRANGERS, {"counts": {"no_key": 3}}),
        "act": await days.put(Kind.ACT, {"act": "start", "phase": "done"}),
        "incident": await days.put(Kind.INCIDENT, {"incident": "x"}),
    }
