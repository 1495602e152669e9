"""When a candidate takes over, goes, or is tried for longer."""

from __future__ import annotations

import random
from typing import Any

import pytest

from appliance.config import Bounds, Rollout
from appliance.rollout.numbers import Numbers, Times
from appliance.rollout.verdict import Quality, verdict

END = 3600.0


def rollout(**settings: Any) -> Rollout:
    bounds = Bounds(**settings.pop("bounds", {}))
    return Rollout(card="two", bounds=bounds, **{"least_requests": 100, **settings})


def times(*seconds: float) -> Times:
    made = Times()
    for each in seconds:
        made.add(each)
    return made


def numbers(requests: int = 1000, failures: int = 0, **more: Any) -> Numbers:
    return Numbers(requests=requests, failures=failures, **more)


SPREAD = [0.1 + 0.001 * number for number in range(100)]


@pytest.mark.parametrize(
    ("failures", "requests", "action"),
    [
        (0, 3, "wait"),
        (1, 1, "wait"),
        (1, 3, "wait"),
        (2, 6, "wait"),
        (3, 3, "drop"),
        (1, 100, "wait"),
        (5, 100, "wait"),
        (15, 100, "drop"),
    ],
)
def test_before_the_end_only_what_is_clearly_worse_goes(failures: int, requests: int, action: str) -> None:
    came_to = verdict(rollout(), numbers(400, 0), numbers(requests, failures), 10)
    assert came_to.action == action, came_to.reason
    if action == "drop":
        assert came_to.reason == f"{failures} of its {requests} requests failed, 0 of the old one's 400"


def test_where_nothing_was_seen_of_the_old_one_little_can_be_said() -> None:
    assert verdict(rollout(), numbers(0), numbers(5, 5), 10).action == "wait"
    assert verdict(rollout(), numbers(0), numbers(20, 20), 10).action == "drop"


def test_an_old_one_that_fails_as_often_excuses_the_candidate() -> None:
    assert verdict(rollout(), numbers(200, 100), numbers(100, 55), 10).action == "wait"


@pytest.mark.parametrize(
    ("elapsed", "requests", "action"),
    [(0, 1000, "wait"), (3599, 1000, "wait"), (3600, 99, "wait"), (3600, 100, "promote"), (9999, 1000, "promote")],
)
def test_it_takes_over_at_the_windows_end_after_enough_requests(elapsed: float, requests: int, action: str) -> None:
    assert verdict(rollout(), numbers(), numbers(requests), elapsed).action == action


@pytest.mark.parametrize("mode", ["ab", "blue-green"])
def test_in_these_modes_nothing_happens_by_itself_but_for_crashes(mode: Any) -> None:
    assert verdict(rollout(mode=mode), numbers(), numbers(), END).action == "wait"
    assert verdict(rollout(mode=mode), numbers(), numbers(1000, 1000), END).action == "wait"
    assert verdict(rollout(mode=mode), numbers(), numbers(), 1, crashes=3).action == "drop"


def test_by_hand_means_that_it_is_dropped_by_rule_and_promoted_by_nobody_else() -> None:
    assert verdict(rollout(promote="manual"), numbers(), numbers(), END).action == "wait"
    assert verdict(rollout(promote="manual"), numbers(), numbers(100, 50), 5).action == "drop"


def test_an_engine_that_fails_three_times_goes() -> None:
    assert verdict(rollout(), numbers(), numbers(), 1, crashes=2).action == "wait"
    came_to = verdict(rollout(), numbers(), numbers(), 1, crashes=3)
    assert (came_to.action, came_to.reason) == ("drop", "its engine failed 3 times")


@pytest.mark.parametrize(("failures", "action"), [(10, "promote"), (11, "drop")])
def test_at_the_end_the_bound_on_failures_decides(failures: int, action: str) -> None:
    assert verdict(rollout(), numbers(1000, 0), numbers(1000, failures), END).action == action


@pytest.mark.parametrize("name", ["first_token", "token"])
def test_a_slower_one_goes_at_the_end_and_a_much_slower_one_at_once(name: str) -> None:
    old = numbers(**{name: times(*SPREAD)})
    alike, slower, much = (numbers(**{name: times(*(each * by for each in SPREAD))}) for by in (1.3, 1.55, 3))
    assert verdict(rollout(), old, alike, END).action == "promote"
    late = verdict(rollout(), old, slower, END)
    assert late.action == "drop"
    assert "at the 95th percentile" in late.reason
    assert verdict(rollout(), old, slower, 5).action == "wait"
    assert verdict(rollout(), old, much, 5).action == "drop"


def test_of_a_few_times_nothing_follows() -> None:
    old, new = numbers(first_token=times(0.1, 0.1)), numbers(first_token=times(9, 9))
    assert verdict(rollout(), old, new, END).action == "promote"


def test_feedback_counts_once_there_is_enough_of_it() -> None:
    old = numbers(good=95, bad=5)
    assert verdict(rollout(), old, numbers(good=0, bad=1), END).action == "promote"
    assert verdict(rollout(), old, numbers(good=80, bad=20), END).action == "drop"
    assert verdict(rollout(), old, numbers(good=90, bad=10), END).action == "promote"
    assert verdict(rollout(), old, numbers(good=5, bad=25), 5).action == "drop"


def test_a_shadow_has_to_agree() -> None:
    wanted = rollout(mode="shadow", bounds={"agreement_percent": 60})
    assert verdict(wanted, numbers(), numbers(), END).reason == "none of its answers could be compared yet"
    assert verdict(wanted, numbers(), numbers(compared=100, agreed=61), END).action == "promote"
    assert verdict(wanted, numbers(), numbers(compared=100, agreed=59), END).action == "drop"
    assert verdict(wanted, numbers(), numbers(compared=100, agreed=59), 5).action == "wait"
    assert verdict(wanted, numbers(), numbers(compared=100, agreed=20), 5).action == "drop"


@pytest.mark.parametrize(("candidate", "action"), [(90, "promote"), (81, "promote"), (79, "drop")])
def test_the_golden_set_has_its_say(candidate: float, action: str) -> None:
    quality = Quality(stable=90, candidate=candidate, less=10)
    assert verdict(rollout(), numbers(), numbers(), END, quality=quality).action == action


WINDOWS = 1000


def dropped(source: random.Random, rate: float, slower: float, disliked: float) -> int | None:
    """After how many answers a candidate of this kind is dropped, beside an old one of which 2 % fail; None: of 300.

    It is looked at every 20.
    """
    old, new = numbers(0), numbers(0)
    for answers in range(20, 301, 20):
        for each, fails, times_of, bad in ((old, 0.02, 1.0, 0.1), (new, rate, slower, disliked)):
            for _ in range(20):
                each.requests += 1
                each.failures += source.random() < fails
                each.token.add(times_of * source.lognormvariate(-3.5, 0.4))
                each.bad += (disliked_it := source.random() < bad)
                each.good += not disliked_it
        if verdict(rollout(), old, new, 1).action == "drop":
            return answers
    return None


def test_of_candidates_at_the_very_bounds_hardly_one_is_dropped_however_often_one_looks() -> None:
    """One percentage point more failures, half as long again for a token, ten points worse rated: all still allowed."""
    source = random.Random(3)  # noqa: S311 - the same each time
    came_to = [dropped(source, 0.03, 1.5, 0.2) for _ in range(WINDOWS)]
    assert sum(answers is not None for answers in came_to) < 0.01 * WINDOWS


@pytest.mark.parametrize(
    ("rate", "slower", "disliked", "soon"),
    [(1, 1, 0.1, 20), (0.5, 1, 0.1, 120), (0.02, 4, 0.1, 90), (0.02, 1, 0.9, 80)],
)
def test_a_really_bad_one_is_dropped_soon(rate: float, slower: float, disliked: float, soon: int) -> None:
    source = random.Random(4)  # noqa: S311 - the same each time
    for _ in range(50):
        answers = dropped(source, rate, slower, disliked)
        assert answers is not None
        assert answers <= soon
