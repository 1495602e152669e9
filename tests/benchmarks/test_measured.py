"""How a run is held against its objectives."""

from __future__ import annotations

import pytest

from appliance.config import Objectives
from benchmarks.measured import Measured, Spread, judge, tokens_over_time

STRICT = Objectives(time_to_first_token_ms=100, inter_token_latency_ms=10, end_to_end_ms=500, share=0.9)


def request(**changes: object) -> Measured:
    """A request that meets `STRICT`, but for the changes."""
    good: dict[str, object] = {
        "user": 0, "turn": 1, "language": "de", "started": 1000.0, "status": 200,
        "first_token_ms": 50.0, "gaps_ms": [8.0, 8.0, 8.0, 8.0], "end_to_end_ms": 100.0,
        "prompt_tokens": 9, "tokens": 5,
    }  # fmt: skip
    return Measured(**(good | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"first_token_ms": 101.0}, ["time_to_first_token_ms"]),
        ({"gaps_ms": [8.0, 8.0, 8.0, 20.0]}, ["inter_token_latency_ms"]),
        ({"gaps_ms": [0.0, 0.0, 0.0, 39.0]}, []),
        ({"end_to_end_ms": 501.0, "first_token_ms": 101.0}, ["time_to_first_token_ms", "end_to_end_ms"]),
        ({"gaps_ms": [], "tokens": 1}, []),
        ({"error": "status 503", "status": 503}, ["failed"]),
    ],
)
def test_a_request_is_held_against_each_objective(changes: dict[str, object], missed: list[str]) -> None:
    assert request(**changes).missed(STRICT) == missed


def test_failed_requests_count_as_missed_and_give_no_times() -> None:
    """Ten percent may miss; two of ten failed."""
    run = [request() for _ in range(8)] + [request(error="status 503", first_token_ms=0.0, tokens=0)] * 2
    verdict = judge(run, STRICT)
    assert (verdict.requests, verdict.failed, verdict.share, verdict.met) == (10, 2, 0.8, False)
    assert verdict.errors == {"status 503": 2}
    assert verdict.first_token_ms.p50 == 50
    assert verdict.within["end_to_end_ms"] == 0.8


def test_a_run_meets_its_objectives_at_exactly_the_share() -> None:
    run = [request() for _ in range(9)] + [request(end_to_end_ms=600.0)]
    assert judge(run, STRICT).met


def test_too_few_tokens_per_second_miss() -> None:
    """Five tokens in a tenth of a second are 50 a second."""
    assert judge([request()], STRICT.model_copy(update={"tokens_per_second": 49})).met
    assert not judge([request()], STRICT.model_copy(update={"tokens_per_second": 51})).met


def test_a_run_without_requests_has_missed() -> None:
    assert not judge([], STRICT).met


def test_a_spread_of_nothing_is_nothing() -> None:
    assert Spread.of([]) == Spread(0, 0, 0, 0)
    assert Spread.of(range(1, 101)) == Spread(51, 96, 100, 100)


def test_no_token_is_lost_over_time() -> None:
    run = [request(), request(started=1003.5, gaps_ms=[900.0, 900.0], tokens=6)]
    bins = tokens_over_time(run, bin_seconds=1.0)
    assert [at for at, _ in bins] == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert sum(rate for _, rate in bins) == pytest.approx(11)
