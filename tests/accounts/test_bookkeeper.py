"""The bookkeeper: nothing is granted that isn't booked, on one appliance and on several, whatever the store does."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.accounts import embedded, shared
from appliance.accounts.bookkeeper import Booking, Bookkeeper, BookStore
from appliance.accounts.entries import Account, Balance, Kind, Scope, Span, UsageKey, Used, Want
from appliance.config import Accounts, Allowance
from appliance.errors import BooksUnavailable, BudgetExceeded, RateLimited, Refused
from tests.accounts.conftest import Opener
from tests.fakes.house import until
from tests.fakes.store import Disk, FakeStore

NOON = datetime(2026, 11, 22, 11, tzinfo=UTC).timestamp()
DAY = 86_400.0
TEAM = Scope(Kind.TEAM, "sales")
TODAY = Account(TEAM, Span.DAY, "2026-11-22")


class Wall:
    """A wall clock to be set."""

    def __init__(self) -> None:
        self.moment = NOON

    def __call__(self) -> float:
        return self.moment


Hire = Callable[..., Awaitable[Bookkeeper]]


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
async def hire(wall: Wall) -> AsyncIterator[Hire]:
    """Opens bookkeepers on stores, and closes them after the test."""
    hired: list[Bookkeeper] = []

    async def begin(store: BookStore, appliance: str = "here", **accounts: Any) -> Bookkeeper:
        keeper = Bookkeeper(store, Accounts.model_validate(accounts), appliance=appliance, wall=wall)
        await keeper.open()
        hired.append(keeper)
        return keeper

    yield begin
    for keeper in hired:
        await keeper.close(0.2)


def want(tokens: int = 10, **changes: Any) -> Want:
    names: dict[str, Any] = {"key_id": "k", "user": "ada", "team": "sales", "use_case": None, "model": "m"}
    return Want(**(names | {"prompt_tokens": tokens, "completion_tokens": 0} | changes))


async def eventually(what: Callable[[], Any]) -> None:
    """Wait for `what` while the event loop runs."""
    await asyncio.to_thread(until, what)


def well(keeper: Bookkeeper) -> bool:
    return keeper.describe()["well"] == 1


# ---- one appliance


async def test_a_grant_does_not_wait_for_the_disk_and_kept_does(hire: Hire) -> None:
    store = FakeStore()
    keeper = await hire(store)
    store.running.clear()
    booking = await keeper.reserve(want())
    kept = asyncio.ensure_future(booking.kept())
    await asyncio.wait([kept], timeout=0.05)
    assert not kept.done()
    store.running.set()
    await kept
    assert len(store.disk.open) == 1
    await booking.kept()


async def test_what_comes_while_the_disk_is_busy_goes_in_one_group(hire: Hire) -> None:
    store = FakeStore()
    keeper = await hire(store)
    store.running.clear()
    first = await keeper.reserve(want())
    waiting = asyncio.ensure_future(first.kept())
    await asyncio.wait([waiting], timeout=0.05)
    others = [await keeper.reserve(want()) for _ in range(50)]
    before = store.commits
    store.running.set()
    await asyncio.gather(waiting, *(booking.kept() for booking in others))
    assert store.commits == before + 2


async def test_a_request_is_settled_once_at_what_it_used(hire: Hire) -> None:
    store = FakeStore()
    keeper = await hire(store)
    booking = await keeper.reserve(want(100))
    await booking.kept()
    booking.settle(30, 12)
    booking.settle(100, 100)
    await eventually(lambda: store.disk.balances[TODAY] == Balance(tokens=42))
    assert not store.disk.open
    assert [(used.requests, used.prompt_tokens, used.completion_tokens) for used in store.disk.used.values()] == [
        (1, 30, 12)
    ]


async def test_who_leaves_while_waiting_for_the_disk_leaves_the_others_waiting(hire: Hire) -> None:
    store = FakeStore()
    keeper = await hire(store)
    store.running.clear()
    leaving, staying = [asyncio.ensure_future((await keeper.reserve(want())).kept()) for _ in range(2)]
    await asyncio.wait([leaving, staying], timeout=0.05)
    leaving.cancel()
    store.running.set()
    await staying
    assert leaving.cancelled()


async def test_a_store_that_fails_refuses_all_and_goes_on_by_itself(
    hire: Hire, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    keeper = await hire(store, each_team={"tokens_per_day": 100})
    settled = await keeper.reserve(want(60))
    await settled.kept()
    store.failing = "disk full"
    settled.settle(50, 0)
    lost = await keeper.reserve(want(20))
    with pytest.raises(BooksUnavailable) as caught:
        await lost.kept()
    assert caught.value.status == 503
    assert "disk full" not in caught.value.message
    lost.settle(0, 0)
    with pytest.raises(BooksUnavailable):
        await keeper.reserve(want())
    with pytest.raises(BooksUnavailable):
        await lost.kept()
    assert keeper.describe()["failures"] > 0

    store.failing = None
    await eventually(lambda: well(keeper))
    with pytest.raises(BudgetExceeded):
        await keeper.reserve(want(51))
    last = await keeper.reserve(want(50))
    await last.kept()
    await eventually(lambda: store.disk.balances[TODAY] == Balance(tokens=50, reserved_tokens=50))
    told = [record.message for record in caplog.records if record.name == "appliance.accounts"]
    assert told == ["the books can't be written, so nothing is answered: disk full", "the books are written again"]


async def test_a_store_that_hangs_is_not_waited_for(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_PATIENCE", 0.05)
    store = FakeStore()
    keeper = await hire(store)
    store.running.clear()
    booking = await keeper.reserve(want())
    with pytest.raises(BooksUnavailable):
        await booking.kept()
    with pytest.raises(BooksUnavailable):
        await keeper.reserve(want())
    booking.settle(0, 0)
    store.running.set()
    await eventually(lambda: well(keeper) and not store.disk.open)


async def test_a_locked_database_refuses_and_goes_on_once_it_is_free(
    hire: Hire, on_sqlite: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_PATIENCE", 0.2)
    keeper = await hire(on_sqlite(), each_team={"tokens_per_day": 100})
    kept = await keeper.reserve(want(60))
    await kept.kept()
    other = sqlite3.connect(tmp_path / "accounts.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    kept.settle(50, 0)
    booking = await keeper.reserve(want(10))
    with pytest.raises(BooksUnavailable):
        await booking.kept()
    booking.settle(0, 0)
    other.execute("ROLLBACK")
    other.close()
    await eventually(lambda: well(keeper))
    with pytest.raises(BudgetExceeded):
        await keeper.reserve(want(51))
    await (await keeper.reserve(want(50))).kept()


async def test_an_error_that_nobody_foresaw_refuses_too_and_is_told_by_its_kind_only(
    hire: Hire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    keeper = await hire(store)

    def broken(changes: object) -> None:
        raise ValueError("ada's balance")

    with monkeypatch.context() as during:
        during.setattr(store, "commit", broken)
        booking = await keeper.reserve(want())
        with pytest.raises(BooksUnavailable):
            await booking.kept()
        booking.settle(0, 0)
    await eventually(lambda: well(keeper))
    assert "ValueError" in caplog.text
    assert "ada" not in caplog.text


async def test_after_a_crash_what_was_in_flight_is_booked_in_full(hire: Hire, caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore()
    keeper = await hire(store, each_team={"tokens_per_day": 100})
    await (await keeper.reserve(want(60))).kept()
    again = await hire(FakeStore(store.disk), each_team={"tokens_per_day": 100})
    with pytest.raises(BudgetExceeded):
        await again.reserve(want(41))
    await again.reserve(want(40))
    assert [used.unsettled for used in store.disk.used.values()] == [1]
    assert "in flight when an appliance ended, and are booked in full: 1" in caplog.text


async def test_a_crash_between_use_and_the_copy_of_balances_changes_no_decision(hire: Hire) -> None:
    store = FakeStore()
    keeper = await hire(store, each_team={"tokens_per_day": 100, "tokens_per_month": 470})
    (await keeper.reserve(want(60))).settle(60, 0)
    await eventually(lambda: store.disk.used)
    store.disk.balances = {TODAY: Balance(tokens=7)}
    store.disk.used[UsageKey("2026-11-02", "k", "", "sales", "", "m")] = Used(1, 400, 0)
    again = await hire(FakeStore(store.disk), each_team={"tokens_per_day": 100, "tokens_per_month": 470})
    with pytest.raises(BudgetExceeded, match="a day has 40 tokens left"):
        await again.reserve(want(41))
    with pytest.raises(BudgetExceeded, match="a month has 10 tokens left"):
        await again.reserve(want(11, key_id="another"))
    await again.reserve(want(10))
    month = TODAY._replace(span=Span.MONTH, start="2026-11-01")
    await eventually(lambda: store.disk.balances.get(month) == Balance(tokens=460, reserved_tokens=10))
    assert store.disk.balances[TODAY] == Balance(tokens=60, reserved_tokens=10)


async def test_closing_writes_what_is_settled_and_grants_nothing_more(hire: Hire) -> None:
    store = FakeStore()
    keeper = await hire(store)
    for _ in range(20):
        (await keeper.reserve(want())).settle(7, 0)
    await keeper.close(10)
    assert store.disk.balances[TODAY] == Balance(tokens=140)
    with pytest.raises(BooksUnavailable):
        await keeper.reserve(want())


@pytest.mark.parametrize("joint", [False, True])
async def test_what_is_settled_after_the_end_is_booked_in_full_by_the_next(hire: Hire, *, joint: bool) -> None:
    store = FakeStore(shared=joint)
    keeper = await hire(store)
    booking = await keeper.reserve(want(60))
    await keeper.close(10)
    booking.settle(50, 0)
    await hire(FakeStore(store.disk, shared=joint))
    assert store.disk.balances[TODAY] == Balance(tokens=60)


@pytest.mark.parametrize("joint", [False, True])
async def test_closing_on_a_store_that_fails_comes_to_an_end(joint: bool) -> None:
    store = FakeStore(shared=joint)
    keeper = Bookkeeper(store, Accounts())
    await keeper.open()
    booking = await keeper.reserve(want())
    store.failing = "gone"
    booking.settle(1, 0)
    async with asyncio.timeout(10):
        await keeper.close(0.1)


async def test_a_store_that_fails_at_the_start_says_why() -> None:
    for joint in (False, True):
        store = FakeStore(shared=joint)
        store.failing = "the disk is full"
        with pytest.raises(BooksUnavailable, match="the disk is full"):
            await Bookkeeper(store, Accounts()).open()


async def test_who_else_asks_the_store_does_not_hinder_the_books(hire: Hire, opener: Opener) -> None:
    """Keys and usage are read by threads of their own."""
    store = opener()
    keeper = await hire(store)

    async def ask(number: int) -> None:
        with ThreadPoolExecutor(1) as thread:
            for _ in range(5):
                await asyncio.get_running_loop().run_in_executor(thread, store.keys_version)
                booking = await keeper.reserve(want(key_id=f"k{number}"))
                await booking.kept()
                booking.settle(1, 0)

    await asyncio.gather(*(ask(number) for number in range(12)))
    assert keeper.describe()["failures"] == 0


# ---- time


async def test_a_new_day_begins_with_what_the_store_knows_of_it(hire: Hire, wall: Wall) -> None:
    """A clock may come back to a day whose balances have left memory."""
    store = FakeStore()
    keeper = await hire(store, each_team={"tokens_per_day": 100})
    (await keeper.reserve(want(90))).settle(90, 0)
    wall.moment += 365 * DAY
    bookings = await asyncio.gather(*(keeper.reserve(want(10)) for _ in range(10)))
    with pytest.raises(BudgetExceeded):
        await keeper.reserve(want(1))
    for booking in bookings:
        await booking.kept()
        booking.settle(10, 0)
    wall.moment -= 365 * DAY
    with pytest.raises(BudgetExceeded):
        await keeper.reserve(want(11))
    (await keeper.reserve(want(10))).settle(10, 0)
    await eventually(lambda: store.disk.balances[TODAY] == Balance(tokens=100))
    assert store.disk.balances[TODAY._replace(start="2027-11-22")] == Balance(tokens=100)


async def test_a_day_that_the_store_can_not_tell_about_is_not_begun(hire: Hire, wall: Wall) -> None:
    store = FakeStore()
    keeper = await hire(store)
    store.failing = "gone"
    wall.moment += DAY
    with pytest.raises(BooksUnavailable) as caught:
        await keeper.reserve(want())
    assert "gone" not in caught.value.message
    store.failing = None
    await eventually(lambda: well(keeper))
    await (await keeper.reserve(want())).kept()


async def test_a_day_whose_books_take_long_to_read_is_read_once_and_begins(
    hire: Hire, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_PATIENCE", 0.05)
    store = FakeStore()
    keeper = await hire(store)
    readings: list[str] = []
    usage = store.usage

    def noting(since: str, *more: Any) -> list[tuple[UsageKey, Used]]:
        readings.append(since)
        return usage(since, *more)

    monkeypatch.setattr(store, "usage", noting)
    wall.moment += DAY
    store.running.clear()
    with pytest.raises(BooksUnavailable):
        await keeper.reserve(want())
    store.running.set()
    await eventually(lambda: well(keeper))
    (await keeper.reserve(want())).settle(1, 0)
    assert readings.count("2026-11-23") == len(Kind), "who gave up left the reading to whoever came next"


# ---- other settings, events


@pytest.mark.parametrize("joint", [False, True])
async def test_other_settings_and_keys_hold_at_once(hire: Hire, *, joint: bool) -> None:
    keeper = await hire(FakeStore(shared=joint))
    (await keeper.reserve(want(50))).settle(50, 0)
    keeper.apply(Accounts.model_validate({"each_team": {"tokens_per_day": 60}}))
    with pytest.raises(BudgetExceeded):
        await keeper.reserve(want(11))
    keeper.apply(keys={"k": Allowance(requests_per_minute=1)})
    (await keeper.reserve(want(5))).settle(5, 0)
    with pytest.raises(RateLimited) as caught:
        await keeper.reserve(want(5))
    assert caught.value.headers
    keeper.apply(Accounts(time_zone="Pacific/Auckland"), {})
    await keeper.reserve(want(500))


async def test_other_allowances_of_keys_need_nothing_of_the_store(hire: Hire) -> None:
    store = FakeStore()
    keeper = await hire(store)
    store.running.clear()
    keeper.apply(keys={"k": Allowance(parallel_requests=1)})
    async with asyncio.timeout(10):
        booking = await keeper.reserve(want())
    with pytest.raises(RateLimited):
        await keeper.reserve(want())
    store.running.set()
    await booking.kept()


@pytest.mark.parametrize("joint", [False, True])
async def test_an_event_is_logged_once_and_names_no_person(
    hire: Hire, caplog: pytest.LogCaptureFixture, *, joint: bool
) -> None:
    store = FakeStore(shared=joint)
    budgets = {"each_user": {"tokens_per_day": 100}, "each_team": {"tokens_per_day": 1000}}
    for used in (75, 5):  # before a restart and after it
        keeper = await hire(store, **budgets)
        (await keeper.reserve(want(used))).settle(used, 0)
        await keeper.close(10)
    told = [record.message for record in caplog.records if "used" in record.message]
    assert len(told) == len(store.disk.events) == 1
    assert told[0].startswith("user ")
    assert "70 % of its tokens of the day 2026-11-22" in told[0]
    assert "ada" not in caplog.text


# ---- all at once


async def flood(keepers: list[Bookkeeper], requests: int, tokens: int) -> tuple[list[Booking], list[BaseException]]:
    """So many requests at the same time, spread over the keepers."""
    asked = (keepers[number % len(keepers)].reserve(want(tokens, key_id=f"k{number}")) for number in range(requests))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    granted = [answer for answer in answers if not isinstance(answer, BaseException)]
    await asyncio.gather(*(booking.kept() for booking in granted))
    return granted, [answer for answer in answers if isinstance(answer, BaseException)]


async def test_of_200_at_once_as_many_run_as_the_budget_fits(hire: Hire, on_sqlite: Opener) -> None:
    for store in (FakeStore(), on_sqlite()):
        keeper = await hire(store, teams={"sales": {"tokens_per_day": 1000}})
        granted, refused = await flood([keeper], 200, 99)
        assert len(granted) == 10
        assert {type(refusal) for refusal in refused} == {BudgetExceeded}
        for booking in granted:
            booking.settle(100, 0)
        with pytest.raises(BudgetExceeded):
            await keeper.reserve(want(1))


@pytest.mark.parametrize("real", [False, True])
async def test_of_200_at_once_on_two_appliances_as_many_run_as_the_budget_fits(
    hire: Hire, request: pytest.FixtureRequest, *, real: bool
) -> None:
    disk = Disk()
    opener = request.getfixturevalue("on_postgresql") if real else lambda: FakeStore(disk, shared=True)
    limits = {"teams": {"sales": {"tokens_per_day": 1000}}}
    keepers = [await hire(opener(), appliance, **limits) for appliance in ("here", "there")]
    granted, refused = await flood(keepers, 200, 99)
    assert len(granted) == 10
    assert {type(refusal) for refusal in refused} == {BudgetExceeded}
    for booking in granted:
        booking.settle(50, 0)
    for keeper in keepers:
        await keeper.close(10)
    left = opener()
    assert left.balances([TODAY])[TODAY] == Balance(tokens=500)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(
    ("limits", "fits"), [({"parallel_requests": 7}, 7), ({"requests_per_minute": 5}, 5), ({"tokens_per_minute": 40}, 4)]
)
async def test_limits_hold_over_two_appliances(
    hire: Hire, request: pytest.FixtureRequest, limits: dict[str, int], fits: int, *, real: bool
) -> None:
    disk = Disk()
    opener = request.getfixturevalue("on_postgresql") if real else lambda: FakeStore(disk, shared=True)
    keepers = [await hire(opener(), appliance, each_team=limits) for appliance in ("here", "there")]
    granted, refused = await flood(keepers, 40, 10)
    assert len(granted) == fits
    assert {type(refusal) for refusal in refused} == {RateLimited}
    for booking in granted:
        booking.settle(10, 0)
    for keeper in keepers:
        await keeper.close(10)
    again, _ = await flood([await hire(opener(), "third", each_team=limits)], 40, 10)
    assert len(again) == (fits if "parallel_requests" in limits else 0)


# ---- several appliances


async def test_a_store_shared_by_several_that_fails_loses_no_settlement(hire: Hire) -> None:
    store = FakeStore(shared=True)
    keeper = await hire(store)
    booking = await keeper.reserve(want(60))
    store.failing = "gone"
    booking.settle(50, 0)
    await eventually(lambda: not well(keeper))
    with pytest.raises(BooksUnavailable):
        await keeper.reserve(want())
    store.failing = None
    await eventually(lambda: well(keeper) and not store.disk.open)
    assert store.disk.balances[TODAY] == Balance(tokens=50)


async def test_a_commit_whose_answer_was_lost_books_nothing_twice(hire: Hire) -> None:
    store = FakeStore(shared=True)
    keeper = await hire(store)
    booking = await keeper.reserve(want(60))
    store.loses_answers = True
    booking.settle(50, 0)
    with pytest.raises(BooksUnavailable):
        await keeper.reserve(want(30))
    store.loses_answers = False
    await eventually(lambda: well(keeper) and not store.disk.open)
    assert store.disk.balances[TODAY] == Balance(tokens=50)
    assert sum(used.requests for used in store.disk.used.values()) == 1


async def test_what_others_booked_of_one_held_for_dead_is_not_booked_again(hire: Hire) -> None:
    store = FakeStore(shared=True)
    keeper = await hire(store)
    booking = await keeper.reserve(want(60))
    store.bury("here", lambda moment: "2026-11-22")
    booking.settle(50, 0)
    await keeper.close(10)
    assert store.disk.balances[TODAY] == Balance(tokens=60)


async def test_who_leaves_before_the_answer_has_reserved_nothing(hire: Hire) -> None:
    store = FakeStore(shared=True)
    keeper = await hire(store, each_team={"parallel_requests": 1})
    store.running.clear()
    leaving = asyncio.ensure_future(keeper.reserve(want()))
    await asyncio.wait([leaving], timeout=0.05)
    leaving.cancel()
    await asyncio.wait([leaving])
    store.running.set()
    await eventually(lambda: store.commits > 2 and not store.disk.open)
    await keeper.reserve(want())


async def test_who_leaves_in_the_moment_of_the_answer_has_reserved_nothing(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FakeStore(shared=True)
    keeper = await hire(store)
    leaving = asyncio.ensure_future(keeper.reserve(want()))
    answer = shared.SharedDesk._answer

    def answer_and_leave(desk: shared.SharedDesk, *given: Any) -> None:
        answer(desk, *given)
        leaving.cancel()

    monkeypatch.setattr(shared.SharedDesk, "_answer", answer_and_leave)
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    await eventually(lambda: store.commits > 2 and not store.disk.open)


async def test_a_shared_store_that_hangs_is_not_waited_for(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_PATIENCE", 0.05)
    store = FakeStore(shared=True)
    keeper = await hire(store)
    store.running.clear()
    with pytest.raises(BooksUnavailable):
        await keeper.reserve(want())
    assert not well(keeper)
    store.running.set()
    await eventually(lambda: well(keeper) and not store.disk.open)


async def test_an_appliance_with_nothing_to_do_gives_signs_of_life(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_BEAT", 0.02)
    store = FakeStore(shared=True)
    await hire(store)
    await eventually(lambda: store.beats > 2)


async def test_a_postgresql_that_went_away_and_came_back_is_used_again(
    hire: Hire, postgres: Any, on_postgresql: Opener
) -> None:
    keeper = await hire(on_postgresql(), each_team={"tokens_per_day": 100})
    booking = await keeper.reserve(want(60))
    postgres.stop()
    try:
        booking.settle(50, 0)
        with pytest.raises(BooksUnavailable):
            await keeper.reserve(want(1))
    finally:
        postgres.start()
    await eventually(lambda: well(keeper))
    with pytest.raises(BudgetExceeded):
        await keeper.reserve(want(51))
    await keeper.reserve(want(50))


async def test_random_requests_on_two_appliances_never_overspend(hire: Hire, on_postgresql: Opener) -> None:
    limits = {"each_team": {"tokens_per_day": 3000, "parallel_requests": 8}}
    stores = [on_postgresql(), on_postgresql()]
    keepers = [await hire(store, name, **limits) for store, name in zip(stores, ("here", "there"), strict=True)]
    spent = 0

    async def person(number: int) -> None:
        nonlocal spent
        for turn in range(12):
            try:
                booking = await keepers[number % 2].reserve(want(20 + 7 * turn, key_id=f"k{number}"))
            except Refused:
                continue
            used = (13 * number + turn) % (20 + 7 * turn)
            spent += used
            booking.settle(used, 0)

    await asyncio.gather(*(person(number) for number in range(16)))
    for keeper in keepers:
        await keeper.close(10)
    assert 0 < spent <= 3000
    assert stores[0].balances([TODAY])[TODAY] == Balance(tokens=spent)
