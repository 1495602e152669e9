"""Which limits hold for whom: allowances of the config and of keys, in the units of the books. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from appliance.accounts.entries import Kind, Scope, Span, Unit, Want
from appliance.accounts.prices import nanoeuros
from appliance.config import Accounts, Allowance

NEVER: Final = 2**63
"""More than anything that is counted: the amount of a limit that isn't set."""


@dataclass(frozen=True, slots=True)
class Limits:
    """An allowance in whole numbers. A unit or span that isn't named is not limited."""

    minute: dict[Unit, int]
    budgets: dict[tuple[Span, Unit], int]
    parallel: int
    at_limit: Literal["reject", "step_down", "warn"]
    step_down_to: str | None

    @classmethod
    def of(cls, allowance: Allowance) -> Limits:
        """The limits that `allowance` sets."""
        minute = {
            Unit.REQUESTS: allowance.requests_per_minute,
            Unit.TOKENS: allowance.tokens_per_minute,
            Unit.NANOEUROS: _nanoeuros(allowance.euros_per_minute),
        }
        budgets = {
            (Span.DAY, Unit.TOKENS): allowance.tokens_per_day,
            (Span.DAY, Unit.NANOEUROS): _nanoeuros(allowance.euros_per_day),
            (Span.MONTH, Unit.TOKENS): allowance.tokens_per_month,
            (Span.MONTH, Unit.NANOEUROS): _nanoeuros(allowance.euros_per_month),
        }
        return cls(
            minute={unit: most for unit, most in minute.items() if most is not None},
            budgets={which: most for which, most in budgets.items() if most is not None},
            parallel=NEVER if allowance.parallel_requests is None else allowance.parallel_requests,
            at_limit=allowance.at_limit,
            step_down_to=allowance.step_down_to,
        )


UNLIMITED: Final = Limits({}, {}, NEVER, "reject", None)


class Terms:
    """The limits of every scope: its own, else what each of its kind has."""

    def __init__(self, accounts: Accounts, keys: Mapping[str, Allowance]) -> None:
        """`keys`: the allowances of those keys that have one of their own, by key id."""
        named: dict[Kind, Mapping[str, Allowance]] = {
            Kind.KEY: keys, Kind.USER: accounts.users, Kind.TEAM: accounts.teams, Kind.USE_CASE: accounts.use_cases,
        }  # fmt: skip
        self._own = {
            Scope(kind, name): allowance for kind, allowances in named.items() for name, allowance in allowances.items()
        }
        self._limits: dict[Scope, Limits] = {}
        """Of those in `_own` that were asked for: to reckon all took half a second with 10,000 keys."""
        self._each = {
            Kind.KEY: Limits.of(accounts.each_key),
            Kind.USER: Limits.of(accounts.each_user),
            Kind.TEAM: Limits.of(accounts.each_team),
            Kind.USE_CASE: UNLIMITED,
        }

    def limits(self, scope: Scope) -> Limits:
        """What holds for `scope`."""
        limits = self._limits.get(scope)
        if limits is None:
            own = self._own.get(scope)
            if own is None:
                return self._each[scope.kind]
            limits = self._limits[scope] = Limits.of(own)
        return limits


def scopes(want: Want) -> tuple[Scope, ...]:
    """Whose accounts `want` goes to."""
    named = ((Kind.KEY, want.key_id), (Kind.USER, want.user), (Kind.TEAM, want.team), (Kind.USE_CASE, want.use_case))
    return tuple(Scope(kind, name) for kind, name in named if name)


def _nanoeuros(euros: float | None) -> int | None:
    return None if euros is None else nanoeuros(euros)
