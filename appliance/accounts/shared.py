"""Books that several appliances share: each group is decided and written in one transaction of the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import NamedTuple, Protocol, TypeVar

from appliance.accounts.books import Books, Granted, accounts_of
from appliance.accounts.departed import Departed
from appliance.accounts.entries import Account, Balance, Bucket, Event, Reservation, Scope, Want
from appliance.accounts.health import Health, refusal, tell, tell_left, tell_unwritten, why
from appliance.accounts.persons import Persons
from appliance.accounts.rules import Rules
from appliance.accounts.store import Group, Look
from appliance.accounts.sums import Mark
from appliance.accounts.terms import NEVER, Terms, scopes
from appliance.errors import Refused
from appliance.writer import Writer

T = TypeVar("T")
_MOST = 512
"""Wants in a group; the others are the next one's."""
_BEAT = 10.0
"""Seconds between signs of life; an appliance without them for a minute is held for dead by the others."""
_PATIENCE = 10.0
"""Seconds that a want waits for the store."""
_AGAIN = 0.5
"""Seconds until a store that failed is tried again."""


class JointBooks(Protocol):
    """A store that several appliances write to; `Store` has what each method does."""

    def claim(self, appliance: str) -> None:
        """Say who keeps books here."""

    def recover(self, day_of: Callable[[float], str]) -> list[Reservation]:
        """Book what a run before left open."""

    def group(self, look: Look) -> AbstractContextManager[Group]:
        """Look, decide and write while nobody else does."""

    def beat(self, day_of: Callable[[float], str]) -> list[Reservation]:
        """Give a sign of life, and book what the dead left open."""

    def forget(self, scope: Scope, at: float) -> int:
        """Forget a user, or a key that is nobody's; returns how many rows named it."""


class Settlement(NamedTuple):
    """What was used of a reservation."""

    reservation: Reservation
    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class Asked:
    """A want, and the one who waits for the answer to it."""

    want: Want
    answer: asyncio.Future[Granted]


@dataclass(slots=True)
class Decided:
    """What became of one group."""

    answers: list[Granted | Refused] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class SharedBooking:
    """A reservation that is in the store."""

    __slots__ = ("_desk", "_reservation", "headers")

    def __init__(self, desk: SharedDesk, reservation: Reservation, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self.headers = headers
        self._desk = desk
        self._reservation: Reservation | None = reservation

    async def kept(self) -> None:
        """It was kept before it was granted."""

    def settle(self, prompt_tokens: int, completion_tokens: int, model: str | None = None) -> None:
        """Book what was used and free the rest."""
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            self._desk.settle(Settlement(reservation.answered_by(model), prompt_tokens, completion_tokens))


class SharedDesk:
    """Collects wants and settlements; the thread decides them in groups, with `Books` of what the store holds."""

    def __init__(
        self,
        store: JointBooks,
        rules: Rules,
        appliance: str,
        wall: Callable[[], float],
        clock: Callable[[], float] | None,
        persons: Persons,
        departed: Departed,
    ) -> None:
        """`clock` is the store's, so that of the caller isn't asked."""
        del clock
        self._store = store
        self._rules = rules
        self._appliance = appliance
        self._persons = persons
        self._departed = departed
        self._wall = wall
        self._health = Health()
        self._incoming: SimpleQueue[Asked | Settlement | None] = SimpleQueue()
        self._unsettled: list[Settlement] = []
        self._marks: set[Mark] = set()
        self._next_number = 1
        self._closed = False
        self._ending = False
        self._drained = Flag()

    async def open(self) -> None:
        """Say who keeps books here, and book what a run before left open."""
        self._loop = asyncio.get_running_loop()
        self._writer = Writer("books")
        calendar = self._rules.calendar

        def take_over() -> None:
            self._store.claim(self._appliance)
            tell_left(self._store.recover(calendar.day))

        try:
            await self._writer.ask(take_over)
        except BaseException:
            await self._writer.stop(0)
            raise
        self._writer.do(self._run)

    async def reserve(self, want: Want) -> SharedBooking:
        """Wait for the group that decides."""
        self._health.require()
        if self._closed:
            raise refusal()
        answer: asyncio.Future[Granted] = self._loop.create_future()
        self._incoming.put(Asked(want, answer))
        try:
            async with asyncio.timeout(_PATIENCE):
                reservation, headers = await answer
        except BaseException as cause:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self.settle(Settlement(answer.result().reservation, 0, 0))  # granted, but nobody is there to use it
            if not isinstance(cause, TimeoutError):
                raise
            self._health.failed(f"the store took longer than {_PATIENCE:g} s")
            raise refusal() from None
        return SharedBooking(self, reservation, headers)

    def settle(self, settlement: Settlement) -> None:
        """Have it booked with the next group."""
        self._incoming.put(settlement)

    def apply(self, rules: Rules) -> None:
        """Other rules from the next group on."""
        self._rules = rules

    async def forget(self, scopes: Set[Scope], work: Callable[[], T]) -> T:
        """Do `work` in the store. A group that is open there ends before, and `departed` names them for later ones."""
        del scopes
        return await asyncio.to_thread(work)

    def describe(self) -> dict[str, float]:
        """For metrics."""
        return self._health.describe(self._incoming.qsize() + len(self._unsettled))

    async def close(self, seconds: float) -> None:
        """Grant nothing more, and write what is settled."""
        self._closed = True
        self._incoming.put(None)
        if not await asyncio.to_thread(self._drained.wait, seconds):
            tell_unwritten()
        await self._writer.stop(0.1)

    # ---- the event loop

    def _answer(self, asked: list[Asked], answers: list[Granted | Refused]) -> None:
        self._health.wrote()
        for each, answer in zip(asked, answers, strict=True):
            if each.answer.done():  # the caller has gone meanwhile
                if isinstance(answer, Granted):
                    self.settle(Settlement(answer.reservation, 0, 0))
            elif isinstance(answer, Granted):
                each.answer.set_result(answer)
            else:
                each.answer.set_exception(answer)

    def _refuse(self, asked: list[Asked], cause: str) -> None:
        self._health.failed(cause)
        for each in asked:
            if not each.answer.done():
                each.answer.set_exception(refusal())

    # ---- the thread

    def _run(self) -> None:
        """Decide groups until all is settled and the desk is closed, or the writer is stopped."""
        beat_at = time.monotonic() + _BEAT
        well = True
        while not self._writer.stopping.is_set():
            asked = self._collect(max(0.0, beat_at - time.monotonic()) if well and not self._ending else 0.0)
            decided = Decided()
            try:
                if time.monotonic() >= beat_at:
                    tell_left(self._store.beat(self._rules.calendar.day))
                    beat_at = time.monotonic() + _BEAT
                if asked or self._unsettled or not well:
                    self._decide([each.want for each in asked], decided)
            except Exception as cause:  # whatever it is, nothing may be granted that can't be booked
                well = False
                # the transaction may have been committed all the same: what it granted is settled at nothing
                granted = [answer.reservation for answer in decided.answers if isinstance(answer, Granted)]
                self._unsettled += [Settlement(reservation, 0, 0) for reservation in granted]
                self._marks.clear()  # the store knows which events it has
                self._writer.tell(self._refuse, asked, why(cause))
                self._writer.stopping.wait(_AGAIN)
            else:
                well = True
                self._unsettled.clear()
                tell(decided.events, self._persons)
                self._writer.tell(self._answer, asked, decided.answers)
                if self._ending and self._incoming.empty():
                    break
        self._drained.set()

    def _collect(self, seconds: float) -> list[Asked]:
        """Wants that have come in or come within `seconds`; settlements go to `_unsettled`."""
        asked: list[Asked] = []
        try:
            each = self._incoming.get(timeout=seconds) if seconds else self._incoming.get_nowait()
            while True:
                if isinstance(each, Asked):
                    asked.append(each)
                elif isinstance(each, Settlement):
                    self._unsettled.append(each)
                else:
                    self._ending = True
                if len(asked) >= _MOST:
                    break
                each = self._incoming.get_nowait()
        except Empty:
            pass
        return asked

    def _decide(self, wants: list[Want], decided: Decided) -> None:
        """One group: all of it is written, or this raises."""
        rules, wall = self._rules, self._wall()
        self._unsettled = [self._told(settlement) for settlement in self._unsettled]
        period = rules.calendar.at(wall)
        accounts: set[Account] = set()
        for want in wants:
            accounts.update(accounts_of(scopes(want), period))
        for settlement in self._unsettled:
            accounts.update(settlement.reservation.accounts)
        look = _look(accounts, [settlement.reservation.number for settlement in self._unsettled], rules.terms)
        with self._store.group(look) as group:
            books = Books(
                rules, first_number=self._next_number, levels=group.levels, flying=group.parallel, marks=self._marks,
                departed=self._departed,
            )  # fmt: skip
            balances = {account: group.balances.get(account, Balance()) for account in accounts}
            books.turn(period, balances, wall, group.now)
            for settlement in self._unsettled:
                if settlement.reservation.number in group.open:
                    books.settle(*settlement, wall, group.now)
            for want in wants:
                try:
                    decided.answers.append(books.reserve(want, wall, group.now))
                except Refused as refused:
                    decided.answers.append(refused)
            self._next_number = books.next_number
            decided.events = group.put(books.changes())

    def _told(self, settlement: Settlement) -> Settlement:
        """As it may be booked: of somebody who was erased since, as nobody's."""
        reservation = settlement.reservation
        if not self._departed.names(reservation.want):
            return settlement
        return settlement._replace(reservation=replace(reservation, want=reservation.want.nobodys))


def _look(accounts: set[Account], closing: list[int], terms: Terms) -> Look:
    buckets: set[Bucket] = set()
    counted = set()
    for scope in {account.scope for account in accounts}:
        limits = terms.limits(scope)
        buckets.update(Bucket(scope, unit) for unit in limits.minute)
        if limits.parallel != NEVER:
            counted.add(scope)
    return Look(accounts, buckets, counted, closing)
