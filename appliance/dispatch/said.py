"""The words of an answer, in whatever dialect it was given. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from appliance.core import Request

_TEXTS = frozenset({"text", "content", "arguments", "partial_json"})
"""The fields of all dialects in which a model's own words stand, in answers and in the events of a stream."""
_AGAIN = frozenset({
    "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    "response.incomplete", "response.function_call_arguments.done", "response.reasoning_text.done",
})  # fmt: skip
"""Events that say once more what was said."""


def said(request: Request, answer: bytes) -> str:
    """What the model said in `answer`: a whole body, or the events of a stream, which may be cut off at its end."""
    if not request.stream:
        try:
            return " ".join(_texts(json.loads(answer)))
        except (ValueError, RecursionError):
            return ""
    return "".join(text for event in _events(answer) for text in _texts(event))


def _events(answer: bytes) -> Iterator[Any]:
    for line in answer.split(b"\n"):
        if line.startswith(b"data:"):
            try:
                event = json.loads(line[5:])
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict) and event.get("type") not in _AGAIN:
                yield event


def _texts(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, str):
        if name in _TEXTS or name == "delta":
            yield value
    elif isinstance(value, dict):
        for inner, each in value.items():
            if inner != "logprobs":
                yield from _texts(each, inner)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
