"""Balances, reservations and appliances, read and cleared; what each request writes is in `embedded` and `shared`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, delete, insert, select, tuple_, update

from appliance.accounts.entries import Account, Balance, Reservation
from appliance.accounts.store import rows
from appliance.accounts.store.schema import appliances, balances, reservations

_AT_ONCE = 1000
"""Accounts in one statement: SQLite takes some 32000 values."""

Left = list[tuple[str, Reservation]]
"""Reservations and the appliances that opened them."""


def of_accounts(connection: Connection, accounts: Collection[Account]) -> dict[Account, Balance]:
    """Those of the accounts that were ever used."""
    asked = [(str(scope.kind), scope.name, str(span), start) for scope, span, start in accounts]
    found: dict[Account, Balance] = {}
    for first in range(0, len(asked), _AT_ONCE):
        chosen = select(balances).where(tuple_(*balances.primary_key).in_(asked[first : first + _AT_ONCE]))
        found |= rows.balances(connection.execute(chosen))
    return found


def left(connection: Connection, appliance: str | None) -> Left:
    """Reservations that stand, of one appliance or of all."""
    chosen = select(reservations)
    if appliance is not None:
        chosen = chosen.where(reservations.c.appliance == appliance)
    return _left(connection.execute(chosen.order_by(reservations.c.opened)))


def silent(connection: Connection, before: float) -> Left:
    """Reservations of appliances that weren't heard of since `before`; these are forgotten."""
    connection.execute(delete(appliances).where(appliances.c.seen < before))
    alive = select(appliances.c.name)
    chosen = select(reservations).where(reservations.c.appliance.not_in(alive)).order_by(reservations.c.opened)
    return _left(connection.execute(chosen))


def remove(connection: Connection, booked: Left) -> None:
    """Delete reservations that were booked."""
    key = tuple_(*reservations.primary_key)
    asked = [(appliance, each.number) for appliance, each in booked]
    for first in range(0, len(asked), _AT_ONCE):
        connection.execute(delete(reservations).where(key.in_(asked[first : first + _AT_ONCE])))


def seen(connection: Connection, appliance: str, at: float) -> float | None:
    """Note that an appliance is alive; returns when it was heard of before, None where it never was."""
    before = connection.execute(select(appliances.c.seen).where(appliances.c.name == appliance)).scalar()
    if before is None:
        connection.execute(insert(appliances).values(name=appliance, seen=at))
    else:
        connection.execute(update(appliances).where(appliances.c.name == appliance).values(seen=at))
    return None if before is None else float(before)


def _left(found: Iterable[rows.Row]) -> Left:
    return [(row[0], rows.reservation(row)) for row in found]
