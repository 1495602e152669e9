"""`ON CONFLICT` alike for SQLite and PostgreSQL, from the columns of a table."""

from __future__ import annotations

from sqlalchemy import Table


def columns(table: Table) -> str:
    """All of them, in their order."""
    return ", ".join(f'"{column.name}"' for column in table.columns)


def replacing(table: Table) -> str:
    """A row that is there gets the new values."""
    return _conflict(table, "excluded.{name}")


def adding(table: Table) -> str:
    """The new values are added to those of a row that is there."""
    return _conflict(table, "{table}.{name} + excluded.{name}")


def _conflict(table: Table, value: str) -> str:
    key = ", ".join(f'"{column.name}"' for column in table.primary_key)
    changed = [column.name for column in table.columns if not column.primary_key]
    values = ", ".join(f"{name} = {value.format(table=table.name, name=name)}" for name in changed)
    return f" ON CONFLICT ({key}) DO UPDATE SET {values}"
