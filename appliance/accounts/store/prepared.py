"""The two statements of a group on PostgreSQL: one brings all that it has to know, one writes all that it changes."""

from __future__ import annotations

from sqlalchemy import Dialect, Table

from appliance.accounts.store.schema import balances, events, levels, reservations, usage
from appliance.accounts.store.upsert import adding, columns, replacing

_SEEN = """
INSERT INTO appliances (name, seen) VALUES ($2, extract(epoch FROM clock_timestamp()))
ON CONFLICT (name) DO UPDATE SET seen = excluded.seen
"""

LOOK = """
WITH held AS (SELECT kind, name FROM reservations AS r CROSS JOIN LATERAL
    (VALUES ('key', r.key_id), ('user', r."user"), ('team', r.team), ('use_case', r.use_case)) AS scope (kind, name))
SELECT json_build_object(
'now', CAST(extract(epoch FROM clock_timestamp()) AS float8),
'balances', (SELECT json_agg(json_build_array(
        kind, name, span, start, tokens, nanoeuros, reserved_tokens, reserved_nanoeuros))
    FROM jsonb_array_elements($1->0) AS x
    JOIN balances ON kind = x->0->>0 AND name = x->0->>1 AND span = x->>1 AND start = x->>2),
'levels', (SELECT json_agg(json_build_array(kind, name, unit, level, at))
    FROM jsonb_array_elements($1->1) AS x
    JOIN levels ON kind = x->0->>0 AND name = x->0->>1 AND unit = x->>1),
'parallel', (SELECT json_agg(json_build_array(kind, name, number)) FROM
    (SELECT kind, name, count(*) AS number FROM jsonb_array_elements($1->2) AS x
     JOIN held ON kind = x->>0 AND name = x->>1 GROUP BY kind, name) AS counted),
'open', (SELECT json_agg(number) FROM jsonb_array_elements_text($1->3) AS x
    JOIN reservations ON number = CAST(x AS bigint) AND appliance = $2))
"""
"""What the lists in $1 ask for: accounts, buckets, scopes, and numbers of reservations of the appliance $2."""


def put(dialect: Dialect) -> str:
    """Writes `rows.Rows` ($1) and a sign of life of the appliance $2; returns the events that are new.

    The parts don't see each other's changes; they have no row in common.
    """

    def insert(table: Table, place: int) -> str:
        types = [column.type.compile(dialect=dialect) for column in table.columns]
        values = ", ".join(f"CAST(x->>{index} AS {type_})" for index, type_ in enumerate(types))
        given = f"SELECT {values} FROM jsonb_array_elements($1->{place}) AS x"  # noqa: S608 - names of our own tables
        return f"INSERT INTO {table.name} ({columns(table)}) {given}"

    parts = [
        f"balances_ AS ({insert(balances, 0)} {replacing(balances)})",
        f"levels_ AS ({insert(levels, 1)} {replacing(levels)})",
        f"opened_ AS ({insert(reservations, 2)})",
        "closed_ AS (DELETE FROM reservations WHERE appliance = $2 AND number IN "
        "(SELECT CAST(x AS bigint) FROM jsonb_array_elements_text($1->3) AS x))",
        f"used_ AS ({insert(usage, 4)} {adding(usage)})",
        f"events_ AS ({insert(events, 5)} ON CONFLICT DO NOTHING RETURNING *)",
        f"seen_ AS ({_SEEN})",
    ]
    return f"WITH {', '.join(parts)} SELECT * FROM events_"  # noqa: S608 - names of our own tables
