"""Somebody is forgotten: sums stay right, and no table, page or file says whose they were."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from appliance.accounts.entries import (
    Account,
    Balance,
    Bucket,
    Changes,
    Event,
    Kind,
    Level,
    Scope,
    Span,
    Unit,
    UsageKey,
    Used,
)
from appliance.accounts.keys import KeyRecord
from appliance.accounts.store import Look, Store, scrub
from appliance.accounts.store.schema import tables
from appliance.errors import BooksUnavailable
from tests.accounts.conftest import Opener
from tests.accounts.store.entries import DAY, MONTH, NAMES, TEAM, account, day_of, key, reservation

ZOE = Scope(Kind.USER, "zoe")
KEY = Scope(Kind.KEY, "key_1")
TOKEN = Scope(Kind.KEY, "oidc_0123456789abcdef")
BEN = Scope(Kind.USER, "ben")


def full(name: str = "zoe", other: str = "ben") -> Changes:
    """Books in which a user and another one are named wherever one can be."""
    user, second = Scope(Kind.USER, name), Scope(Kind.USER, other)
    scopes = (KEY, TOKEN, user, TEAM, second)
    return Changes(
        balances={account(scope, span): Balance(10, 20, 30, 40) for scope in scopes for span in Span},
        levels={Bucket(scope, Unit.TOKENS): Level(5.0, 6.0) for scope in scopes},
        opened=[
            reservation(1, KEY, user, TEAM, user=name),
            reservation(2, TOKEN, user, TEAM, user=name, key_id=TOKEN.name),
            reservation(3, second, TEAM, user=other, key_id="key_2"),
        ],
        used={
            UsageKey(DAY, "key_1", name, "red", "", "chat"): Used(1, 2, 3, 4, 0),
            UsageKey(DAY, TOKEN.name, name, "red", "", "chat"): Used(10, 20, 30, 40, 1),
            UsageKey(DAY, "key_1", name, "red", "mail", "chat"): Used(100, 200, 300, 400, 0),
            UsageKey(MONTH, "key_1", name, "", "", "chat"): Used(1000, 2000, 3000, 4000, 0),
            UsageKey(DAY, "key_2", other, "red", "", "chat"): Used(1, 1, 1, 1, 0),
            UsageKey(DAY, "", "", "red", "", "chat"): Used(5, 5, 5, 5, 5),
        },
        events=[Event(account(scope), Unit.TOKENS, 90, 1.0) for scope in scopes],
    )


@pytest.fixture
def filled(opener: Opener) -> Store:
    store = opener()
    store.claim("here")
    store.add_key(key(1))
    store.add_key(key(2, user="ben", name="ben's", digest=b"2" * 32))
    _put(store, full())
    return store


def _put(store: Store, changes: Changes) -> None:
    if store.shared:
        with store.group(Look()) as group:
            group.put(changes)
    else:
        store.commit(changes)


def rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """All that is in the tables, but for signs of life."""
    named = {name: table for name, table in tables.tables.items() if name != "appliances"}
    with store._database.reading() as connection:
        return {name: [tuple(row) for row in connection.execute(table.select())] for name, table in named.items()}


def keys_of(store: Store) -> list[KeyRecord]:
    return store.keys()


def test_no_table_names_whoever_was_forgotten_and_all_others_stay(filled: Store) -> None:
    before = rows(filled)
    named = filled.forget(ZOE, 7.0)
    after = rows(filled)
    assert "zoe" not in repr(after)
    assert TOKEN.name not in repr(after), "who signs in has an id made of who it is"
    bens = {name: [row for row in found if "ben" in repr(row)] for name, found in before.items()}
    assert {name: [row for row in found if "ben" in repr(row)] for name, found in after.items()} == bens
    changed = {name: len([row for row in found if row not in after[name]]) for name, found in before.items()}
    assert named == sum(changed.values()) - 1 - 1, "but for nobody's row, which grew, and the version of the keys"


def test_what_was_used_counts_for_the_team_as_before(filled: Store) -> None:
    def sums(*by: str) -> list[tuple[UsageKey, Used]]:
        return filled.usage(MONTH, DAY, None, by)

    before = sums("team"), sums("use_case"), sums("model"), sums("team", "use_case")
    filled.forget(ZOE, 7.0)
    assert (sums("team"), sums("use_case"), sums("model"), sums("team", "use_case")) == before
    whole = filled.usage(DAY, DAY, Span.DAY, ("key_id", "user", "team", "use_case", "model"))
    assert dict(whole)[UsageKey(DAY, "", "", "red", "", "chat")] == Used(16, 27, 38, 49, 6)
    assert dict(whole)[UsageKey(DAY, "", "", "red", "mail", "chat")] == Used(100, 200, 300, 400, 0)
    balances = filled.balances([account(TEAM), account(ZOE), account(KEY), account(TOKEN), account(BEN)])
    assert set(balances) == {account(TEAM), account(BEN)}


def test_keys_keep_what_an_auditor_needs_and_open_nothing(filled: Store) -> None:
    version = filled.keys_version()
    filled.forget(ZOE, 7.0)
    assert filled.keys() == [
        key(1, user=None, name="", revoked=7.0),
        key(2, user="ben", name="ben's", digest=b"2" * 32),
    ]
    assert filled.keys_version() > version, "gateways have to see it"


def test_what_is_in_flight_is_left_to_be_settled_as_nobodys(filled: Store) -> None:
    filled.forget(ZOE, 7.0)
    if filled.shared:
        with filled.group(Look(numbers=[1, 2, 3])) as group:
            assert group.open == {1, 2, 3}
    left = sorted(filled.recover(day_of), key=lambda each: each.number)
    assert [(each.want.user, each.want.key_id) for each in left] == [(None, ""), (None, ""), ("ben", "key_2")]
    assert [{each.scope for each in one.accounts} for one in left] == [{TEAM}, {TEAM}, {BEN, TEAM}]
    assert "zoe" not in repr(rows(filled))
    used = dict(filled.usage(DAY, DAY, None, ("user", "key_id")))
    assert used[UsageKey("", "", "", "", "", "")].unsettled == 6 + 2


def test_forgetting_again_finds_nothing_and_changes_nothing(filled: Store) -> None:
    assert filled.forget(ZOE, 7.0)
    before = rows(filled)
    assert filled.forget(ZOE, 8.0) == 0
    assert rows(filled) == before
    assert filled.forget(Scope(Kind.USER, "nobody"), 8.0) == 0
    assert rows(filled) == before


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_forgotten_to_the_letter(opener: Opener, name: str) -> None:
    store = opener()
    store.claim("here")
    store.add_key(key(user=name))
    store.add_key(key(2, user=name + "2", digest=b"2" * 32))
    _put(store, full(name, name + "2"))
    assert store.forget(Scope(Kind.USER, name), 1.0)
    found = [cell for table in rows(store).values() for row in table for cell in row]
    assert name not in found
    assert name + "2" in found


def test_all_ids_that_asked_for_somebody_are_told_and_their_keys_end(filled: Store) -> None:
    assert filled.revoke_all(ZOE, 5.0) == {"key_1", TOKEN.name}
    assert [each.revoked for each in keys_of(filled)] == [5.0, None]
    assert filled.revoke_all(Scope(Kind.USER, "nobody"), 5.0) == set()


def test_a_key_without_a_user_is_forgotten_by_its_id_and_nobody_elses_is(opener: Opener) -> None:
    store = opener()
    store.claim("here")
    store.add_key(key(1, user=None, name="zoe's script"))
    store.add_key(key(2, digest=b"2" * 32))
    _put(store, Changes(used={
        UsageKey(DAY, "key_1", "", "red", "", "chat"): Used(1, 2, 3, 4, 0),
        UsageKey(DAY, "key_2", "zoe", "red", "", "chat"): Used(1, 2, 3, 4, 0),
    }))  # fmt: skip
    assert store.forget(Scope(Kind.KEY, "key_1"), 7.0) == 2
    assert store.forget(Scope(Kind.KEY, "key_2"), 7.0) == 0, "it is a person's: erase that person"
    assert [(each.name, each.revoked) for each in keys_of(store)] == [("", 7.0), ("number 2", None)]
    assert dict(store.usage(DAY, DAY, None, ("key_id",))) == {
        UsageKey("", "", "", "", "", ""): Used(1, 2, 3, 4, 0),
        UsageKey("", "key_2", "", "", "", ""): Used(1, 2, 3, 4, 0),
    }


# ---- SQLite's files


def used(names: list[str], dice: random.Random) -> Changes:
    days = [f"2026-{month:02d}-{day:02d}" for month in range(1, 12) for day in range(1, 29)]
    changes = Changes()
    for name in dice.sample(names, 30):
        day = dice.choice(days)
        changes.used[UsageKey(day, f"oidc_{name}", name, dice.choice("abc"), "", dice.choice("mn"))] = Used(
            1, 2, 3, 4, 0
        )
        changes.balances[Account(Scope(Kind.USER, name), Span.DAY, day)] = Balance(1, 2, 3, 4)
        changes.levels[Bucket(Scope(Kind.USER, name), Unit.TOKENS)] = Level(1.0, 2.0)
    return changes


def test_no_file_holds_a_name_that_was_forgotten(tmp_path: Path) -> None:
    """Of rows that were moved about for a while, parts stay in pages; and the log of writes has old pages."""
    store = Store.sqlite(tmp_path)
    store.claim("here")
    dice = random.Random(5)  # noqa: S311 - the same each time
    names = [f"NAME{number:04d}" for number in range(200)]
    for _ in range(100):
        store.commit(used(names, dice))
    for gone in dice.sample(names, 10):
        assert any(gone.encode() in file.read_bytes() for file in tmp_path.iterdir())
        store.forget(Scope(Kind.USER, gone), 1.0)
        assert [file.name for file in tmp_path.iterdir() if gone.encode() in file.read_bytes()] == []
        store.commit(used([name for name in names if name != gone], dice))
    assert store.usage("2026-01-01", "2026-12-31", None)[0][1].requests == 110 * 30
    store.close()


def test_the_log_is_overwritten_before_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in it as it is cut off; journeys/test_erasure.py looks at the blocks of a disk."""
    store = Store.sqlite(tmp_path)
    store.claim("here")
    for number in range(200):
        store.add_key(key(1, id=f"key_{number}", digest=number.to_bytes(32), user="ZOE", previous=None))
    log = tmp_path / "accounts.db-wal"
    assert b"ZOE" in log.read_bytes()
    cut_off: list[bytes] = []
    checkpoint = scrub._checkpoint

    def watched(connection: sqlite3.Connection, how: str) -> bool:
        if how == "TRUNCATE":
            cut_off.append(log.read_bytes())
        return checkpoint(connection, how)

    monkeypatch.setattr(scrub, "_checkpoint", watched)
    store.close(last=True)
    assert [content.count(b"ZOE") for content in cut_off] == [0]
    assert not log.exists()
    monkeypatch.undo()
    again = Store.sqlite(tmp_path)
    assert len(again.keys()) == 200
    again.close()


def test_a_reader_that_never_ends_is_named_and_it_is_completed_later(tmp_path: Path) -> None:
    store = Store.sqlite(tmp_path)
    store.claim("here")
    store.add_key(key(1))
    reader = sqlite3.connect(tmp_path / "accounts.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM keys").fetchall()
    with pytest.raises(BooksUnavailable, match="-wal still holds what was deleted"):
        store.forget(ZOE, 1.0)
    assert store.keys()[0].user is None, "it is done as far as it can be"
    reader.close()
    assert store.forget(ZOE, 1.0) == 0
    assert [file.name for file in tmp_path.iterdir() if b"zoe" in file.read_bytes()] == []
    store.close()
