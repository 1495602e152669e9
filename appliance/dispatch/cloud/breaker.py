"""Leaves a provider alone that fails, and tries it again with one request at a time."""

from __future__ import annotations

from collections.abc import Callable

_FAILURES = 3
"""In a row, until it is left alone."""
_FIRST_SECONDS, _MOST_SECONDS = 10.0, 300.0


class Breaker:
    """Closed: requests pass. Open: none does, for a while. Then one passes, and by it the others are decided."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._failures = 0
        self._pause = _FIRST_SECONDS
        self._until: float | None = None
        self._probing = False

    @property
    def ready(self) -> bool:
        """Whether a request would pass now."""
        return self._until is None or (not self._probing and self._clock() >= self._until)

    def admit(self) -> bool:
        """Whether this request passes; where it does, say afterwards what became of it."""
        if not self.ready:
            return False
        self._probing = self._until is not None
        return True

    def succeeded(self) -> None:
        """It answered. An answer to what was asked before it was left alone proves nothing."""
        if self._until is not None and not self._probing:
            return
        self._failures, self._pause, self._until, self._probing = 0, _FIRST_SECONDS, None, False

    def abandoned(self) -> None:
        """Nobody waited for what would have become of it."""
        self._probing = False

    def failed(self, seconds: float | None = None) -> None:
        """It failed; with `seconds`, it shall be left alone for so long in any case."""
        self._failures += 1
        if seconds is not None:
            self._open(seconds)
        elif self._probing or self._failures >= _FAILURES:
            self._open(self._pause)
            self._pause = min(2 * self._pause, _MOST_SECONDS)

    def _open(self, seconds: float) -> None:
        until = self._clock() + seconds
        self._until = until if self._until is None else max(self._until, until)
        self._probing = False
