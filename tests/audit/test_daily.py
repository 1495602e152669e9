"""The daily job runs soon, then every morning, whatever the clock does and whatever it raises."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from appliance.audit.daily import daily, next_run

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("after", "due"),
    [
        ("2026-01-10T12:00", "2026-01-11T02:00"),
        ("2026-01-10T01:59:59", "2026-01-10T02:00"),
        ("2026-01-10T02:00", "2026-01-11T02:00"),
        ("2026-07-10T12:00", "2026-07-11T01:00"),
        ("2026-03-28T12:00", "2026-03-29T01:00"),  # the clocks go from 2 to 3 that night
        ("2026-03-29T00:30", "2026-03-29T01:00"),
        ("2026-10-24T12:00", "2026-10-25T02:00"),  # and back from 3 to 2
        ("2026-10-25T00:30", "2026-10-25T02:00"),
        ("2026-12-31T12:00", "2027-01-01T02:00"),
    ],
)
def test_it_is_three_o_clock_by_the_clock_of_the_house(after: str, due: str) -> None:
    assert next_run(at(after), BERLIN) == at(due)


@pytest.mark.parametrize(
    "zone", ["Africa/Cairo", "America/Santiago", "Asia/Kathmandu", "Pacific/Apia", "Europe/Berlin"]
)
def test_it_comes_within_every_day_of_any_zone(zone: str) -> None:
    now, last = at("2025-12-31T00:00"), at("2027-01-02T00:00")
    while now < last:
        due = next_run(now, ZoneInfo(zone))
        assert 0 < due - now <= 25 * 3600
        assert datetime.fromtimestamp(due, ZoneInfo(zone)).hour == 3
        now = due


class Clock:
    """Goes as far as somebody sleeps, and jumps when a test says so."""

    def __init__(self, now: str) -> None:
        self.now = at(now)
        self.runs: list[str] = []
        self.jumps: dict[str, float] = {}
        self.fault: Exception | None = None

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        for when in [when for when in self.jumps if self.now >= at(when)]:
            self.now += self.jumps.pop(when)
        await asyncio.sleep(0)

    async def job(self) -> None:
        self.runs.append(f"{datetime.fromtimestamp(self.now, UTC):%Y-%m-%dT%H:%M}")
        if len(self.runs) == 4:
            raise asyncio.CancelledError
        if self.fault is not None:
            raise self.fault

    async def run(self) -> list[str]:
        with pytest.raises(asyncio.CancelledError):
            await daily(self.job, lambda: BERLIN, wall=lambda: self.now, sleep=self.sleep)
        return self.runs


async def test_it_runs_soon_after_the_start_and_then_every_morning() -> None:
    assert await Clock("2026-01-10T12:00").run() == [
        "2026-01-10T12:00", "2026-01-11T02:00", "2026-01-12T02:00", "2026-01-13T02:00",
    ]  # fmt: skip


async def test_what_it_raises_is_logged_and_it_runs_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock("2026-01-10T12:00")
    clock.fault = OSError("No space left on device")
    assert len(await clock.run()) == 4
    assert caplog.messages == ["the daily job failed, and runs again in an hour: No space left on device"] * 3
    assert clock.runs == ["2026-01-10T12:00", "2026-01-10T13:00", "2026-01-10T14:00", "2026-01-10T15:00"]


async def test_what_failed_shortly_before_three_still_runs_at_three() -> None:
    clock = Clock("2026-01-10T01:30")
    clock.fault = OSError("No space left on device")
    assert (await clock.run())[:2] == ["2026-01-10T01:30", "2026-01-10T02:00"]


async def test_a_clock_that_jumps_on_makes_it_run_once_and_one_that_is_set_back_holds_it_up_for_a_day_at_most() -> None:
    clock = Clock("2026-01-10T12:00")
    clock.jumps = {"2026-01-10T15:00": 3 * 86_400.0, "2026-01-14T05:00": -365 * 86_400.0}
    assert await clock.run() == ["2026-01-10T12:00", "2026-01-13T15:00", "2026-01-14T02:00", "2025-01-15T03:00"]
