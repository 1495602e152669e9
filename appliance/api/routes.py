"""Everything that can be reached from outside, on one screen. What is not here is a 404."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from appliance.api import envelope
from appliance.api.bodies import anthropic, chat, embeddings, responses
from appliance.api.bodies.base import Body
from appliance.api.exchange import Exchange, Failed, House, authenticate, logged, request_id
from appliance.core import Dialect, Operation, Task
from appliance.engines.engine import State
from appliance.errors import MethodNotAllowed, NotFound, Refused

Permission = Literal["public", "user"]


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """An operation on a model: its body, what the engine is asked, and a line for /docs."""

    body: type[Body]
    operation: Operation
    summary: str
    permission: Permission = "user"


def _chat(name: str, path: str, text_field: str, dialect: Dialect = Dialect.CHAT_COMPLETIONS) -> Operation:
    return Operation(name, path, Task.CHAT, text_field, dialect)


def _embedding(name: str, path: str, text_field: str) -> Operation:
    return Operation(name, path, Task.EMBEDDING, text_field)


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
    ModelRoute(embeddings.Embeddings, _embedding("embedding", "/v1/embeddings", "input"), "Turn texts into vectors"),
    ModelRoute(embeddings.Rerank, _embedding("rerank", "/v1/rerank", "documents"), "Order documents by a query"),
    ModelRoute(embeddings.Score, _embedding("score", "/v1/score", "text_2"), "Score how alike texts are, pair by pair"),
)

PLAIN_ROUTES: dict[str, Permission] = {
    "/v1/models": "user",
    "/v1/models/{model}": "user",
    "/health/live": "public",
    "/health/ready": "public",
    "/metrics": "public",  # model names and counts only
    "/docs": "public",
    "/docs/{asset}": "public",
    "/openapi.json": "public",
}

_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}


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
    _add_health(app, house)
    _add_docs(app)
    _add_errors(app, house)
    return app


def _add_model_route(app: Door, house: House, route: ModelRoute) -> None:
    exchange = app.exchanges[route.operation.path] = Exchange(house, route.operation, route.body)

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
        served = house.fleet.find(name)
        if anthropic_shape:
            made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
            return {"type": "model", "id": name, "display_name": served.title, "created_at": made}
        shown = {"id": name, "object": "model", "created": began, "owned_by": "appliance"}
        return shown | ({"max_model_len": served.context_length} if served.context_length else {})

    @app.get(
        "/v1/models",
        tags=["Models"],
        summary="The models that can be asked for",
        openapi_extra={"security": [{"key": []}]},
    )
    async def list_models(request: Request) -> Response:
        authenticate(request.scope, house.keys)
        shape = "anthropic-version" in request.headers
        data = [describe(name, anthropic_shape=shape) for name in sorted(house.fleet.served)]
        if shape:
            first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
            return JSONResponse({"data": data, "has_more": False, "first_id": first, "last_id": last})
        return JSONResponse({"object": "list", "data": data})

    @app.get("/v1/models/{model:path}", tags=["Models"], summary="One model", openapi_extra={"security": [{"key": []}]})
    async def one_model(request: Request, model: str) -> Response:
        authenticate(request.scope, house.keys)
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
        fit, proven = all(served.ready for served in house.fleet.served.values()), house.pipeline.proven
        shown = {"status": "ready" if fit and proven else "not ready", "models": states}
        if not proven:
            shown["egress"] = "not proven"
        return JSONResponse(shown, 200) if fit and proven else JSONResponse(shown, 503, {"retry-after": "5"})

    @app.get("/metrics", tags=["Operation"], summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(house.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _state(state: State | None) -> str:
    return str(state) if state is not None else "endpoint"


def _add_docs(app: FastAPI) -> None:
    static = resources.files("fastapi_offline") / "static"

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/docs/swagger-ui-bundle.js",
            swagger_css_url="/docs/swagger-ui.css",
            swagger_favicon_url="/docs/favicon.png",
        )

    @app.get("/docs/{asset}", include_in_schema=False)
    async def docs_asset(asset: str) -> Response:
        if asset not in _ASSETS:
            raise NotFound("there is no such page here", code="unknown_path")
        return Response((static / asset).read_bytes(), media_type=_ASSETS[asset])

    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            components = schema.setdefault("components", {})
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schemas = components.setdefault("schemas", {})
            for route in MODEL_ROUTES:
                body = route.body.model_json_schema(ref_template="#/components/schemas/{model}")
                for name, part in {**body.pop("$defs", {}), route.body.__name__: body}.items():
                    if schemas.setdefault(name, part) != part:
                        raise RuntimeError(f"two bodies have a part named {name}; rename one")
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _add_errors(app: FastAPI, house: House) -> None:
    def answer(request: Request, refusal: Refused, headers: dict[str, str] | None = None) -> Response:
        id_ = request_id(request.scope)
        house.metrics.refusals.labels(refusal.code or "other").inc()
        house.pipeline.refused(logged(id_), None, None, refusal)
        body = envelope.whole(refusal, envelope.dialect_of(request.url.path), id_)
        return Response(body, refusal.status, headers, media_type="application/json")

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
        id_ = logged(request_id(request.scope))
        logging.getLogger("appliance.api").error("request %s: %s", id_, type(why).__name__)
        return answer(request, Failed("the appliance failed; its log has more"))
