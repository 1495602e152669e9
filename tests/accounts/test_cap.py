"""What all providers together may cost in a day is never passed."""

from __future__ import annotations

import asyncio

import pytest

from appliance.accounts.cap import DailyCap, Hold
from appliance.accounts.entries import UsageKey, Used
from appliance.accounts.reader import Reader
from appliance.config import Accounts
from appliance.errors import BooksUnavailable


class Books:
    """What stands in the books, by day; None: they can't be read."""

    def __init__(self, **days: int) -> None:
        self.days: dict[str, int] | None = days
        self.day = "monday"

    async def spent(self, day: str) -> int:
        if self.days is None:
            raise BooksUnavailable("gone", code="books_unavailable")
        return self.days.get(day, 0)


def cap_on(books: Books, most: int = 100) -> DailyCap:
    return DailyCap(most, lambda: books.day, books.spent)


async def held(cap: DailyCap, nanoeuros: int) -> Hold:
    hold = await cap.hold(nanoeuros)
    assert hold is not None
    return hold


async def test_requests_at_the_same_time_cannot_pass_it_together() -> None:
    cap = cap_on(Books())
    first = await held(cap, 60)
    assert await cap.hold(41) is None
    await held(cap, 40)
    first.settle(10)
    assert await cap.hold(51) is None
    await held(cap, 50)


async def test_what_was_spent_before_a_start_counts() -> None:
    cap = cap_on(Books(monday=70))
    assert await cap.hold(31) is None
    await held(cap, 30)


async def test_what_was_settled_counts_before_it_is_in_the_books_and_once_after() -> None:
    books = Books(monday=20)
    cap = cap_on(books)
    (await held(cap, 50)).settle(50)
    assert await cap.hold(31) is None
    books.days = {"monday": 70}
    await held(cap, 30)


async def test_what_others_on_the_same_store_spend_counts() -> None:
    books = Books()
    cap = cap_on(books)
    await held(cap, 10)
    books.days = {"monday": 85}
    assert await cap.hold(6) is None
    await held(cap, 5)


async def test_a_new_day_begins_at_nothing_but_for_what_is_in_flight() -> None:
    books = Books(monday=90)
    cap = cap_on(books)
    over_midnight = await held(cap, 10)
    books.day = "tuesday"
    assert await cap.hold(91) is None
    over_midnight.settle(10)
    await held(cap, 100)


async def test_who_waits_for_the_books_over_midnight_takes_nothing_from_the_new_day() -> None:
    books = Books()
    reading = asyncio.Event()

    async def spent(day: str) -> int:
        if day == "monday":
            await reading.wait()
        return 0

    cap = DailyCap(100, lambda: books.day, spent)
    late = asyncio.create_task(cap.hold(10))
    await asyncio.sleep(0)
    books.day = "tuesday"
    (await held(cap, 60)).settle(60)
    reading.set()
    await late
    assert await cap.hold(31) is None
    await held(cap, 30)


async def test_a_hold_that_is_settled_twice_counts_once() -> None:
    cap = cap_on(Books())
    hold = await held(cap, 50)
    hold.settle(50)
    hold.settle(50)
    await held(cap, 50)


async def test_where_the_books_cannot_be_read_nothing_is_held() -> None:
    books = Books()
    cap = cap_on(books)
    books.days = None
    with pytest.raises(BooksUnavailable):
        await cap.hold(1)


async def test_the_books_tell_what_providers_cost_on_a_day_and_nothing_else() -> None:
    class Shelf:
        def usage(self, since: str, until: str, per: object, by: tuple[str, ...]) -> list[tuple[UsageKey, Used]]:
            assert (since, until, per, by) == ("2026-11-22", "2026-11-22", None, ("model",))
            costs = {"chat": 1000, "mistral small": 30, "gone-from-the-config gpt": 4}
            return [(UsageKey("", "", "", "", "", model), Used(1, 1, 1, cost)) for model, cost in costs.items()]

    reader = Reader(Shelf(), Accounts())  # type: ignore[arg-type]
    assert await reader.spent("2026-11-22") == 34
    reader.close()
