"""A group of requests that is decided and booked in one transaction, while no other appliance decides."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from appliance.accounts.entries import Account, Balance, Bucket, Changes, Event, Level, Scope


@dataclass(frozen=True, slots=True)
class Look:
    """What a group needs to know before it is decided."""

    accounts: Collection[Account] = ()
    buckets: Collection[Bucket] = ()
    scopes: Collection[Scope] = ()
    """Whose requests in flight are counted."""
    numbers: Collection[int] = ()
    """Own reservations that are to be settled."""


@dataclass(frozen=True, slots=True)
class Group:
    """What the store held when the group began, and the way to put what was decided."""

    now: float
    """Seconds since 1970 on the database's clock: what levels are measured by."""
    balances: dict[Account, Balance]
    """Those of `Look.accounts` that were ever used."""
    levels: dict[Bucket, Level]
    """Those of `Look.buckets` that were ever used."""
    parallel: dict[Scope, int]
    """Requests in flight at all appliances; scopes without any are left out."""
    open: set[int]
    """Those of `Look.numbers` whose reservation still stands. The others are settled already: by a group whose end
    was never heard of, or by another appliance, which held this one for dead. They may not be settled again."""
    put: Callable[[Changes], list[Event]] = field(repr=False)
    """Write the changes; at most once in a group. Returns the events that are new: log them after the group."""
