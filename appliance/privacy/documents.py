"""JSON as text: its strings, keys and numbers one by one, each replaceable where it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Literal, NamedTuple

# In text that is known to be JSON, this finds each string and each number, and nothing else.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?')
_KEY = re.compile(r"\s*:")


class Leaf(NamedTuple):
    """A string, a key or a number of a document."""

    text: str
    """Without quotes and escapes; of a number, its digits as written."""
    form: Literal["key", "string", "number"]


def is_document(text: str) -> bool:
    """Whether `text` is a JSON object or list as a whole."""
    return text.lstrip()[:1] in ("{", "[") and is_json(text)


def is_json(text: str) -> bool:
    """Whether `text` is JSON, not nested too deep, and holds only what can be written as UTF-8."""
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def leaves(text: str) -> Iterator[Leaf]:
    """Those of a JSON text, in order."""
    for token in _TOKEN.finditer(text):
        yield _leaf(text, token)


def edited(text: str, edit: Callable[[Leaf], str], kept: Collection[str] = ()) -> str:
    """The same JSON with other leaves; spaces and order stay. A number that changes becomes a string.

    Strings in `kept` are passed over.
    """

    def replace(token: re.Match[str]) -> str:
        leaf = _leaf(text, token)
        if leaf.form != "number" and leaf.text in kept:
            return token[0]
        new = edit(leaf)
        return token[0] if new == leaf.text else json.dumps(new, ensure_ascii=False)

    return _TOKEN.sub(replace, text)


def _leaf(text: str, token: re.Match[str]) -> Leaf:
    if token[0][0] != '"':
        return Leaf(token[0], "number")
    return Leaf(json.loads(token[0], strict=False), "key" if _KEY.match(text, token.end()) else "string")
