"""How fast an engine works off what waits for it. Pure."""

from __future__ import annotations

from appliance.core import ServiceClass
from appliance.dispatch.queue import ORDER
from appliance.engines.load import Load

_MEMORY_SECONDS = 10.0
"""Of full work: what lies further back counts for less and less."""
_LEAST_LEFT = 0.02
"""Share of an engine that a class may count on beside higher ones."""
_LEARNING = 0.05


class Pace:
    """Tokens per second that an engine finishes while requests wait for it, and what requests come to.

    While nobody waits, what it finishes says how much was asked of it, and not how much it could do.
    """

    def __init__(self) -> None:
        self.answer = 64.0
        """Tokens of an ordinary answer."""
        self._tokens = 0.0
        self._seconds = 0.0
        self._last: tuple[float, float] | None = None
        self._taken = dict.fromkeys(ORDER, 0.0)
        """Tokens of work that went onto the engine while others waited."""

    def read(self, load: Load, now: float, *, full: bool) -> None:
        """The engine was read; `full` says whether requests have been waiting for it since the last time."""
        last, self._last = self._last, (now, load.tokens)
        if not full or last is None or load.tokens < last[1] or now <= last[0]:
            return
        seconds = now - last[0]
        keep = max(0.0, 1 - seconds / _MEMORY_SECONDS)
        self._tokens = self._tokens * keep + load.tokens - last[1]
        self._seconds = self._seconds * keep + seconds
        self._taken = {each: tokens * keep for each, tokens in self._taken.items()}

    def took(self, service_class: ServiceClass, tokens: float) -> None:
        """Work of a class went onto the engine while others waited."""
        self._taken[service_class] += tokens

    def answered(self, tokens: float) -> None:
        """An answer had so many tokens."""
        self.answer += _LEARNING * (tokens - self.answer)

    @property
    def rate(self) -> float:
        """Tokens per second; 0 while unknown."""
        return self._tokens / self._seconds if self._seconds else 0.0

    def seconds(self, service_class: ServiceClass, higher: float, own: float) -> float:
        """How long work takes that goes first: `higher` tokens of higher classes, `own` of this one. 0 if unknown.

        Higher classes go on coming, so `own` takes what these leave.
        """
        if not self.rate:
            return 0.0
        everything = sum(self._taken.values())
        above = sum(self._taken[each] for each in ORDER[: ORDER.index(service_class)])
        left = max(_LEAST_LEFT, 1 - above / everything) if everything else 1.0
        return (higher + own / left) / self.rate
