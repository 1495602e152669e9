"""What is asked of the gate, and what the gate asks of the detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.core import DataClass
from appliance.privacy.kinds import Span
from appliance.privacy.verdict import Held, Verdict


@dataclass(frozen=True, slots=True)
class Asked:
    """May this request leave?"""

    operation: str
    """`chat`, `message`, ...: the name of an `appliance.core.Operation`."""
    payload: bytes = field(repr=False)
    """The request's JSON."""
    floor: DataClass
    use_case: str | None
    limit_seconds: float
    """For the whole answer; what takes longer stays in the house."""

    def stays(self, held: Held, why: str) -> Verdict:
        """The verdict that it stays, where no more is known of it than its floor."""
        return Verdict(self.floor, {}, held, why)


@dataclass(frozen=True, slots=True)
class Explained:
    """One text of a request, and what was found in it."""

    path: tuple[str | int, ...]
    """Where it stands in the JSON."""
    text: str = field(repr=False)
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a request, and why. Nothing of it is kept, and its verdict clears nothing."""

    verdict: Verdict
    texts: tuple[Explained, ...] = field(default=(), repr=False)


class DetectorFailed(Exception):
    """A detector ended, was too slow, or said nonsense. The message holds nothing of what it was given."""


class Detect(Protocol):
    """The detectors, as the gate has them. An answer has one entry for each text. Raises `DetectorFailed`."""

    async def find(self, texts: Sequence[str], *, strict: bool = False) -> list[list[Span]]:
        """What is personal in each: sorted, without overlaps; indices into the text as given."""

    async def language(self, texts: Sequence[str]) -> list[str]:
        """`de`, `en`, another code, `other`, or empty where a text is too short to tell."""

    async def known(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Words that are on no list of ordinary words."""
