"""What an answer consists of, whoever gives it and in whichever dialect: the ground between providers and callers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """More of the text of a choice."""

    choice: int
    text: str
    refusal: bool = False
    """It says why the model declines."""


@dataclass(frozen=True, slots=True)
class Thought:
    """The model thinks; shown to nobody, since only who thought it could read it again."""


@dataclass(frozen=True, slots=True)
class Call:
    """A choice calls a tool. Its arguments follow; calls of one choice are numbered from 0."""

    choice: int
    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the JSON text of a call's arguments."""

    choice: int
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """A choice has come to its proper end. `reason` is one of `REASONS`."""

    choice: int
    reason: str
    sequence: str | None = None
    """The stop sequence that ended it, where the provider says so."""


@dataclass(frozen=True, slots=True)
class Used:
    """Tokens of the whole answer so far; None: not told."""

    prompt: int | None = None
    completion: int | None = None


Event = Text | Thought | Call | Arguments | Finish | Used

REASONS = ("stop", "length", "tool_calls", "content_filter")
"""Why a choice ended, in OpenAI's words."""
