"""Forgets a person, or a key of nobody's: the sums of teams, use cases and models stay right, and none says whose."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, tuple_, union, update

from appliance.accounts.entries import Changes, Kind, Scope, UsageKey, Used, nobodys
from appliance.accounts.store import keys, rows
from appliance.accounts.store.schema import balances, events, levels, reservations, usage
from appliance.accounts.store.schema import keys as keys_

NAMING = (keys_, balances, levels, reservations, usage, events)
"""The tables that hold names of persons."""
_KEPT = ("day", "team", "use_case", "model")
"""What remains of what was used."""
_AT_ONCE = 1000
"""Rows in one statement: SQLite takes some 32000 values."""


def key_ids(connection: Connection, scope: Scope) -> set[str]:
    """Of all keys and tokens that ask, or asked, for `scope`."""
    found = union(
        select(keys_.c.id).where(_of(keys_, keys_.c.id, scope)),
        select(usage.c.key_id).where(_of(usage, usage.c.key_id, scope)),
        select(reservations.c.key_id).where(_of(reservations, reservations.c.key_id, scope)),
    )
    return set(connection.execute(found).scalars())


def forget(connection: Connection, scope: Scope, at: float) -> tuple[int, Changes]:
    """Take `scope` out of all tables. Its keys end `at` the latest.

    Returns how many rows named it, and what has to be put into the books in their place.
    """
    ids = sorted(key_ids(connection, scope))
    named = keys.forget(connection, ids, at)
    holders = [(str(Kind.KEY), id_) for id_ in ids] + [(str(scope.kind), scope.name)]
    for table in (balances, levels, events):
        holder = tuple_(table.c.kind, table.c.name)
        for first in range(0, len(holders), _AT_ONCE):
            named += connection.execute(delete(table).where(holder.in_(holders[first : first + _AT_ONCE]))).rowcount
    for row in connection.execute(select(reservations).where(_of(reservations, reservations.c.key_id, scope))).all():
        key = [column == value for column, value in zip(reservations.primary_key, row[:2], strict=True)]
        changed = dict(zip(reservations.columns.keys(), rows.of_reservation(nobodys(rows.reservation(row)), row[0]),
                           strict=True))  # fmt: skip
        named += connection.execute(update(reservations).where(*key).values(changed)).rowcount
    rows.json_of.cache_clear()
    used = _summed(connection, scope)
    named += connection.execute(delete(usage).where(_of(usage, usage.c.key_id, scope))).rowcount
    return named, Changes(used=used)


def _summed(connection: Connection, scope: Scope) -> dict[UsageKey, Used]:
    """What was used by `scope`, as of nobody."""
    sums = [func.sum(usage.c[name]) for name in Used.__slots__]
    chosen = select(*(usage.c[name] for name in _KEPT), *sums).where(_of(usage, usage.c.key_id, scope))
    found = connection.execute(chosen.group_by(*(usage.c[name] for name in _KEPT)))
    return {
        UsageKey(key_id="", user="", **dict(zip(_KEPT, row, strict=False))): Used(*map(int, row[len(_KEPT) :]))
        for row in found
    }


def _of(table: Table, key: ColumnElement[str], scope: Scope) -> ColumnElement[bool]:
    if scope.kind is Kind.USER:
        return table.c.user == scope.name
    return (key == scope.name) & (func.coalesce(table.c.user, "") == "")
