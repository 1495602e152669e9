"""Limits per minute: even filling, whatever the clock does, and OpenAI's headers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accounts.buckets import Filling, duration, headers
from appliance.accounts.entries import Bucket, Kind, Level, Scope, Unit

BUCKET = Bucket(Scope(Kind.TEAM, "sales"), Unit.TOKENS)


def filling(size: int, level: float | None = None, at: float = 0.0) -> Filling:
    return Filling(BUCKET, size, None if level is None else Level(level, at))


def test_a_new_bucket_is_full_and_fills_evenly() -> None:
    bucket = filling(60)
    assert not bucket.lacks(60, 1000.0)
    bucket.move(60, 1000.0)
    assert bucket.lacks(1, 1000.0)
    assert bucket.fill(1010.0) == pytest.approx(10)
    assert bucket.fill(1e9) == 60


def test_a_clock_that_goes_back_fills_nothing_and_takes_nothing() -> None:
    bucket = filling(60, 30, at=5000.0)
    assert bucket.fill(-1e9) == 30
    assert bucket.fill(-1e9 + 1) == pytest.approx(31)


def test_after_the_seconds_that_were_told_the_amount_is_there() -> None:
    bucket = filling(7, 0.1)
    bucket.fill(0.0)
    assert not bucket.lacks(5, math.nextafter(bucket.seconds_to(5), 0))


def test_what_is_used_stays_used_when_the_limit_changes() -> None:
    bucket = filling(100, 20)
    bucket.resize(300)
    assert (bucket.size, bucket.level) == (300, 220)
    bucket.resize(50)
    assert (bucket.size, bucket.level) == (50, 50)


@given(
    st.integers(1, 10**12),
    st.lists(st.tuples(st.floats(-1e10, 1e10), st.integers(-(10**12), 10**12), st.integers(1, 10**12))),
)
def test_the_level_stays_between_nothing_and_the_size(size: int, moves: list[tuple[float, int, int]]) -> None:
    bucket = filling(size)
    for clock, amount, new_size in moves:
        bucket.move(amount, clock)
        assert 0 <= bucket.level <= bucket.size
        bucket.resize(new_size)
        assert 0 <= bucket.level <= bucket.size


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "0ms"), (0.0001, "1ms"), (0.02, "20ms"), (0.9991, "1s"), (1.0, "1s"), (1.5, "1.5s"), (10.0, "10s"),
        (59.9999, "1m0s"), (60.0, "1m0s"), (61.25, "1m1.25s"), (360.0, "6m0s"), (12.003, "12.003s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_openai_does(seconds: float, told: str) -> None:
    assert duration(seconds).decode() == told


def test_headers_are_of_the_scope_that_has_least_left() -> None:
    team, key = filling(1000, 400), filling(500, 450)
    found = dict(headers([], [team, key]))
    assert found == {
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"400",
        b"x-ratelimit-reset-tokens": b"36s",
    }


def test_headers_tell_of_requests_and_of_tokens() -> None:
    found = dict(headers([filling(10, 9)], [filling(600, 600)]))
    assert found[b"x-ratelimit-limit-requests"] == b"10"
    assert found[b"x-ratelimit-remaining-requests"] == b"9"
    assert found[b"x-ratelimit-reset-requests"] == b"6s"
    assert found[b"x-ratelimit-remaining-tokens"] == b"600"
    assert found[b"x-ratelimit-reset-tokens"] == b"0ms"
