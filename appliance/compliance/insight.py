"""Who looked into the log, and who was revealed: every time, summed so that no number of looks hides another one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any

READ, REVEALS = "read", "reveal."


@dataclass(slots=True)
class Act:
    """Something that was done. `by` is a pseudonym, or empty where it was the appliance; `end` is how it ended."""

    seq: int
    at: str
    name: str
    by: str
    role: str
    target: str
    told: dict[str, Any]
    end: str = "open"
    key: str = ""
    """The id of the key it was done with, where that is nobody's."""


@dataclass(slots=True)
class Looks:
    """How often somebody looked; `first` is the first time, `last` when it was the last time."""

    first: Act
    last: str
    count: int = 0
    failed: int = 0
    about: Counter[str] = field(default_factory=Counter)
    """Whose records were asked for by pseudonym, and how often."""

    def add(self, act: Act) -> None:
        """Count one in."""
        self.first = min(self.first, act, key=lambda each: each.seq)
        self.last = max(self.last, act.at)
        self.count += 1
        self.failed += act.end == "failed"
        filters = act.told.get("filters")
        if isinstance(filters, dict) and "subject" in filters:
            self.about[str(filters["subject"])] += 1


@dataclass(slots=True)
class Reveal:
    """A pseudonym that somebody wanted to know the name of, and what became of it."""

    id: str
    subject: str
    reason: str
    at: str
    """When it was first heard of."""
    asked: Act | None = None
    """None where it was asked for before the month."""
    approvals: list[Act] = field(default_factory=list)
    """That it was approved, and each vain attempt at that."""
    looks: dict[tuple[str, str], Looks] = field(default_factory=dict)
    """By the person who looked, and the role."""


class Insight:
    """All reads by day and person, and all reveals."""

    def __init__(self, zone: tzinfo) -> None:
        """Days are those of `zone`."""
        self.reads: dict[tuple[str, str, str], Looks] = {}
        """By day, person and role."""
        self.reveals: dict[str, Reveal] = {}
        self._zone = zone

    def take(self, act: Act) -> None:
        """Count in an act that is over. Raises ValueError for one whose time is none."""
        if act.name == READ:
            day = datetime.fromisoformat(act.at).astimezone(self._zone).date().isoformat()
            self.reads.setdefault((day, act.by or act.key, act.role), Looks(act, act.at)).add(act)
            return
        told = {name: str(act.told.get(name, "")) for name in ("reveal", "subject", "reason")}
        id_ = told["reveal"] or f"record {act.seq}"  # one that was asked for in vain never had an id
        reveal = self.reveals.setdefault(id_, Reveal(id_, told["subject"], told["reason"], act.at))
        if act.name.endswith(".ask"):
            reveal.asked = act
        elif act.name.endswith(".approve"):
            reveal.approvals.append(act)
        else:
            reveal.looks.setdefault((act.by or act.key, act.role), Looks(act, act.at)).add(act)


def summed(name: str) -> bool:
    """Whether acts of that name are summed here, and not kept one by one."""
    return name == READ or name.startswith(REVEALS)
