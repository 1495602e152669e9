"""What follows from a verdict, and from none."""

from __future__ import annotations

import inspect
import time
from dataclasses import replace

import pytest

from appliance.config import Verify
from appliance.egress.assurance import Assurance, Verdict, since_boot
from appliance.errors import NotProven
from tests.fakes.process import Clock

GOOD = Verdict(1, "2026-11-22T10:00:00+00:00", 1795341600.0, True, (), "ab")
BAD = Verdict(2, "2026-11-22T10:05:00+00:00", 1795341900.0, False, ("threads", "sockets"), "cd")

AGAIN = Verdict(3, "2026-11-22T10:10:00+00:00", 1795342200.0, True, (), "ef")


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
        made.take(AGAIN)
        made.require()
        assert made.failures == 1


def test_a_verdict_that_comes_late_makes_nothing_good_and_proves_nothing_anew() -> None:
    clock = Clock()
    made = assurance("stop", clock)
    assert made.take(BAD)
    assert made.take(replace(BAD, number=0)), "where no report could be written"
    clock.now += 30
    assert not made.take(GOOD)
    with pytest.raises(NotProven, match="failed"):
        made.require()
    clock.now += 1
    assert made.overdue


def test_a_failure_counts_whatever_number_its_report_has() -> None:
    made = assurance("stop", Clock())
    made.take(AGAIN)
    assert made.take(replace(BAD, number=1)), "the chain was put back while the appliance ran"
    with pytest.raises(NotProven, match="failed"):
        made.require()
    assert not made.take(replace(GOOD, number=2))


def test_the_first_proof_has_to_be_there_after_90_seconds() -> None:
    for every in (0.5, 300):
        clock = Clock()
        made = assurance("stop", clock, every)
        clock.now += 90
        made.require()
        assert made.describe()["refuses"] is None
        clock.now += 0.1
        with pytest.raises(NotProven, match="overdue"):
            made.require()
        assert made.describe()["refuses"] == "is overdue"
        made.take(GOOD)
        made.require()


def test_time_goes_on_while_the_machine_is_suspended() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= since_boot() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert inspect.signature(Assurance).parameters["clock"].default is since_boot


def test_after_three_intervals_without_a_word_nothing_counts_as_proven() -> None:
    clock = Clock()
    made = assurance("stop", clock)
    made.take(GOOD)
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
