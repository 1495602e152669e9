"""A store of books in memory. It can fail, hang, be locked, and lose the answer to a commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from appliance.accounts.entries import (
    Account,
    Balance,
    Bucket,
    Changes,
    Event,
    Level,
    Reservation,
    Scope,
    Span,
    UsageKey,
    Used,
)
from appliance.accounts.store import Group, Look
from appliance.accounts.store.leftovers import booked
from appliance.accounts.terms import scopes
from appliance.errors import BooksUnavailable


@dataclass
class Disk:
    """What is kept, for as many stores as look at it."""

    balances: dict[Account, Balance] = field(default_factory=dict)
    levels: dict[Bucket, Level] = field(default_factory=dict)
    open: dict[tuple[str, int], Reservation] = field(default_factory=dict)
    used: dict[UsageKey, Used] = field(default_factory=dict)
    events: dict[tuple[Account, str, int], Event] = field(default_factory=dict)
    now: float = 1_800_000_000.0
    lock: threading.RLock = field(default_factory=threading.RLock)


class FakeStore:
    """A store as one appliance sees it."""

    def __init__(self, disk: Disk | None = None, *, shared: bool = False) -> None:
        self.disk = disk or Disk()
        self.shared = shared
        self.failing: str | None = None
        """Why every transaction fails, while it is set."""
        self.loses_answers = False
        """While true, a transaction is kept, and then fails all the same."""
        self.running = threading.Event()
        """While cleared, transactions hang."""
        self.running.set()
        self.commits = 0
        self.beats = 0
        self.appliance = ""

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        assert self.running.wait(30), "nobody let the store go on"
        if self.failing is not None:
            raise BooksUnavailable(self.failing)
        with self.disk.lock:
            yield
        self.commits += 1
        if self.loses_answers:
            raise BooksUnavailable("the answer was lost")

    def claim(self, appliance: str) -> None:
        with self._transaction():
            self.appliance = appliance

    def recover(self, day_of: Callable[[float], str]) -> list[Reservation]:
        with self._transaction():
            names = {self.appliance} if self.shared else {appliance for appliance, _ in self.disk.open}
            return self._book(names, day_of)

    def beat(self, day_of: Callable[[float], str]) -> list[Reservation]:
        with self._transaction():
            self.beats += 1
        return []

    def bury(self, appliance: str, day_of: Callable[[float], str]) -> list[Reservation]:
        """What `beat` of another appliance does when this one was silent for too long."""
        with self.disk.lock:
            return self._book({appliance}, day_of)

    def balances(self, accounts: Collection[Account]) -> dict[Account, Balance]:
        with self._transaction():
            return {each: replace(self.disk.balances[each]) for each in accounts if each in self.disk.balances}

    def usage(
        self, since: str, until: str, per: Span | None, by: Iterable[str] = (), where: Mapping[str, str] | None = None
    ) -> list[tuple[UsageKey, Used]]:
        """Over the whole time, as the bookkeeper asks."""
        assert per is None
        assert where is None
        sums: dict[UsageKey, Used] = {}
        with self._transaction():
            for key, used in self.disk.used.items():
                if since <= key.day <= until:
                    kept = {name: getattr(key, name) if name in by else "" for name in UsageKey._fields}
                    _add(sums.setdefault(UsageKey(**kept), Used()), used)
        return list(sums.items())

    def commit(self, changes: Changes) -> list[Event]:
        with self._transaction():
            return self._put(changes)

    @contextmanager
    def group(self, look: Look) -> Iterator[Group]:
        with self._transaction():
            disk = self.disk
            flying = [scope for reservation in disk.open.values() for scope in scopes(reservation.want)]
            put: list[Changes] = []

            def hold(changes: Changes) -> list[Event]:
                put.append(changes)
                return [event for event in changes.events if _name(event) not in disk.events]

            yield Group(
                now=disk.now,
                balances={each: replace(disk.balances[each]) for each in look.accounts if each in disk.balances},
                levels={each: disk.levels[each] for each in look.buckets if each in disk.levels},
                parallel={scope: flying.count(scope) for scope in look.scopes if scope in flying},
                open={number for number in look.numbers if (self.appliance, number) in disk.open},
                put=hold,
            )
            for changes in put:
                self._put(changes)

    def parallel(self, scope: Scope) -> int:
        """Requests in flight."""
        return sum(scope in scopes(reservation.want) for reservation in self.disk.open.values())

    def _put(self, changes: Changes) -> list[Event]:
        disk = self.disk
        disk.balances |= {account: replace(balance) for account, balance in changes.balances.items()}
        disk.levels |= changes.levels
        disk.open |= {(self.appliance, reservation.number): reservation for reservation in changes.opened}
        for number in changes.closed:
            del disk.open[self.appliance, number]
        for key, used in changes.used.items():
            _add(disk.used.setdefault(key, Used()), used)
        fresh = [event for event in changes.events if _name(event) not in disk.events]
        disk.events |= {_name(event): event for event in fresh}
        return fresh

    def _book(self, appliances: set[str], day_of: Callable[[float], str]) -> list[Reservation]:
        left = [reservation for (name, _), reservation in self.disk.open.items() if name in appliances]
        held = {account for reservation in left for account in reservation.accounts}
        self._put(booked(left, {each: self.disk.balances[each] for each in held if each in self.disk.balances}, day_of))
        self.disk.open = {key: each for key, each in self.disk.open.items() if key[0] not in appliances}
        return left


def _name(event: Event) -> tuple[Account, str, int]:
    return event.account, event.unit, event.percent


def _add(sums: Used, used: Used) -> None:
    for name in ("requests", "prompt_tokens", "completion_tokens", "nanoeuros", "unsettled"):
        setattr(sums, name, getattr(sums, name) + getattr(used, name))
