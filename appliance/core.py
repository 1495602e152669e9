"""The few nouns that every room speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Task(StrEnum):
    """What a model is for."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    RERANK = "rerank"


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
    also: Task | None = None
    """Another kind of model that can do it, too."""

    def suits(self, task: Task) -> bool:
        """Whether a model for `task` can do it."""
        return task in (self.task, self.also)


class Role(StrEnum):
    """What a caller may do; appliance/accounts/roles.py has the table."""

    USER = "user"
    POWER_USER = "power_user"
    ADMIN = "admin"
    SUPER_ADMIN = "super_admin"
    AUDITOR = "auditor"


class ServiceClass(StrEnum):
    """How urgent a request is. Set by key or use case, never by what a client sends in the body."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


class DataClass(StrEnum):
    """How sensitive what a request says is, the least first. It only ever rises on the way through the appliance."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    PERSONAL = "personal"

    @property
    def rank(self) -> int:
        """0 for `public`, and so on."""
        return list(DataClass).index(self)


def highest(*classes: DataClass | None) -> DataClass:
    """The most sensitive of them; those that are None say nothing."""
    return max((each for each in classes if each is not None), key=lambda each: each.rank)


BY_TOKEN = "oidc_"  # noqa: S105 - no secret
"""What key ids begin with that stand for people who sign in; they are in no list of keys."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, by key or by token. `key_id` names the key without revealing it."""

    key_id: str
    role: Role = Role.USER
    user: str | None = None
    team: str | None = None
    use_cases: frozenset[str] = frozenset()
    """Those that it may name in `X-Use-Case`."""
    service_class: ServiceClass = ServiceClass.STANDARD
    data_class: DataClass | None = None
    """The least that what it asks counts as; None: what the config says of all."""


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request. `payload` is JSON built from known fields only, and never the caller's own bytes."""

    id: str
    """As in the logs: the caller's own where it is surely no name, else ours, or what hides it."""
    caller: Caller
    operation: Operation
    model: str
    payload: bytes = field(repr=False)
    stream: bool = False
    choices: int = 1
    usage_wanted: bool = True
    """False: usage in the stream was our own wish, for settling, and is not shown to the caller."""
    use_case: str | None = None
    """From `X-Use-Case`, checked against what the key may name."""
    service_class: ServiceClass = ServiceClass.STANDARD
    data_class: DataClass = DataClass.PERSONAL
    """The floor: of key, use case and `X-Data-Class` the highest. What is found in it can raise it still."""
    local_only: bool = False
    """`X-Route: local`: it is answered in the house or not at all."""
    most_prompt_tokens: int = 0
    most_completion_tokens: int = 0
    """What it can come to at most, of all its answers together: this much is reserved before it runs."""


@dataclass(slots=True)
class Usage:
    """Tokens that a request took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Reply(Protocol):
    """The way back to the caller; `api` implements it, the pipeline writes to it."""

    @property
    def begun(self) -> bool:
        """Whether something has gone to the caller, so that nothing else can answer any more."""

    def note(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send these headers, too, with whatever comes: an answer or an error."""

    async def whole(self, body: bytes) -> None:
        """Send a complete JSON answer."""

    async def begin(self) -> None:
        """Send the head of an event stream."""

    async def frames(self, data: bytes) -> None:
        """Send whole server-sent events. Waits while the caller reads slowly."""

    async def end(self) -> None:
        """Close an event stream that came to its proper end."""
