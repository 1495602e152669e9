"""/admin/audit: the log for auditors, and the reveals that two people ask for together."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from appliance.api.admin import small_body
from appliance.api.bodies.base import Part, parse
from appliance.api.bodies.reveals import NewReveal
from appliance.api.exchange import House
from appliance.api.lookup import (
    EXPORT_PARAMETERS,
    LIST_PARAMETERS,
    MOST_LISTED,
    found,
    going_on,
    one_of,
    question_of,
    shaped,
    told,
    words,
)
from appliance.api.query import parameters, whole
from appliance.audit.archive import Actor
from appliance.audit.question import LAST, Question
from appliance.audit.reveals import Reveals
from appliance.audit.search import Search
from appliance.audit.subject import Subject
from appliance.core import Caller
from appliance.errors import AuditFailed, AuditUnavailable, NotFound

BODIES: tuple[type[Part], ...] = (NewReveal,)
_MEDIA = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8; header=present"}


def add(app: FastAPI, house: House) -> None:
    """Add the routes. Who may take them stands in ROUTES."""
    search = Search(house.archive.journal.folder)
    reveals = Reveals(house.archive, house.keys.record)
    hidden = house.archive.subjects.hidden

    def filters(given: Mapping[str, str]) -> dict[str, str]:
        return told(given, words(house.accounts, house.fleet.names), hidden)

    async def look_up(request: Request) -> Response:
        given = parameters(request, LIST_PARAMETERS)
        limit = whole("limit", given.get("limit", "100"), MOST_LISTED)
        newest = one_of("order", given.get("order", "newest"), ("newest", "oldest")) == "newest"
        question = question_of(given, house.accounts.zone, hidden)
        if "after" in given:
            after = whole("after", given["after"], LAST)
            question = going_on(question, after, newest_first=newest)
        asked = filters(given)
        async with house.archive.act("read", Actor.of(_caller(request)), filters=asked) as act:
            with _readable():
                page = await search.page_beside(question, limit, newest_first=newest)
            act.tell(**found(given, asked, len(page.lines)))
        rest = json.dumps({"has_more": page.next is not None, "next": page.next})
        body = b'{"object": "list", "data": [%b], %b' % (b",".join(page.lines), rest[1:].encode())
        return Response(body, media_type="application/json", headers={"cache-control": "no-store"})

    async def export(request: Request) -> Response:
        given = parameters(request, EXPORT_PARAMETERS)
        form = one_of("format", given.get("format", "jsonl"), ("jsonl", "csv"))
        question = question_of(given, house.accounts.zone, hidden)
        asked = filters(given)
        by = Actor.of(_caller(request))

        async def parts() -> AsyncGenerator[bytes, None]:
            async with house.archive.act("export", by, filters=asked, format=form) as act:
                yield b"%d" % act.seq
                # up to here, this act included: else it would go on for as long as the log is written to
                bounded = replace(question, most=min(question.most, act.seq))
                digest, records = hashlib.sha256(), 0
                try:
                    async for count, part in search.beside(shaped(search.steps(bounded), form)):
                        records += count
                        digest.update(part)
                        yield part
                finally:
                    act.tell(**found(given, asked, records), sha256=digest.hexdigest())

        rest = parts()
        number = await anext(rest)  # before the head is sent: what can't be put on record is a 503
        return _File(f"audit-{number.decode()}.{form}", form, rest)

    async def status(request: Request) -> Response:  # not on record, as it is asked for again and again: no records
        parameters(request, ())
        return JSONResponse(_status(house))

    async def ask(request: Request) -> Response:
        wanted = parse(NewReveal, await small_body(request))
        reveal = await reveals.ask(_caller(request), wanted.subject, wanted.reason)
        return JSONResponse(reveal.described(), 201)

    async def approve(request: Request, id: str) -> Response:  # noqa: A002 - as the path has it
        return JSONResponse((await reveals.approve(_caller(request), id)).described())

    async def show(request: Request, id: str) -> Response:  # noqa: A002
        reveal, name = await reveals.show(_caller(request), id)
        shown = reveal.described() | ({} if name is None else {"name": name})
        return JSONResponse(shown, headers={"cache-control": "no-store"})

    async def unseal(request: Request, id: str, seq: str) -> Response:  # noqa: A002
        parameters(request, ())
        number = whole("seq", seq, LAST)
        subject = await reveals.unseal(_caller(request), id, number)
        with _readable():
            found = (await search.page_beside(Question(least=number, most=number), 1)).lines
        record = json.loads(found[0]) if found else {}
        return JSONResponse(
            {
                "object": "audit.unsealed",
                "seq": number,
                "kind": record.get("kind"),
                "unsealed": _opened(record, subject),
            },
            headers={"cache-control": "no-store"},
        )

    async def list_reveals(request: Request) -> Response:
        parameters(request, ())
        await house.archive.happened("read", Actor.of(_caller(request)), what="reveals")
        return JSONResponse({"object": "list", "data": [reveal.described() for reveal in reveals.active()]})

    for method, path, answer, taken, body, summary in (
        ("GET", "/admin/audit", look_up, LIST_PARAMETERS, None, "Records of the log, filtered, in pages"),
        ("GET", "/admin/audit/export", export, EXPORT_PARAMETERS, None, "All records that are asked for, as a file"),
        ("GET", "/admin/audit/status", status, {}, None, "How the log is, and what holds for it"),
        ("GET", "/admin/audit/reveals", list_reveals, {}, None, "The reveals that are open, without names"),
        ("POST", "/admin/audit/reveals", ask, {}, NewReveal, "Ask who a pseudonym is"),
        ("POST", "/admin/audit/reveals/{id}/approve", approve, {}, None, "Approve what somebody else has asked"),
        ("GET", "/admin/audit/reveals/{id}", show, {}, None, "A reveal; once it is approved, with the name"),
        ("GET", "/admin/audit/reveals/{id}/records/{seq}", unseal, {}, None, "What a record has of the person"),
    ):
        app.add_api_route(
            path, answer, methods=[method], tags=["Audit"], summary=summary, response_class=JSONResponse,
            status_code=201 if body else 200, openapi_extra=_documented(taken, body),
        )  # fmt: skip


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Make of a log that can't be read a refusal."""
    try:
        yield
    except AuditFailed as cause:
        raise AuditUnavailable(
            "the log can't be read; `appliance audit verify` on the host says what is wrong with it",
            code="audit_unreadable", reason=str(cause),
        ) from cause  # fmt: skip


def _opened(record: Mapping[str, Any], subject: Subject) -> str:
    """What is sealed under the key of `subject` in a record. Raises `NotFound` where nothing is."""
    body = record.get("body", {})
    for holder in (body, body.get("by"), body.get("target")):
        if isinstance(holder, dict) and holder.get("subject") == subject.pseudonym and "sealed" in holder:
            return subject.open(holder["sealed"]).decode(errors="replace")
    raise NotFound("that record holds nothing that is sealed under this person's key", code="nothing_sealed")


def _status(house: House) -> dict[str, Any]:
    journal, holds, settings = house.archive.journal, house.archive.holds, house.audit
    health, checkpoint = journal.describe(), journal.checkpoint
    signed = None
    if checkpoint is not None:
        signed = {name: getattr(checkpoint, name) for name in ("number", "sha256", "at", "first", "last")}
    return {
        "object": "audit.status",
        "records": journal.head[0],
        "head": journal.head[1],
        "checkpoint": signed,
        "fingerprint": journal.fingerprint,
        "well": bool(health["well"]),
        "failures": int(health["failures"]),
        "waiting": int(health["waiting"]),
        "unsigned_seconds": round(health["checkpoint_age_seconds"], 3),
        "retention": settings.retention.model_dump(),
        "holds": [asdict(hold) for hold in holds.active] if holds.trouble is None else None,
        "holds_known": holds.trouble is None,
        "works_council": settings.works_council,
    }


def _documented(taken: Mapping[str, str], body: type[Part] | None) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "security": [{"key": []}],
        "parameters": [
            {"name": name, "in": "query", "description": about, "schema": {"type": "string"}}
            for name, about in taken.items()
        ],
    }
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return extra


def _caller(request: Request) -> Caller:
    caller: Caller = request.scope["caller"]
    return caller


class _File(StreamingResponse):
    """A file whose parts are closed also when the client leaves, so that this goes on record."""

    def __init__(self, name: str, form: str, parts: AsyncGenerator[bytes, None]) -> None:
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        super().__init__(parts, media_type=_MEDIA[form], headers=headers)
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._parts.aclose()
