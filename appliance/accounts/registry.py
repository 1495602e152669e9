"""What can be done with keys: make, list, rotate, revoke. The command line and /admin/keys both do it here."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from appliance.accounts import keys, roles
from appliance.accounts.entries import Scope
from appliance.accounts.keys import KeyRecord, KeyStore, Rotated
from appliance.config import Accounts, Allowance
from appliance.core import Caller, DataClass, Role, ServiceClass
from appliance.errors import BadRequest, Conflict, NotFound

HOST = "host"
"""Who made a key, if nobody asked for it with one: whoever may read the state folder."""
_ID = re.compile(r"key_[0-9a-f]{1,32}")


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """What a new key is to be. `expires` is in seconds since 1970."""

    name: str = ""
    user: str | None = None
    team: str | None = None
    role: Role = Role.USER
    use_cases: frozenset[str] = frozenset()
    service_class: ServiceClass = ServiceClass.STANDARD
    data_class: DataClass | None = None
    allowance: Allowance | None = None
    expires: float | None = None


def check(order: KeyOrder, accounts: Accounts, models: Collection[str]) -> None:
    """Hold an order to the config. Raises `BadRequest` naming the field."""
    if strange := sorted(order.use_cases - accounts.use_cases.keys()):
        known = ", ".join(sorted(accounts.use_cases)) or "none so far"
        raise BadRequest(
            f"use_cases: {strange[0]} is none of accounts.use_cases in the config ({known})",
            param="use_cases", code="invalid_value",
        )  # fmt: skip
    smaller = order.allowance.step_down_to if order.allowance is not None else None
    if smaller is not None and smaller not in models:
        raise BadRequest(
            f"allowance.step_down_to: there is no model {smaller!r} here",
            param="allowance.step_down_to", code="invalid_value",
        )  # fmt: skip
    free = [model for model in models if model not in accounts.prices.models]
    if free and order.allowance is not None and order.allowance.limits_euros:
        raise BadRequest(
            f"allowance limits euros, and {free[0]!r} has no price: give it one in accounts.prices.models of the "
            "config, if only of 0",
            param="allowance", code="invalid_value",
        )  # fmt: skip


class Registry:
    """The keys in the store.

    `by` is who asks; without one it is whoever has the host, who may do everything. Raises `Forbidden` for a key
    of a role that `by` may not grant, `NotFound` for an id that isn't there, `Conflict` for a key that has ended,
    and `BooksUnavailable` when the store can't be reached.
    """

    def __init__(self, store: KeyStore, pepper: bytes, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._pepper = pepper
        self._clock = clock

    @property
    def empty(self) -> bool:
        """Whether no key was ever made."""
        return not self.store.keys()

    def create(self, order: KeyOrder, by: Caller | None = None) -> tuple[KeyRecord, str]:
        """Make a key: its record, and the key itself, which nobody sees again."""
        _require(by, order.role)
        key, now = keys.make(), self._clock()
        record = KeyRecord(
            id=f"key_{secrets.token_hex(6)}",
            digest=keys.digest_of(key, self._pepper),
            name=order.name,
            created=now,
            created_by=HOST if by is None else by.key_id,
            user=order.user,
            team=order.team,
            role=order.role,
            use_cases=order.use_cases,
            service_class=order.service_class,
            data_class=order.data_class,
            allowance=order.allowance,
            expires=order.expires,
            issued=now,
            issuers=self._issuers(by),
        )
        self.store.add_key(record)
        return record, key

    def select(self, *, user: str | None = None, team: str | None = None, by: Caller | None = None) -> list[KeyRecord]:
        """The keys that `by` may see, oldest first; of one user or team, if named."""
        seen = frozenset(Role) if by is None else roles.grantable(by.role)
        known = self.store.keys()
        return [
            record
            for record in known
            if record.role in seen and user in (None, record.user) and team in (None, record.team)
        ]

    def rotate(
        self, id_: str, overlap_seconds: float, *, expires: float | None = None, by: Caller | None = None
    ) -> tuple[KeyRecord, str]:
        """Make a new key in the place of an old one, which opens for `overlap_seconds` more.

        `expires` is when the new one ends; without it, when the old one would have.
        """
        record = self.find(id_, by)
        now = self._clock()
        if record.state(now) != "active" and (record.revoked is not None or expires is None):
            raise Conflict(f"{record.id} is {record.state(now)}; create a new key", code="key_not_active")
        key = keys.make()
        issuers = self._issuers(by)
        until = None  # without an overlap for good: no clock that is set back, or is late elsewhere, opens it again
        if overlap_seconds:  # an old key that has expired already isn't revived by it
            until = now + overlap_seconds if record.expires is None else min(now + overlap_seconds, record.expires)
            issuers = tuple(dict.fromkeys((*issuers, *record.issuers)))
        digest = keys.digest_of(key, self._pepper)
        if not self.store.rotate_key(record.id, Rotated(digest, until, expires or record.expires, now, issuers)):
            raise Conflict(f"{record.id} was revoked meanwhile; create a new key", code="key_not_active")
        return self.find(id_, by), key

    def _issuers(self, by: Caller | None) -> tuple[str, ...]:
        """Of what is made with the key of `by`. Kept with it, since what that key's own are may change."""
        if by is None:
            return ()
        known = self.store.keys()
        own = next((each.issuers for each in known if each.id == by.key_id), ())
        return tuple(dict.fromkeys((by.key_id, *own)))

    def revoke(self, id_: str, by: Caller | None = None) -> KeyRecord:
        """Let a key open nothing any more, nor the one before it; for good. Twice does nothing."""
        record = self.find(id_, by)
        self.store.revoke_key(record.id, self._clock())
        return self.find(id_, by)

    def revoke_all(self, scope: Scope) -> set[str]:
        """Let no key of a user, or of that id, open anything any more; the ids of all that ever asked for them."""
        return self.store.revoke_all(scope, self._clock())

    def find(self, id_: str, by: Caller | None = None) -> KeyRecord:
        """The key of that id, if `by` may touch it."""
        known = self.store.keys()
        for record in known:
            if record.id == id_:
                _require(by, record.role)
                return record
        # what was given could be a key, and is only repeated if it surely isn't
        shown = f"the id {id_}" if _ID.fullmatch(id_) else "that id"
        raise NotFound(f"there is no key with {shown}", code="unknown_key")


def _require(by: Caller | None, role: Role) -> None:
    if by is not None and role not in roles.grantable(by.role):
        raise roles.not_allowed(f"role {by.role} may not touch keys of role {role}")
