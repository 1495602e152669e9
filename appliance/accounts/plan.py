"""What one request touches of the books. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from appliance.accounts.buckets import Filling
from appliance.accounts.entries import Account, Scope
from appliance.accounts.sums import Holder, Sums


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a request of one key, user, team and use case touches on one day."""

    holders: tuple[Holder, ...]
    sums: tuple[Sums, ...]
    limited: tuple[Sums, ...]
    """Of the sums, those that can refuse."""
    requests: tuple[Filling, ...]
    tokens: tuple[Filling, ...]
    nanoeuros: tuple[Filling, ...]
    accounts: tuple[Account, ...]
    fillings: tuple[tuple[Filling, int], ...]
    """All of these buckets, each with the place of its unit in (request, tokens, nano-euros)."""
    nobodys: bool = False
    """Whether whoever asked was forgotten meanwhile."""

    def without(self, scopes: Set[Scope]) -> Plan:
        """What is left of it once these are forgotten."""

        def kept(fillings: Iterable[Filling]) -> tuple[Filling, ...]:
            return tuple(each for each in fillings if each.bucket.scope not in scopes)

        return replace(
            self,
            holders=tuple(each for each in self.holders if each.scope not in scopes),
            sums=tuple(each for each in self.sums if each.account.scope not in scopes),
            limited=tuple(each for each in self.limited if each.account.scope not in scopes),
            requests=kept(self.requests),
            tokens=kept(self.tokens),
            nanoeuros=kept(self.nanoeuros),
            fillings=tuple(each for each in self.fillings if each[0].bucket.scope not in scopes),
            nobodys=True,
        )
