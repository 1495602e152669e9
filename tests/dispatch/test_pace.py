"""How fast what waits is worked off, from readings of the engine."""

from __future__ import annotations

import pytest

from appliance.core import ServiceClass
from appliance.dispatch.pace import Pace
from appliance.engines.load import Load

STANDARD, BATCH = ServiceClass.STANDARD, ServiceClass.BATCH


def read(pace: Pace, rate: float, seconds: int, start: int = 0, *, full: bool = True) -> None:
    """Readings 4 times a second of an engine that finishes `rate` tokens per second."""
    for quarter in range(4 * seconds + 1):
        pace.read(Load(tokens=1000 * start + rate * quarter / 4), start + quarter / 4, full=full)


def test_nothing_is_expected_before_anything_is_known() -> None:
    assert Pace().seconds(STANDARD, 1000, 1000) == 0


def test_work_takes_its_tokens_over_the_rate() -> None:
    pace = Pace()
    read(pace, 500, 5)
    assert pace.rate == pytest.approx(500)
    assert pace.seconds(STANDARD, 1000, 4000) == pytest.approx(10)


def test_what_an_engine_does_when_nobody_waits_says_nothing() -> None:
    pace = Pace()
    read(pace, 500, 5)
    read(pace, 3, 60, start=10, full=False)
    assert pace.rate == pytest.approx(500)


def test_a_change_of_pace_is_followed_within_its_memory() -> None:
    pace = Pace()
    read(pace, 500, 60)
    pace.read(Load(tokens=100_000), 100, full=False)
    read(pace, 100, 30, start=100)
    assert 100 <= pace.rate < 150


def test_a_restarted_engine_counts_from_the_beginning() -> None:
    pace = Pace()
    read(pace, 500, 5, start=10)
    pace.read(Load(tokens=0), 30, full=True)
    assert pace.rate == pytest.approx(500)


def test_a_lower_class_counts_on_what_higher_ones_leave() -> None:
    pace = Pace()
    read(pace, 100, 2)
    pace.took(STANDARD, 750)
    pace.took(BATCH, 250)
    assert pace.seconds(STANDARD, 0, 100) == pytest.approx(1)
    assert pace.seconds(BATCH, 0, 100) == pytest.approx(4)
    assert pace.seconds(BATCH, 300, 100) == pytest.approx(7)


def test_a_class_that_has_got_nothing_expects_a_long_wait_and_no_endless_one() -> None:
    pace = Pace()
    read(pace, 100, 2)
    pace.took(STANDARD, 1000)
    assert pace.seconds(BATCH, 0, 100) == pytest.approx(50)


def test_answers_are_learned() -> None:
    pace = Pace()
    for _ in range(200):
        pace.answered(10)
    assert pace.answer == pytest.approx(10, abs=1)
