"""What is counted of a version over a window that rolls on."""

from __future__ import annotations

import random

import pytest

from appliance.rollout.numbers import Numbers, Times, Window


def test_a_quantile_is_right_to_two_percent_whatever_it_is_of() -> None:
    source = random.Random(7)  # noqa: S311 - the same each time
    durations = [source.lognormvariate(-3, 2) for _ in range(5000)]
    times = Times()
    for each in durations:
        times.add(each)
    ranked = sorted(durations)
    for share in (0.01, 0.5, 0.95, 1.0):
        assert times.quantile(share) == pytest.approx(ranked[int(share * 5000) - 1], rel=0.021)
    assert times.count == 5000


def test_of_nothing_there_is_no_quantile_and_no_time_at_all_counts_as_a_short_one() -> None:
    times = Times()
    assert times.quantile(0.5) is None
    times.add(0.0)
    assert 0 < (times.quantile(0.5) or 0) < 1e-5


def test_over_counts_only_what_is_surely_longer() -> None:
    times = Times()
    for each in (1.0, 1.01, 2.0, 3.0):
        times.add(each)
    assert (times.over(1.0), times.over(0.5), times.over(2.5), times.over(9)) == (2, 4, 1, 0)


def test_a_window_forgets_what_is_older_and_nothing_else() -> None:
    window = Window(60)
    for second in range(200):
        window.at(1000.0 + second).requests += 1
    assert window.sums(1199.5).requests == 61, "the last 60 s, and the slice that is going"
    assert window.sums(1229.5).requests == 31
    assert window.sums(9999.0).requests == 0
    assert len(window._parts) == 61


def test_sums_add_every_count_and_every_time() -> None:
    one, other = Numbers(requests=2, failures=1, compared=1, agreed=0.5), Numbers(requests=3, refused=4, good=1, bad=2)
    one.first_token.add(1.0)
    other.first_token.add(2.0)
    whole = Numbers.of([one, other])
    assert (whole.requests, whole.failures, whole.refused, whole.good, whole.bad) == (5, 1, 4, 1, 2)
    assert (whole.first_token.count, one.first_token.count, whole.agreement) == (2, 1, 0.5)
    assert set(Numbers().figures) == set(whole.figures)
