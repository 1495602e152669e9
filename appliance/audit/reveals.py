"""Reveals: who a pseudonym is, told to two people who both want to know, for a day, and put on record.

Two names are no two people where one of them can make the other's key. So the two keys must have nobody in common:
neither who holds them, nor who made or rotated them, nor who made the keys that this was done with, up to the host.

Nothing of it is on disk but its records: a restart forgets what was asked and what was approved.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from appliance.audit.archive import Actor, Archive
from appliance.audit.record import moment
from appliance.audit.subject import Subject
from appliance.core import BY_TOKEN, Caller, Role
from appliance.errors import Conflict, Forbidden, NotFound
from appliance.names import alike

ROLES = frozenset({Role.SUPER_ADMIN, Role.AUDITOR})
"""One person of each is needed."""
ASKED_SECONDS = 7 * 86_400.0
"""So long may somebody think about approving."""
SHOWN_SECONDS = 86_400.0
"""So long is a name shown after that."""
MOST_OPEN = 100


class Key(Protocol):
    """What is kept of a key, as far as it is asked here."""

    @property
    def user(self) -> str | None:
        """Whose it is; None: nobody's, or of somebody who was erased."""

    @property
    def issued(self) -> float:
        """When what opens was made, or put in the place of another: seconds since 1970."""

    @property
    def issuers(self) -> tuple[str, ...]:
        """Ids of the keys whose holders may know it; empty where it was made on the host."""


@dataclass(frozen=True, slots=True)
class Person:
    """One of the two, with the key or token that they came with. The name is in the key store only."""

    role: Role
    pseudonym: str
    key: str
    issued: float
    """0 for a token, which the identity provider answers for."""
    issuers: tuple[str, ...]


_Hand = tuple[str, str | None]
"""Somebody: the id of a key or a token, and the name where it is known."""


@dataclass(slots=True)
class Reveal:
    """Somebody asks who `subject` is; nobody is told before somebody else approves."""

    id: str
    subject: str
    """A pseudonym."""
    reason: str
    asked_by: Person
    asked: str
    """When, as records have it."""
    asked_at: float
    """The same in seconds since 1970."""
    ends: float
    """On the clock that is never set back: it is forgotten then."""
    expires: str
    approved_by: Person | None = None
    approved: str | None = None

    def described(self) -> dict[str, Any]:
        """As it is listed: no name in it."""
        return {
            "id": self.id,
            "object": "reveal",
            "subject": self.subject,
            "reason": self.reason,
            "state": "approved" if self.approved_by is not None else "asked",
            "asked": self.asked,
            "asked_by": _shown(self.asked_by),
            "approved": self.approved,
            "approved_by": _shown(self.approved_by) if self.approved_by is not None else None,
            "expires": self.expires,
        }


class Reveals:
    """The reveals that are open. For one event loop; what is put on record is so before anything is done."""

    def __init__(
        self,
        archive: Archive,
        keys: Callable[[str], Key | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`keys` tells what is kept of a key, by id: None for a token.

        `clock` decides when a reveal ends; `wall` says when that is, and goes with that of the keys.
        """
        self._archive = archive
        self._keys = keys
        self._clock = clock
        self._wall = wall
        self._open: dict[str, Reveal] = {}

    def active(self) -> list[Reveal]:
        """Those that are open, the oldest first."""
        now = self._clock()
        self._open = {id_: reveal for id_, reveal in self._open.items() if now < reveal.ends}
        return list(self._open.values())

    def find(self, id_: str) -> Reveal:
        """The open one of that id. Raises `NotFound`."""
        for reveal in self.active():
            if reveal.id == id_:
                return reveal
        raise NotFound(
            "there is no such reveal; those that are over, or were asked for before a restart, are forgotten",
            code="reveal_not_found",
        )

    async def ask(self, caller: Caller, pseudonym: str, reason: str) -> Reveal:
        """Ask who `pseudonym` is. Raises `NotFound`, `Forbidden`, `Conflict` and `AuditUnavailable`."""
        person = self._person(caller)
        self._name(pseudonym)
        async with self._archive.act("reveal.ask", Actor.of(caller), subject=pseudonym, reason=reason) as act:
            if len(self.active()) >= MOST_OPEN:
                raise Conflict(
                    f"{MOST_OPEN} reveals are open already; wait until some of them are over", code="too_many_reveals"
                )
            now = self._wall()
            reveal = Reveal(
                id=f"reveal_{secrets.token_hex(6)}", subject=pseudonym, reason=reason, asked_by=person,
                asked=moment(now), asked_at=now,
                ends=self._clock() + ASKED_SECONDS, expires=moment(now + ASKED_SECONDS),
            )  # fmt: skip
            self._open[reveal.id] = reveal
            act.tell(reveal=reveal.id)
        return reveal

    async def approve(self, caller: Caller, id_: str) -> Reveal:
        """Approve what somebody else has asked. Raises `NotFound`, `Forbidden`, `Conflict` and `AuditUnavailable`."""
        reveal = self.find(id_)
        person = self._person(caller)
        async with self._act("reveal.approve", caller, reveal):
            self._name(reveal.subject)
            self._require_two(reveal, person)
            if self.find(id_).approved_by is not None:
                raise Conflict("this reveal is approved already", code="already_approved")
            now = self._wall()
            reveal.approved_by, reveal.approved = person, moment(now)
            reveal.ends, reveal.expires = self._clock() + SHOWN_SECONDS, moment(now + SHOWN_SECONDS)
        return reveal

    async def show(self, caller: Caller, id_: str) -> tuple[Reveal, str | None]:
        """The reveal, and the name once it is approved; to these two only.

        Raises `NotFound`, `Forbidden` and `AuditUnavailable`.
        """
        reveal = self.find(id_)
        person = self._person(caller)
        if reveal.approved_by is None:
            await self._archive.happened(
                "read", Actor.of(caller), what="reveals", reveal=reveal.id, subject=reveal.subject
            )
            return reveal, None
        async with self._act("reveal.show", caller, reveal):
            if person not in (reveal.asked_by, reveal.approved_by):
                raise _two_people(
                    "a name is shown to whoever asked and whoever approved, with the keys that they did it with, and "
                    "to nobody else"
                )
            return self.find(id_), self._name(reveal.subject)

    async def unseal(self, caller: Caller, id_: str, record: int) -> Subject:
        """Whose key opens what is sealed of the person in that record; to these two only, once it is approved.

        Raises `NotFound`, `Forbidden` and `AuditUnavailable`.
        """
        reveal = self.find(id_)
        person = self._person(caller)
        async with self._act("reveal.unseal", caller, reveal, record=record):
            if reveal.approved_by is None or person not in (reveal.asked_by, reveal.approved_by):
                raise _two_people("records are opened to whoever asked and whoever approved, once that was approved")
            subject = self._archive.subjects.find(self.find(id_).subject)
            if subject is None:
                raise _nobody()
            return subject

    def _act(self, name: str, caller: Caller, reveal: Reveal, **told: Any) -> Any:
        by = Actor.of(caller)
        return self._archive.act(name, by, subject=reveal.subject, reason=reveal.reason, reveal=reveal.id, **told)

    def _person(self, caller: Caller) -> Person:
        if caller.role not in ROLES or caller.user is None:
            raise _two_people("this key is nobody's; use one that was made with --user")
        pseudonym = self._archive.subjects.of(caller.user).pseudonym
        key = self._keys(caller.key_id)
        if key is not None:
            return Person(caller.role, pseudonym, caller.key_id, key.issued, key.issuers)
        if caller.key_id.startswith(BY_TOKEN):
            return Person(caller.role, pseudonym, caller.key_id, 0.0, ())
        raise _two_people("who made this key isn't known; use one that `appliance keys list` shows")

    def _require_two(self, reveal: Reveal, other: Person) -> None:
        """Raise `Forbidden` unless whoever asked and `other` are surely two people."""
        asker = reveal.asked_by
        if other.role is asker.role or not self._apart(self._holder(asker), self._holder(other)):
            raise _two_people("one asks and another approves: one a super_admin, one an auditor")
        if other.issued >= reveal.asked_at:
            raise _two_people(
                "this key was made or rotated after the reveal was asked for, so it can't approve it; ask again"
            )
        if not all(self._apart(one, another) for one in self._hands(asker) for another in self._hands(other)):
            raise _two_people(
                "one person may have made or rotated both keys, or the one with the other, so these may not be two "
                "people: have the auditors' keys made or rotated on the host, the latter with --overlap 0h, or by a "
                "super_admin whose own key was made on the host and who doesn't ask; or let them sign in with the "
                "identity provider. Then ask again"
            )

    def _hands(self, person: Person) -> Iterator[_Hand]:
        """All who may have what `person` came with."""
        yield self._holder(person)
        for id_ in person.issuers:
            key = self._keys(id_)
            yield id_, None if key is None else key.user

    def _holder(self, person: Person) -> _Hand:
        subject = self._archive.subjects.find(person.pseudonym)
        return person.key, None if subject is None else subject.name

    @staticmethod
    def _apart(one: _Hand, other: _Hand) -> bool:
        """Whether these are surely two people: by name or, who signs in, by what the identity provider says."""
        (key, name), (another_key, another_name) = one, other
        if name is not None and another_name is not None:
            return alike(name) != alike(another_name)
        return key != another_key and key.startswith(BY_TOKEN) and another_key.startswith(BY_TOKEN)

    def _name(self, pseudonym: str) -> str:
        subject = self._archive.subjects.find(pseudonym)
        if subject is None:
            raise _nobody()
        return subject.name


def _shown(person: Person) -> dict[str, str]:
    return {"role": person.role.value, "subject": person.pseudonym}


def _nobody() -> NotFound:
    return NotFound("nobody has this pseudonym, or the person was erased", code="subject_not_found")


def _two_people(what: str) -> Forbidden:
    return Forbidden(what, code="two_people")
