"""One engine's line: who waits in front of it, who is on it, and a place for each."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from appliance.config import Accounts
from appliance.core import Caller, Request, ServiceClass
from appliance.dispatch.pace import Pace
from appliance.dispatch.queue import ORDER, Entry, FairQueue
from appliance.dispatch.room import Room, Stay
from appliance.engines.engine import Engine, State
from appliance.engines.served import Hold, Served
from appliance.engines.upstream import Upstream
from appliance.errors import Overloaded, Refused

if TYPE_CHECKING:
    from appliance.dispatch.turns import Turns

_BYTES_PER_TOKEN = 4.0
_DOUBT = 0.1
"""Seconds for which nobody goes onto an engine that failed a request: if it is dead, that is known by then."""
_PATIENCE = 2.0
"""Times the expected wait that a class allows: who was let in by an estimate that proves wrong waits no longer."""


class Standing(NamedTuple):
    """The queue of one class in front of one engine, for metrics."""

    model: str
    service_class: ServiceClass
    waiting: int
    expected_seconds: float
    """How long the last of all that wait has yet to wait."""


def share_of(caller: Caller) -> Hashable:
    """Who shares turns with others: the team, without one the user, without that the key."""
    if caller.team is not None:
        return ("team", caller.team)
    return ("user", caller.user) if caller.user is not None else ("key", caller.key_id)


def weight_of(caller: Caller, accounts: Accounts) -> float:
    """How large the share is. A caller without a team has that of a team that isn't named."""
    team = accounts.teams.get(caller.team) if caller.team is not None else None
    return (team or accounts.each_team).weight


class Queued(Protocol):
    """Where a place stands: the line of an engine, or among those who wait for one to come."""

    def refusal(self, place: Place) -> Refused:
        """What is answered to who has waited for too long."""

    def started(self, place: Place) -> None:
        """Its first token has come."""

    def left(self, place: Place, completion_tokens: int, *, failed: bool) -> None:
        """It waits no more, or is on the engine no more."""


class Place:
    """A request's place: in the queue at first, then on the engine."""

    __slots__ = (
        "_hold", "_patience", "_refusal", "_turn", "_turns", "_until", "_upstream", "entry", "line", "moved", "request",
        "served", "since", "stay", "waiting",
    )  # fmt: skip

    def __init__(self, turns: Turns, request: Request, served: Served) -> None:
        self.request = request
        self.served = served
        """What answers; another than at first once that was replaced while this waited."""
        self.since = turns.clock()
        """When it came, on the clock of `Turns`."""
        self.waiting = False
        self.moved = False
        """Whether it stood in another line before, from where it was let in."""
        self.line: Queued | None = None
        self.stay: Stay | None = None
        self.entry: Entry[Place] | None = None
        """In the queue. Stays None for who found the way free, whom no turn is charged."""
        self._turns = turns
        self._turn: asyncio.Future[None] | None = None
        self._until = 0.0
        """When it has waited for too long, on the loop's clock."""
        self._patience: asyncio.Timeout | None = None
        self._refusal: Refused | None = None
        self._hold: Hold | None = None
        self._upstream: Upstream | None = None

    async def turn(self) -> Served:
        """Return what is to answer as soon as it may, and hold it; at once, unless it has to wait.

        Raises `Overloaded` when the wait becomes twice as long as its class may expect, `Loading` when the engine
        fails meanwhile or doesn't come in time, `NotFound` when the model is served no more.
        """
        await self._its_turn()
        while not self.served.ready:  # since its turn came
            self._turn = None
            self.move()
            await self._its_turn()
        self._hold = self.served.hold()
        self._upstream = self._hold.__enter__()
        return self.served

    @property
    def upstream(self) -> Upstream:
        """Of what answers; from `turn` to `leave` it is not taken away."""
        assert self._upstream is not None  # noqa: S101 - its turn has come
        return self._upstream

    async def _its_turn(self) -> None:
        if self._turn is not None:
            try:
                async with asyncio.timeout_at(self._until) as self._patience:
                    await self._turn
            except TimeoutError:
                if self.waiting and self.line is not None:  # else its turn came in this very moment
                    raise self.line.refusal(self) from None
            finally:
                self._patience = None
        if self._refusal is not None:
            raise self._refusal

    def first_token(self) -> None:
        """The engine works on it: its first token has come. May be told again."""
        if self.line is not None:
            self.line.started(self)

    def leave(self, completion_tokens: int = 0, *, failed: bool = False) -> None:
        """Give the place up, whatever it is; its answers had so many tokens. May be told again.

        `failed` says that the engine did not do what was asked, perhaps because it is no more.
        """
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.__exit__(None, None, None)
        line, self.line = self.line, None
        if line is not None:
            line.left(self, completion_tokens, failed=failed)

    def move(self) -> None:
        """Leave a line that lets nobody go any more, and stand in that of what answers now, if anything does."""
        self.leave()
        self.moved = True
        try:
            self._turns.stand(self)
        except Refused as refusal:
            self.go(refusal)

    def wait(self, seconds: float) -> None:
        """Its turn has not come yet; from now on it waits for `seconds` at most."""
        loop = asyncio.get_running_loop()
        self.waiting = True
        self._until = loop.time() + seconds
        if self._turn is None:
            self._turn = loop.create_future()
        elif self._patience is not None and not self._patience.expired():
            self._patience.reschedule(self._until)

    def go(self, refusal: Refused | None = None) -> None:
        """Its turn has come; with a `refusal`, it never will."""
        self.waiting = False
        self._refusal = refusal
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)


class Line:
    """The queue in front of one engine."""

    def __init__(self, turns: Turns, engine: Engine) -> None:
        self._turns = turns
        self._engine = engine
        self._queue: FairQueue[Place] = FairQueue()
        batching = engine.spec.settings.batching
        self._room = Room(batching.max_sequences, batching.max_batched_tokens)
        self._pace = Pace()
        self._full = False
        """Whether somebody has been waiting ever since the last reading."""
        self._read = engine.load
        self._doubtful_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        engine.listeners.append(self._heard)

    @property
    def ready(self) -> bool:
        """Whether the engine takes requests."""
        return self._engine.state is State.READY

    def enter(self, place: Place) -> None:
        """Let `place` go, or have it wait. Raises `Overloaded` when it would wait too long."""
        turns, request = self._turns, place.request
        service_class, caller = request.service_class, request.caller
        now = turns.clock()
        place.line = self
        weight = weight_of(caller, turns.accounts)
        flow = share_of(caller)
        # a share for each class: what runs of a team's batch jobs doesn't count against its people
        stay = place.stay = Stay(
            (service_class, flow), weight, request.choices, request.stream, _prompt(request),
            awaited=service_class is not ServiceClass.BATCH,
        )  # fmt: skip
        self._room.come(stay)
        if (
            not len(self._queue)
            and self._room.open(turns.settings, now)
            and self._room.grants(stay, turns.settings, now)
        ):
            self._go(place, now)
            return
        cost = _prompt(request) + request.choices * self._pace.answer
        place.entry = Entry(place, service_class, flow, weight, cost)
        place.wait(_PATIENCE * self.limit(place))
        self._queue.push(place.entry)
        self._pump(now)
        if place.moved or not place.waiting:
            return
        if len(self._queue) > turns.settings.longest or self.expected(place.entry) > self.limit(place):
            refusal = self.refusal(place)
            place.leave()
            raise refusal

    def limit(self, place: Place) -> float:
        """Seconds that `place` may be expected to wait."""
        return float(getattr(self._turns.settings.waits, f"{place.request.service_class}_seconds"))

    def expected(self, entry: Entry[Place]) -> float:
        """Seconds until the turn of `entry`, which waits as the last of its flow."""
        return self._pace.seconds(entry.service_class, *self._queue.ahead(entry))

    def refusal(self, place: Place) -> Overloaded:
        """What is answered to who would wait, or has waited, for too long."""
        assert place.entry is not None  # noqa: S101 - it waits
        limit, name = self.limit(place), place.request.service_class
        expected = self.expected(place.entry)
        self._turns.metrics.shed.labels(place.request.model, name).inc()
        return Overloaded(
            f"the model {place.request.model} has too much to do: this request would wait about "
            f"{max(expected, limit):.0f} s, and those of the class {name} wait {limit:g} s at most",
            code="overloaded",
            retry_after=max(1, math.ceil(expected - limit)),
        )

    def started(self, place: Place) -> None:
        """Its first token has come."""
        if place.stay is not None and not place.waiting:
            now = self._turns.clock()
            self._room.started(place.stay, self._turns.settings, now)
            self._pump(now)

    def left(self, place: Place, completion_tokens: int, *, failed: bool) -> None:
        """It waits no more, or is on the engine no more."""
        assert place.stay is not None  # noqa: S101 - it has entered
        if place.waiting:
            place.waiting = False
            if place.entry is not None:
                self._queue.remove(place.entry)
        else:
            self._room.leave(place.stay)
            if completion_tokens:
                self._pace.answered(completion_tokens / place.request.choices)
            if place.entry is not None:
                self._queue.charge(place.entry, _prompt(place.request) + completion_tokens)
        self._room.go(place.stay)
        now = self._turns.clock()
        if failed:
            self._doubtful_until = now + _DOUBT
        self._pump(now)

    def standings(self) -> Iterator[Standing]:
        """The queue as it is now."""
        model = self._engine.spec.name
        higher = 0.0
        for each in ORDER:
            work = self._queue.work(each)
            yield Standing(model, each, self._queue.length(each), self._pace.seconds(each, higher, work))
            higher += work

    def _heard(self) -> None:
        """The engine was read, or has another state."""
        if not self.ready:
            if self._engine.state is State.STOPPED:
                self._turns.forget(self._engine)
            for entry in list(self._queue):
                entry.item.move()
        elif self._engine.load is not self._read:
            now, self._read = self._turns.clock(), self._engine.load
            self._room.read(self._read)
            self._pace.read(self._read, now, full=self._full)
            self._full = len(self._queue) > 0
            self._pump(now)

    def _go(self, place: Place, now: float) -> None:
        assert place.stay is not None  # noqa: S101 - it has entered
        self._room.take(place.stay, now)
        self._turns.waits[place.request.service_class].observe(now - place.since)
        place.go()

    def _pump(self, now: float) -> None:
        """Let go whoever may."""
        if not len(self._queue):
            self._full = False
            return
        queue, room, settings = self._queue, self._room, self._turns.settings
        while len(queue) and self.ready and now >= self._doubtful_until and room.open(settings, now):
            entry = queue.pop(lambda entry: entry.item.stay is not None and room.grants(entry.item.stay, settings, now))
            if entry is None:
                break
            self._pace.took(entry.service_class, entry.cost)
            self._go(entry.item, now)
        if not len(queue):
            self._full = False
        elif self._timer is None:
            until = room.closed_until() if now >= self._doubtful_until else self._doubtful_until
            if until is not None:  # else something has to happen first, of which we are told
                self._timer = asyncio.get_running_loop().call_later(max(0.001, until - now), self._later)

    def _later(self) -> None:
        self._timer = None
        self._pump(self._turns.clock())


def _prompt(request: Request) -> float:
    """About how many tokens its prompt has."""
    return len(request.payload) / _BYTES_PER_TOKEN
