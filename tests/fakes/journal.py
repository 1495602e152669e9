"""A journal that keeps records in memory, on the real chain: for rooms that only put things on record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from appliance.audit.archive import Archive
from appliance.audit.checkpoint import Checkpoint
from appliance.audit.health import Health
from appliance.audit.holds import Holds
from appliance.audit.record import Chain, Kind
from appliance.audit.subjects import Subjects

T = TypeVar("T")


class Ticket:
    """A record that is kept already."""

    def __init__(self, seq: int) -> None:
        self.seq = seq

    async def kept(self) -> None:
        """It is."""


class Journal:
    """Takes records until `fail` is called. Its folder stays empty."""

    fingerprint = "0000 0000 0000 0000 0000 0000 0000 0000"
    keys = ("00" * 32,)

    def __init__(self, folder: Path, wall: Callable[[], float] = lambda: 1_795_305_600.0) -> None:
        self.folder, self.keys = folder, folder.parent / "audit-keys"
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint: Checkpoint | None = None
        self.on_checkpoint: list[Callable[[Checkpoint], None]] = []
        self.lines: list[bytes] = []
        self._chain = Chain()
        self._wall = wall
        self._health = Health()

    @property
    def head(self) -> tuple[int, str]:
        return self._chain.seq, self._chain.head

    @property
    def records(self) -> list[dict[str, Any]]:
        """All that was put on record, parsed."""
        return [json.loads(line) for line in self.lines]

    def acts(self) -> list[tuple[str, str]]:
        """Name and phase of every act."""
        bodies = [record["body"] for record in self.records if record["kind"] == "act"]
        return [(body["act"], body["phase"]) for body in bodies]

    def fail(self) -> None:
        """Take nothing any more."""
        self._health.failed("as the test says")

    def recover(self) -> None:
        """Take everything again."""
        self._health.wrote()

    def write(self, kind: Kind, body: Mapping[str, Any]) -> Ticket:
        self.require()
        self.lines.append(self._chain.append(kind, body, self._wall()))
        return Ticket(self._chain.seq)

    def note(self, kind: Kind, body: Mapping[str, Any]) -> None:
        self.lines.append(self._chain.append(kind, body, self._wall()))

    def require(self) -> None:
        self._health.require()

    def apply(self, settings: Any) -> None:
        pass

    def describe(self) -> dict[str, float]:
        well, seq = float(self._health.well), float(self._chain.seq)
        return {"well": well, "failures": 0.0, "waiting": 0.0, "records": seq, "checkpoint_age_seconds": 0.0}

    async def checkpoint_now(self) -> Checkpoint | None:
        return None

    async def exclusively(self, work: Callable[[], T]) -> T:
        return work()

    async def close(self, seconds: float) -> None:
        self.require()


def archive(folder: Path) -> Archive:
    """An archive with a journal in memory, and with a real key store and real holds below `folder`."""
    journal: Any = Journal(folder / "audit")
    return Archive(journal, Subjects.open(folder / "audit-keys"), Holds.open(folder / "audit-work", anew=True))
