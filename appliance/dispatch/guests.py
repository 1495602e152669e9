"""How far a flood is held back, so that the first tokens of others come nearly as soon as on an idle engine. Pure.

A free place is not enough for that: an engine computes all its sequences in one step, and each makes the step
longer for all. So while others come and go, whoever has more on the engine than one request gets only so much of it
that their first tokens still come in time; how much that is, is learned from when they come.
"""

from __future__ import annotations

import math
import statistics
from collections import OrderedDict, deque
from collections.abc import Hashable

_REMEMBERED = 60.0
"""Seconds after its last request for which room is kept for a guest."""
_LATE = 0.1
"""Share of first tokens that may come late: the limit rests where so many do."""
_STEP = 0.3
"""How fast the limit follows: the logarithm by which it moves for one that is late and nine that aren't, each."""
_SAMPLES = 32


class Guests:
    """Who came to one engine lately and had nothing there, and how many sequences may run beside such a one."""

    def __init__(self, places: int) -> None:
        """`places` is how many sequences the engine computes together."""
        self._places = places
        self.beside = max(1.0, places / 4)
        """Sequences beside which a guest's first token comes in time, as far as is known."""
        self._seen: OrderedDict[Hashable, float] = OrderedDict()
        """Guests and when they last came; who came last stands last."""
        self._alone: deque[float] = deque(maxlen=_SAMPLES)
        """Seconds to the first token of who had the engine for itself."""
        self._due: dict[Hashable, tuple[float, int]] = {}
        """Streams to learn from: [when they went onto the engine, how many sequences were there]."""

    def sent(self, stream: Hashable, share: Hashable, beside: int, now: float, *, guest: bool) -> None:
        """A stream went onto the engine, where `beside` sequences were already; `guest`: none of its own `share`."""
        if beside == 0:
            self._due.clear()  # what is still due then belongs to streams that have gone
        elif self._due:  # whoever had the engine for itself has it no more
            self._due = {each: due for each, due in self._due.items() if due[1]}
        if guest or beside == 0:
            self._due[stream] = (now, beside)
        if guest:
            self._seen[share] = now
            self._seen.move_to_end(share)

    def came(self, stream: Hashable, now: float, factor: float) -> None:
        """The first token of a stream came. In time is `factor` times what it takes on an idle engine."""
        due = self._due.pop(stream, None)
        if due is None:
            return
        since, beside = due
        if beside == 0:
            self._alone.append(now - since)
        elif self._alone and beside <= self.beside + 1:
            late = now - since > factor * statistics.median(self._alone)
            if late or beside >= self.beside - 1:
                move = -(1 - _LATE) if late else _LATE
                self.beside = min(max(1.0, self.beside * math.exp(_STEP * move)), float(self._places))

    def gone(self, stream: Hashable) -> None:
        """A stream has ended, perhaps without a token."""
        self._due.pop(stream, None)

    def near(self, share: Hashable, now: float) -> bool:
        """Whether another than `share` came as a guest lately, and so may come again."""
        while self._seen and next(iter(self._seen.values())) < now - _REMEMBERED:
            self._seen.popitem(last=False)
        return len(self._seen) > (share in self._seen)
