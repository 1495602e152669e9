"""The audit log and all that belongs to it, opened together: the journal, the key store, the holds."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from appliance.audit.holds import Holds
from appliance.audit.journal import Journal
from appliance.audit.record import Kind, clean
from appliance.audit.subjects import Subjects
from appliance.config import Config
from appliance.core import Caller
from appliance.errors import AuditUnavailable
from appliance.signing import written

_MOST_CALLERS = 10_000
"""How many callers' sealed names are kept in memory."""
_SEALED = 96
"""Bytes that are sealed at least, or twice that, and so on: else the length of a name would stand there for ever."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: a person, a key of nobody's, whoever commands this host, or the appliance itself.

    `name` is what its pseudonym is made of; empty for the appliance.
    """

    name: str
    role: str
    key_id: str | None = None
    user: str | None = None
    team: str | None = None

    @classmethod
    def of(cls, caller: Caller) -> Actor:
        """Whoever asks with a key or token."""
        name = caller.user if caller.user is not None else f"key:{caller.key_id}"
        return cls(name, caller.role.value, caller.key_id, caller.user, caller.team)

    @classmethod
    def host(cls, uid: int | None = None) -> Actor:
        """The user of this host with that number; None for whoever runs this process."""
        uid = os.getuid() if uid is None else uid
        try:
            name = pwd.getpwuid(uid).pw_name
        except (KeyError, OSError):
            name = str(uid)
        return cls(f"host:{name}", "host", user=name)

    @classmethod
    def appliance(cls) -> Actor:
        """The appliance, by itself."""
        return cls("", "appliance")


class Act:
    """An act that is on record as begun; what is told of it goes into the record of its end."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.told: dict[str, Any] = {}
        self.target: str | None = None
        self.key: str | None = None

    def tell(self, *, target: str | None = None, key: str | None = None, **more: Any) -> None:
        """Add to the record of its end: texts, whole numbers, truth values, lists and mappings of them.

        `target` and `key` as in `Archive.act`, where they are known only now.
        """
        self.target, self.key = target or self.target, key or self.key
        self.told |= more


class Archive:
    """What the appliance has of `appliance.audit` while it runs. For one event loop."""

    def __init__(self, journal: Journal, subjects: Subjects, holds: Holds) -> None:
        self.journal = journal
        self.subjects = subjects
        self.holds = holds
        self._callers: dict[tuple[str, str | None, str | None, str], Mapping[str, Any]] = {}

    @classmethod
    async def open(cls, config: Config) -> Archive:
        """Open what lies in the state folder, making what isn't there.

        Raises `AuditFailed`, also while another process has it open.
        """
        state = config.state
        journal = await Journal.open(state / "audit", state / "audit-keys", config.settings.audit)
        try:
            subjects = Subjects.open(state / "audit-keys")
            holds = Holds.open(state / "audit-work", anew=not journal.head[0])
        except BaseException:
            await journal.close(0)
            raise
        if subjects.anew and journal.head[0]:
            journal.note(Kind.INCIDENT, {"incident": "subjects_lost"})
        if holds.trouble is not None:
            logging.getLogger("appliance.audit").error("%s", holds.trouble)
            journal.note(Kind.INCIDENT, {"incident": "holds_lost", "why": holds.trouble})
        return cls(journal, subjects, holds)

    def caller(self, caller: Caller) -> Mapping[str, Any]:
        """What `who` tells of a caller; sealed once and kept, so that it costs nothing per request."""
        key = (caller.key_id, caller.user, caller.team, caller.role)
        known = self._callers.get(key)
        if known is None:
            if len(self._callers) >= _MOST_CALLERS:
                self._callers.clear()
            known = self.who(Actor.of(caller))
            if self.subjects.find(known["subject"]) is not None:  # who was erased a moment ago may come back later
                self._callers[key] = known
        return known

    def who(self, actor: Actor) -> Mapping[str, Any]:
        """What of an actor stands in a record: pseudonym, role, team, and the names sealed.

        A key stands in the clear where it is nobody's. Raises `AuditUnavailable` when somebody new can't be given a
        key of their own.
        """
        if not actor.name:
            return {"role": actor.role}
        subject = self.subjects.of(actor.name)
        sealed = subject.seal(_padded({"key": actor.key_id, "user": clean(actor.user or "")}))
        told = {"role": actor.role, "sealed": sealed, "subject": subject.pseudonym}
        if actor.user is None and actor.key_id is not None:
            told["key"] = actor.key_id
        if actor.team is not None:
            told["team"] = clean(actor.team)
        return told

    def target(self, name: str | None, key: str | None = None) -> dict[str, Any]:
        """What of a person, or of a key, that something is done to stands in a record; a person's key is sealed."""
        if name is None:
            return {} if key is None else {"key": key}
        subject = self.subjects.of(name)
        inside = {"user": clean(name)} | ({} if key is None else {"key": key})
        return {"target": {"sealed": subject.seal(_padded(inside)), "subject": subject.pseudonym}}

    def forget(self, name: str) -> None:
        """Keep nothing of `name` in memory any more."""
        self._callers = {key: told for key, told in self._callers.items() if name not in (key[1], f"key:{key[0]}")}

    @asynccontextmanager
    async def act(
        self, name: str, by: Actor, *, target: str | None = None, key: str | None = None, **told: Any
    ) -> AsyncIterator[Act]:
        """Put on record that `by` begins to do `name`, and in the end what became of it.

        Raises `AuditUnavailable` when the beginning can't be kept: then nothing may be done, and the body isn't run.
        `target` is the name of whom it is done to, `key` the id of the key. `told` stands in the first record, what
        the act was told in the other; ValueError for what can't.
        """
        act = Act(await self.begin(name, by, target=target, key=key, **told))
        try:
            yield act
        except BaseException as cause:
            self.end(name, act, "failed", error=type(cause).__name__)
            raise
        self.end(name, act, "done")

    async def begin(
        self, name: str, by: Actor, *, target: str | None = None, key: str | None = None, **told: Any
    ) -> int:
        """Put on disk that `by` begins to do `name`; the number of the record, for `end`. Raises as `act` does."""
        body = {**told, **self.target(target, key), "act": name, "by": dict(self.who(by)), "phase": "intent"}
        ticket = self.journal.write(Kind.ACT, body)
        try:
            await ticket.kept()
        except BaseException as cause:  # the record may come to disk all the same, later
            self.end(name, Act(ticket.seq), "failed", error=type(cause).__name__)
            raise
        return ticket.seq

    async def happened(self, name: str, by: Actor, **told: Any) -> None:
        """Put on disk, in one record, an act that is done. Raises `AuditUnavailable`."""
        await self.journal.write(Kind.ACT, self._done(name, by, told)).kept()

    def note(self, name: str, by: Actor, **told: Any) -> None:
        """The same, for what can't be held up any more. Never waits."""
        self.journal.note(Kind.ACT, self._done(name, by, told))

    def incident(self, body: Mapping[str, Any]) -> None:
        """Put on record that something went wrong, or is well again. Never waits."""
        self.journal.note(Kind.INCIDENT, body)

    def _done(self, name: str, by: Actor, told: Mapping[str, Any]) -> dict[str, Any]:
        return {**told, "act": name, "by": dict(self.who(by)), "phase": "done"}

    def end(self, name: str, act: Act, phase: str, **told: Any) -> None:
        """Put on record what became of an act. Never waits; raises only `ValueError` for what can't be put there."""
        with contextlib.suppress(AuditUnavailable):  # somebody new, who can't be given a key: what else is told, is
            act.told |= self.target(act.target, act.key)
        self.journal.note(Kind.ACT, {**act.told, **told, "act": name, "of": act.seq, "phase": phase})

    async def close(self, seconds: float) -> None:
        """Write what waits, sign it, and let others open the log; for `seconds` at most."""
        await self.journal.close(seconds)
        self.subjects.close()


def _padded(names: Mapping[str, str | None]) -> bytes:
    """`names` as JSON of one of few lengths."""
    bare = len(written({**names, "pad": ""}))
    size = _SEALED
    while size < bare:
        size *= 2
    return written({**names, "pad": " " * (size - bare)})
