"""Everything that can be reached from outside, and what it takes to do so. What is not here is a 404."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from appliance.accounts.roles import Permission
from appliance.api import admin, audit, envelope, feedback, pages, policy, usage
from appliance.api.admission import Access, Guarded
from appliance.api.bodies import anthropic, chat, embeddings, responses
from appliance.api.bodies.base import Body
from appliance.api.exchange import Exchange, Failed, House, request_id
from appliance.core import Dialect, Operation, Task
from appliance.engines.engine import State
from appliance.errors import MethodNotAllowed, NotFound, Refused


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """An operation on a model: its body, what the engine is asked, and a line for /docs."""

    body: type[Body]
    operation: Operation
    summary: str


def _chat(name: str, path: str, text_field: str, dialect: Dialect = Dialect.CHAT_COMPLETIONS) -> Operation:
    return Operation(name, path, Task.CHAT, text_field, dialect)


def _comparison(name: str, path: str, text_field: str) -> Operation:
    """A reranker reads two texts together; a model that turns texts into vectors compares these."""
    return Operation(name, path, Task.RERANK, text_field, also=Task.EMBEDDING)


MODEL_ROUTES = (
    ModelRoute(chat.ChatCompletions, _chat("chat", "/v1/chat/completions", "messages"), "Chat, in OpenAI's form"),
    ModelRoute(chat.Completions, _chat("completion", "/v1/completions", "prompt"), "Continue a text"),
    ModelRoute(
        responses.Responses,
        _chat("response", "/v1/responses", "input", Dialect.RESPONSES),
        "Chat, in the form of OpenAI's responses; stateless",
    ),
    ModelRoute(
        anthropic.Messages,
        _chat("message", "/v1/messages", "messages", Dialect.MESSAGES),
        "Chat, in Anthropic's form",
    ),
    ModelRoute(
        anthropic.CountTokens,
        _chat("count_tokens", "/v1/messages/count_tokens", "messages", Dialect.MESSAGES),
        "Count the tokens of a conversation",
    ),
    ModelRoute(
        embeddings.Embeddings,
        Operation("embedding", "/v1/embeddings", Task.EMBEDDING, "input"),
        "Turn texts into vectors",
    ),
    ModelRoute(embeddings.Rerank, _comparison("rerank", "/v1/rerank", "documents"), "Order documents by a query"),
    ModelRoute(
        embeddings.Score, _comparison("score", "/v1/score", "text_2"), "Score how alike texts are, pair by pair"
    ),
)

ROUTES: dict[tuple[str, str], Access] = {
    **{("POST", route.operation.path): Permission.ASK for route in MODEL_ROUTES},
    ("GET", "/v1/models"): Permission.SEE_MODELS,
    ("GET", "/v1/models/{model}"): Permission.SEE_MODELS,
    ("GET", "/v1/usage"): Permission.SEE_OWN_USAGE,
    ("POST", "/v1/feedback"): Permission.ASK,
    ("GET", "/admin/keys"): Permission.SEE_KEYS,
    ("POST", "/admin/keys"): Permission.MANAGE_KEYS,
    ("POST", "/admin/keys/{id}/rotate"): Permission.MANAGE_KEYS,
    ("POST", "/admin/keys/{id}/revoke"): Permission.MANAGE_KEYS,
    ("GET", "/admin/usage"): Permission.SEE_USAGE,
    ("GET", "/admin/events"): Permission.SEE_USAGE,
    ("GET", "/admin/audit"): Permission.READ_AUDIT,
    ("GET", "/admin/audit/export"): Permission.READ_AUDIT,
    ("GET", "/admin/audit/status"): Permission.READ_AUDIT,
    ("GET", "/admin/audit/reveals"): Permission.REVEAL,
    ("POST", "/admin/audit/reveals"): Permission.REVEAL,
    ("GET", "/admin/audit/reveals/{id}"): Permission.REVEAL,
    ("GET", "/admin/audit/reveals/{id}/records/{seq}"): Permission.REVEAL,
    ("POST", "/admin/audit/reveals/{id}/approve"): Permission.REVEAL,
    ("POST", "/admin/policy/explain"): Permission.EXPLAIN_POLICY,
    ("GET", "/health/live"): "public",
    ("GET", "/health/ready"): "public",
    ("GET", "/metrics"): "public",  # model names and counts only
    ("GET", "/docs"): "public",
    ("GET", "/docs/{asset}"): "public",
    ("GET", "/openapi.json"): "public",
}
"""Every route, and the permission that it needs. One that isn't here keeps the appliance from starting."""


class Door(FastAPI):
    """FastAPI, with a straight way to the operations on models.

    FastAPI's middleware and routing take longer than all the rest of a request here, so POSTs to the few
    exact paths of MODEL_ROUTES go to their exchange at once. The same paths stand in FastAPI's own table
    too, for the documentation and for what is not a POST.
    """

    exchanges: dict[str, Exchange]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            exchange = self.exchanges.get(scope["path"])
            if exchange is not None:
                await exchange(scope, receive, send)
                return
        if scope["type"] == "http":
            scope["request_id"] = request_id(scope)
            send = _with_id(scope["request_id"].encode(), send)
        await super().__call__(scope, receive, send)


def _with_id(id_: bytes, send: Send) -> Send:
    async def tagged(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", id_)]
        await send(message)

    return tagged


def build(house: House, version: str) -> Door:
    """The application."""
    app = Door(
        title="Inference appliance",
        version=version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI's OpenTelemetry would take an exporter from the environment that we were started in
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.exchanges = {}
    for route in MODEL_ROUTES:
        _add_model_route(app, house, route)
    _add_models(app, house)
    admin.add(app, house)
    usage.add(app, house)
    feedback.add(app, house)
    audit.add(app, house)
    policy.add(app, house)
    _add_health(app, house)
    own = (*feedback.BODIES, *admin.BODIES, *audit.BODIES, *policy.BODIES)
    pages.add(app, [*(route.body for route in MODEL_ROUTES), *own])
    _add_errors(app, house)
    guard(app, house)
    return app


def guard(app: FastAPI, house: House) -> None:
    """Put each route of `app`, FastAPI's own too, behind the permission that ROUTES states for it.

    Raises `RuntimeError` for a route that states none, and for a permission that no route needs.
    """
    stale = set(ROUTES)
    for route in app.routes:
        if type(route) not in (Route, APIRoute) or not isinstance(route, Route) or not route.methods:
            raise RuntimeError(f"{route!r} is no plain route, so nothing can be stated for what lies behind it")
        needs: dict[str, Access] = {}
        for method in route.methods:
            stated = ("GET" if method == "HEAD" else method, route.path_format)
            if stated not in ROUTES:
                raise RuntimeError(f"{method} {route.path} states no permission; add it to ROUTES")
            needs[method] = ROUTES[stated]
            stale.discard(stated)
        route.app = Guarded(route.app, needs, house)
    if stale:
        raise RuntimeError(f"ROUTES states permissions for what is no route: {sorted(stale)}")


def _add_model_route(app: Door, house: House, route: ModelRoute) -> None:
    exchange = app.exchanges[route.operation.path] = Exchange(
        house, route.operation, route.body, Permission(ROUTES["POST", route.operation.path])
    )

    async def answer() -> Response:
        return exchange

    app.add_api_route(
        route.operation.path,
        answer,
        methods=["POST"],
        name=route.operation.name,
        summary=route.summary,
        tags=["Anthropic" if route.operation.dialect is Dialect.MESSAGES else "OpenAI"],
        response_class=JSONResponse,
        openapi_extra={
            "security": [{"key": []}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{route.body.__name__}"}}},
            },
        },
    )


def _add_models(app: FastAPI, house: House) -> None:
    began = int(time.time())

    def describe(name: str, *, anthropic_shape: bool) -> dict[str, Any]:
        served = house.served(name, None)
        if anthropic_shape:
            made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
            return {"type": "model", "id": name, "display_name": served.title, "created_at": made}
        shown: dict[str, Any] = {"id": name, "object": "model", "created": began, "owned_by": "appliance"}
        if served.base is not None:
            shown["parent"] = served.base.name
        return shown | ({"max_model_len": served.context_length} if served.context_length else {})

    @app.get(
        "/v1/models",
        tags=["Models"],
        summary="The models that can be asked for",
        openapi_extra={"security": [{"key": []}]},
    )
    async def list_models(request: Request) -> Response:
        shape = "anthropic-version" in request.headers
        data = [describe(name, anthropic_shape=shape) for name in house.fleet.names]
        if shape:
            first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
            return JSONResponse({"data": data, "has_more": False, "first_id": first, "last_id": last})
        return JSONResponse({"object": "list", "data": data})

    @app.get("/v1/models/{model:path}", tags=["Models"], summary="One model", openapi_extra={"security": [{"key": []}]})
    async def one_model(request: Request, model: str) -> Response:
        return JSONResponse(describe(model, anthropic_shape="anthropic-version" in request.headers))


def _add_health(app: FastAPI, house: House) -> None:
    @app.get("/health/live", tags=["Operation"], summary="Whether the appliance runs")
    async def live() -> Response:
        return JSONResponse({"status": "alive"})

    @app.get("/health/ready", tags=["Operation"], summary="Whether every model can answer")
    async def ready() -> Response:
        states = {
            name: _state(served.engine.state if served.engine else None) for name, served in house.fleet.served.items()
        }
        fit, proven = all(served.well for served in house.fleet.served.values()), house.pipeline.proven
        shown = {"status": "ready" if fit and proven else "not ready", "models": states}
        if not proven:
            shown["egress"] = "not proven"
        return JSONResponse(shown, 200) if fit and proven else JSONResponse(shown, 503, {"retry-after": "5"})

    @app.get("/metrics", tags=["Operation"], summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(house.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _state(state: State | None) -> str:
    return str(state) if state is not None else "endpoint"


def _add_errors(app: FastAPI, house: House) -> None:
    def answer(request: Request, refusal: Refused, headers: dict[str, str] | None = None) -> Response:
        id_ = request_id(request.scope)
        house.metrics.refusals.labels(refusal.code or "other").inc()
        house.pipeline.refused(house.logged(id_), request.scope.get("caller"), None, refusal)
        body = envelope.whole(refusal, envelope.dialect_of(request.url.path), id_)
        own = {name.decode(): value.decode() for name, value in envelope.headers(refusal)}
        return Response(body, refusal.status, {**own, **(headers or {})}, media_type="application/json")

    @app.exception_handler(Refused)
    async def refused(request: Request, refusal: Refused) -> Response:
        return answer(request, refusal)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, why: HTTPException) -> Response:
        if why.status_code == 405:
            return answer(
                request,
                MethodNotAllowed(f"{request.method} isn't possible here", code="method_not_allowed"),
                dict(why.headers or {}),
            )
        return answer(request, NotFound("there is no such path here; /docs lists them", code="unknown_path"))

    @app.exception_handler(Exception)
    async def bug(request: Request, why: Exception) -> Response:
        # not the path: a caller can write into it
        id_ = house.logged(request_id(request.scope))
        logging.getLogger("appliance.api").error("request %s: %s", id_, type(why).__name__)
        return answer(request, Failed("the appliance failed; its log has more"))
