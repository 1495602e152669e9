"""Reads a hand-written YAML file into a pydantic model, or says what is wrong and on which line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from appliance import plain
from appliance.errors import Invalid, Problem

M = TypeVar("M", bound=BaseModel)
Location = tuple[str | int, ...]

MOST_BYTES = 1_000_000
_MAX_DEPTH = 20
_MAX_VALUES = 200_000
_WORDS = (
    (r"input should be ", "must be "),
    (r"a valid dictionary or instance of \w+|a valid dictionary", "a section: indented lines below it, `name: value`"),
    (r"a valid string", "a text: put it in quotes"),
    (r"a valid integer", "a whole number"),
    (r"a valid boolean", "true or false"),
    (r"a valid (\w)", r"a \1"),
    (r"greater than or equal to", "at least"),
    (r"less than or equal to", "at most"),
)
"""What pydantic says, and how an administrator would."""
_HINTS = {
    "mapping values are not allowed here": "is it indented as the lines around it, and has each its colon?",
    "found character '\\t'": "indent with spaces, not with tabs",
}
"""What to do about what YAML's parser says."""


def read(path: Path, model: type[M], error: type[Invalid]) -> M:
    """Parse `path` (UTF-8 YAML, at most 1 MB) and validate it as `model`.

    Raises `error` with every problem found: its line, its dotted name and, for an unknown key,
    the known key that it resembles most. Values are never repeated in a message: one of them
    may be a secret written in the wrong place.
    """
    return parse(raw(path, error), str(path), model, error)


def raw(path: Path, error: type[Invalid]) -> bytes:
    """The bytes of `path`, for `parse`. Raises `error` when they can't be read, or are over 1 MB."""
    try:
        found = plain.read(path, MOST_BYTES + 1)
    except OSError as cause:
        raise error(str(path), [Problem("", f"can't be read: {cause.strerror}")]) from cause
    if len(found) > MOST_BYTES:
        raise error(str(path), [Problem("", f"is over {MOST_BYTES} bytes; is it the right file?")])
    return found


def parse(raw: bytes, name: str, model: type[M], error: type[Invalid]) -> M:
    """As `read`, from bytes already at hand; `name` is what messages call them."""
    try:
        root = yaml.compose(raw.decode(), Loader=yaml.SafeLoader)
    except RecursionError:
        raise error(name, [Problem("", f"is nested more than {_MAX_DEPTH} deep")]) from None
    except UnicodeDecodeError as cause:
        raise error(name, [Problem("", f"isn't UTF-8 at byte {cause.start}")]) from cause
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark
        raise error(name, [Problem("", _broken(cause), mark.line + 1 if mark else None)]) from cause
    except yaml.YAMLError as cause:
        raise error(name, [Problem("", f"isn't YAML: {cause}")]) from cause
    if not isinstance(root, yaml.MappingNode):
        raise error(name, [Problem("", "must be a mapping of settings", 1)])
    lines: dict[Location, int] = {}
    problems: list[Problem] = []
    values = _plain(root, (), lines, problems)
    if problems:
        raise error(name, problems)
    try:
        return model.model_validate(values)
    except ValidationError as cause:
        found = [_problem(detail, model, lines) for detail in cause.errors()]
        raise error(name, found) from None


def line_of(raw: bytes, at: Location) -> int | None:
    """The line of the setting `at` in a file that `parse` took; None where it isn't set."""
    lines: dict[Location, int] = {}
    root = yaml.compose(raw.decode(), Loader=yaml.SafeLoader)
    if root is not None:
        _plain(root, (), lines, [])
    return lines.get(at)


def _plain(node: yaml.Node, at: Location, lines: dict[Location, int], problems: list[Problem]) -> Any:
    """Turn a YAML node into plain Python, noting the line of each value and refusing doubled keys."""
    line = node.start_mark.line + 1
    lines.setdefault(at, line)
    if len(at) > _MAX_DEPTH:  # also ends an alias that contains itself
        problems.append(Problem(dotted(at[:3]) + "…", f"is nested more than {_MAX_DEPTH} deep", line))
        return None
    if len(lines) > _MAX_VALUES:  # aliases of aliases make a small file immense
        if not problems:
            problems.append(Problem(dotted(at[:3]) + "…", f"is one of more than {_MAX_VALUES} values", line))
        return None
    if isinstance(node, yaml.MappingNode):
        pairs: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            where = (*at, key)
            if key in pairs:
                what = f"stands twice (first on line {lines[where]}); keep one"
                problems.append(Problem(dotted(where), what, key_node.start_mark.line + 1))
                continue
            lines[where] = key_node.start_mark.line + 1
            pairs[key] = _plain(value_node, where, lines, problems)
        return pairs
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*at, index), lines, problems) for index, item in enumerate(node.value)]
    if not node.tag.startswith("tag:yaml.org,2002:"):
        problems.append(Problem(dotted(at), f"the YAML tag {node.tag} isn't allowed", line))
        return None
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):
        problems.append(Problem(dotted(at), "isn't what its form or its YAML tag promises", line))
        return None


def _broken(cause: yaml.MarkedYAMLError) -> str:
    what = f"isn't YAML: {cause.problem or cause.context}"
    if cause.problem and cause.context and (begun := cause.context_mark):
        what += f", {cause.context} that begins on line {begun.line + 1}"
    return "; ".join([what, *(hint for said, hint in _HINTS.items() if said in what)])


def _problem(detail: ErrorDetails, model: type[BaseModel], lines: dict[Location, int]) -> Problem:
    # pydantic puts the tags of unions into `loc`; the longest prefix that the file knows is the place
    location = tuple(part for part in detail["loc"] if not str(part).startswith(("function-", "tagged-")))
    real: Location = ()
    for part in location:
        if (*real, part) in lines:
            real = (*real, part)
    last = location[-1] if location else ""
    kind = detail["type"]
    if kind == "extra_forbidden":
        there, anywhere = sorted(_names_in(model, location[:-1])), sorted(field_names(model))
        near = [each for names in (there, anywhere) for each in difflib.get_close_matches(str(last), names, n=1)]
        hint = f"; did you mean `{near[0]}`?" if near else ""
        return Problem(dotted(real), f"unknown setting{hint}", lines.get(real))
    if kind == "missing":
        return Problem(dotted((*real, last)), "is missing", lines.get(real))
    if detail.get("input", last) is None:
        return Problem(dotted(real), "has no value; give it one, or remove the line", lines.get(real))
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if kind != "value_error":
        for theirs, ours in _WORDS:
            message = re.sub(theirs, ours, message)
    return Problem(dotted(real), message, lines.get(real))


def _names_in(model: type[BaseModel], at: Location) -> set[str]:
    """The keys that may stand in the section `at`."""
    within = {model}
    for part in at:
        fields = [each.model_fields[str(part)].annotation for each in within if str(part) in each.model_fields]
        within = {each for field in fields for each in _models_in(field)} or within  # a name in a mapping, an index
    return {field.alias or name for each in within for name, field in each.model_fields.items()}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models_in(each)


def field_names(model: type[BaseModel]) -> set[str]:
    """Every key that `model` or a model inside it knows."""
    names: set[str] = set()
    waiting: list[Any] = [model]
    seen: set[Any] = set()
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
            seen.add(kind)
            for name, field in kind.model_fields.items():
                names.add(field.alias or name)
                waiting.append(field.annotation)
        waiting.extend(get_args(kind))
    return names


def dotted(location: Location) -> str:
    """`("models", "chat", "card")` as `models.chat.card`, an index as `[2]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
