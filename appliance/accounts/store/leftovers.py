"""Reservations whose appliance ended before they were settled: they are booked in full, so that no budget gains."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from appliance.accounts.entries import Account, Balance, Changes, Reservation, UsageKey, Used


def booked(left: Iterable[Reservation], balances: dict[Account, Balance], day_of: Callable[[float], str]) -> Changes:
    """What follows for the books. `balances` are those of all accounts in `left`, and are changed."""
    changes = Changes(balances=balances)
    for each in left:
        want = each.want
        for account in each.accounts:
            balance = balances.setdefault(account, Balance())
            balance.tokens += each.tokens
            balance.nanoeuros += each.nanoeuros
            balance.reserved_tokens = max(0, balance.reserved_tokens - each.tokens)
            balance.reserved_nanoeuros = max(0, balance.reserved_nanoeuros - each.nanoeuros)
        names = (want.user or "", want.team or "", want.use_case or "", want.model)
        used = changes.used.setdefault(UsageKey(day_of(each.opened), want.key_id, *names), Used())
        used.requests += 1
        used.prompt_tokens += want.prompt_tokens
        used.completion_tokens += want.completion_tokens
        used.nanoeuros += each.nanoeuros
        used.unsettled += 1
    return changes
