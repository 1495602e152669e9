"""Whoever was erased a moment ago is booked on no more, whatever was on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from appliance.accounts.bookkeeper import Bookkeeper
from appliance.accounts.departed import SECONDS, Departed
from appliance.accounts.entries import Kind, Scope, UsageKey, Used, Want, nobodys
from appliance.config import Accounts
from appliance.errors import BooksUnavailable, Unauthenticated
from tests.fakes.house import until
from tests.fakes.store import FakeStore

ZOE = Scope(Kind.USER, "zoe")
LIMITED = Accounts.model_validate({
    "each_user": {"tokens_per_day": 50_000_000, "requests_per_minute": 1_000_000, "parallel_requests": 50},
    "each_key": {"tokens_per_minute": 50_000_000},
    "each_team": {"tokens_per_month": 90_000_000, "tokens_per_minute": 50_000_000},
})  # fmt: skip


class ForgetfulStore(FakeStore):
    """Forgets as the real one does, as far as the bookkeeper can tell."""

    def forget(self, scope: Scope, at: float) -> int:
        with self._transaction():
            self.forgotten = scope
            disk = self.disk
            used = {key: used for key, used in disk.used.items() if key.user == scope.name}
            for key, each in used.items():
                disk.used.setdefault(key._replace(user="", key_id=""), Used()).add(each)
                del disk.used[key]
            disk.open = {
                number: nobodys(each) if each.want.user == scope.name else each for number, each in disk.open.items()
            }
            gone = {scope, Scope(Kind.KEY, "key_1")}
            disk.levels = {bucket: each for bucket, each in disk.levels.items() if bucket.scope not in gone}
            disk.balances = {account: each for account, each in disk.balances.items() if account.scope not in gone}
            disk.events = {name: each for name, each in disk.events.items() if each.account.scope not in gone}
            return len(used)

    @property
    def text(self) -> str:
        """All that is kept, to look for names in."""
        disk = self.disk
        return repr((disk.balances, disk.levels, disk.open, disk.used, disk.events))


def want(user: str | None = "zoe", key_id: str = "key_1", **of: object) -> Want:
    told: dict[str, object] = {"team": "red", "use_case": "mail", "model": "chat", "prompt_tokens": 100}
    return Want(key_id=key_id, user=user, completion_tokens=20, **told | of)  # type: ignore[arg-type]


@pytest.fixture(params=[False, True], ids=["embedded", "shared"])
def store(request: pytest.FixtureRequest) -> ForgetfulStore:
    return ForgetfulStore(shared=request.param)


@pytest.fixture
async def bookkeeper(store: ForgetfulStore) -> AsyncIterator[Bookkeeper]:
    bookkeeper = Bookkeeper(store, LIMITED)
    await bookkeeper.open()
    yield bookkeeper
    await bookkeeper.close(5)


async def settled(store: ForgetfulStore, requests: int) -> dict[UsageKey, Used]:
    """What was used, once so many requests are on disk."""
    disk = store.disk
    await asyncio.to_thread(
        until, lambda: sum(map(requests_of, disk.used.copy().values())) == requests and not disk.open
    )
    return dict(disk.used)


def requests_of(used: Used) -> int:
    return used.requests


def test_somebody_departed_is_refused_for_an_hour_and_nobody_else() -> None:
    now = 100.0
    departed = Departed(lambda: now)
    departed.add({ZOE, Scope(Kind.KEY, "key_1")})
    for gone in (want(), want("zoe", "key_9"), want("ben", "key_1"), want(None, "key_1")):
        with pytest.raises(Unauthenticated) as refused:
            departed.refuse(gone)
        assert refused.value.reason == "erased a moment ago"
        assert str(refused.value) == "this API key is not known here", "callers aren't told why"
    for other in (want("ben", "key_2"), want(None, "zoe"), want("key_1", "key_2")):
        departed.refuse(other)
    now += SECONDS
    departed.refuse(want())


async def test_what_was_in_flight_is_booked_on_the_team_alone(bookkeeper: Bookkeeper, store: ForgetfulStore) -> None:
    theirs = [await bookkeeper.reserve(want()) for _ in range(3)]
    bens = await bookkeeper.reserve(want("ben", "key_2"))
    for each in (*theirs, bens):
        await each.kept()
    theirs[0].settle(100, 7)
    before = await settled_of(store, "zoe")
    assert before == 1
    assert await bookkeeper.forget(ZOE, ["key_1"]) == 1
    for each in theirs[1:]:
        each.settle(100, 10)
    bens.settle(100, 1)
    used = await settled(store, 4)
    assert {(key.user, key.key_id, key.team, key.use_case): each.completion_tokens for key, each in used.items()} == {
        ("", "", "red", "mail"): 27,
        ("ben", "key_2", "red", "mail"): 1,
    }
    await bookkeeper.close(5)
    assert "zoe" not in store.text
    assert "key_1" not in store.text
    (month,) = [each for account, each in store.disk.balances.items() if account.scope.name == "red"
                and account.span == "month"]  # fmt: skip
    assert (month.tokens, month.reserved_tokens) == (428, 0), "the team's budget is right to the token"


async def settled_of(store: ForgetfulStore, user: str) -> int:
    """How many requests of a user are on disk, once there is one."""
    return await asyncio.to_thread(
        until, lambda: sum(used.requests for key, used in store.disk.used.copy().items() if key.user == user)
    )


async def test_what_comes_late_is_refused_and_leaves_nothing(bookkeeper: Bookkeeper, store: ForgetfulStore) -> None:
    await bookkeeper.forget(ZOE, ["key_1", "oidc_1"])
    for late in (want(), want("zoe", "oidc_2"), want(None, "oidc_1")):
        with pytest.raises(Unauthenticated):
            await bookkeeper.reserve(late)
    (await bookkeeper.reserve(want("ben", "key_2"))).settle(1, 1)
    await settled(store, 1)
    assert "zoe" not in store.text


async def test_requests_that_come_all_the_while_bring_nobody_back(
    bookkeeper: Bookkeeper, store: ForgetfulStore
) -> None:
    """The moment of the erasure falls anywhere: before a reservation, before it is on disk, before it is settled."""
    stop = False

    async def asking() -> int:
        done = 0
        while not stop:
            try:
                booking = await bookkeeper.reserve(want())
            except Unauthenticated:
                return done
            if done % 3:
                await booking.kept()
            for _ in range(done % 4):
                await asyncio.to_thread(lambda: None)  # others have their turn
            booking.settle(100, 1)
            done += 1
        return done

    tasks = [asyncio.create_task(asking()) for _ in range(20)]
    await settled_of(store, "zoe")
    await bookkeeper.forget(ZOE, ["key_1"])
    done = sum(await asyncio.gather(*tasks))
    await bookkeeper.close(5)
    assert "zoe" not in store.text
    assert "key_1" not in store.text
    assert sum(used.requests for used in store.disk.used.values()) == done
    assert sum(used.completion_tokens for used in store.disk.used.values()) == done


async def test_who_waits_for_a_store_that_hangs_is_not_brought_back_when_it_goes_on(
    bookkeeper: Bookkeeper, store: ForgetfulStore
) -> None:
    (await bookkeeper.reserve(want("ben", "key_2"))).settle(1, 1)
    await settled(store, 1)
    store.running.clear()

    async def ask() -> None:
        booking = await bookkeeper.reserve(want())
        await booking.kept()
        booking.settle(1, 1)

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    erasing = asyncio.create_task(bookkeeper.forget(ZOE, ["key_1"]))
    await asyncio.sleep(0)
    store.running.set()
    await erasing
    await asyncio.gather(asking, return_exceptions=True)  # refused where it wasn't decided yet
    await bookkeeper.close(5)
    assert "zoe" not in store.text


async def test_a_store_that_fails_says_so_and_the_next_time_completes_it(
    bookkeeper: Bookkeeper, store: ForgetfulStore
) -> None:
    (await bookkeeper.reserve(want())).settle(1, 1)
    await settled(store, 1)
    store.failing = "it is broken"
    with pytest.raises(BooksUnavailable):
        await bookkeeper.forget(ZOE, ["key_1"])
    store.failing = None
    assert await bookkeeper.forget(ZOE, ["key_1"]) == 1
    assert "zoe" not in store.text
