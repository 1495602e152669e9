"""Keys, books and usage over one store: opened together, told of changes together, closed together."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Mapping, Set
from pathlib import Path

from appliance.accounts.bookkeeper import Bookkeeper
from appliance.accounts.erasing import roles, scope_of
from appliance.accounts.identity import Identity
from appliance.accounts.keys import Keyring
from appliance.accounts.opening import Credentials, open_registry, open_store
from appliance.accounts.persons import Persons, Register
from appliance.accounts.reader import Reader
from appliance.accounts.registry import Registry
from appliance.accounts.store import Store
from appliance.accounts.watch import Watch
from appliance.config import Allowance, Config, Settings
from appliance.errors import BooksUnavailable

_PATIENCE = 60.0
"""Seconds in which a database server has to come up that was started with, or after, the appliance."""


class Office:
    """What the appliance has of `appliance.accounts` while it runs."""

    def __init__(
        self, store: Store, registry: Registry, pepper: bytes, settings: Settings, persons: Register | None
    ) -> None:
        accounts = settings.accounts
        self.keys = Keyring(pepper)
        self.persons = Persons(persons, self.keys.owner, veiled=settings.audit.works_council)
        self.watch = Watch(self.keys, registry, tell=self._allow)
        # the name of this run, so that whoever shares the books can tell what it left open
        name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self.bookkeeper = Bookkeeper(store, settings.priced, appliance=name, persons=self.persons)
        self.reader = Reader(store, accounts, persons=self.persons, rotated=self.keys.rotated)
        self.identity: Identity | None = None
        """Who else lets people in, where the house has an identity provider."""
        self._store = store
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        config: Config,
        credentials: Credentials,
        outlet: Path | None,
        say: Callable[[str], None],
        persons: Register | None = None,
    ) -> Office:
        """Open the store, read the keys and take the books over; `outlet` leads to PostgreSQL, where that is the store.

        `persons` has their pseudonyms; without it, works-council mode shows all as the same person. A server
        that doesn't answer is waited for, a minute at most: `say` is told so. Raises `Invalid` for what is wrong in the
        config or the state folder, `BooksUnavailable` when the store can't be opened.
        """
        store = await _store(config, credentials, outlet, say)
        registry, pepper = await asyncio.to_thread(open_registry, config, store, credentials)
        office = cls(store, registry, pepper, config.settings, persons)
        await office.watch.look()
        await office.bookkeeper.open()
        office._watching = asyncio.create_task(office.watch.run())
        return office

    def apply(self, settings: Settings) -> None:
        """Other settings hold from now on."""
        self.bookkeeper.apply(accounts=settings.priced)
        self.reader.apply(accounts=settings.accounts)

    async def users(self) -> Set[str]:
        """Whose keys there are, by name. Raises `BooksUnavailable`."""
        known = await self.watch.ask(lambda registry: registry.select())
        return {each.user for each in known if each.user is not None}

    async def roles(self, subject: str) -> Set[str]:
        """Those of all keys that ever asked for a subject. Raises `BooksUnavailable`."""
        return await self.watch.ask(lambda _: roles(self._store, subject))

    async def revoke(self, subject: str) -> Set[str]:
        """Refuse all keys and tokens of a subject from now on; the ids of those that ever asked for it.

        Keys for good, tokens for an hour. Raises `BooksUnavailable`.
        """
        scope = scope_of(subject)
        if scope is None:
            return set()
        if self.identity is not None:
            self.identity.refuse(scope)
        return await self.watch.ask(lambda registry: registry.revoke_all(scope))

    async def forget(self, subject: str, key_ids: Set[str]) -> int:
        """Forget it, with what `revoke` told; how many rows of the store named it. Raises `BooksUnavailable`."""
        scope = scope_of(subject)
        return 0 if scope is None else await self.bookkeeper.forget(scope, key_ids)

    async def close(self, seconds: float) -> None:
        """Grant nothing more, and write what is settled, for `seconds` at most."""
        if self._watching is not None:
            self._watching.cancel()
        await self.bookkeeper.close(seconds)
        self.watch.close()
        self.reader.close()
        await asyncio.to_thread(self._store.close, last=True)

    def _allow(self, keys: Mapping[str, Allowance]) -> None:
        self.bookkeeper.apply(keys=keys)
        self.reader.apply(keys=keys)


async def _store(config: Config, credentials: Credentials, outlet: Path | None, say: Callable[[str], None]) -> Store:
    loop = asyncio.get_running_loop()
    ends = loop.time() + _PATIENCE
    while True:
        try:
            return await asyncio.to_thread(open_store, config, outlet, credentials)
        except BooksUnavailable as cause:
            if cause.retry_after is None or loop.time() + cause.retry_after > ends:
                raise
            say(f"waiting for keys and books: {cause}")
            await asyncio.sleep(cause.retry_after)
