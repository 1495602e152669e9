"""What of a request goes on record, and when: who asked what before it is dispatched, what became of it after."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appliance.audit.archive import Actor, Archive
from appliance.audit.group import Ticket
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.audit.subject import Subject
from appliance.config import Accounts
from appliance.core import Caller, Reply, Request, Usage
from appliance.engines.served import Served
from appliance.errors import AuditUnavailable
from appliance.observe import Record
from appliance.privacy.verdict import Verdict

_STRANGERS_SECONDS = 60.0
_WEIGHTS = 32
"""Digits of the weights' SHA-256 in each record; the act that put the model into service has all of them."""
_MOST_CONTENT = 4 * 2**20
"""Bytes of a question, and of an answer, that are stored where a use case stores content."""


@dataclass(slots=True)
class Told:
    """What the log is told of one request so far."""

    on_record: bool = False
    """Whether an intent tells of it; else its refusal has to."""
    verdict: Verdict | None = None
    """Of the privacy gate, where it was asked."""
    held: str | None = None
    """Why it stays, where that was looked at."""


class Testimony:
    """Writes the records of requests. No text of a caller's or a model's stands in them, but where it is stored."""

    def __init__(self, archive: Archive, accounts: Accounts, policy: str) -> None:
        """`policy` is the version of the config that is in effect: the first digits of its SHA-256."""
        self.accounts = accounts
        self.policy = policy
        self._archive = archive
        self._strangers: Counter[str] = Counter()
        self._counting: asyncio.TimerHandle | None = None

    def require(self) -> None:
        """Raise `AuditUnavailable` while nothing can be put on record."""
        self._archive.journal.require()

    def intent(self, request: Request, served: Served, shadow: Served | None = None) -> Intent:
        """Put on record that `served` is about to answer, which it may as soon as that is kept.

        After the answer `shadow` may get a copy, whose own answer nobody is shown and nothing is kept of.
        Nobody has looked through what is answered in the house: its class is the floor, and nothing was found.
        Raises `AuditUnavailable`: then the request may not run.
        """
        told: dict[str, Any] = {"class": str(request.data_class), "found": {}, "route": "house"}
        if served.engine is not None:
            spec = served.engine.spec
            told |= {"route": "local", "weights": spec.fingerprint[:_WEIGHTS]}
            if served.base is not None:
                told["adapter"] = spec.adapters[served.name].fingerprint[:_WEIGHTS]
        if shadow is not None and shadow.engine is not None:
            told["shadow"] = shadow.engine.spec.fingerprint[:_WEIGHTS]
        return self._intent(request, told)

    def departure(self, request: Request, verdict: Verdict, providers: Sequence[str]) -> Intent:
        """Put on record that one of `providers`, in this order, is about to answer. Raises `AuditUnavailable`."""
        told = {**_classified(verdict), "providers": list(providers), "route": "cloud", "rule": verdict.rule}
        return self._intent(request, told, verdict.purpose)

    def _intent(self, request: Request, told: dict[str, Any], purpose: str | None = None) -> Intent:
        caller = request.caller
        body: dict[str, Any] = {
            **self._archive.caller(caller),
            **told,
            "model": request.model,
            "most_tokens": request.most_prompt_tokens + request.most_completion_tokens,
            "operation": request.operation.name,
            "policy": self.policy,
            "request": request.id,
            "stream": request.stream,
        }
        subject = None
        if request.use_case is not None:
            body["use_case"] = request.use_case
            terms = self.accounts.use_cases.get(request.use_case)
            if terms is not None:
                purpose = purpose or terms.purpose
                if terms.store_content:
                    subject = self._archive.subjects.of(Actor.of(caller).name)
        if purpose is not None:
            body["purpose"] = purpose
        journal = self._archive.journal
        return Intent(journal, journal.write(Kind.INTENT, body), subject, request.payload)

    def refusal(
        self, id_: str, caller: Caller | None, operation: str | None, status: int, code: str | None,
        told: Told | None = None,
    ) -> None:  # fmt: skip
        """Put on record that somebody known was refused; of strangers, how many in a minute. Never waits or raises.

        `told` says why what was asked stays in the house, where that was looked at.
        """
        if caller is None:
            self._strange(code or "other")
            return
        if code == "audit_unavailable":
            return  # counted where it was raised, and told once all is well again
        # a flood while nothing can be written isn't kept in memory: the journal counts it
        with contextlib.suppress(AuditUnavailable):
            body = {**self._archive.caller(caller), "request": id_, "status": status}
            if code is not None:
                body["code"] = code
            if operation is not None:
                body["operation"] = operation
            if told is not None and told.verdict is not None and told.held is not None:
                body |= {**_classified(told.verdict), "held": told.held}
            self._archive.journal.write(Kind.REFUSAL, body)

    def close(self) -> None:
        """Put on record the strangers that haven't been yet."""
        if self._counting is not None:
            self._counting.cancel()
            self._tell_strangers()

    def _strange(self, code: str) -> None:
        self._strangers[code] += 1
        if self._counting is None:
            self._counting = asyncio.get_running_loop().call_later(_STRANGERS_SECONDS, self._tell_strangers)

    def _tell_strangers(self) -> None:
        counts, self._strangers, self._counting = dict(self._strangers), Counter(), None
        self._archive.journal.note(Kind.STRANGERS, {"counts": counts, "seconds": int(_STRANGERS_SECONDS)})


class Intent:
    """What is on record of a request that is about to be answered, until its outcome is."""

    __slots__ = ("_asked", "_copied", "_journal", "_subject", "_ticket", "seq")

    def __init__(self, journal: Journal, ticket: Ticket, subject: Subject | None, asked: bytes) -> None:
        """`subject`: under whose key to keep what is asked and answered; None to keep nothing of it."""
        self.seq = ticket.seq
        self._journal = journal
        self._ticket = ticket
        self._subject = subject
        self._asked = asked
        self._copied: Copied | None = None

    async def kept(self) -> None:
        """Return once it is on disk, and so is what was asked where that is stored.

        Raises `AuditUnavailable`: then the request may not run, and that is its outcome.
        """
        if self._subject is not None:
            content = _content(self.seq, self._subject, "asked", self._asked)
            self._ticket = self._journal.write(Kind.CONTENT, content)
        await self._ticket.kept()

    def heard(self, reply: Reply) -> Reply:
        """`reply`, listened to where the answer is stored."""
        if self._subject is None:
            return reply
        self._copied = Copied(reply)
        return self._copied

    def outcome(self, record: Record, usage: Usage, nanoeuros: int, *, copied: bool | None = None) -> None:
        """Put on record what became of it. Never waits, never raises.

        `copied`: whether its shadow gets a copy; None where it has none.
        """
        if self._subject is not None and self._copied is not None:
            self._journal.note(Kind.CONTENT, _content(self.seq, self._subject, "answered", self._copied.content))
        began = record.began
        body = {
            "completion_tokens": usage.completion_tokens,
            "intent": self.seq,
            "nanoeuros": nanoeuros,
            "outcome": record.outcome,
            "prompt_tokens": usage.prompt_tokens,
            "status": record.status,
            "total_ms": _ms(record.ended - began),
            "wait_ms": _ms(record.turned - began),
        }
        if record.first:
            body["first_token_ms"] = _ms(record.first - began)
        if record.finish is not None:
            body["finish"] = record.finish
        if record.code is not None:
            body["code"] = record.code
        if record.provider is not None:
            body["provider"] = record.provider
        if copied is not None:
            body["copied"] = copied
        if record.sent_to:
            body["sent_to"] = list(record.sent_to)
        self._journal.note(Kind.OUTCOME, body)


class Copied:
    """A `Reply` that passes all on and keeps the beginning of it, for use cases that store content."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._kept = bytearray()

    @property
    def content(self) -> bytes:
        """What has passed; the beginning of it, where it was very much."""
        return bytes(self._kept)

    @property
    def begun(self) -> bool:
        """As the reply says."""
        return self._reply.begun

    def note(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """As the reply does."""
        self._reply.note(headers)

    async def whole(self, body: bytes) -> None:
        """As the reply does."""
        self._keep(body)
        await self._reply.whole(body)

    async def begin(self) -> None:
        """As the reply does."""
        await self._reply.begin()

    async def frames(self, data: bytes) -> None:
        """As the reply does."""
        self._keep(data)
        await self._reply.frames(data)

    async def end(self) -> None:
        """As the reply does."""
        await self._reply.end()

    def _keep(self, data: bytes) -> None:
        if len(self._kept) <= _MOST_CONTENT:  # one byte more at least shows that it was cut
            self._kept += data


def _content(intent: int, subject: Subject, part: str, content: bytes) -> dict[str, Any]:
    body: dict[str, Any] = {"intent": intent, "part": part, "subject": subject.pseudonym}
    if len(content) > _MOST_CONTENT:
        body["cut"] = True
    return {**body, "sealed": subject.seal(content[:_MOST_CONTENT])}


def _classified(verdict: Verdict) -> dict[str, Any]:
    return {"class": str(verdict.data_class), "found": dict(verdict.found)}


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
