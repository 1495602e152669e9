"""Counts the tokens of a prompt that was computed, where the answer broke off before the engine told."""

from __future__ import annotations

import json
from typing import Any

from appliance.core import Dialect, Request
from appliance.engines.served import Served
from appliance.errors import Refused

_TOKENIZE = "/tokenize"
_OF_CHAT = ("messages", "tools", "chat_template_kwargs")
_OF_MESSAGES = ("messages", "system", "tools", "tool_choice")


async def prompt_tokens(request: Request, served: Served) -> int | None:
    """Ask the engine that computed it; None where it can't say: it has gone, or has no way to count such a body."""
    asked = _question(request)
    if asked is None or served.engine is None:
        return None
    path, body = asked
    try:
        with served.hold() as upstream:
            response = await upstream.post(path, body)
            try:
                answer = json.loads(await response.whole()) if response.status == 200 else {}
            finally:
                response.close()
    except (Refused, ValueError):
        return None
    count = answer.get("input_tokens" if path != _TOKENIZE else "count") if isinstance(answer, dict) else None
    return count if isinstance(count, int) else None


def _question(request: Request) -> tuple[str, bytes] | None:
    body: dict[str, Any] = json.loads(request.payload)
    kept: tuple[str, ...]
    match request.operation.dialect:
        case Dialect.MESSAGES:
            kept, path = _OF_MESSAGES, "/v1/messages/count_tokens"
        case Dialect.CHAT_COMPLETIONS if "messages" in body:
            kept, path = _OF_CHAT, _TOKENIZE
        case Dialect.CHAT_COMPLETIONS if isinstance(body.get("prompt"), str):
            kept, path = ("prompt",), _TOKENIZE
        case _:
            return None
    return path, json.dumps({name: body[name] for name in ("model", *kept) if name in body}).encode()
