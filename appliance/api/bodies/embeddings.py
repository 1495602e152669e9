"""Embeddings in OpenAI's form; rerank and score, which the field has agreed on beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from appliance.api.bodies.base import (
    ACCOUNT,
    Body,
    Bound,
    Items,
    Part,
    Text,
    TokenIds,
    Tokens,
    ignored,
    refuse,
    tokens_in,
)

TextOrTexts = (
    Annotated[Text, Field(min_length=1)] | Annotated[Items[Annotated[Text, Field(min_length=1)]], Field(min_length=1)]
)
_MARKS = 8
"""Tokens with which a model tells the two texts of a pair apart, at most."""


class Reading(Body):
    """A body that is read and not answered in words."""

    def most_tokens(self, payload: bytes, context_length: int | None) -> tuple[int, int]:
        """Marks around a text are no more than its quotes and comma."""
        return tokens_in(payload) + self.repeated_tokens(), 0

    def repeated_tokens(self) -> int:
        """What text that the model reads again and again comes to at most."""
        return 0


class Embeddings(Reading):
    """POST /v1/embeddings."""

    input: TextOrTexts | TokenIds | Annotated[Items[TokenIds], Field(min_length=1)]
    dimensions: Tokens | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: Any = ignored(ACCOUNT)

    def check(self, bound: Bound) -> None:
        """Hold the number of texts to the limits."""
        if isinstance(self.input, list) and not isinstance(self.input[0], int):
            bound.most("input", len(self.input), bound.limits.inputs)
        bound.token_ids("input", self.input)


class DocumentText(Part):
    """A document as an object."""

    text: Text


class Rerank(Reading):
    """POST /v1/rerank."""

    query: Annotated[Text, Field(min_length=1)]
    documents: Annotated[Items[Text | DocumentText], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=0)] | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=0)] | None = None
    return_documents: Any = ignored("Documents always come back with their scores.")
    rank_fields: Any = ignored("Only `text` is ranked.")

    def check(self, bound: Bound) -> None:
        """Hold the number of documents to the limits."""
        bound.most("documents", len(self.documents), bound.limits.inputs)

    def repeated_tokens(self) -> int:
        """The query stands beside each document, and so do the marks around it."""
        return (tokens_in(self.query.encode()) + _MARKS) * len(self.documents)

    def prepare(self, output_tokens: int | None) -> None:
        """The engine takes documents as plain strings."""
        self.documents = [item if isinstance(item, str) else item.text for item in self.documents]


class Score(Reading):
    """POST /v1/score: how alike the texts of `text_1` and `text_2` are, pair by pair."""

    text_1: TextOrTexts
    text_2: TextOrTexts

    def check(self, bound: Bound) -> None:
        """Hold the number of texts to the limits, and pairs to be pairs."""
        first = len(self.text_1) if isinstance(self.text_1, list) else 1
        second = len(self.text_2) if isinstance(self.text_2, list) else 1
        bound.most("text_1", first, bound.limits.inputs)
        bound.most("text_2", second, bound.limits.inputs)
        if first not in (1, second):
            refuse("text_1", "text_1 must be one text, or as many as text_2")

    def repeated_tokens(self) -> int:
        """One text stands beside each of several."""
        texts = len(self.text_2) if isinstance(self.text_2, list) else 1
        first = [self.text_1] if isinstance(self.text_1, str) else self.text_1
        repeated = tokens_in(first[0].encode()) if len(first) == 1 else 0
        return (repeated + _MARKS) * texts
