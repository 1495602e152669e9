"""Several appliances on one PostgreSQL: each decides while the others wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from appliance.accounts.entries import Balance, Bucket, Changes, Event, Kind, Level, Scope, Span, Unit, UsageKey, Used
from appliance.accounts.store import Look, Store
from appliance.config import Postgresql
from appliance.errors import BooksUnavailable
from tests.accounts.conftest import Opener
from tests.accounts.store.entries import DAY, KEY, TEAM, account, day_of, reservation
from tests.fakes.postgres import Postgres

BOTH = {account(), account(TEAM, Span.MONTH)}
BUCKET = Bucket(KEY, Unit.REQUESTS)


@pytest.fixture
def opener(on_postgresql: Opener) -> Opener:
    return on_postgresql


@pytest.fixture
def appliance(opener: Opener) -> Callable[[str], Store]:
    def open_as(name: str) -> Store:
        store = opener()
        store.claim(name)
        return store

    return open_as


@pytest.fixture
def here(appliance: Callable[[str], Store]) -> Store:
    return appliance("here")


@pytest.fixture
def there(appliance: Callable[[str], Store]) -> Store:
    return appliance("there")


def test_a_group_knows_what_it_asked_for(here: Store, there: Store) -> None:
    with here.group(Look(BOTH, [BUCKET], [KEY, TEAM], [1])) as empty:
        assert (empty.balances, empty.levels, empty.parallel, empty.open) == ({}, {}, {}, set())
        assert empty.put(
            Changes(
                balances={account(): Balance(1, 2, 3, 10**18)},
                levels={BUCKET: Level(0.1, empty.now)},
                opened=[reservation(1), reservation(2, team="blue")],
                events=[Event(account(), Unit.TOKENS, 70, 1.5)],
            )
        ) == [Event(account(), Unit.TOKENS, 70, 1.5)]
    with there.group(Look(BOTH, [BUCKET], [KEY, TEAM, Scope(Kind.USER, "nobody")], [1])) as group:
        assert group.balances == {account(): Balance(1, 2, 3, 10**18)}
        assert group.levels == {BUCKET: Level(0.1, empty.now)}
        assert group.parallel == {KEY: 2, TEAM: 1}
        assert group.open == set()  # that number is another appliance's
        assert group.now > empty.now
        assert group.put(Changes(opened=[reservation(1)], events=[Event(account(), Unit.TOKENS, 70, 2.5)])) == []
    with here.group(Look(scopes=[KEY, KEY], numbers=[1, 2, 3, 1])) as group:
        assert (group.balances, group.parallel, group.open) == ({}, {KEY: 3}, {1, 2})
        group.put(Changes(closed=[1]))
    with there.group(Look(scopes=[KEY], numbers=[1])) as group:
        assert (group.parallel, group.open) == ({KEY: 2}, {1})


def test_a_group_that_fails_leaves_nothing(here: Store, there: Store) -> None:
    with contextlib.suppress(LookupError), here.group(Look()) as group:
        group.put(Changes(balances={account(): Balance(1)}, opened=[reservation(1)]))
        raise LookupError
    with there.group(Look(BOTH, scopes=[KEY])) as group:
        assert (group.balances, group.parallel) == ({}, {})
    assert here.balances(BOTH) == {}


def test_a_group_whose_writing_failed_never_ends_as_if_it_were_written(here: Store) -> None:
    with pytest.raises(BooksUnavailable), here.group(Look()) as group, contextlib.suppress(BooksUnavailable):
        group.put(Changes(balances={account(): Balance(1)}, opened=[reservation(1), reservation(1)]))
    with here.group(Look(BOTH, numbers=[1])) as group:
        assert (group.balances, group.open) == ({}, set())


def test_appliances_that_race_never_spend_more_than_there_is(appliance: Callable[[str], Store]) -> None:
    budget = 10 * reservation(1).tokens

    def race(name: str) -> int:
        store = appliance(name)
        granted = 0
        for number in range(40):
            with store.group(Look([account()])) as group:
                balance = group.balances.get(account(), Balance())
                if balance.tokens + balance.reserved_tokens + 120 > budget:
                    continue
                balance.reserved_tokens += 120
                group.put(Changes(balances={account(): balance}, opened=[reservation(number)]))
                granted += 1
        return granted

    with ThreadPoolExecutor() as pool:
        assert sum(pool.map(race, ["a", "b", "c", "d", "e"])) == 10
    with appliance("f").group(Look([account()], scopes=[KEY])) as group:
        assert (group.balances, group.parallel) == ({account(): Balance(reserved_tokens=budget)}, {KEY: 10})


def test_use_of_all_appliances_is_added_up(appliance: Callable[[str], Store]) -> None:
    use = UsageKey(DAY, "key_1", "", "red", "", "chat")

    def book(name: str) -> None:
        store = appliance(name)
        for _ in range(20):
            with store.group(Look()) as group:
                group.put(Changes(used={use: Used(1, 2, 3, 4)}))

    with ThreadPoolExecutor() as pool:
        list(pool.map(book, ["a", "b", "c"]))
    assert appliance("d").usage(DAY, DAY, None)[0][1] == Used(60, 120, 180, 240)


def test_what_a_silent_appliance_left_is_booked_by_another_and_not_again_by_itself(
    here: Store, there: Store, postgres: Postgres, database: Postgresql
) -> None:
    with there.group(Look()) as group:
        group.put(Changes(balances={account(): Balance(5, 5, 120, 7)}, opened=[reservation(1)]))
    assert here.beat(day_of) == []  # it was heard of just now

    postgres.ask("UPDATE appliances SET seen = seen - 61 WHERE name = 'there'", database.database)
    assert here.beat(day_of) == [reservation(1)]
    assert here.beat(day_of) == []
    assert here.balances([account()]) == {account(): Balance(125, 12, 0, 0)}
    assert here.usage(DAY, DAY, None)[0][1] == Used(1, 100, 20, 7, unsettled=1)
    with there.group(Look(scopes=[KEY], numbers=[1])) as group:  # back from the dead
        assert (group.parallel, group.open) == ({}, set())


def test_an_appliance_that_beats_or_books_is_alive(
    here: Store, there: Store, postgres: Postgres, database: Postgresql
) -> None:
    with there.group(Look()) as group:
        group.put(Changes(opened=[reservation(1)]))
    postgres.ask("UPDATE appliances SET seen = seen - 61 WHERE name = 'there'", database.database)
    there.beat(day_of)
    assert here.beat(day_of) == []
    postgres.ask("UPDATE appliances SET seen = seen - 61 WHERE name = 'there'", database.database)
    with there.group(Look()) as group:
        group.put(Changes())
    assert here.beat(day_of) == []


def test_after_the_database_was_away_nobody_is_held_for_dead_who_could_not_say_otherwise(
    here: Store, there: Store, postgres: Postgres, database: Postgresql
) -> None:
    with there.group(Look()) as group:
        group.put(Changes(opened=[reservation(1)]))
    postgres.ask("UPDATE appliances SET seen = seen - 61", database.database)  # nobody could write for a minute
    assert here.beat(day_of) == []
    there.beat(day_of)
    postgres.ask("UPDATE appliances SET seen = seen - 10", database.database)
    assert here.beat(day_of) == []
    with there.group(Look(numbers=[1])) as group:
        assert group.open == {1}
    postgres.ask("UPDATE appliances SET seen = seen - 61 WHERE name = 'there'", database.database)
    assert here.beat(day_of) == [reservation(1)], "one that is really dead is booked by a later beat"


def test_an_appliance_recovers_only_its_own(here: Store, there: Store, appliance: Callable[[str], Store]) -> None:
    for store in (here, there):
        with store.group(Look()) as group:
            group.put(Changes(opened=[reservation(1)]))
    assert len(appliance("here").recover(day_of)) == 1
    with there.group(Look(numbers=[1])) as group:
        assert group.open == {1}


def test_an_appliance_that_froze_in_a_group_stops_no_other(here: Store, there: Store) -> None:
    def freeze() -> None:
        with here.group(Look()) as frozen:
            with there.group(Look()) as group:  # waits until the server ends the other
                group.put(Changes(balances={account(): Balance(1)}))
            frozen.put(Changes(balances={account(): Balance(2)}))

    with pytest.raises(BooksUnavailable):
        freeze()
    assert here.balances([account()]) == {account(): Balance(1)}


def test_an_embedded_store_has_no_groups(on_sqlite: Opener) -> None:
    with pytest.raises(TypeError), on_sqlite().group(Look()):
        pass
