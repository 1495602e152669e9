"""Reads for people what was used. Answers come from the store, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any, Protocol, TypeVar

from appliance.accounts import statement
from appliance.accounts.calendar import Calendar
from appliance.accounts.entries import Event, Kind, Used
from appliance.accounts.persons import Persons
from appliance.accounts.statement import Books, Question, Row
from appliance.accounts.terms import Terms
from appliance.config import Accounts, Allowance, is_cloud_name
from appliance.core import BY_TOKEN, Caller
from appliance.errors import BooksUnavailable

T = TypeVar("T")
_PAGE_ROWS = 200
_PATIENCE = 10.0
"""Seconds that somebody waits for the store before a 503."""


class Shelf(Books, Protocol):
    """The store, as far as it is asked here."""

    def events(self, limit: int) -> list[Event]:
        """The newest events first."""


class Reader:
    """Answers about use, one after the other, so that somebody who asks for years holds up no request for a model.

    All of it raises `BooksUnavailable` when the store doesn't answer; why is in the log, and not in the message.
    """

    def __init__(
        self,
        shelf: Shelf,
        accounts: Accounts,
        keys: Mapping[str, Allowance] | None = None,
        clock: Callable[[], float] = time.time,
        persons: Persons | None = None,
        rotated: Callable[[str], float | None] | None = None,
    ) -> None:
        """`keys`: allowances of those keys that have one of their own. The store stays its owner's to close.

        `persons` says how people are shown to others; None: by name. `rotated` tells when a key was, by its id.
        """
        self._shelf = shelf
        self._persons = persons or Persons()
        self._rotated = rotated
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage")
        self._accounts = accounts
        self._keys: Mapping[str, Allowance] = keys or {}
        self.apply()

    def apply(self, accounts: Accounts | None = None, keys: Mapping[str, Allowance] | None = None) -> None:
        """Other settings, or other allowances of keys, hold from now on."""
        self._accounts = self._accounts if accounts is None else accounts
        self._keys = self._keys if keys is None else keys
        self._terms = Terms(self._accounts, self._keys)

    @property
    def zone(self) -> str:
        """The time zone of days and months."""
        return self._accounts.time_zone

    def today(self) -> date:
        """The day that it is in the calendar's zone."""
        return date.fromisoformat(Calendar(self._accounts.zone).at(self._clock()).day)

    async def own(self, caller: Caller) -> dict[str, Any]:
        """What `caller` used, and what is left to it: see `statement.own`."""
        terms, calendar, now = self._terms, Calendar(self._accounts.zone), self._clock()
        since = self._since(caller, calendar)
        return await self._ask(lambda: statement.own(self._shelf, terms, calendar, caller, now, since))

    def _since(self, caller: Caller, calendar: Calendar) -> str | None:
        """Since which day `caller` surely used what was used with the key; None: whoever asks may know it all.

        Whoever made or rotated a person's key could ask with it, and would learn under a name what is shown to others
        by pseudonym only. The identity provider's tokens are made by no administrator of ours.
        """
        if not self._persons.veiled or caller.user is None or caller.key_id.startswith(BY_TOKEN):
            return None
        rotated = self._rotated(caller.key_id) if self._rotated is not None else None
        if rotated is None:
            return ""
        return (date.fromisoformat(calendar.day(rotated)) + timedelta(days=1)).isoformat()

    async def pages(self, question: Question, total: Used) -> AsyncIterator[list[Row]]:
        """The rows that answer `question`, added up in `total`: see `statement.pages`. At least one page, of few rows.

        Raises `BadRequest`, before the first page, for a filter that names a person who is shown by pseudonym.

        Between two pages others have their turn, since a month of a whole company takes a while to write.
        """
        pages: Iterator[list[Row]] = statement.pages(self._shelf, question, total, self._persons)
        while (page := await self._ask(lambda: next(pages, None))) is not None:
            for start in range(0, max(1, len(page)), _PAGE_ROWS):
                yield page[start : start + _PAGE_ROWS]
                await asyncio.sleep(0)

    async def events(self, limit: int) -> list[dict[str, Any]]:
        """The newest threshold events."""
        calendar = Calendar(self._accounts.zone)
        found = await self._ask(lambda: self._events(limit))
        return [statement.shown(event, calendar, self._persons) for event in found]

    async def spent(self, day: str) -> int:
        """Nano-euros that stand in the books for models of providers on a day, also of those no config names now."""
        rows = await self._ask(lambda: self._shelf.usage(day, day, None, ("model",)))
        return sum(used.nanoeuros for key, used in rows if is_cloud_name(key.model))

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _events(self, limit: int) -> list[Event]:
        """They name keys only; whose those are that are in no list of keys stands in what they used."""
        found = self._shelf.events(limit)
        for (kind, name), _, start in {event.account for event in found}:
            if kind is Kind.KEY and name.startswith(BY_TOKEN) and self._persons.owner(name) is None:
                for used_by, _ in self._shelf.usage(start, "9999-12-31", None, ("user",), {"key_id": name}):
                    self._persons.meet(name, used_by.user)
        return found

    async def _ask(self, work: Callable[[], T]) -> T:
        asked = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.wait_for(asked, _PATIENCE)
        except BooksUnavailable as cause:
            logging.getLogger("appliance.accounts").error("usage can't be read: %s", cause)
            reason = str(cause)
        except TimeoutError:
            reason = f"no answer within {_PATIENCE:g} s"
        raise BooksUnavailable(
            "usage can't be read at the moment; try again shortly", code="books_unavailable", retry_after=5,
            reason=reason,
        )  # fmt: skip
