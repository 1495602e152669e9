"""What the two backends have in common: how transactions begin and end, and what is said when one fails."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from appliance.accounts.entries import Event
from appliance.accounts.store import migrations
from appliance.accounts.store.rows import Rows
from appliance.errors import BooksUnavailable


class Database(ABC):
    """A database and its connections. Every transaction raises BooksUnavailable for whatever goes wrong in it."""

    shared: ClassVar[bool]
    driver_error: ClassVar[type[Exception]]

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._held: Connection | None = None

    @abstractmethod
    def begin(self, connection: Connection) -> None:
        """Begin a transaction that changes something; until it ends, no other does."""

    @abstractmethod
    def now(self, connection: Connection) -> float:
        """Seconds since 1970, on the clock that all who share the database go by."""

    @abstractmethod
    def put(self, connection: Connection, rows: Rows, appliance: str) -> list[Event]:
        """Write changes of the books; returns those events that weren't there."""

    @abstractmethod
    def why(self, error: Exception) -> str:
        """What went wrong and what the administrator does about it; no statement and no value in it."""

    @abstractmethod
    def was_lost(self, error: Exception) -> bool:
        """Whether the connection had ended before the statement came."""

    @abstractmethod
    def scrub(self) -> None:
        """Leave nothing of what was deleted in the files, as far as that is in our hands."""

    @abstractmethod
    def wipe(self) -> None:
        """Before the last connection is closed: leave nothing in files that are removed then. Never fails."""

    def passes(self, error: Exception) -> bool:
        """Whether it may be over by itself in a moment, such as a server that is being started."""
        return False

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that changes nothing."""
        with self.explained(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction that changes something."""
        with self.explained(), self.engine.connect() as connection:
            self.begin(connection)
            yield connection
            connection.commit()

    @contextlib.contextmanager
    def booking(self) -> Iterator[Connection]:
        """The same on a connection that is kept for it, by one thread. What the block raises is left as it is."""
        with self.explained():
            connection = self._begun()
        try:
            yield connection
            with self.explained():
                connection.commit()
        except BaseException:
            _drop(connection)
            raise
        self._held = connection

    def migrate(self) -> None:
        """Bring the tables up to date."""
        with self.reading() as connection:
            current = migrations.is_current(connection)
        if not current:
            with self.changing() as connection:
                migrations.migrate(connection)

    def close(self) -> None:
        """Close all connections."""
        held, self._held = self._held, None
        if held is not None:
            _drop(held)
        self.engine.dispose()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what goes wrong with the database into BooksUnavailable, with `retry_after` for what may pass."""
        try:
            yield
        except (SQLAlchemyError, self.driver_error, OSError) as error:
            again = 1 if self.passes(error) else None
            raise BooksUnavailable(self.why(error), code="books_unavailable", retry_after=again) from None

    def _begun(self) -> Connection:
        held, self._held = self._held, None
        if held is not None:
            try:
                self.begin(held)
            except (SQLAlchemyError, OSError) as error:  # nothing was done yet, so a new connection may do it
                _drop(held)
                if not self.was_lost(error):
                    raise
            else:
                return held
        connection = self.engine.connect()
        try:
            self.begin(connection)
        except BaseException:
            _drop(connection)
            raise
        return connection


def _drop(connection: Connection) -> None:
    """Close it for good, with whatever was begun on it."""
    with contextlib.suppress(SQLAlchemyError, OSError):
        connection.invalidate()
    with contextlib.suppress(SQLAlchemyError, OSError):
        connection.close()
