"""Which models give their memory to one that has to come back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that has memory and may be made to idle."""

    name: str
    gib: float
    """What it would give back."""
    busy: bool
    """Whether requests are on it, or wait for it."""
    quiet_seconds: float
    """How long nobody has asked for it."""
    stays_seconds: float
    """How long it stays yet, whoever wants its memory; 0 or less for no longer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do for the one that has to come back."""

    leave: tuple[str, ...] = ()
    """Those that give their memory back first; none where there is room."""
    later: bool = False
    """Whether none can now, and looking again makes sense."""
    never: bool = False
    """Whether it wouldn't fit if all of them had left."""


def choose(needed: float, room: float, residents: Sequence[Resident], *, overdue: bool = False) -> Choice:
    """Make room for `needed` GiB where there is `room`: as few as possible leave, least recently used first.

    Nobody leaves while requests are on it, unless whoever waits is `overdue`, nor before it has stayed for its time:
    so two models that are asked for in turns don't spend all of it on starting, and neither waits for ever.
    """
    if needed <= room:
        return Choice()
    if needed > room + sum(each.gib for each in residents):
        return Choice(never=True)
    free = [each for each in residents if each.stays_seconds <= 0 and (overdue or not each.busy)]
    leaving: list[Resident] = []
    for each in sorted(free, key=lambda each: (each.busy, -each.quiet_seconds, each.name)):
        if needed <= room + sum(one.gib for one in leaving):
            break
        leaving.append(each)
    if needed > room + sum(each.gib for each in leaving):
        return Choice(later=True)
    for each in list(leaving):  # a small one that was first need not go where a larger one has to
        if needed <= room + sum(one.gib for one in leaving) - each.gib:
            leaving.remove(each)
    return Choice(tuple(each.name for each in leaving))
