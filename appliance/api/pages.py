"""/docs and what it shows: nothing on it is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel

from appliance.errors import NotFound

_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}


def add(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> None:
    """Add the pages; the schema tells of `bodies`, which FastAPI doesn't see parsed."""
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
            for kind in bodies:
                body = kind.model_json_schema(ref_template="#/components/schemas/{model}")
                for name, part in {**body.pop("$defs", {}), kind.__name__: body}.items():
                    if schemas.setdefault(name, part) != part:
                        raise RuntimeError(f"two bodies have a part named {name}; rename one")
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
