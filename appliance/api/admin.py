"""/admin/keys: what administrators do with keys from afar. The command line does the same on the host.

Each change is on record as begun before it is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from appliance.accounts.keys import KeyRecord
from appliance.accounts.registry import check
from appliance.api.bodies.base import Part, parse, refuse
from appliance.api.bodies.keys import NewKey, Rotation, described, terms
from appliance.api.exchange import CallerGone, House, read_body
from appliance.api.query import parameters, whole
from appliance.audit.archive import Actor
from appliance.core import Caller
from appliance.errors import BadRequest

BODIES: tuple[type[Part], ...] = (NewKey, Rotation)
_HOUR = 3600.0
_MOST_LISTED = 1000
_BODY_BYTES = 64 * 1024

F = TypeVar("F", bound=Callable[..., Any])


def add(app: FastAPI, house: House) -> None:
    """Add the routes; the permission that each needs stands in ROUTES."""

    def route(
        method: str, path: str, summary: str, body: type[Part] | None = None, status: int = 200
    ) -> Callable[[F], F]:
        extra: dict[str, Any] = {"security": [{"key": []}]}
        if body is not None:
            schema = {"$ref": f"#/components/schemas/{body.__name__}"}
            extra["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        return app.api_route(
            path, methods=[method], tags=["Keys"], summary=summary, status_code=status, openapi_extra=extra
        )

    @route("GET", "/admin/keys", "The keys, without what opens; filtered by `user` and `team`, in pages")
    async def list_keys(request: Request) -> Response:
        caller: Caller = request.scope["caller"]
        given = parameters(request, ("user", "team", "limit", "after"))
        limit = whole("limit", given.get("limit", "100"), _MOST_LISTED)
        user, team = given.get("user"), given.get("team")
        found = await house.watch.ask(lambda keys: keys.select(user=user, team=team, by=caller))
        return JSONResponse(_page(found, given.get("after"), limit))

    @route("POST", "/admin/keys", "Make a key; the answer shows it once", NewKey, 201)
    async def create_key(request: Request) -> Response:
        caller: Caller = request.scope["caller"]
        order = parse(NewKey, await small_body(request)).order(time.time())
        check(order, house.accounts, house.fleet.names)
        by = Actor.of(caller)
        async with house.archive.act("keys.create", by, target=order.user, **terms(order)) as act:
            record, key = await house.watch.ask(lambda keys: keys.create(order, caller))
            act.tell(target=record.user, key=record.id)
        return _issued(record, key, status=201)

    @route("POST", "/admin/keys/{id}/rotate", "Put a new key in the place of one; the answer shows it once", Rotation)
    async def rotate_key(request: Request, id: str) -> Response:  # noqa: A002 - as the path has it
        caller: Caller = request.scope["caller"]
        wanted = parse(Rotation, await small_body(request) or b"{}")
        overlap, ends = wanted.overlap_hours * _HOUR, wanted.ends(time.time())
        old = await house.watch.ask(lambda keys: keys.find(id, caller))
        told = {"overlap_seconds": round(overlap), **terms(old)}
        async with house.archive.act("keys.rotate", Actor.of(caller), target=old.user, key=old.id, **told) as act:
            record, key = await house.watch.ask(lambda keys: keys.rotate(id, overlap, expires=ends, by=caller))
            act.tell(**terms(record))
        return _issued(record, key)

    @route("POST", "/admin/keys/{id}/revoke", "Let a key, and the one before it, open nothing any more")
    async def revoke_key(request: Request, id: str) -> Response:  # noqa: A002
        caller: Caller = request.scope["caller"]
        old = await house.watch.ask(lambda keys: keys.find(id, caller))
        async with house.archive.act("keys.revoke", Actor.of(caller), target=old.user, key=old.id, **terms(old)):
            record = await house.watch.ask(lambda keys: keys.revoke(id, caller))
        return JSONResponse(described(record))


def _issued(record: KeyRecord, key: str, status: int = 200) -> Response:
    return JSONResponse({**described(record), "key": key}, status, {"cache-control": "no-store"})


async def small_body(request: Request, most: int = _BODY_BYTES) -> bytes:
    """The body of an administrative request, of 64 KiB at most if nothing else is said.

    Raises `BodyTooLarge`, `BadRequest`.
    """
    try:
        return await read_body(request.receive, most)
    except CallerGone:
        raise BadRequest("the connection was closed before the body's end", code="invalid_json") from None


def _page(records: list[KeyRecord], after: str | None, limit: int) -> dict[str, Any]:
    """What comes `after`, in the shape of OpenAI's lists."""
    if after is not None:
        ids = [each.id for each in records]
        if after not in ids:
            refuse("after", "after must be the last_id of the page before")
        records = records[ids.index(after) + 1 :]
    page = [described(record) for record in records[:limit]]  # of no others: meanwhile nobody else is answered
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    more = len(records) > len(page)
    return {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more}
