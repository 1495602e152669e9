"""What was used, summed up; and the thresholds that were reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import ColumnElement, Connection, Text, func, literal, literal_column, select

from appliance.accounts.entries import Event, Span, UsageKey, Used
from appliance.accounts.store import rows
from appliance.accounts.store.schema import events, usage

_NAMES = UsageKey._fields[1:]


def summed(
    connection: Connection, since: str, until: str, per: Span | None, by: Iterable[str], where: Mapping[str, str]
) -> list[tuple[UsageKey, Used]]:
    """See `Store.usage`."""
    kept = set(by)
    for name in (*kept, *where):
        if name not in _NAMES:
            raise ValueError(f"usage is kept by {', '.join(_NAMES)}, not by {name}")
    period = {
        Span.DAY: usage.c.day,
        Span.MONTH: literal_column("substr(usage.day, 1, 8) || '01'", Text),
        None: literal(""),
    }[per].label("day")
    apart = [usage.c[name] if name in kept else literal("").label(name) for name in _NAMES]
    sums = [func.sum(usage.c[name]) for name in Used.__slots__]
    chosen = (
        select(period, *apart, *sums)
        .where(usage.c.day >= since, usage.c.day <= until)
        .where(*(usage.c[name] == value for name, value in where.items()))
    )
    groups: list[ColumnElement[str]] = [period] if per else []
    groups += [usage.c[name] for name in _NAMES if name in kept]
    if groups:
        chosen = chosen.group_by(*groups).order_by(*groups)
    size = len(UsageKey._fields)
    return [
        (UsageKey(*row[:size]), Used(*(int(each) for each in row[size:])))
        for row in connection.execute(chosen)
        if row[size] is not None  # the sum of nothing at all
    ]


def newest(connection: Connection, limit: int) -> list[Event]:
    """Events, the newest first."""
    order = (events.c.at.desc(), *events.primary_key)
    return [rows.event(row) for row in connection.execute(select(events).order_by(*order).limit(limit))]
