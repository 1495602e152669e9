"""A flood is held back so far that others' first tokens come in time, and no further. On simulated engines."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.dispatch.guests import Guests

FACTOR = 2.0


def visit(guests: Guests, now: float, beside: int, seconds: float, share: str = "b", *, stream: object = "s") -> float:
    """A guest comes, and its first token after `seconds`; when that is."""
    guests.sent(stream, share, beside, now, guest=True)
    guests.came(stream, now + seconds, FACTOR)
    guests.gone(stream)
    return now + seconds


def settled(first_token: Callable[[int], float], visits: int = 300) -> Guests:
    """After `visits` to an engine whose first tokens take so long beside so many, as many as may run."""
    guests = Guests(64)
    now = visit(guests, 0.0, 0, first_token(0))
    for _ in range(visits):
        now = visit(guests, now, int(guests.beside), first_token(int(guests.beside)))
    return guests


def test_where_each_sequence_makes_steps_longer_only_so_many_run_as_leave_it_in_time() -> None:
    guests = settled(lambda beside: 0.05 + 0.006 * beside)
    assert 0.05 + 0.006 * int(guests.beside) <= 1.25 * FACTOR * 0.05
    assert guests.beside >= 6


def test_where_steps_hardly_grow_all_places_are_used() -> None:
    assert settled(lambda beside: 0.05 + 0.0001 * beside).beside == 64


def test_a_flood_is_never_stopped_altogether() -> None:
    assert settled(lambda beside: 0.05 if not beside else 10.0).beside == 1


def test_what_is_late_beside_more_than_may_run_teaches_nothing() -> None:
    """They ran before the limit was lowered; lowering it again for the same ones would lead to nothing."""
    guests = Guests(64)
    visit(guests, 0, 0, 0.05)
    for _ in range(50):
        visit(guests, 1, 60, 5.0)
    assert guests.beside == 16


def test_what_is_in_time_beside_few_teaches_nothing() -> None:
    guests = Guests(64)
    for now in range(500):
        visit(guests, now, 0 if now == 0 else 2, 0.05)
    assert guests.beside == 16


def test_nothing_is_learned_before_it_is_known_how_long_it_takes_alone() -> None:
    guests = Guests(64)
    visit(guests, 0, 10, 5.0)
    assert guests.beside == 16


def test_who_was_joined_before_the_first_token_was_not_alone() -> None:
    guests = Guests(64)
    guests.sent("first", "a", 0, 0.0, guest=True)
    guests.sent("second", "a", 1, 0.01, guest=False)
    guests.came("first", 5.0, FACTOR)
    visit(guests, 6, 16, 9.0)
    assert guests.beside == 16, "five seconds would have made nine seem in time, or late"


def test_guests_are_remembered_for_a_while() -> None:
    guests = Guests(64)
    assert not guests.near("a", 0)
    visit(guests, 0, 0, 0.05, "a")
    assert not guests.near("a", 1), "nobody is a guest beside oneself"
    assert guests.near("b", 1)
    visit(guests, 30, 1, 0.05, "b")
    assert guests.near("a", 31)
    assert guests.near("a", 89)
    assert not guests.near("a", 91)
    assert not guests.near("c", 91)


def test_streams_that_end_without_a_token_are_forgotten() -> None:
    guests = Guests(64)
    for number in range(1000):
        guests.sent(number, "b", 3, number, guest=True)
        guests.gone(number)
    assert not guests._due
    assert len(guests._seen) == 1


@pytest.mark.parametrize("places", [1, 2, 3])
def test_a_small_engine_has_room_for_one(places: int) -> None:
    assert int(Guests(places).beside) == 1
