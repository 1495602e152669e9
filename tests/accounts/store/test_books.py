"""Books in either store: what was committed is there for the next who opens it."""

from __future__ import annotations

import pytest

from appliance.accounts.entries import Balance, Bucket, Changes, Event, Kind, Level, Scope, Span, Unit, UsageKey, Used
from appliance.accounts.store import Store
from tests.accounts.conftest import Opener
from tests.accounts.store.entries import DAY, KEY, NAMES, TEAM, account, day_of, reservation

ALL = [account(scope, span) for scope in (KEY, TEAM) for span in Span]
USE = UsageKey(DAY, "key_1", "", "red", "", "chat")


def test_balances_replace_and_are_read_by_account(opener: Opener) -> None:
    store = opener()
    store.claim("here")
    month = account(TEAM, Span.MONTH)
    past = account()._replace(start="2026-11-21")
    store.commit(Changes(balances={account(): Balance(1, 2, 3, 4), month: Balance(5), past: Balance(6)}))
    store.commit(Changes(balances={account(): Balance(10**18, 2, 0, 0)}))
    again = opener()
    assert again.balances(ALL) == {account(): Balance(10**18, 2, 0, 0), month: Balance(5)}
    assert again.balances([past, account(TEAM)]) == {past: Balance(6)}
    assert again.balances([]) == {}


def test_use_is_added_up(store: Store) -> None:
    store.commit(Changes(used={USE: Used(1, 2, 3, 4, 5)}))
    store.commit(Changes(used={USE: Used(10, 20, 30, 40, 50)}))
    assert store.usage(DAY, DAY, None) == [(UsageKey("", "", "", "", "", ""), Used(11, 22, 33, 44, 55))]


def test_an_event_is_new_once_for_all_who_book(opener: Opener) -> None:
    first, second = opener(), opener()
    first.claim("here")
    second.claim("there")
    seventy = Event(account(), Unit.TOKENS, 70, 1.5)
    others = [
        Event(account(), Unit.TOKENS, 90, 2.5),
        Event(account(), Unit.NANOEUROS, 70, 3.5),
        Event(account(span=Span.MONTH), Unit.TOKENS, 70, 4.5),
    ]
    assert first.commit(Changes(events=[seventy])) == [seventy]
    assert second.commit(Changes(events=[Event(account(), Unit.TOKENS, 70, 9.0), *others])) == others
    assert first.events(10) == [*reversed(others), seventy]
    assert first.events(2) == [others[2], others[1]]


def test_what_was_left_open_is_booked_in_full_and_once(opener: Opener) -> None:
    before = opener()
    before.claim("here")
    settled, left, other = reservation(1, KEY, TEAM), reservation(2, KEY, TEAM), reservation(3, KEY, user="zoe")
    held = Balance(1000, 100, 360, 21)
    balances = {account(KEY, span): held for span in Span} | {
        account(TEAM, span): Balance(0, 0, 240, 14) for span in Span
    }
    before.commit(Changes(balances=balances, opened=[settled, left, other]))
    changed = {account(KEY, span): Balance(1010, 101, 240, 14) for span in Span}
    changed |= {account(TEAM, span): Balance(10, 1, 120, 7) for span in Span}
    before.commit(Changes(balances=changed, closed=[1], used={USE: Used(1, 5, 5, 1)}))
    before.close()  # as a crash would

    after = opener()
    after.claim("here")
    assert after.recover(day_of) == [left, other]
    assert after.balances(ALL) == {
        **{account(KEY, span): Balance(1250, 115, 0, 0) for span in Span},
        **{account(TEAM, span): Balance(130, 8, 0, 0) for span in Span},
    }
    assert after.usage(DAY, DAY, Span.DAY, ["key_id", "user", "team", "model"]) == [
        (USE, Used(2, 105, 25, 8, 1)),
        (USE._replace(user="zoe"), Used(1, 100, 20, 7, 1)),
    ]
    assert after.recover(day_of) == []


def test_what_opened_and_closed_between_two_commits_leaves_nothing(store: Store) -> None:
    store.commit(Changes(opened=[reservation(1), reservation(2)], closed=[1]))
    assert store.recover(day_of) == [reservation(2)]


def test_levels_and_empty_changes_are_kept_too(store: Store) -> None:
    bucket = Bucket(KEY, Unit.REQUESTS)
    store.commit(Changes(levels={bucket: Level(1.25, 2.5)}))
    store.commit(Changes(levels={bucket: Level(0.1, 3.5)}))
    assert store.commit(Changes()) == []


@pytest.mark.parametrize("name", NAMES)
def test_names_are_booked_to_the_letter(store: Store, name: str) -> None:
    scope = Scope(Kind.USER, name)
    kept = reservation(1, scope, user=name, team=name, use_case=name, model=name)
    use = UsageKey(DAY, name, name, name, name, name)
    event = Event(account(scope), Unit.TOKENS, 70, 1.0)
    new = store.commit(Changes({account(scope): Balance(1)}, {}, [kept], [], {use: Used(1)}, [event]))
    assert new == store.events(1) == [event]
    assert store.balances([account(scope)]) == {account(scope): Balance(1)}
    assert store.usage(DAY, DAY, Span.DAY, UsageKey._fields[1:], {"team": name}) == [(use, Used(1))]
    assert store.recover(day_of) == [kept]


def test_a_thousand_leftovers_are_booked(store: Store) -> None:
    everybody = [reservation(number, Scope(Kind.USER, f"user {number}")) for number in range(2500)]
    store.commit(Changes(opened=everybody))
    assert len(store.recover(day_of)) == 2500
    last = account(Scope(Kind.USER, "user 2499"))
    assert store.balances([last]) == {last: Balance(120, 7)}
    assert store.recover(day_of) == []
