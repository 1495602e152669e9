"""What is counted: the sums of an account against its budgets, and a scope's requests in flight. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Final, NamedTuple

from appliance.accounts.entries import Account, Balance, Scope, Unit
from appliance.accounts.terms import NEVER, Limits

THRESHOLDS: Final = (70, 90, 100)
"""Percent of a budget whose use is worth an event."""


class Mark(NamedTuple):
    """A threshold of an account that was reached."""

    account: Account
    unit: Unit
    percent: int


class Sums:
    """One account: what was used and what is reserved of it, and what it may come to."""

    __slots__ = (
        "account", "changed", "due_nanoeuros", "due_tokens", "limits", "most_nanoeuros", "most_tokens",
        "nanoeuros", "reserved_nanoeuros", "reserved_tokens", "tokens",
    )  # fmt: skip

    def __init__(self, account: Account, balance: Balance) -> None:
        self.account = account
        self.tokens = balance.tokens
        self.nanoeuros = balance.nanoeuros
        self.reserved_tokens = balance.reserved_tokens
        self.reserved_nanoeuros = balance.reserved_nanoeuros
        self.changed = False

    def hold(self, limits: Limits, marks: Set[Mark]) -> None:
        """These limits hold from now on; thresholds in `marks` are no news."""
        self.limits = limits
        refuses = limits.at_limit != "warn"
        self.most_tokens = self.most(Unit.TOKENS) if refuses else NEVER
        self.most_nanoeuros = self.most(Unit.NANOEUROS) if refuses else NEVER
        self.due_tokens = self._due(Unit.TOKENS, marks)
        self.due_nanoeuros = self._due(Unit.NANOEUROS, marks)

    def most(self, unit: Unit) -> int:
        """The budget, whatever follows when it is used up."""
        return self.limits.budgets.get((self.account.span, unit), NEVER)

    def reached(self) -> Iterator[Mark]:
        """The thresholds that what was used has come to."""
        for unit, used in ((Unit.TOKENS, self.tokens), (Unit.NANOEUROS, self.nanoeuros)):
            most = self.most(unit)
            for percent in THRESHOLDS:
                if used >= _share(most, percent):
                    yield Mark(self.account, unit, percent)

    @property
    def balance(self) -> Balance:
        """For the store."""
        return Balance(self.tokens, self.nanoeuros, self.reserved_tokens, self.reserved_nanoeuros)

    def _due(self, unit: Unit, marks: Set[Mark]) -> int:
        """The use at which the next event is due."""
        most = self.most(unit)
        for percent in THRESHOLDS:
            if Mark(self.account, unit, percent) not in marks:
                return _share(most, percent)
        return NEVER


class Holder:
    """One scope: how many of its requests are in flight, and how many may be."""

    __slots__ = ("flying", "most", "scope")

    def __init__(self, scope: Scope, flying: int, most: int) -> None:
        self.scope = scope
        self.flying = flying
        self.most = most


def _share(most: int, percent: int) -> int:
    """The use from which on `percent` of `most` is reached."""
    return NEVER if most == NEVER else -(-most * percent // 100)
