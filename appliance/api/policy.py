"""/admin/policy/explain: what would happen to a text, and why; nothing is sent, and nothing of it is kept."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from appliance.api.admin import small_body
from appliance.api.bodies.base import Part, parse
from appliance.api.bodies.policy import Explain, explained
from appliance.api.exchange import House
from appliance.audit.archive import Actor
from appliance.core import Caller
from appliance.errors import Conflict
from appliance.privacy.asked import Asked, Explanation

BODIES: tuple[type[Part], ...] = (Explain,)


def add(app: FastAPI, house: House) -> None:
    """Add the route; the permission that it needs stands in ROUTES."""

    @app.post(
        "/admin/policy/explain",
        tags=["Policy"],
        summary="What of a text may leave, and why; nothing of it is kept",
        openapi_extra={
            "security": [{"key": []}],
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Explain"}}}},
        },
    )
    async def answer(request: Request) -> Response:
        caller: Caller = request.scope["caller"]
        wanted = parse(Explain, await small_body(request, house.limits.body_bytes))
        asked = wanted.asked(house.privacy, house.accounts, house.limits)
        explanation = await explain(house, asked, Actor.of(caller))
        shown = await asyncio.to_thread(explained, explanation, house.privacy)
        return JSONResponse(shown, headers={"cache-control": "no-store"})


async def explain(house: House, asked: Asked, by: Actor) -> Explanation:
    """What would happen to it; that `by` asked is on record before, and nothing of the text.

    Raises `Conflict` where nothing may leave anyway, and `AuditUnavailable`.
    """
    if house.guard is None:
        raise Conflict(
            "nothing may leave here (egress.mode: deny, or no rule in privacy.policy), so nothing is looked through; "
            "`appliance policy test FILE` on the host explains all the same",
            code="nothing_leaves",
        )
    told = {"operation": asked.operation, "use_case": asked.use_case, "class": str(asked.floor)}
    told = {name: value for name, value in told.items() if value is not None}
    await house.archive.happened("policy.explain", by, **told)
    return await house.guard.explain(asked)
