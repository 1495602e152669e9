"""Entries for tests of the store."""

from __future__ import annotations

from typing import Any

from appliance.accounts.entries import Account, Kind, Reservation, Scope, Span, Want
from appliance.accounts.keys import KeyRecord
from appliance.config import Allowance
from appliance.core import DataClass, Role, ServiceClass

DAY = "2026-11-22"
MONTH = "2026-11-01"
NAMES = [
    "Zoë Müller",
    'O\'Brien "the" 100%',
    "a\tb\nc\x01\x7f",
    "\\'; DROP TABLE keys; --",
    "{0} %s :name ? $1",
    "名前 🙂",
]
KEY = Scope(Kind.KEY, "key_1")
TEAM = Scope(Kind.TEAM, "red")


def day_of(moment: float) -> str:
    """The calendar of these tests has one day."""
    return DAY


def account(scope: Scope = KEY, span: Span = Span.DAY) -> Account:
    """Of the tests' day or month."""
    return Account(scope, span, DAY if span is Span.DAY else MONTH)


def reservation(number: int, *scopes: Scope, prompt: int = 100, answer: int = 20, **of: Any) -> Reservation:
    """One of 120 tokens and 7 nano-euros, on the day and month of the scopes (of one key where none is named)."""
    want = Want(
        **{"key_id": "key_1", "user": None, "team": "red", "use_case": None, "model": "chat"} | of,
        prompt_tokens=prompt,
        completion_tokens=answer,
    )
    accounts = tuple(account(scope, span) for scope in scopes or (KEY,) for span in Span)
    return Reservation(number, want, 7, accounts, 1795300000.5)


def key(number: int = 1, **changed: Any) -> KeyRecord:
    """A key with everything that there is to keep."""
    whole: dict[str, Any] = {
        "id": f"key_{number}",
        "digest": bytes([number]) * 32,
        "name": f"number {number}",
        "created": 1795300000.125 + number,
        "created_by": "root",
        "user": "zoe",
        "team": "red",
        "role": Role.POWER_USER,
        "use_cases": frozenset({"mail", "chat"}),
        "service_class": ServiceClass.BATCH,
        "data_class": DataClass.CONFIDENTIAL,
        "allowance": Allowance(tokens_per_day=5, euros_per_month=0.1, at_limit="step_down", step_down_to="small"),
        "expires": 1895300000.25,
        "previous": b"\0\xff",
        "previous_until": 1795300001.0,
        "issued": 1795300000.5,
        "issuers": ("key_8", "oidc_9"),
    }
    return KeyRecord(**whole | changed)
