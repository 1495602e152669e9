"""The bookkeeper: reserves what a request may use before it runs, and books what it used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from appliance.accounts.departed import Departed
from appliance.accounts.embedded import EmbeddedDesk, OwnBooks
from appliance.accounts.entries import Kind, Scope, Want
from appliance.accounts.persons import Persons
from appliance.accounts.rules import Rules
from appliance.accounts.shared import JointBooks, SharedDesk
from appliance.config import Accounts, Allowance
from appliance.errors import BooksUnavailable

_PATIENCE = 60.0
"""Seconds in which the store has to forget somebody: it writes all of its pages anew."""


class BookStore(OwnBooks, JointBooks, Protocol):
    """What is needed of `Store`."""

    @property
    def shared(self) -> bool:
        """Whether several appliances keep their books here."""


class Booking(Protocol):
    """A reservation, until it is settled."""

    headers: tuple[tuple[bytes, bytes], ...]
    """`x-ratelimit-*`, ready to send; empty without limits per minute."""

    async def kept(self) -> None:
        """Return once the reservation is on disk. Raises `BooksUnavailable`."""

    def settle(self, prompt_tokens: int, completion_tokens: int, model: str | None = None) -> None:
        """Book what was used and free the rest, of another `model` where that answered.

        Never waits, never raises; twice does nothing.
        """


class Bookkeeper:
    """Books on one store, for one event loop. A single thread of its own speaks to the store."""

    def __init__(
        self,
        store: BookStore,
        accounts: Accounts,
        keys: Mapping[str, Allowance] | None = None,
        *,
        appliance: str = "appliance",
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] | None = None,
        persons: Persons | None = None,
    ) -> None:
        """`keys`: allowances of those keys that have one of their own. `appliance` names this one in a shared store.

        `wall` tells seconds since 1970, `clock` seconds that pass evenly (None: the event loop's). The store stays
        its owner's to close, after the bookkeeper. `persons` says how people are shown in the log; None: as hashes.
        """
        self._accounts = accounts
        self._keys: Mapping[str, Allowance] = keys or {}
        desk = SharedDesk if store.shared else EmbeddedDesk
        self._rules = Rules.of(accounts, self._keys)
        self._persons = persons or Persons()
        self._departed = Departed()
        self._store = store
        self._wall = wall
        self._desk: EmbeddedDesk | SharedDesk = desk(
            store, self._rules, appliance, wall, clock, self._persons, self._departed
        )

    async def open(self) -> None:
        """Take the books over: what a run before left open is booked in full. Raises `BooksUnavailable`."""
        await self._desk.open()

    async def reserve(self, want: Want) -> Booking:
        """Set aside what `want` may use at most. Raises `RateLimited`, `BudgetExceeded` or `BooksUnavailable`.

        `Unauthenticated` is for who was erased while the request was on its way.
        """
        self._departed.refuse(want)
        self._persons.meet(want.key_id, want.user)
        return await self._desk.reserve(want)

    def cost(self, model: str, prompt_tokens: int, completion_tokens: int) -> int:
        """Nano-euros, by the prices that hold now."""
        return self._rules.prices.cost(model, prompt_tokens, completion_tokens)

    def apply(self, accounts: Accounts | None = None, keys: Mapping[str, Allowance] | None = None) -> None:
        """Other settings, or other allowances of keys, hold from now on."""
        self._accounts = self._accounts if accounts is None else accounts
        self._keys = self._keys if keys is None else keys
        self._rules = Rules.of(self._accounts, self._keys, self._rules.calendar)
        self._desk.apply(self._rules)

    async def forget(self, scope: Scope, key_ids: Iterable[str]) -> int:
        """Forget a user, or a key that is nobody's, here and in the store; returns how many rows named it.

        `key_ids` are those of all keys and tokens that asked for it. What is in flight is booked on its team, use case
        and model alone. For an hour nothing is granted to it. Raises `BooksUnavailable`; then call it again.
        """
        scopes = {scope, *(Scope(Kind.KEY, id_) for id_ in key_ids)}
        self._departed.add(scopes)
        self._persons.forget(scopes)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._desk.forget(scopes, lambda: self._store.forget(scope, self._wall()))
        except TimeoutError:
            raise BooksUnavailable(f"the store took longer than {_PATIENCE:g} s", code="books_unavailable") from None

    def describe(self) -> dict[str, float]:
        """For metrics: `well` (1 or 0), `failures` so far, `waiting` entries, `seconds_since_written`."""
        return self._desk.describe()

    async def close(self, seconds: float) -> None:
        """Grant nothing more, and write what is settled, for `seconds` at most."""
        await self._desk.close(seconds)
