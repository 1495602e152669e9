"""Leaves nothing of deleted rows on the disk: not in SQLite's files, and not in blocks that were parts of them.

Rows are overwritten as they are deleted (`secure_delete`). But parts of rows stay in pages from which others moved
away, and the log of writes (accounts.db-wal) holds pages as they were before. When files are cut off or removed, both
stay on the disk, in blocks that are nobody's. So they are overwritten where they lie before that happens: by SQLite
itself, which is given a table of zeros to write.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

_AT_ONCE = 16 << 20
_SALT = slice(16, 24)
"""Where the head of the log holds what changes whenever it begins anew."""

Connect = Callable[[], sqlite3.Connection]


def scrub(connect: Connect, database: Path, log: Path) -> bool:
    """Write all pages of the database anew, and overwrite what is left of the old ones. False: a program is in the way.

    Nobody else can write meanwhile.
    """
    with contextlib.closing(connect()) as connection:
        size = database.stat().st_size
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # the file isn't cut off before its end is full of zeros
        connection.execute("VACUUM")
        _zeros(connection, size)
        done = _checkpoint(connection, "RESTART")
        connection.execute("DROP TABLE zeros")
    if not (done and wipe(connect, log)):
        return False
    with contextlib.closing(connect()) as connection:
        connection.execute("VACUUM")
        return _checkpoint(connection, "TRUNCATE")


def wipe(connect: Connect, log: Path) -> bool:
    """Bring all of the log into the database, overwrite it and cut it off. False: a program is in the way."""
    with contextlib.closing(connect()) as connection:
        if not _checkpoint(connection, "RESTART"):
            return False
        size, salt = log.stat().st_size, _salt(log)
        if size:  # the next to write begins at its head
            _zeros(connection, size)
            connection.execute("DROP TABLE zeros")
        return (not size or _salt(log) != salt) and _checkpoint(connection, "TRUNCATE")


def _zeros(connection: sqlite3.Connection, size: int) -> None:
    """Write at least `size` bytes of nothing, in a table."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE IF NOT EXISTS zeros (zeros)")
    for start in range(0, size, _AT_ONCE):
        connection.execute("INSERT INTO zeros VALUES (zeroblob(?))", (min(_AT_ONCE, size - start),))
    connection.execute("COMMIT")


def _checkpoint(connection: sqlite3.Connection, how: str) -> bool:
    """Bring all of the log into the database. False: somebody reads or writes, and didn't end within the timeout."""
    busy, *_ = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
    return not busy


def _salt(log: Path) -> bytes:
    with log.open("rb") as opened:
        return opened.read(_SALT.stop)[_SALT]
