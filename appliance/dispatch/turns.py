"""Whose turn it is on each engine: requests wait here, in an order of ours, and not inside the engine.

An engine gets a request while it has `room`, by its own account (`engines/load.py`, read 4 times a second) and by
what we know of the moments since. The order is that of `queue`. Who would wait too long is told so at once.

While an engine isn't ready nobody waits for it, also not those who did when it failed: a start may take minutes,
and the 503 says when to come back. An engine that is replaced passes those who wait on to its successor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from appliance.config import Accounts, Queue
from appliance.core import Request, ServiceClass
from appliance.dispatch.line import Line, Place, Standing
from appliance.dispatch.queue import ORDER
from appliance.engines.engine import Engine, State
from appliance.engines.fleet import Served
from appliance.observe import Metrics


class Turns:
    """The queues in front of all engines. One per appliance; `settings` and `accounts` may be replaced at any time."""

    def __init__(
        self,
        settings: Queue,
        accounts: Accounts,
        find: Callable[[str], Served],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`find` gives what answers for a public name now, as `Fleet.find` does."""
        self.settings = settings
        self.accounts = accounts
        self.find = find
        self.metrics = metrics
        self.waits = {each: metrics.waits.labels(each) for each in ORDER}
        self.clock = clock
        self._lines: dict[Engine, Line] = {}

    def enter(self, request: Request, served: Served) -> Place:
        """A place for `request` in front of `served`, to be left in any case.

        Raises `Overloaded` at once when it would have to wait longer than its class may, `Loading` while the
        engine isn't ready. Endpoints keep an order of their own, and counting tokens takes no turn.
        """
        place = Place(self, request, served)
        if request.most_prompt_tokens or request.most_completion_tokens:
            self.stand(place)
        return place

    def stand(self, place: Place) -> None:
        """Have `place` stand in front of what answers now. Raises as `enter`, and `NotFound`."""
        engine = place.served.engine
        if engine is not None and engine.state is not State.READY:
            place.served = self.find(place.request.model)  # it may have been replaced since it was chosen
            engine = place.served.engine
        if engine is None:
            place.go()
            return
        if engine.state is not State.READY:
            raise engine.not_ready()
        line = self._lines.get(engine)
        if line is None:
            line = self._lines[engine] = Line(self, engine)
        line.enter(place)

    def forget(self, engine: Engine) -> None:
        """Drop the queue of an engine that has ended."""
        self._lines.pop(engine, None)

    def standings(self) -> Iterator[Standing]:
        """The queues as they are now."""
        for line in self._lines.values():
            yield from line.standings()


def priority_of(service_class: ServiceClass, served: Served) -> int | None:
    """What vLLM's own scheduling is told, lower is earlier; None where `served` doesn't schedule by priority.

    To an engine that goes by arrival any other than 0 is an error.
    """
    if served.engine is None or served.engine.spec.settings.batching.scheduling != "priority":
        return None
    return 10 * ORDER.index(service_class)
