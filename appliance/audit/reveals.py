"""Reveals: who a pseudonym is, told to two people who both want to know, for a day, and put on record.

Nothing of it is on disk but its records: a restart forgets what was asked and what was approved.
"""

from __future__ import annotations

import secrets
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.audit.archive import Actor, Archive
from appliance.audit.record import moment
from appliance.core import Caller, Role
from appliance.errors import Conflict, Forbidden, NotFound

ROLES = frozenset({Role.SUPER_ADMIN, Role.AUDITOR})
"""One person of each is needed."""
ASKED_SECONDS = 7 * 86_400.0
"""So long may somebody think about approving."""
SHOWN_SECONDS = 86_400.0
"""So long is a name shown after that."""
MOST_OPEN = 100


@dataclass(frozen=True, slots=True)
class Person:
    """One of the two. `same` is the name as it is compared: no second way to write it is a second person."""

    role: Role
    same: str = field(repr=False)
    pseudonym: str


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
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` decides when a reveal ends; `wall` only says when that is."""
        self._archive = archive
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
                asked=moment(now), ends=self._clock() + ASKED_SECONDS, expires=moment(now + ASKED_SECONDS),
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
            if person.role is reveal.asked_by.role or person.same == reveal.asked_by.same:
                raise _two_people("one asks and another approves: one a super_admin, one an auditor")
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
            return reveal, None
        async with self._act("reveal.show", caller, reveal):
            if person not in (reveal.asked_by, reveal.approved_by):
                raise _two_people("a name is shown to whoever asked and whoever approved, and to nobody else")
            return self.find(id_), self._name(reveal.subject)

    def _act(self, name: str, caller: Caller, reveal: Reveal) -> Any:
        by = Actor.of(caller)
        return self._archive.act(name, by, subject=reveal.subject, reason=reveal.reason, reveal=reveal.id)

    def _person(self, caller: Caller) -> Person:
        if caller.role not in ROLES or caller.user is None:
            raise _two_people("this key is nobody's; use one that was made with --user")
        pseudonym = self._archive.subjects.of(caller.user).pseudonym
        return Person(caller.role, _same(caller.user), pseudonym)

    def _name(self, pseudonym: str) -> str:
        subject = self._archive.subjects.find(pseudonym)
        if subject is None:
            raise NotFound("nobody has this pseudonym, or the person was erased", code="subject_not_found")
        return subject.name


def _same(name: str) -> str:
    """The name without what two ways to write one person's may differ in: case, width, accents' form, spaces."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())


def _shown(person: Person) -> dict[str, str]:
    return {"role": person.role.value, "subject": person.pseudonym}


def _two_people(what: str) -> Forbidden:
    return Forbidden(what, code="two_people")
