"""Records as rows of one flat table, for spreadsheets."""

from __future__ import annotations

import json
from typing import Any

from appliance.signing import written

_PLAIN = (
    "request", "subject", "key", "team", "role", "use_case", "purpose", "operation", "model", "weights", "policy",
    "class", "route", "stream", "most_tokens", "intent", "outcome", "status", "code", "why", "prompt_tokens",
    "completion_tokens", "nanoeuros", "wait_ms", "first_token_ms", "total_ms", "finish", "act", "phase", "of",
    "incident", "seconds",
)  # fmt: skip
_PARTS = {
    "by_subject": ("by", "subject"), "by_role": ("by", "role"), "by_key": ("by", "key"),
    "target_subject": ("target", "subject"),
}  # fmt: skip
COLUMNS = ("seq", "at", "kind", *_PLAIN, *_PARTS, "more")
"""`more` has what of a record's body is in no other column, as JSON. What is sealed is left out."""
_ELSEWHERE = frozenset({*_PLAIN, *(part for part, _ in _PARTS.values()), "sealed"})


def row(line: bytes) -> tuple[str | int, ...]:
    """The cells of one record, one for each of COLUMNS. Raises ValueError for a damaged line."""
    try:
        record: dict[str, Any] = json.loads(line)
        body = record["body"]
        more = {name: value for name, value in body.items() if name not in _ELSEWHERE}
        return (
            record["seq"],
            record["at"],
            record["kind"],
            *(_cell(body.get(name)) for name in _PLAIN),
            *(_cell(_part(body, part).get(name)) for part, name in _PARTS.values()),
            _cell(more or None),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise ValueError("this is no record") from cause


def _part(body: dict[str, Any], name: str) -> dict[str, Any]:
    part = body.get(name)
    return part if isinstance(part, dict) else {}


def _cell(value: Any) -> str | int:
    """`value` for a cell: nothing for null, words for truth values, JSON for what has parts."""
    if value is None:
        return ""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return value
    return written(value).decode()
