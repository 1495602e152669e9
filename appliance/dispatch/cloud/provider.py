"""What a provider is here: it answers a body in its own dialect with events, or fails in one of few ways."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from appliance.clearance import NotCleared
from appliance.core import Request
from appliance.dispatch.cloud.events import Event
from appliance.errors import BadRequest

Clear = Callable[[str, str, str, bytes], Awaitable[str]]
"""From provider, method, target and final bytes to the clearance; raises `NotCleared`."""

Body = dict[str, Any]
SAMPLING = frozenset({"temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed"})
"""Wishes of how to draw tokens. An answer without them is the same answer, so they are left out where unknown."""

_LONGEST_WAIT = 600.0
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window)|maximum context|(?:prompt|input) is too long|too many (?:input )?tokens|"
    r"exceeds? the (?:maximum|context|model)|string_above_max_length|request_too_large"
)
_TOO_MUCH = re.compile(r"max_(?:completion_)?tokens")
_UNKNOWN = re.compile(
    r"unsupported|not support|deprecated|not permitted|not allowed|unknown|unrecognized|only the default"
)
_SAMPLING = re.compile(r"\b(?:" + "|".join(sorted(SAMPLING)) + r")\b")


class Unfit(Exception):
    """This request is nothing for this provider; another may take it."""


class TooPicky(Unfit):
    """It would take the request without its wishes of how to sample."""


class Why(StrEnum):
    """How a provider failed. These words stand in the log."""

    BUSY = "busy"
    """It asks for patience: 429, 503, 529."""
    KEY = "key"
    """It doesn't take the key, or the account is out of money."""
    NO_MODEL = "no_model"
    UNREACHABLE = "unreachable"
    SLOW = "slow"
    """No token came in time."""
    BROKEN = "broken"
    """An error of its own, or an answer that broke off or that nobody can read."""


class Failed(Exception):
    """A provider did not answer. Its own words are not kept: they may repeat what it was asked."""

    def __init__(self, why: Why, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(f"{why}" if status is None else f"{why} ({status})")
        self.why = why
        self.retry_after = retry_after
        self.taken = status is None and why in (Why.SLOW, Why.BROKEN)
        """Whether the provider took the request up, so that it may charge for it."""


class Provider(Protocol):
    """One provider."""

    def body(self, request: Request, payload: Body, model: str, *, plain: bool) -> Body:
        """The provider's own form of `payload`, which is in the caller's dialect. Raises `Unfit`.

        `plain` leaves out the wishes of how to sample.
        """

    def events(self, body: Body, clear: Clear) -> AsyncGenerator[Event, None]:
        """Ask, and yield the answer as it comes. Close it in any case.

        Raises `Failed`, `Unfit`, `NotCleared` and, for what the provider finds wrong with the request, `BadRequest`.
        """


def failure(status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    """What a refusal means, the provider's or the outlet's own."""
    told = body[:65536].decode(errors="replace").lower()
    if _from_outlet(body):
        return NotCleared("the outlet took no clearance for it") if status == 403 else Failed(Why.UNREACHABLE)
    if status in (401, 402, 403) or (status == 429 and "insufficient_quota" in told):
        return Failed(Why.KEY, status=status)
    if status in (429, 503, 529):
        return Failed(Why.BUSY, status=status, retry_after=_seconds(headers))
    if status in (400, 413, 422):
        if _TOO_LONG.search(told) or status == 413:
            return Unfit("too long")
        if _UNKNOWN.search(told):
            return TooPicky("sampling") if _SAMPLING.search(told) else Unfit("unknown field")
        if _TOO_MUCH.search(told):
            return Unfit("longer answers than it gives")
        return BadRequest("the provider refused this request as invalid", code="provider_refused")
    return Failed(Why.NO_MODEL if status == 404 else Why.BROKEN, status=status)


def meaning(raised: Exception) -> Exception:
    """What an SDK raised: one of ours, perhaps wrapped into its own, or else an answer that nobody can read."""
    cause: BaseException | None = raised
    while cause is not None:
        if isinstance(cause, Failed | Unfit | NotCleared | BadRequest):
            return cause
        cause = cause.__cause__
    return Failed(Why.BROKEN)


def _from_outlet(body: bytes) -> bool:
    try:
        return bool(json.loads(body)["error"]["code"] == "outlet")
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def _seconds(headers: Mapping[str, str]) -> float | None:
    """What `retry-after` asks for; a date is not read, since clocks differ."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", told := headers.get(name, "")):
            return min(float(told) / unit, _LONGEST_WAIT)
    return None
