"""The order in which requests wait for one engine. Pure: no clock, no engine, no callback but what `pop` is given.

First by service class; within a class fair between flows (teams) by weight, by start-time fair queueing: each
flow has a tag that grows by cost over weight with each of its entries that is taken, the flow with the lowest tag
is next, and a flow that comes to wait starts no lower than the one taken last, so that nobody saves up turns.
Costs are estimates in tokens; `charge` corrects them once what a request took is known.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from appliance.core import ServiceClass

ORDER = (ServiceClass.INTERACTIVE, ServiceClass.STANDARD, ServiceClass.BATCH)

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Entry(Generic[T]):
    """One request that waits. `flow` is who shares a turn with it, `weight` over 0 that one's share."""

    item: T
    service_class: ServiceClass
    flow: Hashable
    weight: float
    cost: float


@dataclass(eq=False, slots=True)
class _Flow(Generic[T]):
    start: float
    """Tag of its first entry that waits; when none waits, of the next to come."""
    owed: float = 0.0
    """Tokens by which earlier costs were too low (too high, if negative)."""
    queued: bool = False
    """Whether it stands in the heap; also when all of its entries were removed meanwhile."""
    work: float = 0.0
    weight: float = 0.0
    entries: OrderedDict[Entry[T], None] = field(default_factory=OrderedDict)


class _Class(Generic[T]):
    """The flows of one service class."""

    def __init__(self) -> None:
        self.flows: dict[Hashable, _Flow[T]] = {}
        self.size = 0
        self.work = 0.0
        self.weights = 0.0
        """Of the flows that wait."""
        self._heap: list[tuple[float, int, _Flow[T]]] = []
        self._now = 0.0
        self._number = itertools.count()

    def push(self, entry: Entry[T]) -> None:
        flow = self.flows.get(entry.flow)
        if flow is None:
            flow = self.flows[entry.flow] = _Flow(self._now)
        if not flow.entries:
            flow.weight = entry.weight
            self.weights += flow.weight
        if not flow.queued:
            flow.start = max(flow.start, self._now)
            self._enter(flow)
        flow.entries[entry] = None
        flow.work += entry.cost
        self.work += entry.cost
        self.size += 1

    def _enter(self, flow: _Flow[T]) -> None:
        flow.queued = True
        heapq.heappush(self._heap, (flow.start, next(self._number), flow))

    def discard(self, entry: Entry[T]) -> None:
        flow = self.flows[entry.flow]
        del flow.entries[entry]
        flow.work -= entry.cost
        self.work -= entry.cost
        self.size -= 1
        if not flow.entries:
            flow.work = 0.0
            self.weights -= flow.weight
        if not self.size:  # nobody waits any more, so nobody is owed a turn; and sums of floats begin anew
            self.flows.clear()
            self._heap.clear()
            self.work = self.weights = self._now = 0.0

    def pop(self, may: Callable[[Entry[T]], bool]) -> Entry[T] | None:
        aside = []
        found = None
        while self._heap and found is None:
            turn = heapq.heappop(self._heap)
            flow = turn[2]
            if not flow.entries:
                flow.queued = False
            elif may(entry := next(iter(flow.entries))):
                found = entry
                self._now = max(self._now, flow.start)
                due = entry.cost + flow.owed
                flow.owed = min(0.0, due)
                flow.start += max(0.0, due) / flow.weight
                flow.queued = False
                self.discard(entry)
                if flow.entries:
                    self._enter(flow)
            else:
                aside.append(turn)
        for turn in aside:
            heapq.heappush(self._heap, turn)
        return found


class FairQueue(Generic[T]):
    """Entries that wait. All operations take O(log n), `pop` besides O(flows that `may` holds back)."""

    def __init__(self) -> None:
        self._classes: dict[ServiceClass, _Class[T]] = {each: _Class() for each in ORDER}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Entry[T]]:
        """All entries, in no particular order but each flow's own."""
        for each in self._classes.values():
            for flow in each.flows.values():
                yield from flow.entries

    def length(self, service_class: ServiceClass) -> int:
        """How many of a class wait."""
        return self._classes[service_class].size

    def work(self, service_class: ServiceClass) -> float:
        """Tokens of work that wait in a class."""
        return self._classes[service_class].work

    def push(self, entry: Entry[T]) -> None:
        """Take `entry` in, behind those of its own flow."""
        self._classes[entry.service_class].push(entry)
        self._size += 1

    def remove(self, entry: Entry[T]) -> None:
        """Give up waiting. Does nothing when it doesn't wait."""
        waiting = self._classes[entry.service_class]
        flow = waiting.flows.get(entry.flow)
        if flow is not None and entry in flow.entries:
            waiting.discard(entry)
            self._size -= 1

    def pop(self, may: Callable[[Entry[T]], bool] = lambda _: True) -> Entry[T] | None:
        """Take the next entry out: the first in order that `may` be taken, asked of the first of each flow only.

        None when no flow of the highest class that waits may: what is kept from it is not for those below.
        """
        for waiting in self._classes.values():
            if waiting.size:
                found = waiting.pop(may)
                self._size -= found is not None
                return found
        return None

    def charge(self, entry: Entry[T], tokens: float) -> None:
        """Correct what `entry`, taken before, has cost its flow. Forgotten once nobody of its class waits."""
        flow = self._classes[entry.service_class].flows.get(entry.flow)
        if flow is not None:
            flow.owed += tokens - entry.cost

    def ahead(self, entry: Entry[T]) -> tuple[float, float]:
        """Tokens of work that go before `entry`, which waits as the last of its flow: (of higher classes, of its own).

        Of other flows in its class only as much as their weights let go before it.
        """
        higher = 0.0
        for each, waiting in self._classes.items():
            if each is entry.service_class:
                break
            higher += waiting.work
        flow = waiting.flows[entry.flow]
        before = (flow.work - entry.cost) * waiting.weights / flow.weight
        return higher, min(waiting.work - entry.cost, before)
