"""Requests made of labelled texts and of generated documents, and their strings beside those of what left."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from appliance.privacy.kinds import Kind
from benchmarks.documents import Document
from benchmarks.judging import TOLERABLE, leaks
from benchmarks.labelled import Label, Labelled


@dataclass(frozen=True, slots=True)
class Case:
    """A chat completion and what is personal in it, string by string as `strings` walks it."""

    id: str
    language: str
    slice: str
    payload: dict[str, Any]
    texts: tuple[Labelled, ...]

    @property
    def personal(self) -> Counter[Kind]:
        """How many persons and identifiers there are in it, by kind: whatever `leaks` could name."""
        return Counter(
            label.kind
            for text in self.texts
            for label in text.labels
            if label.kind is not None and label.kind not in TOLERABLE
        )

    def leaks(self, sent: Any) -> list[tuple[Kind, str]]:
        """Persons and identifiers that still stand in the payload that was sent in this one's place.

        Raises `ValueError` when that isn't the same JSON but for its strings.
        """
        return [
            (label.kind or Kind.WORD, labelled.text[label.start : label.end])
            for labelled, masked in zip(self.texts, strings(sent), strict=True)
            for label in leaks(labelled.labels, labelled.text, masked)
        ]


def of_text(labelled: Labelled) -> Case:
    """A request that consists of this text."""
    payload = {"model": "chat", "messages": [{"role": "user", "content": labelled.text}]}
    texts = [
        labelled if text == labelled.text else replace(labelled, text=text, labels=()) for text in strings(payload)
    ]
    return Case(labelled.id, labelled.language, labelled.slice, payload, tuple(texts))


def of_document(document: Document) -> Case:
    """A generated document, labelled wherever one of its known originals stands."""
    slice_ = f"generated {document.form}"
    texts = tuple(
        Labelled(document.id, text, tuple(_marked(text, document.originals)), document.language, slice_)
        for text in strings(document.payload)
    )
    return Case(document.id, document.language, slice_, document.payload, texts)


def _marked(text: str, originals: Iterable[tuple[Kind, str]]) -> list[Label]:
    taken: set[int] = set()
    labels = []
    for kind, value in sorted(originals, key=lambda each: -len(each[1])):
        for match in re.finditer(rf"(?<![^\W_]){re.escape(value)}(?=s?(?![^\W_]))", text):
            place = {*range(*match.span())}
            if not taken & place:
                taken |= place
                labels.append(Label(*match.span(), kind))
    return sorted(labels, key=lambda each: each.start)


def strings(value: Any) -> Iterator[str]:
    """Every string of a JSON value, keys included, in the order in which they stand; JSON within a string is taken
    apart, too."""
    match value:
        case str():
            inner = _inner(value)
            if inner is None:
                yield value
            else:
                yield from strings(inner)
        case dict():
            for key, each in value.items():
                yield key
                yield from strings(each)
        case list():
            for each in value:
                yield from strings(each)


def _inner(text: str) -> Any:
    if text[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None
