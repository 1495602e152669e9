"""The store: what is kept on disk about keys, use and budgets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from sqlalchemy import Connection

from appliance.accounts.entries import (
    Account,
    Balance,
    Changes,
    Event,
    Kind,
    Reservation,
    Scope,
    Span,
    UsageKey,
    Used,
)
from appliance.accounts.keys import KeyRecord, Rotated
from appliance.accounts.store import books, keys, leftovers, persons, rows, usage
from appliance.accounts.store.earlier import take_over
from appliance.accounts.store.embedded import Embedded
from appliance.accounts.store.rows import rows_of
from appliance.accounts.store.shared import Shared
from appliance.accounts.store.transaction import Group, Look
from appliance.config import Postgresql
from appliance.errors import Conflict

SILENT_SECONDS = 60.0
"""An appliance that wasn't heard of for so long is held for dead."""


class Store:
    """Keys, books and usage in one database.

    Every method raises `BooksUnavailable` while the database can't be used; its message tells the administrator
    what to do, so it is for the log and not for callers. Nothing of what failed is kept, and the next call tries
    again by itself. Any thread may call; `claim`, `recover`, `commit`, `group` and `beat` are for one thread.

    Names are any text that holds no NUL and no half of a surrogate pair; `add_key` refuses others with `BadRequest`.
    """

    def __init__(self, database: Embedded | Shared) -> None:
        self._database = database
        self._appliance = ""

    @property
    def shared(self) -> bool:
        """Whether other appliances keep their books here, too: then `group`, not `commit`."""
        return self._database.shared

    @classmethod
    def sqlite(cls, folder: Path) -> Store:
        """The embedded store, `accounts.db` in the private `folder`; made or migrated where it has to be.

        The first time, keys of earlier versions are taken over from `keys.json`, which is renamed to
        `keys.json.imported`. Raises `Invalid` when that file is broken.
        """
        database = Embedded(folder)
        take_over(database, folder)
        return cls(database)

    @classmethod
    def postgresql(cls, settings: Postgresql, password: str | None, socket: Path | None, ca: Path | None) -> Store:
        """The shared store; made or migrated where it has to be.

        `socket` is a Unix socket on which bytes reach the server; None: connect to `settings.host`. With
        `settings.tls`, TLS is spoken either way, verified for `settings.host` by the authority in `ca` (None: those
        of the system). A host that is a folder is a server on this host, which speaks no TLS there.
        """
        return cls(Shared(settings, password, socket, ca))

    def close(self, *, last: bool = False) -> None:
        """Close all connections. `last`: nobody else has the store open, so its log of writes goes, overwritten."""
        if last:
            self._database.wipe()
        self._database.close()

    # Keys (appliance/accounts/keys.py, KeyStore)

    def keys_version(self) -> int:
        """A number that every change of any key changes. Cheap: it is asked four times a second."""
        with self._database.reading() as connection:
            return keys.version(connection)

    def keys(self) -> list[KeyRecord]:
        """All keys, oldest first; those that are expired and revoked, too."""
        with self._database.reading() as connection:
            return keys.every(connection)

    def add_key(self, record: KeyRecord) -> None:
        """Keep a new key. Raises `Conflict` when its id or digest is there already."""
        keys.require_text(record)
        with self._database.changing() as connection:
            if not keys.add(connection, record):
                raise Conflict("there is such a key already")

    def rotate_key(self, id: str, change: Rotated) -> bool:  # noqa: A002
        """Put another digest in the key's place, which becomes `previous`. False: unknown, or revoked meanwhile."""
        with self._database.changing() as connection:
            return keys.rotate(connection, id, change)

    def revoke_key(self, id: str, at: float) -> bool:  # noqa: A002 - what a key is named by
        """Note that the key opens no more. False: no such key. One that is revoked keeps its first `revoked`."""
        with self._database.changing() as connection:
            return keys.revoke(connection, id, at)

    # Persons

    def revoke_all(self, scope: Scope, at: float) -> set[str]:
        """Let no key of a user, or no key of that id, open any more. The ids of all keys that ever asked for them."""
        with self._database.changing() as connection:
            found = persons.key_ids(connection, scope)
            for each in found:
                keys.revoke(connection, each, at)
        return found

    def forget(self, scope: Scope, at: float) -> int:
        """Forget a user, or a key that is nobody's. Keys stay with their id, role and times, and end `at` the latest.

        What was used counts for its team, use case and model as before. Returns how many rows were changed or removed.
        In the embedded store no file holds the name when this returns; raises `BooksUnavailable` also where that
        can't be brought about. Then, and after a crash, call it again.
        """
        with self._database.changing() as connection:
            named, changes = persons.forget(connection, scope, at)
            self._database.put(connection, rows_of(changes, self._appliance), self._appliance)
        self._database.scrub()
        return named

    # Books

    def claim(self, appliance: str) -> None:
        """Say under which name this process keeps books. First of all: `commit`, `group` and `beat` need it.

        `appliance` is that of one run or of all runs; no two that run at the same time have the same.
        """
        self._appliance = appliance
        with self._database.changing() as connection:
            books.seen(connection, appliance, self._database.now(connection))

    def recover(self, day_of: Callable[[float], str]) -> list[Reservation]:
        """Book what earlier runs left open, at its full reservation and as `unsettled`, and return it.

        Embedded: all there is. Shared: of this name. `day_of` gives the day of the calendar of a moment in seconds
        since 1970.
        """
        with self._database.changing() as connection:
            left = books.left(connection, self._appliance if self.shared else None)
            self._book(connection, left, day_of)
        return [each for _, each in left]

    def commit(self, changes: Changes) -> list[Event]:
        """Write the changes in one transaction (embedded); they are on disk when this returns.

        Balances and levels replace, `used` is added. Returns the events that are new: only those are logged.
        """
        with self._database.booking() as connection, self._database.explained():
            return self._database.put(connection, rows_of(changes, self._appliance), self._appliance)

    @contextlib.contextmanager
    def group(self, look: Look) -> Iterator[Group]:
        """A transaction in which no other appliance decides (shared); committed at the end of the `with` block.

        An exception in the block, or at its end, leaves nothing written. When `BooksUnavailable` comes from its
        end, the connection may have been lost in the very moment of the commit: settle the refused reservations
        at nothing in a later group, and `Group.open` tells which of them were kept.
        """
        database, appliance = self._database, self._appliance
        if not isinstance(database, Shared):
            raise TypeError("an embedded store has one owner, who decides in memory")

        def put(changes: Changes) -> list[Event]:
            try:
                with database.explained():
                    return database.put(connection, rows_of(changes, appliance), appliance)
            except BaseException:
                connection.invalidate()  # or a caller who goes on would end in a commit of nothing, without an error
                raise

        with database.booking() as connection:
            with database.explained():
                found = database.look(connection, look, appliance)
            yield Group(
                now=found["now"],
                balances=rows.balances(found["balances"] or ()),
                levels=rows.levels(found["levels"] or ()),
                parallel={Scope(Kind(kind), name): number for kind, name, number in found["parallel"] or ()},
                open=set(found["open"] or ()),
                put=put,
            )

    def beat(self, day_of: Callable[[float], str]) -> list[Reservation]:
        """Say that this appliance is alive, every 10 s or so; book what others left that are silent for 60 s (shared).

        Returns what was booked, at its full reservation and as `unsettled`. Nothing when this one wasn't heard of for
        long either: then the database was away, or its clock jumped, and the others had no way to say so.
        """
        with self._database.changing() as connection:
            now = self._database.now(connection)
            before = books.seen(connection, self._appliance, now)
            if before is not None and now - before > SILENT_SECONDS / 2:
                return []
            left = books.silent(connection, now - SILENT_SECONDS)
            self._book(connection, left, day_of)
        return [each for _, each in left]

    def balances(self, accounts: Collection[Account]) -> dict[Account, Balance]:
        """Those of the accounts that were ever used."""
        with self._database.reading() as connection:
            return books.of_accounts(connection, accounts)

    # Usage

    def usage(
        self, since: str, until: str, per: Span | None, by: Iterable[str] = (), where: Mapping[str, str] | None = None
    ) -> list[tuple[UsageKey, Used]]:
        """What was used from the day `since` to the day `until`, both included, oldest first.

        `per` sums up by day, by month (`UsageKey.day` is its first day) or over the whole time (`day` is empty).
        `by` names the fields of `UsageKey` that are kept apart (`key_id`, `user`, `team`, `use_case`, `model`); the
        others are empty. `where` keeps only what has these values; an empty string stands for none.
        """
        with self._database.reading() as connection:
            return usage.summed(connection, since, until, per, by, where or {})

    def events(self, limit: int) -> list[Event]:
        """The newest events first."""
        with self._database.reading() as connection:
            return usage.newest(connection, limit)

    def _book(self, connection: Connection, left: books.Left, day_of: Callable[[float], str]) -> None:
        if not left:
            return
        entries = [each for _, each in left]
        known = books.of_accounts(connection, {account for each in entries for account in each.accounts})
        changes = leftovers.booked(entries, known, day_of)
        self._database.put(connection, rows_of(changes, self._appliance), self._appliance)
        books.remove(connection, left)
