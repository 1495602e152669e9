"""SQLite in the state folder: one file, one appliance, and the command line beside it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Table, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from appliance import state
from appliance.accounts.entries import Event
from appliance.accounts.store import rows, schema, scrub
from appliance.accounts.store.database import Database
from appliance.accounts.store.rows import Rows
from appliance.accounts.store.upsert import adding, columns, replacing
from appliance.errors import BooksUnavailable

_BUSY_SECONDS = 2.0
_EXCLUSIVE = "exclusive"


class Embedded(Database):
    """accounts.db. Written ahead (WAL) and synced at each commit, so that a power cut takes back nothing committed."""

    shared = False
    driver_error = sqlite3.Error

    def __init__(self, folder: Path) -> None:
        self._file = folder / "accounts.db"
        self._log = folder / "accounts.db-wal"
        # without a pool that is named, a URL that names no file gets one that closes the connections of other threads
        super().__init__(
            create_engine("sqlite+pysqlite://", creator=self._connect, poolclass=QueuePool, hide_parameters=True)
        )
        event.listen(self.engine, "begin", self._begin)
        self._balances = _insert(schema.balances) + replacing(schema.balances)
        self._levels = _insert(schema.levels) + replacing(schema.levels)
        self._opened = _insert(schema.reservations)
        self._closed = "DELETE FROM reservations WHERE appliance = ? AND number = ?"
        self._used = _insert(schema.usage) + adding(schema.usage)
        self._event = _insert(schema.events) + " ON CONFLICT DO NOTHING"
        with self.explained(), alone(folder):
            self._inode = _make(self._file)
            self.migrate()

    def begin(self, connection: Connection) -> None:
        """`BEGIN IMMEDIATE`: waits for another writer, for two seconds at most."""
        connection.execution_options(**{_EXCLUSIVE: True}).begin()

    def now(self, connection: Connection) -> float:
        """This host's clock."""
        return time.time()

    def put(self, connection: Connection, changed: Rows, appliance: str) -> list[Event]:
        """One prepared statement for each table."""
        # Constant statements straight to the driver, which keeps them prepared: this runs for every request.
        cursor = connection.connection.cursor()
        cursor.executemany(self._balances, changed.balances)
        cursor.executemany(self._levels, changed.levels)
        cursor.executemany(self._opened, changed.opened)
        cursor.executemany(self._closed, [(appliance, number) for number in changed.closed])
        cursor.executemany(self._used, changed.used)
        new = []
        for row in changed.events:
            cursor.execute(self._event, row)
            if cursor.rowcount:
                new.append(rows.event(row))
        return new

    def scrub(self) -> None:
        """Write all pages anew, and overwrite the log that holds the old ones. Others wait meanwhile."""
        with self.explained():
            done = scrub.scrub(self._connect, self._file, self._log)
        if not done:
            raise BooksUnavailable(
                f"{self._log} still holds what was deleted, since another program reads the database: end it, "
                "such as a backup or an `sqlite3` shell, and try again",
                code="books_unavailable",
            )

    def wipe(self) -> None:
        """Overwrite the log, which SQLite removes when the last connection is closed."""
        with contextlib.suppress(sqlite3.Error, OSError):  # in use by others, who do so when they close, or gone
            scrub.wipe(self._connect, self._log)

    def why(self, error: Exception) -> str:
        """By SQLite's code for it."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, OSError):
            return f"{self._file} {_OF_THE_SYSTEM.get(cause.errno or 0) or f'can not be used: {cause.strerror}'}"
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        return f"{self._file} {_OF_SQLITE.get(code) or f'can not be used: {type(cause).__name__} {code}'}"

    def was_lost(self, error: Exception) -> bool:
        """Never: there is no server."""
        return False

    def _begin(self, connection: Connection) -> None:
        self._require_the_same()
        # Python's own driver would begin too late, and without the lock that keeps two writers from a dead end.
        exclusive = connection.get_execution_options().get(_EXCLUSIVE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if exclusive else "BEGIN")

    def _require_the_same(self) -> None:
        """Raise `OSError` when the file was moved away: SQLite would go on in it, or make another."""
        if self._file.stat().st_ino != self._inode:
            raise FileNotFoundError(errno.ESTALE, "replaced")

    def _connect(self) -> sqlite3.Connection:
        self._require_the_same()
        connection = sqlite3.connect(
            self._file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            # what is deleted is overwritten: a page that is left half empty still held the names of persons
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "temp_store = MEMORY", "secure_delete = ON"):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection


_FULL = "can't grow, since the disk is full: free some space; nothing else has to be done"
_READ_ONLY = "can't be written: have the user that runs the appliance own it, on a disk that is mounted for writing"
_NOT_OPEN = "can't be opened: have the user that runs the appliance own it and its folder"
_GONE = (
    "was removed or replaced while it was open: stop the appliance, put the right file in its place, and start again"
)
_OF_THE_SYSTEM = {
    errno.ENOENT: _GONE,
    errno.ESTALE: _GONE,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _NOT_OPEN,
    errno.EPERM: _NOT_OPEN,
}
_OF_SQLITE = {
    sqlite3.SQLITE_BUSY: f"was locked by another program for over {_BUSY_SECONDS:g} s: end what holds it open, such as "
    "a backup or an `sqlite3` shell",
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _NOT_OPEN,
    sqlite3.SQLITE_PERM: _NOT_OPEN,
    sqlite3.SQLITE_IOERR: "can't be read or written, since the disk errs or a limit on the size of files is reached: "
    "look at the kernel's log and at `ulimit -f`",
    sqlite3.SQLITE_CORRUPT: "is damaged: stop the appliance and restore it from a backup",
    sqlite3.SQLITE_NOTADB: "is no database: stop the appliance and restore it from a backup",
}


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder, so that of two processes one makes the database and the other finds it made."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise BooksUnavailable(f"{folder} is no folder: see `state` in the config", code="books_unavailable") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(file: Path) -> int:
    """Make it, private, where it isn't there; returns its inode.

    Refuses links, which a gateway that was taken over could have planted.
    """
    try:
        for path in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
            if os.path.lexists(path):
                state.require_own(path, path.lstat(), file.parent.stat().st_uid)
    except ValueError as strange:
        raise BooksUnavailable(str(strange), code="books_unavailable") from None
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    file.chmod(0o600)
    return file.stat().st_ino


def _insert(table: Table) -> str:
    places = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} ({columns(table)}) VALUES ({places})"  # noqa: S608 - names of our own tables
