"""The store in memory, which tests of the bookkeeper use, does what the real ones do."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.accounts.entries import Balance, Bucket, Changes, Event, Level, Span, Unit, UsageKey, Used
from appliance.accounts.store import Look, Store
from tests.accounts.conftest import Opener
from tests.accounts.store.entries import DAY, KEY, TEAM, account, day_of, reservation
from tests.fakes.store import FakeStore

ALL = [account(scope, span) for scope in (KEY, TEAM) for span in Span]
USE = UsageKey(DAY, "key_1", "", "red", "", "chat")
BUCKET = Bucket(TEAM, Unit.TOKENS)
FIRST = Changes(
    balances={account(): Balance(1, 2, 240, 14), account(TEAM, Span.MONTH): Balance(5, 0, 120, 7)},
    levels={BUCKET: Level(2.5, 1795300000.25)},
    opened=[reservation(1, KEY, TEAM), reservation(2, KEY)],
    used={USE: Used(1, 2, 3, 4)},
    events=[Event(account(), Unit.TOKENS, 70, 1.5)],
)
SECOND = Changes(
    balances={account(): Balance(100, 2, 120, 7)},
    closed=[2],
    used={USE: Used(1, 90, 9, 1)},
    events=[Event(account(), Unit.TOKENS, 70, 2.5), Event(account(), Unit.TOKENS, 90, 2.5)],
)
LOOK = Look([account(), account(TEAM)], [BUCKET, Bucket(KEY, Unit.TOKENS)], [KEY, TEAM], [1, 2, 3])


def commits(store: Store | FakeStore) -> list[Any]:
    """What a store of one appliance shows of this life, to its end and after it."""
    store.claim("here")
    seen: list[Any] = [store.commit(FIRST), store.commit(SECOND), store.balances(ALL)]
    store.claim("after a crash")
    return [*seen, store.recover(day_of), store.balances(ALL), store.recover(day_of)]


def groups(store: Store | FakeStore) -> list[Any]:
    """The same of a store that is shared."""
    store.claim("here")
    seen: list[Any] = []
    for changes in (FIRST, SECOND, None):
        with store.group(LOOK) as group:
            seen += [group.balances, group.levels, group.parallel, group.open]
            if changes is not None:
                seen.append(group.put(changes))
    with pytest.raises(ZeroDivisionError):
        _fail_after_putting(store)
    return [*seen, store.recover(day_of), store.balances(ALL)]


def _fail_after_putting(store: Store | FakeStore) -> None:
    with store.group(LOOK) as group:
        group.put(Changes(balances={account(): Balance(9)}))
        raise ZeroDivisionError


def test_one_appliance_sees_the_same(on_sqlite: Opener) -> None:
    real, fake = on_sqlite(), FakeStore()
    assert commits(fake) == commits(real)
    assert dict(real.usage(DAY, DAY, Span.DAY, ["key_id", "user", "team", "use_case", "model"])) == fake.disk.used


def test_several_appliances_see_the_same(on_postgresql: Opener) -> None:
    real, fake = on_postgresql(), FakeStore(shared=True)
    assert groups(fake) == groups(real)
    assert dict(real.usage(DAY, DAY, Span.DAY, ["key_id", "user", "team", "use_case", "model"])) == fake.disk.used
