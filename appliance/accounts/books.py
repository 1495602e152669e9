"""The books: who may use how much more, decided in memory. Pure: no clock, no I/O, one thread at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from appliance.accounts import refusals
from appliance.accounts.buckets import Filling, headers
from appliance.accounts.calendar import Period
from appliance.accounts.departed import Departed
from appliance.accounts.entries import (
    Account,
    Balance,
    Bucket,
    Changes,
    Event,
    Kind,
    Level,
    Reservation,
    Scope,
    Span,
    Unit,
    UsageKey,
    Used,
    Want,
    nobodys,
)
from appliance.accounts.plan import Plan
from appliance.accounts.rules import Rules
from appliance.accounts.sums import Holder, Mark, Sums
from appliance.accounts.terms import NEVER, scopes
from appliance.errors import BudgetExceeded, RateLimited


class Granted(NamedTuple):
    """A want that was granted."""

    reservation: Reservation
    headers: tuple[tuple[bytes, bytes], ...]
    """What is left of the limits per minute."""


class Books:
    """What is used and reserved in the current day and month, and the limits that it is held against.

    `wall` is in seconds since 1970, `clock` in seconds of any clock that moves evenly; both may jump.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        first_number: int = 1,
        levels: Mapping[Bucket, Level] | None = None,
        flying: Mapping[Scope, int] | None = None,
        marks: set[Mark] | None = None,
        departed: Departed | None = None,
    ) -> None:
        """Empty books, or those of one group of a shared store.

        Reservations are numbered from `first_number` on. With `levels`, buckets begin as there and are part of
        `changes`; without, they are nobody else's business. `flying`: requests in flight elsewhere. `marks`:
        thresholds whose events are known; reached ones are added. `departed`: on whom nothing may be booked.
        """
        self._rules = rules
        self._departed = Departed() if departed is None else departed
        self._levels = levels
        self._flying_elsewhere = flying or {}
        self._marks = set() if marks is None else marks
        self.next_number = first_number
        self.period = Period("", "", 0.0, 0.0, 0.0)
        """The day and month that new requests are booked on; `turn` moves it."""
        self._sums: dict[Account, Sums] = {}
        self._holders: dict[Scope, Holder] = {}
        self._fillings: dict[Bucket, Filling] = {}
        self._plans: dict[tuple[str, str | None, str | None, str | None], Plan] = {}
        self._flying: dict[int, Plan] = {}
        self._changed_sums: list[Sums] = []
        self._clear_changes()

    def _clear_changes(self) -> None:
        self._changed_fillings: set[Filling] = set()
        self._opened: dict[int, Reservation] = {}
        self._closed: list[int] = []
        self._used: dict[UsageKey, Used] = {}
        self._events: list[Event] = []

    # ---- time and rules

    def turn(self, period: Period, balances: Mapping[Account, Balance], wall: float, clock: float) -> None:
        """Book on `period` from now on. `balances` is what the store knows; what is in memory is newer.

        What no request in flight touches any more leaves memory, so whoever turns back brings balances again.
        Those of books that have no store to share are then in `changes`, too: there they may be old.
        """
        self.period = period
        self._plans.clear()
        current = (period.day, period.month)
        flying = {sums for plan in self._flying.values() for sums in plan.sums}
        self._sums = {
            account: sums
            for account, sums in self._sums.items()
            if account.start in current or sums.changed or sums in flying
        }
        self._marks.difference_update([mark for mark in self._marks if mark.account.start not in current])
        self._holders = {scope: holder for scope, holder in self._holders.items() if holder.flying}
        self._fillings = {
            bucket: filling for bucket, filling in self._fillings.items() if filling.fill(clock) < filling.size
        }
        for account, balance in balances.items():
            if account not in self._sums and account.scope not in self._departed:
                sums = self._account(account, balance)
                self._check(sums, wall)
                if self._levels is None:
                    sums.changed = True
                    self._changed_sums.append(sums)

    def apply(self, rules: Rules, wall: float) -> None:
        """Other rules hold from now on, for what is used already, too."""
        self._rules = rules
        self._plans.clear()
        for holder in self._holders.values():
            holder.most = rules.terms.limits(holder.scope).parallel
        for bucket, filling in list(self._fillings.items()):
            size = rules.terms.limits(bucket.scope).minute.get(bucket.unit)
            if size is None:
                del self._fillings[bucket]
            else:
                filling.resize(size)
        for sums in self._sums.values():
            sums.hold(rules.terms.limits(sums.account.scope), self._marks)
            self._check(sums, wall)

    def forget(self, scopes: Set[Scope]) -> None:
        """Know nothing of these any more: `departed` names them. Their requests in flight end on the others' accounts.

        Where users are among them, so have to be the keys that asked for them.
        """
        self._plans.clear()
        for number, plan in self._flying.items():
            if any(account.scope in scopes for account in plan.accounts):
                self._flying[number] = plan.without(scopes)
                if number in self._opened:
                    self._opened[number] = nobodys(self._opened[number])
        self._sums = {account: sums for account, sums in self._sums.items() if account.scope not in scopes}
        self._changed_sums = [sums for sums in self._changed_sums if sums.account.scope not in scopes]
        self._holders = {scope: holder for scope, holder in self._holders.items() if scope not in scopes}
        self._fillings = {bucket: each for bucket, each in self._fillings.items() if bucket.scope not in scopes}
        self._changed_fillings = {each for each in self._changed_fillings if each.bucket.scope not in scopes}
        self._marks.difference_update([mark for mark in self._marks if mark.account.scope in scopes])
        self._events = [event for event in self._events if event.account.scope not in scopes]
        used, self._used = self._used, {}
        for key, each in used.items():
            theirs = Scope(Kind.KEY, key.key_id) in scopes or Scope(Kind.USER, key.user) in scopes
            self._used.setdefault(key._replace(key_id="", user="") if theirs else key, Used()).add(each)

    # ---- requests

    def reserve(self, want: Want, wall: float, clock: float) -> Granted:
        """Set aside what `want` may use at most, on all its accounts or, when one refuses, on none.

        Raises `BudgetExceeded` or `RateLimited`, and `Unauthenticated` for who was erased a moment ago.
        """
        self._departed.refuse(want)
        plan = self._plans.get((want.key_id, want.user, want.team, want.use_case)) or self._plan(want, self.period)
        tokens = want.prompt_tokens + want.completion_tokens
        nanoeuros = self._rules.prices.cost(want.model, want.prompt_tokens, want.completion_tokens)
        for sums in plan.limited:
            if (
                sums.tokens + sums.reserved_tokens + tokens > sums.most_tokens
                or sums.nanoeuros + sums.reserved_nanoeuros + nanoeuros > sums.most_nanoeuros
            ) and not (want.stepped_down and sums.limits.step_down_to == want.model):
                raise self._used_up(want, plan, sums, tokens, nanoeuros, wall, clock)
        for holder in plan.holders:
            if holder.flying >= holder.most:
                raise refusals.too_many_at_once(holder.scope, holder.most, self._headers(plan, clock))
        if plan.fillings:
            self._take(want, plan, tokens, nanoeuros, clock)

        for sums in plan.sums:
            sums.reserved_tokens += tokens
            sums.reserved_nanoeuros += nanoeuros
            if not sums.changed:
                sums.changed = True
                self._changed_sums.append(sums)
        for holder in plan.holders:
            holder.flying += 1
        number = self.next_number
        self.next_number = number + 1
        reservation = Reservation(number, want, nanoeuros, plan.accounts, wall)
        self._flying[number] = plan
        self._opened[number] = reservation
        return Granted(reservation, headers(plan.requests, plan.tokens) if plan.fillings else ())

    def settle(
        self, reservation: Reservation, prompt_tokens: int, completion_tokens: int, wall: float, clock: float
    ) -> None:
        """Book what was used, even if it is more than was reserved, and free the rest. Once for each reservation."""
        plan = self._flying.pop(reservation.number, None) or self._plan_of(reservation)
        want = reservation.want.nobodys if plan.nobodys else reservation.want
        tokens = prompt_tokens + completion_tokens
        nanoeuros = self._rules.prices.cost(want.model, prompt_tokens, completion_tokens)
        reserved_tokens, reserved_nanoeuros = reservation.tokens, reservation.nanoeuros
        for sums in plan.sums:
            sums.tokens += tokens
            sums.nanoeuros += nanoeuros
            sums.reserved_tokens -= reserved_tokens
            sums.reserved_nanoeuros -= reserved_nanoeuros
            if not sums.changed:
                sums.changed = True
                self._changed_sums.append(sums)
            if sums.tokens >= sums.due_tokens or sums.nanoeuros >= sums.due_nanoeuros:
                self._check(sums, wall)
        for holder in plan.holders:
            holder.flying -= 1
        self._give_back(plan.tokens, reserved_tokens - tokens, clock)
        self._give_back(plan.nanoeuros, reserved_nanoeuros - nanoeuros, clock)
        if self._opened.pop(reservation.number, None) is None:
            self._closed.append(reservation.number)
        if tokens:
            self._use(reservation.accounts[0].start, want, prompt_tokens, completion_tokens, nanoeuros)

    # ---- the store

    @property
    def waiting(self) -> int:
        """Reservations and settlements that the store doesn't have yet."""
        return len(self._opened) + len(self._closed) + len(self._used)

    @property
    def opening(self) -> bool:
        """Whether reservations are among them."""
        return bool(self._opened)

    @property
    def behind(self) -> bool:
        """Whether balances have changed that the store doesn't have yet."""
        return bool(self._changed_sums)

    def counts(self) -> dict[str, int]:
        """How much is held in memory."""
        return {
            "accounts": len(self._sums),
            "scopes": len(self._holders),
            "buckets": len(self._fillings),
            "marks": len(self._marks),
            "in flight": sum(holder.flying for holder in self._holders.values()),
        }

    def changes(self, *, balances: bool = True) -> Changes:
        """What the store doesn't have yet; from now on that is the caller's to keep. Balances may stay for later."""
        changed: list[Sums] = []
        if balances:
            changed, self._changed_sums = self._changed_sums, changed
        changes = Changes(
            balances={sums.account: sums.balance for sums in changed},
            levels={filling.bucket: filling.known for filling in self._changed_fillings},
            opened=list(self._opened.values()),
            closed=self._closed,
            used=self._used,
            events=self._events,
        )
        for sums in changed:
            sums.changed = False
        self._clear_changes()
        return changes

    # ---- inside

    def _take(self, want: Want, plan: Plan, tokens: int, nanoeuros: int, clock: float) -> None:
        """Take from all buckets or from none. Raises `RateLimited`."""
        costs = (0 if want.again else 1, tokens, nanoeuros)
        for filling, unit in plan.fillings:
            if filling.lacks(costs[unit], clock):
                raise self._too_fast(want, plan, costs, clock)
        for filling, unit in plan.fillings:
            filling.move(costs[unit], clock)
        if self._levels is not None:
            self._changed_fillings.update(filling for filling, _ in plan.fillings)

    def _too_fast(self, want: Want, plan: Plan, costs: tuple[int, int, int], clock: float) -> RateLimited:
        """Of the bucket that a request can never fit, else of the one that takes longest."""
        told = self._headers(plan, clock)
        longest = max(plan.fillings, key=lambda each: each[0].seconds_to(costs[each[1]]))
        for filling, unit in plan.fillings:
            if costs[unit] > filling.size:
                return refusals.never_fits(want, *filling.bucket, int(filling.size), costs[unit], told)
        filling, unit = longest
        return refusals.too_fast(*filling.bucket, int(filling.size), filling.seconds_to(costs[unit]), told)

    def _give_back(self, fillings: Sequence[Filling], amount: int, clock: float) -> None:
        for filling in fillings:
            filling.move(-amount, clock)
            if self._levels is not None:
                self._changed_fillings.add(filling)

    def _use(self, day: str, want: Want, prompt_tokens: int, completion_tokens: int, nanoeuros: int) -> None:
        key = UsageKey(day, want.key_id, want.user or "", want.team or "", want.use_case or "", want.model)
        used = self._used.get(key)
        if used is None:
            used = self._used[key] = Used()
        used.requests += 1
        used.prompt_tokens += prompt_tokens
        used.completion_tokens += completion_tokens
        used.nanoeuros += nanoeuros

    def _check(self, sums: Sums, wall: float) -> None:
        """Note the events that are due on one account."""
        fresh = [mark for mark in sums.reached() if mark not in self._marks]
        if fresh:
            self._events += [Event(mark.account, mark.unit, mark.percent, wall) for mark in fresh]
            self._marks.update(fresh)
            sums.hold(sums.limits, self._marks)

    def _used_up(
        self, want: Want, plan: Plan, sums: Sums, tokens: int, nanoeuros: int, wall: float, clock: float
    ) -> BudgetExceeded:
        unit, cost, most = Unit.TOKENS, tokens, sums.most_tokens
        left = most - sums.tokens - sums.reserved_tokens
        if cost <= left:
            unit, cost, most = Unit.NANOEUROS, nanoeuros, sums.most_nanoeuros
            left = most - sums.nanoeuros - sums.reserved_nanoeuros
        scope, span, _ = sums.account
        ends = self.period.day_ends if span is Span.DAY else self.period.month_ends
        return refusals.used_up(
            want, scope, span, unit, most=most, left=left, cost=cost, resets=self._rules.calendar.told(ends),
            seconds=ends - wall, step_down_to=sums.limits.step_down_to, headers=self._headers(plan, clock),
        )  # fmt: skip

    def _headers(self, plan: Plan, clock: float) -> tuple[tuple[bytes, bytes], ...]:
        for filling, _ in plan.fillings:
            filling.fill(clock)
        return headers(plan.requests, plan.tokens)

    def _plan_of(self, reservation: Reservation) -> Plan:
        """The plan of a request that other books reserved for."""
        day, month = reservation.accounts[0].start, reservation.accounts[1].start
        return self._plan(reservation.want, Period(day, month, 0.0, 0.0, 0.0))

    def _plan(self, want: Want, period: Period) -> Plan:
        named = scopes(want)
        accounts = accounts_of(named, period)
        sums = tuple(map(self._account, accounts))
        fillings: dict[Unit, list[Filling]] = {unit: [] for unit in Unit}
        for scope in named:
            for unit, size in self._rules.terms.limits(scope).minute.items():
                fillings[unit].append(self._filling(Bucket(scope, unit), size))
        plan = Plan(
            holders=tuple(map(self._holder, named)),
            sums=sums,
            limited=tuple(each for each in sums if min(each.most_tokens, each.most_nanoeuros) < NEVER),
            requests=tuple(fillings[Unit.REQUESTS]),
            tokens=tuple(fillings[Unit.TOKENS]),
            nanoeuros=tuple(fillings[Unit.NANOEUROS]),
            accounts=accounts,
            fillings=tuple((filling, place) for place, unit in enumerate(Unit) for filling in fillings[unit]),
        )
        if period is self.period:
            self._plans[want.key_id, want.user, want.team, want.use_case] = plan
        return plan

    def _account(self, account: Account, balance: Balance | None = None) -> Sums:
        sums = self._sums.get(account)
        if sums is None:
            sums = self._sums[account] = Sums(account, balance or Balance())
            sums.hold(self._rules.terms.limits(account.scope), self._marks)
        return sums

    def _holder(self, scope: Scope) -> Holder:
        holder = self._holders.get(scope)
        if holder is None:
            flying = self._flying_elsewhere.get(scope, 0)
            holder = self._holders[scope] = Holder(scope, flying, self._rules.terms.limits(scope).parallel)
        return holder

    def _filling(self, bucket: Bucket, size: int) -> Filling:
        filling = self._fillings.get(bucket)
        if filling is None:
            level = self._levels.get(bucket) if self._levels is not None else None
            filling = self._fillings[bucket] = Filling(bucket, size, level)
        return filling


def accounts_of(named: tuple[Scope, ...], period: Period) -> tuple[Account, ...]:
    """The day's and the month's account of each scope, in turn."""
    return tuple(
        Account(scope, span, start)
        for scope in named
        for span, start in ((Span.DAY, period.day), (Span.MONTH, period.month))
    )
