"""The few nouns that every room speaks of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Task(StrEnum):
    """What a model is for."""

    CHAT = "chat"
    EMBEDDING = "embedding"


class Dialect(StrEnum):
    """Whose API a caller speaks; decides the shape of bodies, events and errors."""

    CHAT_COMPLETIONS = "chat_completions"
    RESPONSES = "responses"
    MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a caller can ask a model for: a path here and the same path at the engine."""

    name: str
    path: str
    task: Task
    text_field: str
    """The field to name when the text in it is too long for the model."""
    dialect: Dialect = Dialect.CHAT_COMPLETIONS


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `key_id` names the key without revealing it."""

    key_id: str


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request. `payload` is JSON built from known fields only, and never the caller's own bytes."""

    id: str
    """As in the logs: the caller's own where it is surely no name, else ours or a hash."""
    caller: Caller
    operation: Operation
    model: str
    payload: bytes = field(repr=False)
    stream: bool = False
    choices: int = 1
    usage_wanted: bool = True
    """False: usage in the stream was our own wish, for settling, and is not shown to the caller."""


@dataclass(slots=True)
class Usage:
    """Tokens that a request took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Reply(Protocol):
    """The way back to the caller; `api` implements it, the pipeline writes to it."""

    async def whole(self, body: bytes) -> None:
        """Send a complete JSON answer."""

    async def begin(self) -> None:
        """Send the head of an event stream."""

    async def frames(self, data: bytes) -> None:
        """Send whole server-sent events. Waits while the caller reads slowly."""

    async def end(self) -> None:
        """Close an event stream that came to its proper end."""
