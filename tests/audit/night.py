"""Sleeps that last for as long as a test wants."""

from __future__ import annotations

import asyncio

PATIENCE = 20


class Night:
    """Sleeps that a test ends; what was asked for stands in `pauses`."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._asleep = asyncio.Semaphore(0)
        self._wake = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._asleep.release()
        await self._wake.acquire()

    async def fallen(self) -> float:
        """How long it wants to sleep, once it does."""
        async with asyncio.timeout(PATIENCE):
            await self._asleep.acquire()
        return self.pauses[-1]

    def over(self) -> None:
        self._wake.release()
