"""What all providers together may cost in a day."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Hold:
    """Nano-euros of the day that are set aside for one request, until it is settled."""

    __slots__ = ("_cap", "_nanoeuros", "day")

    def __init__(self, cap: DailyCap, day: str, nanoeuros: int) -> None:
        self._cap: DailyCap | None = cap
        self.day = day
        self._nanoeuros = nanoeuros

    def settle(self, nanoeuros: int) -> None:
        """Count what it came to and free the rest. Twice does nothing."""
        cap, self._cap = self._cap, None
        if cap is not None:
            cap.settle(self.day, self._nanoeuros, nanoeuros)


class DailyCap:
    """Holds requests to a sum of the day, exactly for one appliance.

    What was spent before it started, and what others on the same store spend, it reads from the books before each
    request. With several appliances the sum can be passed by what the others have in flight at that moment.
    """

    def __init__(self, nanoeuros: int, today: Callable[[], str], spent: Callable[[str], Awaitable[int]]) -> None:
        """`spent` tells what stands in the books for a day; it raises `BooksUnavailable`."""
        self.nanoeuros = nanoeuros
        self._today = today
        self._spent = spent
        self._day = ""
        self._before = 0
        """In the books when the day began here."""
        self._settled = 0
        self._reserved = 0

    async def hold(self, nanoeuros: int) -> Hold | None:
        """Set `nanoeuros` aside; None when the day hasn't that much left. Raises `BooksUnavailable`."""
        day = self._today()
        written = await self._spent(day)
        if day > self._day:  # an earlier one is that of somebody who waited for the books over midnight
            # what the day before reserved is still in flight; it is taken for today's, which errs to the safe side
            self._day, self._before, self._settled = day, written, 0
        if max(written, self._before + self._settled) + self._reserved + nanoeuros > self.nanoeuros:
            return None
        self._reserved += nanoeuros
        return Hold(self, day, nanoeuros)

    def settle(self, day: str, reserved: int, nanoeuros: int) -> None:
        """End a hold of `reserved`, which came to `nanoeuros`."""
        self._reserved -= reserved
        if day == self._day:
            self._settled += nanoeuros
