"""What a part of a request can look like.

A shape is a function that rebuilds a part of a payload. What it meets on the way that can be text it hands to a
visitor and takes back, changed or not, so that what is read and what is replaced can't differ. It raises `Unreadable`
for whatever has no place in it, and for what no detector can read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from appliance.privacy.documents import is_json
from appliance.privacy.kinds import Kind

Path = tuple[str | int, ...]


class Visitor(Protocol):
    """Sees every text, in the order in which they stand, and says what is to stand there."""

    def text(self, value: str, path: Path, kind: Kind | None = None) -> str:
        """Text of people or models; `kind` says what all of it is, where its place tells."""

    def name(self, value: str, path: Path) -> str:
        """An identifier."""

    def id(self, value: str) -> str:
        """What only tells calls of tools from each other."""

    def document(self, value: str, path: Path, kept: Collection[str] = ()) -> str:
        """JSON in text form; strings in `kept` are no text."""


class Unreadable(Exception):
    """The message says what, and holds nothing of it."""


Shape = Callable[[Any, Path, Visitor], Any]


_ROLES = ("user", "assistant", "system", "developer", "tool", "example_user", "example_assistant")
# What JSON schema itself says.
_SCHEMA = """
$schema $id $ref $defs $comment $anchor additionalItems additionalProperties allOf anyOf array boolean const contains
contentEncoding contentMediaType contentSchema default definitions dependentRequired dependentSchemas deprecated
description else enum examples exclusiveMaximum exclusiveMinimum format if integer items maxContains maxItems
maxLength maxProperties maximum minContains minItems minLength minProperties minimum multipleOf not null number object
oneOf pattern patternProperties prefixItems properties propertyNames readOnly required string then title type
unevaluatedItems unevaluatedProperties uniqueItems writeOnly date date-time time duration email uri uuid hostname ipv4
ipv6
"""
_SCHEMA_WORDS = frozenset(_SCHEMA.split())


def where(path: Path) -> str:
    """Our own words and numbers only: no shape goes on below a key that a caller chose."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or "the body"


def plain(value: Any, path: Path, _: Visitor) -> Any:
    """A number, a switch, or nothing."""
    if value is None or isinstance(value, bool | int | float):
        return value
    raise Unreadable(f"{where(path)} is not of a kind that can be read")


def text(value: Any, path: Path, visitor: Visitor) -> Any:
    """Text of people or models."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Unreadable(f"{where(path)} is not text")
    return visitor.text(value, path)


def speaker(value: Any, path: Path, visitor: Visitor) -> Any:
    """Who speaks: a person, unless it is the name of a role."""
    if not isinstance(value, str) or value in _ROLES:
        return text(value, path, visitor)
    return visitor.text(value, path, Kind.PERSON)


def name(value: Any, path: Path, visitor: Visitor) -> Any:
    """An identifier."""
    return visitor.name(value, path) if isinstance(value, str) else plain(value, path, visitor)


def identifier(value: Any, path: Path, visitor: Visitor) -> Any:
    """What only tells calls of tools from each other."""
    return visitor.id(value) if isinstance(value, str) else plain(value, path, visitor)


def our_own(value: Any, path: Path, _: Visitor) -> Any:
    """A string that the appliance put there itself."""
    if not isinstance(value, str):
        raise Unreadable(f"{where(path)} is not ours")
    return value


def arguments(value: Any, path: Path, visitor: Visitor) -> Any:
    """JSON in text form."""
    if value == "":
        return value
    if not isinstance(value, str) or not is_json(value):
        raise Unreadable(f"{where(path)} is no JSON")
    return visitor.document(value, path)


def document(value: Any, path: Path, visitor: Visitor) -> Any:
    """JSON that a caller designed."""
    return json.loads(visitor.document(json.dumps(value, ensure_ascii=False), path))


def schema(value: Any, path: Path, visitor: Visitor) -> Any:
    """A JSON schema."""
    return json.loads(visitor.document(json.dumps(value, ensure_ascii=False), path, _SCHEMA_WORDS))


def held(what: str) -> Shape:
    """What nobody here can read; `what` says what it is."""

    def shape(value: Any, path: Path, _: Visitor) -> Any:
        raise Unreadable(f"{where(path)} is {what}")

    return shape


def word(*words: str) -> Shape:
    """One of some words of the protocol."""

    def shape(value: Any, path: Path, visitor: Visitor) -> Any:
        return value if isinstance(value, str) and value in words else plain(value, path, visitor)

    return shape


def many(item: Shape) -> Shape:
    """A list."""

    def shape(value: Any, path: Path, visitor: Visitor) -> Any:
        if value is None:
            return None
        if not isinstance(value, list):
            raise Unreadable(f"{where(path)} is no list")
        return [item(each, (*path, index), visitor) for index, each in enumerate(value)]

    return shape


def record(**shapes: Shape) -> Shape:
    """An object of these fields, all or some."""

    def shape(value: Any, path: Path, visitor: Visitor) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise Unreadable(f"{where(path)} is no object")
        if not value.keys() <= shapes.keys():
            raise Unreadable(f"{where(path)} has a field that nobody here knows")
        return {key: shapes[key](each, (*path, key), visitor) for key, each in value.items()}

    return shape


def by(tag: str, shapes: Mapping[str, Shape]) -> Shape:
    """By what the field `tag` says."""

    def shape(value: Any, path: Path, visitor: Visitor) -> Any:
        if value is None:
            return None
        kind = value.get(tag) if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in shapes:
            raise Unreadable(f"{where(path)} is of a kind that nobody here knows")
        return shapes[kind](value, path, visitor)

    return shape


def without(types: Collection[str], shape: Shape) -> Shape:
    """A list without its parts of some types; they go no further."""

    def told(value: Any, path: Path, visitor: Visitor) -> Any:
        if not isinstance(value, list):
            return shape(value, path, visitor)
        left = [part for part in value if not (isinstance(part, dict) and part.get("type") in types)]
        if value and not left:
            raise Unreadable(f"{where(path)} holds nothing that can be read")
        return shape(left, path, visitor)

    return told


def either(string: Shape, other: Shape) -> Shape:
    """A string, or something else."""

    def shape(value: Any, path: Path, visitor: Visitor) -> Any:
        return (string if isinstance(value, str) else other)(value, path, visitor)

    return shape
