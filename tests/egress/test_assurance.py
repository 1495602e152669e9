"""What follows from a verdict, and from none."""

from __future__ import annotations

import pytest

from appliance.config import Verify
from appliance.egress.assurance import Assurance, Verdict
from appliance.errors import NotProven
from tests.fakes.process import Clock

GOOD = Verdict(1, "2026-11-22T10:00:00+00:00", 1795341600.0, True, (), "ab")
BAD = Verdict(2, "2026-11-22T10:05:00+00:00", 1795341900.0, False, ("threads", "sockets"), "cd")


def assurance(on_failure: str, clock: Clock, every: float = 10) -> Assurance:
    return Assurance(Verify(every_seconds=every, on_failure=on_failure), clock)  # type: ignore[arg-type]


def test_a_failure_stops_only_where_the_config_says_so_and_until_it_holds() -> None:
    for on_failure, stops in (("alert", False), ("stop", True)):
        made = assurance(on_failure, Clock())
        made.require()
        made.take(BAD)
        if stops:
            with pytest.raises(NotProven, match=r"failed \(threads, sockets\)") as refusal:
                made.require()
            assert (refusal.value.status, refusal.value.code) == (503, "egress_not_proven")
        else:
            made.require()
        made.take(GOOD)
        made.require()


def test_after_three_intervals_without_a_word_nothing_counts_as_proven() -> None:
    clock = Clock()
    made = assurance("stop", clock)
    clock.now += 30
    made.require()
    clock.now += 0.1
    with pytest.raises(NotProven, match="overdue"):
        made.require()
    made.take(GOOD)
    clock.now += 30
    made.require()
    assert not made.overdue


def test_without_a_timer_nothing_is_overdue() -> None:
    clock = Clock()
    made = assurance("alert", clock, every=0)
    clock.now += 1e9
    assert not made.overdue
    assert made.describe()["last"] is None


def test_stopping_needs_a_timer() -> None:
    with pytest.raises(ValueError, match="every_seconds"):
        Verify(every_seconds=0, on_failure="stop")
