"""Changes of the books as rows of the tables, in the order of their columns, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from appliance.accounts.entries import (
    Account,
    Balance,
    Bucket,
    Changes,
    Event,
    Kind,
    Level,
    Reservation,
    Scope,
    Span,
    Unit,
    Want,
)

# An enum's member is written as `str(member)`: the SQLite driver takes a plain string ten times as fast.
Row = tuple[Any, ...]


class Rows(NamedTuple):
    """What is to be written, table by table."""

    balances: list[Row]
    levels: list[Row]
    opened: list[Row]
    closed: list[int]
    used: list[Row]
    events: list[Row]


def rows_of(changes: Changes, appliance: str) -> Rows:
    """The rows of changes that `appliance` made. What was opened and closed since is never written."""
    closed = set(changes.closed)
    opened = [each for each in changes.opened if each.number not in closed]
    return Rows(
        [
            (str(kind), name, str(span), start, b.tokens, b.nanoeuros, b.reserved_tokens, b.reserved_nanoeuros)
            for ((kind, name), span, start), b in changes.balances.items()
        ],
        [(str(kind), name, str(unit), each.level, each.at) for ((kind, name), unit), each in changes.levels.items()],
        [of_reservation(each, appliance) for each in opened],
        changes.closed,
        [
            (*key, used.requests, used.prompt_tokens, used.completion_tokens, used.nanoeuros, used.unsettled)
            for key, used in changes.used.items()
        ],
        [_event(each) for each in changes.events],
    )


def of_reservation(entry: Reservation, appliance: str) -> Row:
    """For `reservations`."""
    want = entry.want
    return (
        appliance,
        entry.number,
        want.key_id,
        want.user,
        want.team,
        want.use_case,
        want.model,
        want.prompt_tokens,
        want.completion_tokens,
        want.stepped_down,
        entry.nanoeuros,
        json_of(entry.accounts),
        entry.opened,
    )


@lru_cache(maxsize=4096)  # the same people ask all day, and this is the dearest part of a reservation
def json_of(accounts: tuple[Account, ...]) -> str:
    """As they stand in `reservations`."""
    return json.dumps(accounts)


def _event(event: Event) -> Row:
    (kind, name), span, start = event.account
    return (str(kind), name, str(span), start, str(event.unit), event.percent, event.at)


def reservation(row: Sequence[Any]) -> Reservation:
    """Of a row of `reservations`."""
    _, number, key_id, user, team, use_case, model, prompt, completion, stepped_down, nanoeuros, accounts, opened = row
    want = Want(key_id, user, team, use_case, model, prompt, completion, bool(stepped_down))
    held = tuple(account(kind, name, span, start) for (kind, name), span, start in json.loads(accounts))
    return Reservation(number, want, nanoeuros, held, opened)


def account(kind: str, name: str, span: str, start: str) -> Account:
    """Of the primary key of `balances`."""
    return Account(Scope(Kind(kind), name), Span(span), start)


def balances(found: Iterable[Sequence[Any]]) -> dict[Account, Balance]:
    """Of rows of `balances`."""
    return {account(*row[:4]): Balance(*row[4:]) for row in found}


def levels(found: Iterable[Sequence[Any]]) -> dict[Bucket, Level]:
    """Of rows of `levels`."""
    return {Bucket(Scope(Kind(kind), name), Unit(unit)): Level(level, at) for kind, name, unit, level, at in found}


def event(row: Sequence[Any]) -> Event:
    """Of a row of `events`."""
    kind, name, span, start, unit, percent, at = row
    return Event(account(kind, name, span, start), Unit(unit), percent, at)
