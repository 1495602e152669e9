"""What keys and books do when a person is erased, while the appliance runs (`Office`) and when it doesn't."""

from __future__ import annotations

import time
from collections.abc import Set

from appliance.accounts.entries import Kind, Scope
from appliance.accounts.store import Store


def scope_of(subject: str) -> Scope | None:
    """Whose accounts those of a subject of the log are; None for who has none, such as whoever commands the host.

    A subject is a user by name, or `key:ID` for a key that is nobody's.
    """
    kind, _, name = subject.partition(":")
    if not name:
        return Scope(Kind.USER, subject)
    return Scope(Kind.KEY, name) if kind == "key" else None


def roles(store: Store, subject: str) -> set[str]:
    """Of all keys in `store` that ever asked for a subject. Raises `BooksUnavailable`."""
    known = store.keys()
    return {each.role.value for each in known if subject == (each.user or f"key:{each.id}")}


class AtRest:
    """The accounts of an appliance that doesn't run. All of it raises `BooksUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def users(self) -> Set[str]:
        """Whose keys there are, by name."""
        known = self._store.keys()
        return {each.user for each in known if each.user is not None}

    async def roles(self, subject: str) -> Set[str]:
        """Those of all keys that ever asked for it."""
        return roles(self._store, subject)

    async def revoke(self, subject: str) -> Set[str]:
        """Refuse all keys of a subject from now on; the ids of those that ever asked for it."""
        scope = scope_of(subject)
        return set() if scope is None else self._store.revoke_all(scope, time.time())

    async def forget(self, subject: str, key_ids: Set[str]) -> int:
        """Forget it; how many rows named it."""
        scope = scope_of(subject)
        return 0 if scope is None else self._store.forget(scope, time.time())
