"""How much two answers say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.rollout.agreement import agreement

WORDS = st.lists(st.sampled_from("abcde"), max_size=40)


def longest(one: list[str], other: list[str]) -> int:
    """The longest common subsequence, by the table of every textbook."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for index, each in enumerate(other, 1):
            before, row[index] = row[index], before + 1 if word == each else max(row[index], row[index - 1])
    return row[-1]


@given(WORDS, WORDS)
def test_it_is_that_of_the_textbook_and_the_same_both_ways(one: list[str], other: list[str]) -> None:
    words = len(one) + len(other)
    expected = 2 * longest(one, other) / words if words else 1.0
    assert agreement(" ".join(one), " ".join(other)) == agreement(" ".join(other), " ".join(one)) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("", "", 1.0),
        ("", "x", 0.0),
        ("Paris.", "paris", 1.0),
        ("Die Hauptstadt ist **Paris**.", "Die Hauptstadt ist Paris!", 1.0),
        ("STRASSE", "Straße", 1.0),
        ("\ufb01ne", "fine", 1.0),
        ("the cat sat", "the dog sat", 2 / 3),
        ("yes no", "no yes", 0.5),
    ],
)
def test_what_people_would_call_the_same(one: str, other: str, expected: float) -> None:
    assert agreement(one, other) == pytest.approx(expected)


def test_of_what_is_very_long_the_beginning_is_compared() -> None:
    one, other = ("a " * 1_000_000, "a " * 2048 + "b " * 1_000_000)
    assert agreement(one, other) == 1.0
