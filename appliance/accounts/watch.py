"""Keeps the keys in memory like those in the store, so that a revoked key is refused within a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from appliance.accounts.keys import KeyRecord, Keyring
from appliance.accounts.registry import Registry
from appliance.config import Allowance
from appliance.errors import BooksUnavailable

T = TypeVar("T")
_PATIENCE = 10.0
"""Seconds that somebody waits for the store before a 503."""
_STEP = 0.02
"""Seconds from one look for unknown keys to the next, however many are tried."""
_GLANCE = 1.0
"""Seconds that whoever came with an unknown key waits for a look."""


class Watch:
    """Renews `keyring` whenever the version of the keys in the store has changed.

    Looks four times a second, and sooner when somebody comes with a key that isn't known: it may be new.
    All calls to the store go through one thread of its own, one after the other, so a store that hangs holds up
    no request: the keyring refuses by itself what wasn't confirmed for too long, and goes on when it is again.
    What was read takes effect in the event loop; so `tell` is called there, with the allowances of those keys
    that have one of their own, whenever a key has changed.
    """

    def __init__(
        self,
        keyring: Keyring,
        registry: Registry,
        tell: Callable[[Mapping[str, Allowance]], None] | None = None,
        *,
        every: float = 0.25,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keyring = keyring
        self._registry = registry
        self._tell = tell
        self._every = every
        self._monotonic = monotonic
        self._version: int | None = None
        self._coming: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")

    async def run(self) -> None:
        """Look until cancelled; never raises for want of the store."""
        lost = False
        while True:
            try:
                await self.look()
            except Exception as cause:  # whatever it is, looking goes on: this is what lets callers in again
                if not lost:
                    _log().error("keys can't be read: %s", _told(cause))
                lost = True
            else:
                if lost:
                    _log().warning("keys can be read again")
                lost = False
            await asyncio.sleep(self._every)

    async def freshen(self) -> None:
        """Wait for a look that begins after this was called, a second at most. All who ask meanwhile share it."""
        if self._coming is None:
            self._coming = asyncio.create_task(self._glance())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._coming), _GLANCE)

    async def _glance(self) -> None:
        await asyncio.sleep(_STEP)
        self._coming = None  # whoever asks from now on has to see what is written from now on
        with contextlib.suppress(Exception):  # `run` tells of it, and the key stays unknown
            await self.look()

    async def look(self) -> None:
        """Look once; what is new has taken effect when this returns. Raises `BooksUnavailable`."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._look, loop)

    async def ask(self, work: Callable[[Registry], T]) -> T:
        """Do something with the registry; what it changed has taken effect here when this returns.

        Raises what `work` does, and `BooksUnavailable` when the store doesn't answer.
        """
        loop = asyncio.get_running_loop()

        def done() -> T:
            result = work(self._registry)
            with contextlib.suppress(BooksUnavailable):  # it is done: whoever made a key has to be told it
                self._look(loop)
            return result

        try:
            return await asyncio.wait_for(loop.run_in_executor(self._thread, done), _PATIENCE)
        except (TimeoutError, BooksUnavailable) as cause:  # what the store says is for administrators of this host
            _log().error("keys can't be read or changed: %s", _told(cause))
            raise BooksUnavailable(
                "the store of keys doesn't answer; look whether the change was made before you try again",
                code="keys_unavailable", retry_after=10,
            ) from None  # fmt: skip

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        began = self._monotonic()
        version = self._registry.store.keys_version()
        # the version was read first, so a change between the two calls is seen at the next look
        records = self._registry.store.keys() if version != self._version else None
        loop.call_soon_threadsafe(self._take, version, records, began)

    def _take(self, version: int, records: list[KeyRecord] | None, began: float) -> None:
        if records is not None:
            self._keyring.renew(records)
            if self._tell is not None:
                self._tell({each.id: each.allowance for each in records if each.allowance is not None})
            self._version = version  # last: what the books couldn't take is told again, and nobody comes in on it
        self._keyring.confirm(began)


def _told(cause: Exception) -> str:
    return str(cause) if isinstance(cause, BooksUnavailable) else type(cause).__name__


def _log() -> logging.Logger:
    return logging.getLogger("appliance.accounts")
