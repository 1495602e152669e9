"""One thread that does what is given to it, in order: what speaks to a store, or to a disk."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Writer:
    """Does what it is given, one after the other, in a thread that doesn't keep the process alive."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.stopping = threading.Event()
        """Set by `stop`; work that waits or repeats looks at it."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], None]) -> None:
        """Have `work` done in the thread. It must not raise."""
        self._work.put(work)

    async def ask(self, work: Callable[[], T]) -> T:
        """Have `work` done in the thread, and return or raise what comes of it."""
        answer: asyncio.Future[T] = self._loop.create_future()

        def done() -> None:
            try:
                result = work()
            except BaseException as cause:  # raised where it was asked for
                self.tell(_unless_gone, answer, answer.set_exception, cause)
            else:
                self.tell(_unless_gone, answer, answer.set_result, result)

        self._work.put(done)
        return await answer

    def tell(self, what: Callable[..., None], *arguments: Any) -> None:
        """Call `what` on the event loop, if that still runs."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *arguments)

    async def stop(self, seconds: float) -> None:
        """Let the thread end; wait for it for `seconds` at most."""
        self.stopping.set()
        self._work.put(None)
        await asyncio.to_thread(self._thread.join, seconds)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _unless_gone(answer: asyncio.Future[Any], give: Callable[[Any], None], what: object) -> None:
    if not answer.done():
        give(what)
