"""What the gate says of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from appliance.core import DataClass


class Held(StrEnum):
    """Why a request stays in the house. These words stand in the audit log and in answers."""

    POLICY = "policy"
    """No rule lets this class and use case out."""
    NO_PROVIDER = "no_provider"
    """A rule does, but no provider has the region and the agreement that it demands."""
    OPERATION = "operation"
    """This kind of request is answered in the house only."""
    UNREADABLE = "unreadable"
    """It holds what nobody here can read: an image, a file, audio, bytes, code that doesn't parse."""
    SECRET = "secret"  # noqa: S105 - no secret
    LANGUAGE = "language"
    """A text in a language that the detectors don't know."""
    TOO_LARGE = "too_large"
    REMAINS = "remains"
    """After masking, something of an original still stands in what would be sent."""
    DOUBT = "doubt"
    """The second look, which is stricter, finds something in what would be sent."""
    WORDS = "words"
    """A strict tenant's allow-list doesn't know a word."""
    DETECTOR = "detector"
    """A detector failed, was too slow, or said nonsense."""
    GATE = "gate"
    """The gate itself failed or is gone."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """May a request leave, and in which words. Made by the gate's process alone."""

    data_class: DataClass
    """After detection; never under the request's floor."""
    found: Mapping[str, int]
    """Kind to how many different values of it were found."""
    held: Held | None
    """Why it stays; None: it may be sent."""
    why: str = ""
    """In a sentence for whoever asked; holds nothing of the request."""
    providers: tuple[str, ...] = ()
    """Names of the providers that may get it, in order."""
    rule: str = ""
    """The rule of the policy that decided, `rule 2: personal, use case letters`."""
    purpose: str = ""
    payload: bytes = field(default=b"", repr=False)
    """The request's payload as it may be sent: the same JSON with placeholders."""
    originals: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Placeholder to what it stands for."""
    ticket: str = ""
    """Names it at the gate, which clears final bytes for it as long as it is held there."""
