"""Whether JSON fits a schema. The library for that is in the evaluation's environment, and not in the gateway's."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

import regex  # type: ignore[import-untyped]

SECONDS = 2.0
_PATTERN_SECONDS = 0.25
_NOT_OFFERED = {
    "patternProperties": "use `properties`",
    "unevaluatedProperties": "use `additionalProperties`",
    "$dynamicRef": "use `$ref`",
}
_DEEPEST, _MOST = 20, 2000


def require(schema: dict[str, Any]) -> None:
    """Raise ValueError with what to change in a schema that can't be used."""
    waiting: list[tuple[int, Any]] = [(0, schema)]
    seen = 0
    while waiting:
        depth, value = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST:
            raise ValueError(f"is over {_DEEPEST} levels or {_MOST} values")
        if isinstance(value, dict):
            for key in value.keys() & _NOT_OFFERED.keys():
                raise ValueError(f"{key} isn't offered; {_NOT_OFFERED[key]}")
            reference = value.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#"):
                raise ValueError("$ref leads only to a place in the same schema, such as `#/$defs/name`")
            waiting += [(depth + 1, each) for each in value.values()]
        elif isinstance(value, list):
            waiting += [(depth + 1, each) for each in value]


def objection(schema: dict[str, Any], answer: str) -> str | None:
    """Why `answer` isn't JSON that `schema` takes; None where it is. Ends within `SECONDS` in a main thread."""
    try:
        found = json.loads(_unfenced(answer))
    except (ValueError, RecursionError):
        return "isn't JSON"
    import jsonschema
    from referencing.jsonschema import EMPTY_REGISTRY

    checker = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
        jsonschema.Draft202012Validator, {"pattern": _pattern}
    )
    try:
        with _Limit(SECONDS):
            # the empty registry fetches nothing from anywhere
            first = next(checker(schema, registry=EMPTY_REGISTRY).iter_errors(found), None)
    except TimeoutError:
        return f"the schema took longer than {SECONDS:g} s; write a simpler one"
    except Exception as cause:
        return f"the schema can't be used: {type(cause).__name__}"
    if first is None:
        return None
    return f"the schema's {first.validator} doesn't hold at {len(first.absolute_path)} levels"


def _pattern(_: Any, pattern: str, instance: object, __: Any) -> Any:
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and not regex.search(pattern, instance, timeout=_PATTERN_SECONDS):
        yield ValidationError("pattern")


def _unfenced(answer: str) -> str:
    text = answer.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        return text[text.index("\n") : -3]
    return text


class _Limit:
    """Ends what takes longer, by an alarm: only a main thread can have one, and elsewhere nothing is limited."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._usable = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self._usable:
            self._before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        if self._usable:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    @staticmethod
    def _ring(*_: object) -> None:
        raise TimeoutError
