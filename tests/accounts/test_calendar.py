"""Days and months: where they begin and end, whatever the clocks of a zone do."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accounts.calendar import Calendar

BERLIN = Calendar(ZoneInfo("Europe/Berlin"))
HOUR = 3600.0


def moment(text: str) -> float:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("at", "day", "month", "hours", "ends"),
    [
        ("2026-11-22T12:00", "2026-11-22", "2026-11-01", 24, "2026-11-22T23:00"),
        ("2026-11-22T22:59:59.9", "2026-11-22", "2026-11-01", 24, "2026-11-22T23:00"),
        ("2026-11-22T23:00", "2026-11-23", "2026-11-01", 24, "2026-11-23T23:00"),
        ("2026-03-29T00:30", "2026-03-29", "2026-03-01", 23, "2026-03-29T22:00"),
        ("2026-10-25T00:30", "2026-10-25", "2026-10-01", 25, "2026-10-25T23:00"),
        ("2026-12-31T22:30", "2026-12-31", "2026-12-01", 24, "2026-12-31T23:00"),
        ("2026-12-31T23:30", "2027-01-01", "2027-01-01", 24, "2027-01-01T23:00"),
        ("2028-02-29T12:00", "2028-02-29", "2028-02-01", 24, "2028-02-29T23:00"),
    ],
)
def test_a_moment_is_in_its_day_and_month(at: str, day: str, month: str, hours: int, ends: str) -> None:
    period = BERLIN.at(moment(at))
    assert (period.day, period.month) == (day, month)
    assert period.day_ends == moment(ends)
    assert period.day_ends - period.begins == hours * HOUR


@pytest.mark.parametrize(
    ("at", "ends"),
    [
        ("2026-03-15T12:00", "2026-03-31T22:00"),
        ("2026-02-01T12:00", "2026-02-28T23:00"),
        ("2026-12-05T12:00", "2026-12-31T23:00"),
    ],
)
def test_a_month_ends_where_the_next_begins(at: str, ends: str) -> None:
    assert BERLIN.at(moment(at)).month_ends == moment(ends)


@pytest.mark.parametrize(
    ("zone", "at", "day", "begins"),
    [
        # midnight is skipped, so the day begins at one o'clock
        ("America/Santiago", "2026-09-06T12:00", "2026-09-06", "2026-09-06T04:00"),
        # midnight comes twice, and the first one begins the day
        ("America/Havana", "2026-11-01T12:00", "2026-11-01", "2026-11-01T04:00"),
        # the 30th was skipped
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-31", "2011-12-30T10:00"),
        ("Asia/Kathmandu", "2026-11-22T18:15", "2026-11-23", "2026-11-22T18:15"),
    ],
)
def test_zones_whose_clocks_change_at_midnight(zone: str, at: str, day: str, begins: str) -> None:
    period = Calendar(ZoneInfo(zone)).at(moment(at))
    assert (period.day, period.begins) == (day, moment(begins))


@given(
    st.sampled_from(["Europe/Berlin", "America/Santiago", "America/Havana", "Pacific/Apia", "Asia/Tehran", "UTC"]),
    st.lists(st.floats(moment("1990-01-01T00:00"), moment("2100-01-01T00:00")), min_size=1, max_size=10),
)
def test_whichever_way_the_clock_jumps_a_period_holds_its_moment(zone: str, moments: list[float]) -> None:
    place = ZoneInfo(zone)
    calendar = Calendar(place)
    for at in moments:
        period = calendar.at(at)
        assert period.begins <= at < period.day_ends <= period.month_ends
        assert period.day == datetime.fromtimestamp(math.floor(at), place).date().isoformat() == calendar.day(at)
        assert period.month == period.day[:8] + "01"
        assert calendar.day(period.day_ends) > period.day
        assert calendar.day(period.begins) == period.day
        assert calendar.day(period.begins - 0.001) < period.day
        assert calendar.day(period.month_ends)[:7] > period.month[:7]


def test_the_period_stays_the_same_object_until_it_ends() -> None:
    calendar = Calendar(ZoneInfo("Europe/Berlin"))
    first = calendar.at(moment("2026-11-22T12:00"))
    assert calendar.at(moment("2026-11-22T22:59")) is first
    assert calendar.at(moment("2026-11-22T23:00")) is not first


def test_a_moment_is_told_with_its_zone() -> None:
    assert BERLIN.told(moment("2026-11-22T23:00")) == "2026-11-23 00:00 (Europe/Berlin)"
