from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.evaluation.figures import difference, wilson


@pytest.mark.parametrize(
    ("passed", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval_is_that_of_the_literature(passed: int, of: int, low: float, high: float) -> None:
    """The last one is Newcombe's own example (1998)."""
    found = wilson(passed, of)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def pairs(both: int, first: int, second: int, neither: int) -> tuple[list[float], list[float]]:
    one = [1.0] * (both + first) + [0.0] * (second + neither)
    other = [1.0] * both + [0.0] * first + [1.0] * second + [0.0] * neither
    return one, other


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [((36, 12, 2, 0), 0.0569, 0.3404), ((0, 0, 0, 0), -1.0, 1.0)],
)
def test_the_difference_of_pairs_is_that_of_the_literature(
    table: tuple[int, int, int, int], low: float, high: float
) -> None:
    """Newcombe's example of paired differences (1998), by his method 10."""
    found = difference(*pairs(*table))
    assert found.low == pytest.approx(low, abs=5e-4)
    assert found.high == pytest.approx(high, abs=5e-4)


def test_few_cases_that_all_agree_leave_a_doubt() -> None:
    found = difference([1, 1, 0, 0], [1, 1, 0, 0])
    assert found.value == 0
    assert found.low < -0.2
    assert found.high > 0.2


shares = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=40))
def test_an_interval_holds_its_value_and_stays_within_bounds(cases: list[tuple[float, float]]) -> None:
    one, other = [a for a, _ in cases], [b for _, b in cases]
    single, apart, back = wilson(sum(one), len(one)), difference(one, other), difference(other, one)
    assert 0 <= single.low <= single.value + 1e-9
    assert single.value - 1e-9 <= single.high <= 1
    assert -1 <= apart.low <= apart.value + 1e-9
    assert apart.value - 1e-9 <= apart.high <= 1
    assert apart.low == pytest.approx(-back.high)
