"""What the reports of a month say about whether anything could leave, and when there was none."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from appliance.compliance.month import Month, told
from appliance.egress.ledger import Ledger
from appliance.egress.signing import Entry
from appliance.errors import LedgerFailed

_LATE = timedelta(seconds=60)
"""A verification takes seconds, and moments are told in whole ones: so much later is no gap."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A report that did not hold, and which of its checks did not; none where the report is gone."""

    number: int
    at: datetime
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """Time without a report that goes beyond the interval: from `due` on nothing is proven any more."""

    since: datetime
    due: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Proofs:
    """The reports of a month."""

    count: int = 0
    held: int = 0
    failed: Sequence[Failed] = ()
    gaps: Sequence[Gap] = ()
    faults: Sequence[str] = ()
    """What is wrong with the chain of reports, of any time."""
    fingerprint: str = ""
    first: int = 0
    last: int = 0
    last_sha256: str = ""
    interval: timedelta = field(default_factory=timedelta)
    """Zero: verified only when somebody asks."""


def proofs(folder: Path, month: Month, every_seconds: float) -> Proofs:
    """Read the chain of reports in `folder`; what can't be read stands among the faults."""
    if not folder.is_dir():
        return Proofs(interval=timedelta(seconds=every_seconds))
    ledger = Ledger(folder)
    try:
        found = ledger.audit()
    except OSError as cause:
        return Proofs(faults=(f"{cause.filename or folder}: {cause.strerror}",))
    times = [(told(entry.time), entry) for entry in found.entries.values()]
    inside = [(at, entry) for at, entry in times if month.since <= at < month.until]
    last = inside[-1][1] if inside else None
    interval = timedelta(seconds=every_seconds)
    before = max((at for at, _ in times if at < month.since), default=None)
    return Proofs(
        len(inside),
        sum(entry.holds for _, entry in inside),
        tuple(_failed(ledger, at, entry) for at, entry in inside if not entry.holds),
        tuple(_gaps(sorted(at for at, _ in inside), before, month, interval)),
        (*found.faults, *found.unfinished),
        last.fingerprint if last else "",
        inside[0][1].number if inside else 0,
        last.number if last else 0,
        last.sha256 if last else "",
        interval,
    )


def _failed(ledger: Ledger, at: datetime, entry: Entry) -> Failed:
    try:
        report = ledger.read(entry.number)
        checks = tuple(each["name"] for each in report["checks"] if each["violations"] or not each["holds"])
    except (LedgerFailed, KeyError, TypeError):
        checks = ()
    return Failed(entry.number, at, checks)


def _gaps(times: Sequence[datetime], before: datetime | None, month: Month, interval: timedelta) -> Iterator[Gap]:
    starts = [max(before or month.since - interval, month.since - interval), *times]
    for start, until in zip(starts, [*times, month.until], strict=True):
        if until - start > interval + _LATE:
            yield Gap(month.since if before is None and start is starts[0] else start, start + interval, until)


def within(gap: Gap, moments: Sequence[datetime]) -> datetime | None:
    """The last of `moments`, which are in order, that lies in `gap`."""
    found = bisect.bisect_left(moments, gap.until) - 1
    return moments[found] if found >= 0 and moments[found] > gap.since else None
