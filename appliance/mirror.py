"""Copies of requests for a shadow: a candidate whose answers are compared with those given, and shown to nobody.

A copy is sent after the answer, to an engine of this house, and only while nobody waits there. Texts are held until
they are compared, and of all that was said only numbers stay.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from appliance.core import Reply, Request, ServiceClass, Task
from appliance.dispatch.choose import shadow
from appliance.dispatch.said import said
from appliance.dispatch.serve import serve
from appliance.dispatch.turns import priority_of
from appliance.engines.served import Arms, Served
from appliance.engines.upstream import Upstream
from appliance.errors import Refused
from appliance.observe import Metrics, Record
from appliance.rollout.agreement import agreement

_MOST = 16
"""Requests at once whose answers are kept to be compared, or whose copies run. What is over gets no copy."""
_MOST_RUNNING = 4
"""Copies that run at once: they share the host with the engines that people wait for."""
_MOST_BYTES = 2**20
"""Of an answer that is kept: of a longer one the beginning is compared."""
_SECONDS = 300.0
"""For a copy: one that takes longer has failed."""


class Kept:
    """A `Reply` that keeps the beginning of what passes. With nobody behind it, it shows nothing to anybody."""

    def __init__(self, behind: Reply | None = None) -> None:
        self._behind = behind
        self._begun = False
        self.content = bytearray()

    @property
    def begun(self) -> bool:
        """As the reply behind it says."""
        return self._begun if self._behind is None else self._behind.begun

    def note(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """As the reply behind it does."""
        if self._behind is not None:
            self._behind.note(headers)

    async def whole(self, body: bytes) -> None:
        """Keep the answer."""
        self._keep(body)
        if self._behind is not None:
            await self._behind.whole(body)

    async def begin(self) -> None:
        """As the reply behind it does."""
        self._begun = True
        if self._behind is not None:
            await self._behind.begin()

    async def frames(self, data: bytes) -> None:
        """Keep the events."""
        self._keep(data)
        if self._behind is not None:
            await self._behind.frames(data)

    async def end(self) -> None:
        """As the reply behind it does."""
        if self._behind is not None:
            await self._behind.end()

    def _keep(self, data: bytes) -> None:
        self.content += data[: _MOST_BYTES - len(self.content)]


@dataclass(frozen=True, slots=True)
class Aside:
    """In place of a `Place`: a copy stands in no queue, and nobody is waiting behind it."""

    upstream: Upstream

    def first_token(self) -> None:
        """Nobody cares."""


class Copy:
    """What one request is to be copied to; in the end either sent, or dropped."""

    __slots__ = ("_mirror", "_request", "answer", "served")

    def __init__(self, mirror: Mirror, request: Request, served: Served) -> None:
        self._mirror = mirror
        self._request = request
        self.served = served
        self.answer: Kept | None = None

    def heard(self, reply: Reply) -> Reply:
        """`reply`, whose answer is kept for the comparison."""
        self.answer = Kept(reply)
        return self.answer

    def send(self, record: Record) -> bool:
        """The request has come to its end: send the copy if it was answered and nobody waits. Whether it was sent."""
        return self._mirror.send(self, self._request, record)


class Mirror:
    """Sends copies. One per appliance."""

    def __init__(
        self, arms: Callable[[str], Arms], metrics: Metrics, heard: Callable[[Record, float | None], None]
    ) -> None:
        """`arms` as `Fleet.arms`; `heard` is told of each copy that ran, and how its answer agrees with that given."""
        self._arms = arms
        self._metrics = metrics
        self._heard = heard
        self._open = 0
        self._closed = False
        self._running: set[asyncio.Task[None]] = set()

    def take(self, request: Request, by: Served) -> Copy | None:
        """A copy of `request`, which is answered `by` this, if one is to be made. It has to be sent in the end."""
        try:
            arms = self._arms(request.model)
        except Refused:  # the model is served no more, but for those who have begun
            return None
        served = shadow(request, arms)
        asks = request.most_prompt_tokens or request.most_completion_tokens
        if self._closed or served is None or arms.stable is not by or request.choices > 1 or not asks:
            return None
        if self._open >= _MOST:
            self._metrics.copied(request.model, served.version, "dropped")
            return None
        self._open += 1
        return Copy(self, request, served)

    def send(self, copy: Copy, request: Request, record: Record) -> bool:
        """As `Copy.send` says."""
        engine, answer = copy.served.engine, copy.answer
        if self._closed or record.outcome != "answered" or answer is None or engine is None:
            self._open -= 1
            return False
        if not copy.served.ready or engine.load.waiting or len(self._running) >= _MOST_RUNNING:
            self._open -= 1
            self._metrics.copied(request.model, copy.served.version, "dropped")
            return False
        task = asyncio.create_task(self._send(request, copy.served, answer))
        self._running.add(task)
        task.add_done_callback(self._over)
        return True

    async def _send(self, request: Request, served: Served, given: Kept) -> None:
        kept = Kept()
        record = self._metrics.open(request)
        record.turn(served.version)
        try:
            with record:
                async with asyncio.timeout(_SECONDS):
                    with served.hold() as upstream:
                        await serve(_last(request, served), served, kept, record, _nothing_to_book, Aside(upstream))
        except (Refused, TimeoutError):
            pass  # it is counted
        except Exception as bug:  # its text could hold a prompt
            logging.getLogger("appliance.mirror").error("a copy failed: %s", type(bug).__name__)
        finally:
            outcome = "cancelled" if record.outcome == "caller_gone" else record.outcome
            self._metrics.copied(request.model, served.version, outcome)
        alike = None
        if record.outcome == "answered" and served.task is Task.CHAT:  # vectors and scores are no words
            # in a thread: of long answers it takes longer than the time between two tokens of a stream
            alike = await asyncio.to_thread(_alike, request, bytes(given.content), bytes(kept.content))
        self._metrics.timed(record)
        self._heard(record, alike)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._open -= 1

    async def close(self) -> None:
        """Send no copy any more, and break off those that run."""
        self._closed = True
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _last(request: Request, served: Served) -> Request:
    """The same request behind all others: where the engine goes by priority, by that of its lowest class."""
    payload, priority = json.loads(request.payload), priority_of(ServiceClass.BATCH, served)
    payload["model"] = served.upstream_name
    if "priority" in payload and priority is not None:
        payload["priority"] = priority
    return replace(request, service_class=ServiceClass.BATCH, payload=json.dumps(payload, ensure_ascii=False).encode())


def _alike(request: Request, given: bytes, kept: bytes) -> float:
    return agreement(said(request, given), said(request, kept))


async def _nothing_to_book() -> None:
    """What a copy uses is on nobody's account."""
