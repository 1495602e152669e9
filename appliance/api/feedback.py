"""/v1/feedback: what callers say of their answers. A number in memory, for the comparison of versions; no text."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from appliance.api.admin import small_body
from appliance.api.bodies.base import Part, parse
from appliance.api.bodies.feedback import Feedback
from appliance.api.exchange import House
from appliance.core import Caller

BODIES: tuple[type[Part], ...] = (Feedback,)


def add(app: FastAPI, house: House) -> None:
    """Add the route; the permission that it needs stands in ROUTES."""

    @app.post(
        "/v1/feedback",
        tags=["Models"],
        summary="Say whether an answer was good",
        status_code=204,
        response_class=Response,
        openapi_extra={
            "security": [{"key": []}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Feedback"}}},
            },
        },
    )
    async def answer(request: Request) -> Response:
        caller: Caller = request.scope["caller"]
        said = parse(Feedback, await small_body(request))
        house.pipeline.rate(house.logged(said.request_id), caller, said.rating)
        return Response(status_code=204)
