"""All the text of a request, read and replaced."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from appliance.privacy.documents import Leaf, edited, is_document
from appliance.privacy.kinds import Kind, Span
from appliance.privacy.operations import SHAPES
from appliance.privacy.shapes import Path, Unreadable, where
from appliance.privacy.spelling import spaced
from appliance.privacy.view import View


@dataclass(frozen=True, slots=True)
class Text:
    """A place that holds text."""

    path: Path
    """To it, or to the JSON in text form that holds it."""
    text: str = field(repr=False)
    form: Literal["text", "name", "number"] = "text"
    """A name is an identifier: of a tool or in JSON. A number is written out."""
    kind: Kind | None = None
    """What it is as a whole, where its place says so."""


@dataclass(frozen=True, slots=True)
class Fields:
    """All text of a request."""

    operation: str
    texts: tuple[Text, ...] = ()
    views: tuple[View, ...] = ()
    """Every text is in one of them."""
    unreadable: str | None = None
    """What nobody here can read, in words that hold nothing of it; None: all was read."""

    def spread(self, found: Sequence[Sequence[Span]]) -> list[list[Span]]:
        """Finds in views as finds in texts, with those that the texts' places tell."""
        spans: list[list[Span]] = [
            [Span(0, len(text.text), text.kind, 1.0, "place")] if text.kind and text.text else [] for text in self.texts
        ]
        for view, finds in zip(self.views, found, strict=True):
            for find in finds:
                for index, span in view.places(find).items():
                    spans[index].append(span)
        return spans


def texts(operation: str, payload: Any) -> Fields:
    """All text of the parsed JSON of a request. `operation` is one of `SHAPES`."""
    if not isinstance(payload, dict):
        return Fields(operation, unreadable="the body is no object")
    visitor = _Visitor()
    try:
        SHAPES[operation](payload, (), visitor)
    except Unreadable as what:
        return Fields(operation, unreadable=str(what))
    if torn := _torn(visitor.texts):
        return Fields(operation, unreadable=torn)
    return Fields(operation, tuple(visitor.texts), tuple(visitor.views))


def _torn(found: Sequence[Text]) -> str | None:
    """Where a word begins in one part of a message and ends in the next: a model reads it as one, no detector does."""
    for first, then in pairwise(found):
        in_parts = first.path[-1:] == then.path[-1:] == ("text",) and first.path[:-2] == then.path[:-2]
        end, start = first.text[-1:], then.text[:1]
        goes_on = (end.isalpha() and start.isalpha()) or (end.isdigit() and start.isdigit())
        if in_parts and goes_on and first.path[-2] != then.path[-2]:
            return f"a word that begins in {where(first.path)} and goes on in the next part"
    return None


def replaced(payload: Any, fields: Fields, others: Sequence[str]) -> bytes:
    """The same JSON, `others` in the places of `fields.texts`."""
    if len(others) != len(fields.texts):
        raise ValueError("there must be one text for each place")
    rebuilt = SHAPES[fields.operation](payload, (), _Visitor(others))
    return json.dumps(rebuilt, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


class _Visitor:
    """Collects texts, or puts others in their places."""

    def __init__(self, others: Sequence[str] | None = None) -> None:
        self.texts: list[Text] = []
        self.views: list[View] = []
        self._others = others
        self._ids: dict[str, str] = {}
        self._view: View | None = None

    def text(self, value: str, path: Path, kind: Kind | None = None) -> str:
        """Text of people or models."""
        if is_document(value):
            return self.document(value, path)
        return self._visit(Text(path, value, "text", kind))

    def name(self, value: str, path: Path) -> str:
        """An identifier."""
        return self._visit(Text(path, value, "name"))

    def id(self, value: str) -> str:
        """An identifier that says nothing and is seen by nobody: a short one of ours, in a form that all take."""
        return self._ids.setdefault(value, f"call{len(self._ids) + 1:05}")

    def document(self, value: str, path: Path, kept: Collection[str] = ()) -> str:
        """JSON in text form, read as a form is: `key: value`, line by line."""
        outer, self._view = self._view, View()

        def visit(leaf: Leaf) -> str:
            if leaf.form == "string" and is_document(leaf.text):
                return self.document(leaf.text, path, kept)
            form: Literal["text", "name", "number"] = (
                "name" if leaf.form == "key" else "number" if leaf.form == "number" else "text"
            )
            new = self._visit(Text(path, leaf.text, form))
            if self._view is not None:
                self._view.say(": " if leaf.form == "key" else "\n")
            return new

        result = edited(value, visit, kept)
        if self._view:
            self.views.append(self._view)
        self._view = outer
        return result

    def _visit(self, text: Text) -> str:
        index = len(self.texts)
        self.texts.append(text)
        view = self._view if self._view is not None else View()
        view.add(index, spaced(text.text) if text.form == "name" else [(0, text.text)])
        if self._view is None:
            self.views.append(view)
        return text.text if self._others is None else self._others[index]
