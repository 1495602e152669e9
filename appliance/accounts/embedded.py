"""Books of one appliance alone: decided in memory at once, written in groups."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Protocol, TypeVar

from appliance.accounts.books import Books
from appliance.accounts.calendar import Period
from appliance.accounts.departed import Departed
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
    Want,
)
from appliance.accounts.health import Health, refusal, tell, tell_left, tell_unwritten, why
from appliance.accounts.persons import Persons
from appliance.accounts.rules import Rules
from appliance.errors import BooksUnavailable
from appliance.writer import Writer

T = TypeVar("T")
_PAUSE = 0.002
"""Seconds between two groups, in which the next one grows."""
_LINGER = 0.01
"""Seconds that settlements wait for a reservation to go with: then a request costs one group, not two."""
_PATIENCE = 10.0
"""Seconds after which a group that isn't written is held for failed, whatever the store does meanwhile. Reading the
weights of a new model may hold up a disk for some of them, and a request should wait then rather than fail."""
_COPY = 0.2
"""Seconds between two writes of the balances. In this store they are a copy, for whoever asks what is left: the books
themselves are read from what was used, which is written with every group."""
_AGAIN = (0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to write a group that failed; the last is repeated."""


_COLUMNS = {Kind.KEY: "key_id", Kind.USER: "user", Kind.TEAM: "team", Kind.USE_CASE: "use_case"}


class OwnBooks(Protocol):
    """A store that nobody else writes to; `Store` has what each method does."""

    def claim(self, appliance: str) -> None:
        """Say who keeps books here."""

    def recover(self, day_of: Callable[[float], str]) -> list[Reservation]:
        """Book what a run before left open."""

    def usage(
        self, since: str, until: str, per: Span | None, by: Iterable[str] = (), where: Mapping[str, str] | None = None
    ) -> list[tuple[UsageKey, Used]]:
        """Sums of what was used, from one day to another."""

    def commit(self, changes: Changes) -> list[Event]:
        """Write; returns the events that are new."""

    def forget(self, scope: Scope, at: float) -> int:
        """Forget a user, or a key that is nobody's; returns how many rows named it."""


class _Group:
    """Reservations that come to the disk together."""

    __slots__ = ("kept", "waiting")

    def __init__(self) -> None:
        self.kept = False
        self.waiting: list[asyncio.Future[None]] = []

    def wake(self, cause: Callable[[], Exception] | None) -> None:
        """Let all who wait go on, or raise."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            if not each.done():  # it is when its task was cancelled
                if cause is None:
                    each.set_result(None)
                else:
                    each.set_exception(cause())


class EmbeddedBooking:
    """A reservation in memory, and on disk once its group is."""

    __slots__ = ("_desk", "_group", "_reservation", "headers")

    def __init__(
        self, desk: EmbeddedDesk, group: _Group, reservation: Reservation, headers: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        self.headers = headers
        self._desk = desk
        self._group = group
        self._reservation: Reservation | None = reservation

    async def kept(self) -> None:
        """Return once the reservation is on disk. Raises `BooksUnavailable`."""
        if not self._group.kept:
            await self._desk.written(self._group)

    def settle(self, prompt_tokens: int, completion_tokens: int, model: str | None = None) -> None:
        """Book what was used and free the rest."""
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            self._desk.settle(reservation.answered_by(model), prompt_tokens, completion_tokens)


class EmbeddedDesk:
    """`Books` on the event loop, which alone touches them; the thread gets changes to write and nothing else."""

    def __init__(
        self,
        store: OwnBooks,
        rules: Rules,
        appliance: str,
        wall: Callable[[], float],
        clock: Callable[[], float] | None,
        persons: Persons,
        departed: Departed,
    ) -> None:
        self._store = store
        self._rules = rules
        self._appliance = appliance
        self._persons = persons
        self._wall = wall
        self._given_clock = clock
        self._books = Books(rules, departed=departed)
        self._health = Health()
        self._turning: asyncio.Task[None] | None = None
        self._growing = _Group()
        self._writing: _Group | None = None
        self._late: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._hurried = False
        """Whether the timer was set for a reservation, so that it need not be set earlier."""
        self._due = math.inf
        """When the timer ends."""
        self._not_before = 0.0
        self._copied = -math.inf
        self._closed = False
        self._ended = False
        self._quiet = asyncio.Event()

    async def open(self) -> None:
        """Become the owner of the books, and read them."""
        self._loop = asyncio.get_running_loop()
        self._clock = self._given_clock or self._loop.time
        self._writer = Writer("books")
        calendar = self._rules.calendar

        def take_over() -> None:
            self._store.claim(self._appliance)
            tell_left(self._store.recover(calendar.day))

        try:
            await self._writer.ask(take_over)
            await self._turn()
            self._look()
        except BaseException:
            await self._writer.stop(0)
            raise

    async def reserve(self, want: Want) -> EmbeddedBooking:
        """Decide at once; the disk is `kept`'s business."""
        if not self._health.well or self._closed:
            raise refusal()
        wall = self._wall()
        while self._rules.calendar.at(wall) is not self._books.period:
            await self._begin_day()
            wall = self._wall()
        reservation, headers = self._books.reserve(want, wall, self._clock())
        if not self._hurried and self._writing is None:
            self._write_at(self._not_before, hurried=True)
        return EmbeddedBooking(self, self._growing, reservation, headers)

    def settle(self, reservation: Reservation, prompt_tokens: int, completion_tokens: int) -> None:
        """Book in memory; it is written with the next group."""
        self._books.settle(reservation, prompt_tokens, completion_tokens, self._wall(), self._clock())
        soon = self._loop.time() + _LINGER
        if soon < self._due and self._writing is None and not self._ended:
            self._write_at(soon, hurried=False)

    async def written(self, group: _Group) -> None:
        """Return once `group` is on disk. Raises `BooksUnavailable`."""
        self._health.require()
        waiting: asyncio.Future[None] = self._loop.create_future()
        group.waiting.append(waiting)
        await waiting

    def apply(self, rules: Rules) -> None:
        """Other rules from now on."""
        self._rules = rules
        self._books.apply(rules, self._wall())

    async def forget(self, scopes: Set[Scope], work: Callable[[], T]) -> T:
        """Forget in memory, then do `work` in the store, once all is written there that names them."""
        self._books.forget(scopes)
        return await self._writer.ask(work)

    def describe(self) -> dict[str, float]:
        """For metrics."""
        return self._health.describe(self._books.waiting)

    async def close(self, seconds: float) -> None:
        """Grant nothing more, and write what there is."""
        self._closed = True
        ends = self._loop.time() + seconds
        self._look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._late is not None:
            self._late.cancel()
        if self._turning is not None:
            self._turning.cancel()
        if not self._quiet.is_set():
            tell_unwritten()
        await self._writer.stop(max(0.0, ends - self._loop.time()))

    # ---- groups, on the event loop

    def _write_at(self, when: float, *, hurried: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._hurried = hurried
        self._due = when
        self._timer = self._loop.call_at(when, self._write)

    def _write(self) -> None:
        """Hand what has changed to the thread."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._due = math.inf
        self._hurried = False
        group, self._growing = self._growing, _Group()
        self._writing = group
        now = self._loop.time()
        copying = self._closed or now >= self._copied + _COPY
        self._copied = now if copying else self._copied
        changes = self._books.changes(balances=copying)
        self._late = self._loop.call_later(_PATIENCE, self._failed, f"a group took longer than {_PATIENCE:g} s")
        self._writer.do(lambda: self._commit(changes))

    def _look(self) -> None:
        """Set the timer for what waits to be written."""
        if self._writing is not None or self._ended:
            return
        waiting = self._books.waiting
        if self._closed and (waiting or self._books.behind):
            self._write()
        elif self._closed:
            self._quiet.set()
        elif waiting:
            hurried = self._books.opening
            self._write_at(self._loop.time() + (_PAUSE if hurried else _LINGER), hurried=hurried)
        elif self._books.behind:
            self._write_at(self._copied + _COPY, hurried=False)

    def _committed(self) -> None:
        group, self._writing = self._writing, None
        if self._late is not None:
            self._late.cancel()
        self._health.wrote()
        if group is not None:
            group.kept = True
            group.wake(None)
        self._not_before = self._loop.time() + _PAUSE
        self._look()

    def _failed(self, cause: str) -> None:
        self._health.failed(cause)
        for group in (self._writing, self._growing):
            if group is not None:
                group.wake(refusal)

    async def _begin_day(self) -> None:
        """Book on the day that it is now. Raises `BooksUnavailable` for callers."""
        if self._turning is None or self._turning.done():
            self._turning = self._loop.create_task(self._turn())
        try:
            async with asyncio.timeout(_PATIENCE):
                # it goes on when nobody waits any more: a day that takes longer to read would never begin
                await asyncio.shield(self._turning)
        except (BooksUnavailable, TimeoutError) as cause:
            self._health.failed(why(cause))
            if self._writing is None:
                self._write()  # once that works, so does reading
            raise refusal() from None

    async def _turn(self) -> None:
        """The same, with the store's own words when it fails."""
        wall = self._wall()
        period = self._rules.calendar.at(wall)
        balances = await self._writer.ask(lambda: self._read(period))
        self._books.turn(period, balances, wall, self._clock())

    # ---- the thread

    def _read(self, period: Period) -> dict[Account, Balance]:
        """The balances of a day and its month; of what isn't in memory, nothing is in flight."""
        found: dict[Account, Balance] = {}
        for span, first, last in (
            (Span.DAY, period.day, period.day),
            (Span.MONTH, period.month, f"{period.month[:-2]}31"),
        ):
            for kind, column in _COLUMNS.items():
                for key, used in self._store.usage(first, last, None, (column,)):
                    if name := getattr(key, column):
                        tokens = used.prompt_tokens + used.completion_tokens
                        found[Account(Scope(kind, name), span, first)] = Balance(tokens, used.nanoeuros)
        return found

    def _commit(self, changes: Changes) -> None:
        """Write `changes`, and try until it works: they are nowhere else."""
        attempts = 0
        while True:
            try:
                events = self._store.commit(changes)
            except Exception as cause:  # whatever it is, nothing may be granted that can't be booked
                self._writer.tell(self._failed, why(cause))
            else:
                tell(events, self._persons)
                self._writer.tell(self._committed)
                return
            if self._writer.stopping.wait(_AGAIN[min(attempts, len(_AGAIN) - 1)]):
                return
            attempts += 1
