"""Puts on record what goes wrong, when it begins and when it is over: engines, the proof of the seal, books, identity.

That the log itself can't be written is the journal's to tell.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ENGINE, SEAL, OVERDUE = "engine_down", "seal_not_proven", "proof_overdue"
BOOKS, IDENTITY, GATE = "books_unavailable", "identity_unavailable", "gate_gone"
_EVERY = 1.0
"""Seconds from one look to the next."""
_MOST = 200
"""Characters of a reason."""


class Trouble(NamedTuple):
    """Something that isn't as it should be."""

    incident: str
    about: str = ""
    """Which one, where there are several: a model's name."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How things are at a moment."""

    troubles: Mapping[Trouble, str] = field(default_factory=dict)
    """With why, in words of the appliance's own."""
    starts: Mapping[str, int] = field(default_factory=dict)
    """How often the engine of each model has been started, by whatever answers for it now."""


class Transition(NamedTuple):
    """An incident that has begun, is over, or both: one that was over before anybody looked."""

    trouble: Trouble
    begins: bool
    ends: bool
    why: str = ""


def transitions(before: Standing, after: Standing) -> list[Transition]:
    """What has begun and ended from one look to the next. Pure."""
    ended = [Transition(each, begins=False, ends=True) for each in before.troubles if each not in after.troubles]
    begun = [
        Transition(each, begins=True, ends=False, why=why)
        for each, why in after.troubles.items()
        if each not in before.troubles
    ]
    again = [
        Transition(Trouble(ENGINE, model), begins=True, ends=True)
        for model, starts in after.starts.items()
        if starts > before.starts.get(model, 1)
        and not {Trouble(ENGINE, model)} & (before.troubles.keys() | after.troubles.keys())
    ]
    return ended + begun + again


class Watcher:
    """Looks once a second, and tells of what has changed."""

    def __init__(
        self,
        look: Callable[[], Standing],
        note: Callable[[Mapping[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`note` takes the body of an INCIDENT record, and never raises or waits."""
        self._look = look
        self._note = note
        self._clock = clock
        self._seen = Standing()
        self._since: dict[Trouble, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY)

    def look(self) -> None:
        """Look once."""
        before, self._seen = self._seen, self._look()
        for each in transitions(before, self._seen):
            now = self._clock()
            began = self._since.pop(each.trouble, now)
            if each.begins and not each.ends:
                self._since[each.trouble] = now
            self._note(_record(each, int(now - began)))


def _record(transition: Transition, seconds: int) -> dict[str, Any]:
    (incident, about), _, ends, why = transition
    body: dict[str, Any] = {"incident": incident, "phase": "end" if ends else "begin"}
    if about:
        body["model"] = about
    if why:
        body["why"] = why
    return body | ({"seconds": seconds} if ends else {})


def plain(reason: str) -> str:
    """The beginning of a reason, up to where it may go on in words of an engine: those may quote what it was asked."""
    return re.split(r"[:;\n]", reason, maxsplit=1)[0][:_MOST]
