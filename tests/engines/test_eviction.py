"""Who leaves for whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engines.eviction import Choice, Resident, choose


def resident(name: str, gib: float = 4, *, busy: bool = False, quiet: float = 60, stays: float = 0) -> Resident:
    return Resident(name, gib, busy, quiet, stays)


A, B = resident("a", quiet=10), resident("b", quiet=90)

CASES = {
    "there is room": (3.0, 4.0, [A, B], False, Choice()),
    "the least recently used leaves": (4.0, 1.0, [A, B], False, Choice(("b",))),
    "as many as it takes": (8.0, 1.0, [A, B], False, Choice(("b", "a"))),
    "more than all of them": (9.5, 1.0, [A, B], False, Choice(never=True)),
    "nobody there": (4.0, 1.0, [], False, Choice(never=True)),
    "busy ones stay": (4.0, 1.0, [A, resident("b", busy=True, quiet=0)], False, Choice(("a",))),
    "until then nobody comes": (4.0, 1.0, [resident("a", busy=True, quiet=0)], False, Choice(later=True)),
    "who waits for long comes all the same": (4.0, 1.0, [resident("a", busy=True, quiet=0)], True, Choice(("a",))),
    "also then a quiet one leaves before": (4.0, 1.0, [resident("a", busy=True, quiet=0), B], True, Choice(("b",))),
    "who has just come stays": (4.0, 1.0, [resident("a", stays=3)], False, Choice(later=True)),
    "whoever waits": (4.0, 1.0, [resident("a", stays=3)], True, Choice(later=True)),
    "a small one doesn't leave for nothing": (
        4.0, 0.0, [resident("small", 1, quiet=99), resident("large", 4, quiet=50)], False, Choice(("large",)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_who_leaves(case: str) -> None:
    needed, room, residents, overdue, expected = CASES[case]
    assert choose(needed, room, residents, overdue=overdue) == expected


residents = st.lists(
    st.builds(
        Resident,
        st.uuids().map(str),
        st.integers(1, 8),
        st.booleans(),
        st.integers(0, 99),
        st.sampled_from([-1, 0, 5]),
    ),
    max_size=6,
)


@given(st.integers(1, 20), st.integers(-4, 20), residents, st.booleans())
def test_whatever_is_chosen_makes_room_and_nothing_leaves_in_vain(
    needed: float, room: float, there: list[Resident], overdue: bool
) -> None:
    choice = choose(needed, room, there, overdue=overdue)
    known = {each.name: each for each in there}
    freed = sum(known[name].gib for name in choice.leave)
    assert choice.never == (needed > room + sum(each.gib for each in there))
    if choice.never or choice.later:
        assert not choice.leave
        return
    assert needed <= room + freed
    for name in choice.leave:
        assert needed > room + freed - known[name].gib, "it could have stayed"
        assert known[name].stays_seconds <= 0
        assert overdue or not known[name].busy
