"""Days and months of a time zone, as moments (seconds since 1970). Pure: the caller says what time it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Period:
    """The day and the month that hold one moment."""

    day: str
    """The day itself, `2026-11-22`."""
    month: str
    """The first day of the month, `2026-11-01`."""
    begins: float
    day_ends: float
    month_ends: float


class Calendar:
    """Tells the period of a moment. The last one is kept, so that asking again costs a comparison.

    A day has 23 or 25 hours when the clocks change, and begins when its first moment is there, also in zones whose
    clocks change at midnight. It doesn't matter which way the wall clock moves between two questions.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone
        self._period = Period("", "", 0.0, 0.0, 0.0)

    def at(self, moment: float) -> Period:
        """The day and month of `moment`; the same object as long as it is the same day."""
        period = self._period
        if not period.begins <= moment < period.day_ends:
            self._period = period = self._of(moment)
        return period

    def day(self, moment: float) -> str:
        """The day of any moment, `2026-11-22`."""
        return self._date(moment).isoformat()

    def told(self, moment: float) -> str:
        """`moment` as people of the zone write it: `2026-11-23 00:00 (Europe/Berlin)`."""
        return f"{datetime.fromtimestamp(moment, self.zone):%Y-%m-%d %H:%M} ({self.zone.key})"

    def _of(self, moment: float) -> Period:
        day = self._date(moment)
        month = day.replace(day=1)
        next_month = (month + timedelta(days=31)).replace(day=1)
        return Period(
            day=day.isoformat(),
            month=month.isoformat(),
            begins=self._first_moment(day),
            day_ends=self._first_moment(day + timedelta(days=1)),
            month_ends=self._first_moment(next_month),
        )

    def _date(self, moment: float) -> date:
        # whole seconds, with which days begin: datetime rounds, and the last microsecond of a day into the next
        return datetime.fromtimestamp(math.floor(moment), self.zone).date()

    def _first_moment(self, day: date) -> float:
        # a midnight that the clocks skip is reckoned as before the change, which is the moment of the change;
        # of a midnight that comes twice, fold=0 takes the first
        return datetime.combine(day, time(), self.zone).timestamp()
