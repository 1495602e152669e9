"""What tokens cost: exact, and never rounded down."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accounts.entries import NANO
from appliance.accounts.prices import Prices, nanoeuros
from appliance.config import Prices as Settings


def prices(**changes: object) -> Prices:
    return Prices(Settings.model_validate({"machine_hour_euros": 0.9} | changes))


def timed(tokens_per_second: float) -> dict[str, object]:
    return {"models": {"m": {"tokens_per_second": tokens_per_second}}}


def listed(prompt: float, completion: float) -> dict[str, object]:
    return {"models": {"m": {"prompt_euros_per_million": prompt, "completion_euros_per_million": completion}}}


def test_a_local_model_costs_the_machines_time() -> None:
    """0.9 euros an hour are 250 000 nano-euros a second, for 1000 tokens."""
    assert prices(**timed(1000.0)).cost("m", 100, 20) == 100 * 250 + 20 * 250


def test_a_listed_model_costs_what_its_list_says() -> None:
    """A euro for a million tokens is 1000 nano-euros for one."""
    assert prices(**listed(2.5, 10.0)).cost("m", 1000, 10) == 2_500_000 + 100_000


def test_prompt_and_answer_are_each_rounded_up() -> None:
    book = prices(**timed(7.0e6))  # a token costs a twenty-eighth of a nano-euro
    assert [book.cost("m", *tokens) for tokens in ((1, 0), (0, 1), (1, 1), (28, 28), (29, 0))] == [1, 1, 2, 2, 2]


def test_a_model_without_a_price_costs_nothing() -> None:
    assert prices(**timed(10.0)).cost("another", 10**9, 10**9) == 0


@pytest.mark.parametrize(("euros", "expected"), [(0.1, NANO // 10), (12.0, 12 * NANO), (1e-12, 1), (0.3, 300_000_000)])
def test_amounts_of_the_config_are_meant_as_they_are_written(euros: float, expected: int) -> None:
    assert nanoeuros(euros) == expected


@given(st.floats(1e-6, 1e5), st.floats(1e-2, 1e9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_cost_is_never_below_the_exact_one_and_less_than_two_above(
    hour: float, speed: float, prompt: int, completion: int
) -> None:
    exact = Fraction(repr(hour)) * NANO / 3600 / Fraction(repr(speed)) * (prompt + completion)
    cost = prices(machine_hour_euros=hour, **timed(speed)).cost("m", prompt, completion)
    assert exact <= cost < exact + 2
    assert cost > 0 or not prompt + completion
