"""How the books say no: which limit of whom, and what to do about it. Pure."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

from appliance.accounts.entries import NANO, Kind, Scope, Span, Unit, Want
from appliance.errors import BudgetExceeded, RateLimited

_OWNER: Final = {
    Kind.KEY: "this API key's", Kind.USER: "your user's", Kind.TEAM: "your team's", Kind.USE_CASE: "this use case's",
}  # fmt: skip
_IN_VAIN: Final = ((b"x-should-retry", b"false"),)
"""Official clients repeat what got a 429 unless told not to."""

Headers = tuple[tuple[bytes, bytes], ...]


def too_many_at_once(scope: Scope, most: int, headers: Headers) -> RateLimited:
    """More requests at the same time than `most`."""
    refusal = RateLimited(
        f"{_OWNER[scope.kind]} limit of {_count(most, 'parallel request')} is reached; wait until one has ended",
        code="rate_limit_exceeded", retry_after=1,
    )  # fmt: skip
    refusal.headers = headers
    return refusal


def too_fast(scope: Scope, unit: Unit, most: int, seconds: float, headers: Headers) -> RateLimited:
    """A minute's limit has not enough left now, and will have in `seconds`."""
    retry_after = max(1, math.ceil(seconds))
    refusal = RateLimited(
        f"{_OWNER[scope.kind]} limit of {amount(unit, most)} a minute is reached; try again in {retry_after} s",
        code="rate_limit_exceeded", retry_after=retry_after,
    )  # fmt: skip
    refusal.headers = headers
    return refusal


def never_fits(want: Want, scope: Scope, unit: Unit, most: int, cost: int, headers: Headers) -> RateLimited:
    """A single request may use more than a whole minute's limit."""
    advice, param = _advice(want, unit, most, cost)
    refusal = RateLimited(
        f"this request may use {amount(unit, cost)}, more than {_OWNER[scope.kind]} limit of "
        f"{amount(unit, most)} a minute; {advice}",
        code="rate_limit_exceeded", param=param,
    )  # fmt: skip
    refusal.headers = headers + _IN_VAIN
    return refusal


def used_up(
    want: Want, scope: Scope, span: Span, unit: Unit, *, most: int, left: int, cost: int, resets: str, seconds: float,
    step_down_to: str | None, headers: Headers,
) -> BudgetExceeded:  # fmt: skip
    """A budget has only `left` of `most`, and `cost` might be needed."""
    budget = f"{_OWNER[scope.kind]} budget of {amount(unit, most)} a {span}"
    param = None
    if left <= 0:
        message = f"{budget} is used up until {resets}"
    else:
        advice, param = _advice(want, unit, left, cost)
        message = (
            f"{budget} has {amount(unit, left)} left until {resets}, and this request may use {amount(unit, cost)}; "
            f"{advice}"
        )
    refusal = BudgetExceeded(message, retry_after=max(1, math.ceil(seconds)), step_down_to=step_down_to)
    refusal.param = param
    refusal.headers = headers + _IN_VAIN
    return refusal


def amount(unit: Unit, number: int) -> str:
    """`1000 tokens`, `1 request`, `0.25 euros`."""
    if unit is Unit.NANOEUROS:
        return f"{(Decimal(number) / NANO).normalize():f} euros"
    return _count(number, str(unit).removesuffix("s"))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _advice(want: Want, unit: Unit, most: int, cost: int) -> tuple[str, str | None]:
    """What the caller can change so that `cost` comes below `most`, and the field to change."""
    share = want.prompt_tokens if unit is Unit.TOKENS else 0  # in euros, the answer's price isn't known here
    if want.completion_tokens and share < most < cost:
        return "lower `max_tokens`", "max_tokens"
    return "send a shorter prompt", None
