"""Brings a database to the tables of `schema`, step by step (Alembic); refuses one that is ahead of this version."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from appliance.errors import BooksUnavailable

NEWEST = "0003"
TABLE = "appliance_version"


def is_current(connection: Connection) -> bool:
    """Whether the database is as this version wants it; asked at every start, so without loading Alembic."""
    return _revision(connection) == NEWEST


def migrate(connection: Connection) -> None:
    """Bring the database up to date in the caller's transaction, which holds the lock for it.

    Raises BooksUnavailable when a newer version has migrated it.
    """
    from alembic import command  # loads for a fifth of a second, and is needed once in the life of a database
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    found = _revision(connection)
    if found is not None and found not in known:
        raise BooksUnavailable(
            f"the database is at revision {found}, and this version of the appliance knows only those up to {NEWEST}: "
            "install the newer version again, or restore the backup from before it"
        )
    command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {TABLE}")).scalar()  # noqa: S608 - a constant
