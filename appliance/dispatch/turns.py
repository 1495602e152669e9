"""Whose turn it is on each engine: requests wait here, in an order of ours, and not inside the engine.

An engine gets a request while it has `room`, by its own account (`engines/load.py`, read 4 times a second) and by
what we know of the moments since. The order is that of `queue`. Who would wait too long is told so at once.

While an engine isn't ready nobody waits for it, also not those who did when it failed: a start may take minutes,
and the 503 says when to come back. An engine that is replaced passes those who wait on to its successor; where that
is still to come, they are held until it has, and so is whoever asks for a model that idles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from appliance.config import Accounts, Queue
from appliance.core import Request, ServiceClass
from appliance.dispatch.hold import Hold
from appliance.dispatch.line import Line, Place, Standing
from appliance.dispatch.queue import ORDER
from appliance.engines.engine import Engine, State
from appliance.engines.served import Coming, Served
from appliance.observe import Metrics


class Turns:
    """The queues in front of all engines. One per appliance; `settings` and `accounts` may be replaced at any time."""

    def __init__(
        self,
        settings: Queue,
        accounts: Accounts,
        find: Callable[[Request], Served],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`find` gives what answers a request now: it chose what is entered for, and chooses where that has gone."""
        self.settings = settings
        self.accounts = accounts
        self.find = find
        self.metrics = metrics
        self.waits = {each: metrics.waits.labels(each) for each in ORDER}
        self.clock = clock
        self._lines: dict[Engine, Line] = {}
        self._holds: dict[Coming, Hold] = {}

    def enter(self, request: Request, served: Served) -> Place:
        """A place for `request` in front of `served`, to be left in any case.

        Raises `Overloaded` at once when it would have to wait longer than its class may, `Loading` while the
        engine isn't ready and isn't on its way. Endpoints keep an order of their own, and counting tokens takes no
        turn.
        """
        place = Place(self, request, served)
        self.stand(place)
        return place

    def stand(self, place: Place) -> None:
        """Have `place` stand in front of what answers now. Raises as `enter`, and `NotFound`."""
        if not place.served.ready:
            place.served = self.find(place.request)  # it may have been replaced since it was chosen
        engine = place.served.engine
        if engine is not None and engine.state is not State.READY:
            coming = place.served.coming
            if coming is None or not coming.seconds:
                raise engine.not_ready()
            if coming not in self._holds:
                self._holds[coming] = Hold(self, coming)
            self._holds[coming].enter(place)
        elif engine is None or not (place.request.most_prompt_tokens or place.request.most_completion_tokens):
            place.go()
        else:
            if engine not in self._lines:
                self._lines[engine] = Line(self, engine)
            self._lines[engine].enter(place)

    def let_go(self, coming: Coming) -> None:
        """Those who waited for it look elsewhere from now on."""
        self._holds.pop(coming, None)

    def forget(self, engine: Engine) -> None:
        """Drop the queue of an engine that has ended."""
        self._lines.pop(engine, None)

    def standings(self) -> Iterator[Standing]:
        """The queues as they are now: one for each model and class, also where several engines answer for it."""
        found: dict[tuple[str, ServiceClass], Standing] = {}
        lines = (each for line in self._lines.values() for each in line.standings())
        holds = (each for hold in self._holds.values() for each in hold.standings())
        for each in (*lines, *holds):
            key = each.model, each.service_class
            other = found.get(key, Standing(*key, 0, 0.0))
            longest = max(each.expected_seconds, other.expected_seconds)
            found[key] = Standing(*key, each.waiting + other.waiting, longest)
        yield from found.values()


def priority_of(service_class: ServiceClass, served: Served) -> int | None:
    """What vLLM's own scheduling is told, lower is earlier; None where `served` doesn't schedule by priority.

    To an engine that goes by arrival any other than 0 is an error.
    """
    if served.engine is None or served.engine.spec.settings.batching.scheduling != "priority":
        return None
    return 10 * ORDER.index(service_class)
