"""The month that a report is about, in the company's time zone; one that isn't over goes until now."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from appliance.audit.record import moment
from appliance.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Month:
    """From `since` on, before `until`; both know the time zone."""

    since: datetime
    until: datetime
    over: bool
    """Whether it has ended. If not, `until` is when the report is made."""

    @classmethod
    def of(cls, first: date, zone: zoneinfo.ZoneInfo, now: datetime) -> Month:
        """The month that begins on the day `first`. Raises `BadRequest` for one that hasn't begun."""
        since = datetime.combine(first, datetime.min.time(), zone)
        ends = datetime.combine((first + timedelta(days=31)).replace(day=1), datetime.min.time(), zone)
        if since > now:
            raise BadRequest(f"month: {first:%Y-%m} has not begun; name one that has", param="month")
        return cls(since, min(ends, now.astimezone(zone)), ends <= now)

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """Of its days."""
        assert isinstance(self.since.tzinfo, zoneinfo.ZoneInfo)  # noqa: S101 - as `of` made it
        return self.since.tzinfo

    @property
    def span(self) -> tuple[str, str]:
        """Its beginning and its end, as records write them; the second is not in it any more."""
        return moment(self.since.timestamp()), moment(self.until.timestamp())

    def holds(self, at: float | None) -> bool:
        """Whether a moment (seconds since 1970) lies in it."""
        return at is not None and self.since.timestamp() <= at < self.until.timestamp()


def told(at: str) -> datetime:
    """The moment that a record or a report tells (`2026-11-22T15:50:11.123Z`). Raises ValueError."""
    return datetime.fromisoformat(at).astimezone(UTC)
