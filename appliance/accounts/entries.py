"""The nouns of the books: whose account, over which time, how much of what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from appliance.core import Request

NANO = 1_000_000_000
"""Nano-euros in a euro. Money is whole numbers of them, so that no sum depends on its order."""


class Kind(StrEnum):
    """What an allowance is given to."""

    KEY = "key"
    USER = "user"
    TEAM = "team"
    USE_CASE = "use_case"


class Span(StrEnum):
    """A stretch of the calendar, in the configured time zone, over which use is summed up."""

    DAY = "day"
    MONTH = "month"


class Unit(StrEnum):
    """What is limited."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    NANOEUROS = "nanoeuros"


class Scope(NamedTuple):
    """A holder of an allowance."""

    kind: Kind
    name: str


class Account(NamedTuple):
    """What a scope used in one day or month; `start` is its first day, `2026-11-22` or `2026-11-01`."""

    scope: Scope
    span: Span
    start: str


class Bucket(NamedTuple):
    """A limit per minute of one scope: it fills evenly and empties as requests come."""

    scope: Scope
    unit: Unit


@dataclass(slots=True)
class Balance:
    """The sums of one account. Reserved is what requests in flight may use at most."""

    tokens: int = 0
    nanoeuros: int = 0
    reserved_tokens: int = 0
    reserved_nanoeuros: int = 0


@dataclass(frozen=True, slots=True)
class Level:
    """What a bucket held at a moment, in its unit; seconds of the clock that its owner uses."""

    level: float
    at: float


@dataclass(frozen=True, slots=True)
class Want:
    """What a request may use at most, and on whose account."""

    key_id: str
    user: str | None
    team: str | None
    use_case: str | None
    model: str
    prompt_tokens: int
    completion_tokens: int
    stepped_down: bool = False
    """True: the smaller model of a used-up budget is asked for, and budgets that lead to it don't refuse."""
    again: bool = False
    """True: limits of requests per minute have counted it, and don't do so twice."""

    @classmethod
    def of(cls, request: Request, model: str | None = None, *, stepped_down: bool = False, again: bool = False) -> Want:
        """What `request` may use at most, of `model` where another than its own answers."""
        caller = request.caller
        return cls(
            key_id=caller.key_id,
            user=caller.user,
            team=caller.team,
            use_case=request.use_case,
            model=request.model if model is None else model,
            prompt_tokens=request.most_prompt_tokens,
            completion_tokens=request.most_completion_tokens,
            stepped_down=stepped_down,
            again=again,
        )

    @property
    def nobodys(self) -> Want:
        """The same with nothing that says who asks."""
        return replace(self, key_id="", user=None)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A want that was granted and isn't settled yet. `number` is unique in one run of one appliance."""

    number: int
    want: Want
    nanoeuros: int
    accounts: tuple[Account, ...]
    opened: float
    """Seconds since 1970."""

    def answered_by(self, model: str | None) -> Reservation:
        """The same, of another model than it was reserved for; None: of that."""
        return self if model is None else replace(self, want=replace(self.want, model=model))

    @property
    def tokens(self) -> int:
        """Prompt and answer together, at most."""
        return self.want.prompt_tokens + self.want.completion_tokens


def nobodys(reservation: Reservation) -> Reservation:
    """The same reservation with nothing that says who asked: whoever did is forgotten before it is settled."""
    accounts = tuple(each for each in reservation.accounts if each.scope.kind not in (Kind.KEY, Kind.USER))
    return replace(reservation, want=reservation.want.nobodys, accounts=accounts)


class UsageKey(NamedTuple):
    """By what use is summed up for `usage`; empty strings stand for none."""

    day: str
    key_id: str
    user: str
    team: str
    use_case: str
    model: str


@dataclass(slots=True)
class Used:
    """Sums of what was used."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    nanoeuros: int = 0
    unsettled: int = 0
    """Requests among them that were booked at their reservation, since the appliance ended before they did."""

    def add(self, used: Used) -> None:
        """Add `used` to this."""
        self.requests += used.requests
        self.prompt_tokens += used.prompt_tokens
        self.completion_tokens += used.completion_tokens
        self.nanoeuros += used.nanoeuros
        self.unsettled += used.unsettled


@dataclass(frozen=True, slots=True)
class Event:
    """An allowance has been used to a threshold. Once for each scope, span, unit and threshold."""

    account: Account
    unit: Unit
    percent: int
    at: float
    """Seconds since 1970."""


@dataclass(slots=True)
class Changes:
    """What has come into the books and not yet into the store. Balances are absolute, used is to be added.

    There is an account for each scope that a request names, whether it is limited or not, so that an allowance given
    in the middle of a month counts what was used before. The sums of `used` and of open reservations say the same.
    """

    balances: dict[Account, Balance] = field(default_factory=dict)
    levels: dict[Bucket, Level] = field(default_factory=dict)
    opened: list[Reservation] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    """Numbers of reservations that are settled."""
    used: dict[UsageKey, Used] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
