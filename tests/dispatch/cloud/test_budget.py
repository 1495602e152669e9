"""How many second attempts there may be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.dispatch.cloud.budget import RetryBudget
from tests.dispatch.cloud.parts import Clock


def test_a_quiet_house_has_three_a_minute() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    budget.request()
    assert [budget.retry() for _ in range(5)] == [True, True, True, False, False]
    clock.now += 60
    assert budget.retry()


def test_a_busy_one_has_a_fifth() -> None:
    budget = RetryBudget(Clock())
    for _ in range(100):
        budget.request()
    assert sum(budget.retry() for _ in range(100)) == 20


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=300))
def test_in_no_minute_are_there_more(acts: list[tuple[bool, float]]) -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    requests, retries = [], []
    for again, seconds in acts:
        clock.now += seconds
        if not again:
            budget.request()
            requests.append(clock.now)
        elif budget.retry():
            retries.append(clock.now)
            recent = [sum(then > clock.now - 60 for then in times) for times in (requests, retries)]
            assert recent[1] <= max(3, recent[0] / 5)
