"""Query parameters, as strict as bodies: one that is overlooked would show more than was asked for."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from fastapi import Request

from appliance.api.bodies.base import refuse

_LONGEST = 256


def parameters(request: Request, known: Collection[str]) -> dict[str, str]:
    """The query's parameters. Raises `BadRequest` for one that is unknown, stands twice, or is no plain text."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            refuse(name[:64], f"there is no such parameter here{hint}", "unknown_field")
        if name in given:
            refuse(name, f"{name} stands twice; give it once")
        if len(value) > _LONGEST or not value.isprintable():
            refuse(name, f"{name} must be at most {_LONGEST} printable characters")
        given[name] = value
    return given


def whole(name: str, text: str, most: int) -> int:
    """`text` as a whole number from 1 to `most`. Raises `BadRequest`."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:17]) <= most:
        refuse(name, f"{name} must be a whole number from 1 to {most}")
    return int(text)
