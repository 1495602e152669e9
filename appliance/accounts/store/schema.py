"""The tables. What is changed here needs a migration in `migrations/versions`; a test compares the two.

Money is whole nano-euros, times are seconds since 1970, and an empty string stands for none where a name is part of a
primary key. Tables with keys of several columns are one tree in SQLite (`WITHOUT ROWID`) instead of two.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text

tables = MetaData()

keys = Table(
    "keys",
    tables,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("user", Text),
    Column("team", Text),
    Column("role", Text, nullable=False),
    Column("use_cases", Text, nullable=False),
    Column("service_class", Text, nullable=False),
    Column("allowance", Text),
    Column("expires", Double),
    Column("revoked", Double),
    Column("previous", LargeBinary),
    Column("previous_until", Double),
    Column("issued", Double, nullable=False),
    Column("issuers", Text, nullable=False),
    Column("data_class", Text),
)

versions = Table(
    "versions",
    tables,
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
)
"""How often something was changed: so far, keys."""

balances = Table(
    "balances",
    tables,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("span", Text, primary_key=True),
    Column("start", Text, primary_key=True),
    Column("tokens", BigInteger, nullable=False),
    Column("nanoeuros", BigInteger, nullable=False),
    Column("reserved_tokens", BigInteger, nullable=False),
    Column("reserved_nanoeuros", BigInteger, nullable=False),
    Index("balances_by_start", "span", "start"),
    sqlite_with_rowid=False,
)

levels = Table(
    "levels",
    tables,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("level", Double, nullable=False),
    Column("at", Double, nullable=False),
    sqlite_with_rowid=False,
)

reservations = Table(
    "reservations",
    tables,
    Column("appliance", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", Text, nullable=False),
    Column("user", Text),
    Column("team", Text),
    Column("use_case", Text),
    Column("model", Text, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("stepped_down", Boolean, nullable=False),
    Column("nanoeuros", BigInteger, nullable=False),
    Column("accounts", Text, nullable=False),
    Column("opened", Double, nullable=False),
    sqlite_with_rowid=False,
)
"""Only those that are open; what is settled is deleted."""

usage = Table(
    "usage",
    tables,
    Column("day", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("user", Text, primary_key=True),
    Column("team", Text, primary_key=True),
    Column("use_case", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("nanoeuros", BigInteger, nullable=False),
    Column("unsettled", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    tables,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("span", Text, primary_key=True),
    Column("start", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("percent", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Index("events_by_time", "at"),
    sqlite_with_rowid=False,
)

appliances = Table(
    "appliances",
    tables,
    Column("name", Text, primary_key=True),
    Column("seen", Double, nullable=False),
)
"""When each was last heard of, on the database's clock."""
