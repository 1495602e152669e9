"""How many second attempts there may be, so that an outage isn't met with a storm of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

_SHARE = 0.2
_ALWAYS = 3
"""Retries that are free in each window, so that a quiet house has a fallback, too."""
_WINDOW_SECONDS = 60.0


class RetryBudget:
    """Second and later attempts are at most a fifth of the requests of the last minute, or three."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._requests: deque[float] = deque()
        self._retries: deque[float] = deque()

    def request(self) -> None:
        """Count a request; its first attempt is always free."""
        self._requests.append(self._now())

    def retry(self) -> bool:
        """Whether one more attempt may be made; counts it if so."""
        now = self._now()
        if len(self._retries) >= max(_ALWAYS, int(_SHARE * len(self._requests))):
            return False
        self._retries.append(now)
        return True

    def _now(self) -> float:
        now = self._clock()
        for times in (self._requests, self._retries):
            while times and times[0] <= now - _WINDOW_SECONDS:
                times.popleft()
        return now
