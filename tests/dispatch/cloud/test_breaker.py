"""When a provider is left alone, for how long, and by what it is taken back."""

from __future__ import annotations

import pytest

from appliance.dispatch.cloud.breaker import Breaker
from tests.dispatch.cloud.parts import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def failing(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.admit()
        breaker.failed()


def test_three_failures_in_a_row_open_it(breaker: Breaker) -> None:
    failing(breaker, 2)
    breaker.succeeded()
    failing(breaker, 2)
    assert breaker.ready
    failing(breaker, 1)
    assert not breaker.ready
    assert not breaker.admit()


def test_one_request_at_a_time_probes_it(breaker: Breaker, clock: Clock) -> None:
    failing(breaker, 3)
    clock.now += 10
    assert breaker.ready
    assert breaker.admit()
    assert not breaker.ready
    assert not breaker.admit()
    breaker.succeeded()
    assert breaker.admit()
    assert breaker.admit()


def test_a_probe_that_fails_doubles_the_wait(breaker: Breaker, clock: Clock) -> None:
    failing(breaker, 3)
    for seconds in (10, 20, 40, 80, 160, 300, 300):
        clock.now += seconds - 0.5
        assert not breaker.ready
        clock.now += 0.5
        assert breaker.admit()
        breaker.failed()


def test_a_probe_that_nobody_waited_for_leaves_the_place_to_the_next(breaker: Breaker, clock: Clock) -> None:
    failing(breaker, 3)
    clock.now += 10
    assert breaker.admit()
    breaker.abandoned()
    assert breaker.admit()


def test_it_is_left_alone_for_as_long_as_it_asks(breaker: Breaker, clock: Clock) -> None:
    assert breaker.admit()
    breaker.failed(60)
    breaker.failed(5)  # asked at the same time, and answered later
    clock.now += 59
    assert not breaker.ready
    clock.now += 1
    assert breaker.ready


def test_an_answer_to_an_earlier_request_does_not_close_it(breaker: Breaker) -> None:
    assert breaker.admit()
    assert breaker.admit()
    breaker.failed(60)
    breaker.succeeded()
    assert not breaker.ready
