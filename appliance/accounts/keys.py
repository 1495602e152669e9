"""API keys: shown once, stored only as a keyed hash.

A key is 256 random bits, so a plain keyed hash is enough; there is nothing to guess slowly. Looking a
digest up in a dictionary tells an attacker nothing, since he can't choose digests without the pepper; what is
found is compared in constant time all the same.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple, Protocol

from appliance.accounts.entries import Scope
from appliance.config import Allowance
from appliance.core import Caller, DataClass, Role, ServiceClass
from appliance.errors import BooksUnavailable, Unauthenticated

PREFIX = "sk-appliance-"
LOCAL = "key_local"
"""The id of every key that is lent on this host."""
_LONGEST = 256
_STALE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key. Times are seconds since 1970.

    `id` stays when the key is rotated: `digest` is then that of the new key, `issued` when it was made, and
    `previous`, that of the old one, opens until `previous_until`; None: not any more. `revoked` says since when it
    opens no more. Neither asks what the clock says now.
    """

    id: str
    digest: bytes = field(repr=False)
    name: str
    created: float
    created_by: str
    user: str | None = None
    team: str | None = None
    role: Role = Role.USER
    use_cases: frozenset[str] = frozenset()
    service_class: ServiceClass = ServiceClass.STANDARD
    allowance: Allowance | None = None
    expires: float | None = None
    revoked: float | None = None
    previous: bytes | None = field(default=None, repr=False)
    previous_until: float | None = None
    issued: float = 0.0
    issuers: tuple[str, ...] = ()
    """Ids of the keys whose holders may know what opens: the one it was made or rotated with, the one that that was
    made with, and so on. Empty where it was made on the host."""
    data_class: DataClass | None = None
    """The least class of what it asks; None: that of the config."""

    @property
    def caller(self) -> Caller:
        """Who asks with this key."""
        return Caller(
            self.id, self.role, self.user, self.team, self.use_cases, self.service_class, self.data_class
        )  # fmt: skip

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


@dataclass(frozen=True, slots=True)
class Rotated:
    """What becomes of a key that is rotated; fields as in `KeyRecord`."""

    digest: bytes = field(repr=False)
    previous_until: float | None
    expires: float | None
    issued: float
    issuers: tuple[str, ...] = ()


class KeyStore(Protocol):
    """What keys need of the store. All of them raise `BooksUnavailable`; each change is one transaction."""

    def keys_version(self) -> int:
        """A number that every change of any key changes. Cheap: it is asked four times a second."""

    def keys(self) -> list[KeyRecord]:
        """All keys, oldest first."""

    def add_key(self, record: KeyRecord) -> None:
        """Keep a new key."""

    def rotate_key(self, id: str, change: Rotated) -> bool:  # noqa: A002
        """Put another digest in the key's place, which becomes `previous`. False: unknown, or revoked meanwhile."""

    def revoke_key(self, id: str, at: float) -> bool:  # noqa: A002 - what a key is named by
        """Note that the key opens no more. False: no such key. One that is revoked keeps its first `revoked`."""

    def revoke_all(self, scope: Scope, at: float) -> set[str]:
        """Note that no key of a user, or no key of that id, opens any more; the ids of all that ever asked for them."""


class _Entry(NamedTuple):
    digest: bytes
    caller: Caller
    ends: float
    """Seconds since 1970; `-inf` for what is revoked, so that no clock revives it."""
    closed: str
    """Why it doesn't open after `ends`, for the log."""


def make() -> str:
    """A new key."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str, pepper: bytes) -> bytes:
    """What is stored of a key: HMAC-SHA256 under the pepper."""
    return hmac.digest(pepper, key.encode("utf-8", "surrogateescape"), "sha256")


class Keyring:
    """The keys that open the appliance, in memory: a snapshot of the store, renewed by `Watch`.

    Nobody is let in on a snapshot that wasn't confirmed for five seconds: a key in it may have been revoked.
    """

    def __init__(
        self,
        pepper: bytes,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pepper = pepper
        self._clock = clock
        self._monotonic = monotonic
        self._entries: dict[bytes, _Entry] = {}
        self._records: dict[str, KeyRecord] = {}
        self._fleeting: dict[bytes, tuple[float, ServiceClass]] = {}
        self._confirmed = -inf

    def renew(self, records: Iterable[KeyRecord]) -> None:
        """Take what the store holds now in place of the whole snapshot."""
        entries: dict[bytes, _Entry] = {}
        known: dict[str, KeyRecord] = {}
        for record in records:
            known[record.id] = record
            caller = record.caller
            ends = inf if record.expires is None else record.expires
            closed = "expired"
            if record.revoked is not None:
                ends, closed = -inf, "revoked"
            if record.previous is not None:
                until = -inf if record.previous_until is None else min(ends, record.previous_until)
                why = closed if until == ends else "rotated"
                entries[record.previous] = _Entry(record.previous, caller, until, why)
            entries[record.digest] = _Entry(record.digest, caller, ends, closed)
        self._entries, self._records = entries, known

    def owner(self, key_id: str) -> str | None:
        """Whose a key is, also of one that opens no more; None for one that is nobody's or isn't known."""
        record = self._records.get(key_id)
        return None if record is None else record.user

    def rotated(self, key_id: str) -> float | None:
        """When a key was put in the place of another the last time, in seconds since 1970; None: never, or unknown."""
        record = self._records.get(key_id)
        return None if record is None or record.previous is None else record.issued

    def record(self, key_id: str) -> KeyRecord | None:
        """What is known of a key, also of one that opens no more; None for a token, which is none."""
        return self._records.get(key_id)

    def confirm(self, at: float) -> None:
        """Note that the snapshot is what the store held `at` that second of the monotonic clock."""
        self._confirmed = at

    def lend(self, seconds: float, service_class: ServiceClass = ServiceClass.STANDARD) -> str:
        """Make a key that lives in memory only, for `seconds`: benchmarks and evaluations on this host use one."""
        now = self._monotonic()
        key = make()
        self._fleeting = {known: lent for known, lent in self._fleeting.items() if lent[0] > now}
        self._fleeting[digest_of(key, self._pepper)] = now + seconds, service_class
        return key

    def authenticate(self, presented: str) -> Caller:
        """Whose key it is.

        Raises `Unauthenticated`, the same for whatever is wrong with the key, or `BooksUnavailable` when it
        can't be told, since the store hasn't been read for too long.
        """
        if self._monotonic() - self._confirmed > _STALE_SECONDS:
            raise BooksUnavailable(
                "keys can't be checked at the moment; try again shortly", code="keys_unavailable", retry_after=5
            )
        digest = digest_of(presented[:_LONGEST], self._pepper)
        entry = self._entries.get(digest)
        if entry is None or not hmac.compare_digest(entry.digest, digest):
            ends, service_class = self._fleeting.get(digest, (-inf, ServiceClass.STANDARD))
            if ends > self._monotonic():
                return Caller(LOCAL, service_class=service_class)
            raise unknown("unknown key")
        if self._clock() >= entry.ends:
            raise unknown(f"{entry.caller.key_id} is {entry.closed}")
        return entry.caller


def unknown(reason: str) -> Unauthenticated:
    """The one answer to all wrong credentials; `reason` is for the log and tells nobody else anything."""
    return Unauthenticated("this API key is not known here", code="invalid_api_key", reason=reason)
