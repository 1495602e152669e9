"""Those who ask for a model that is on its way: it is being replaced, or comes back from idling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from appliance.core import Request
from appliance.dispatch.line import Place, Standing
from appliance.dispatch.queue import ORDER
from appliance.engines.served import Coming
from appliance.errors import Loading, Overloaded, Refused

if TYPE_CHECKING:
    from appliance.dispatch.turns import Turns

_RETRY_AFTER = 5


class Hold:
    """The places of those who wait for one that is to come. Once it has, or won't, they look again, in their order."""

    def __init__(self, turns: Turns, coming: Coming) -> None:
        self._turns = turns
        self._coming = coming
        self._places: dict[Place, None] = {}
        coming.listeners.append(self._over)

    def enter(self, place: Place) -> None:
        """Have `place` wait. Raises `Overloaded` when too many do; who stood in a line before is let in."""
        settings, request = self._turns.settings, place.request
        if not place.moved and len(self._places) >= settings.longest:
            self._turns.metrics.shed.labels(request.model, request.service_class).inc()
            raise Overloaded(
                f"the model {request.model} is on its way, and {settings.longest} requests wait for it already",
                code="overloaded",
                retry_after=_RETRY_AFTER,
            )
        place.line = self
        place.wait(self._coming.seconds)
        self._places[place] = None

    def refusal(self, place: Place) -> Refused:
        """What is answered to who has waited for too long."""
        return Loading(
            f"the model {place.request.model} is being started, and hasn't answered within {self._coming.seconds:g} s; "
            "try again in a moment",
            code="model_loading",
            retry_after=_RETRY_AFTER,
        )

    def started(self, place: Place) -> None:
        """Nobody here has begun."""

    def left(self, place: Place, completion_tokens: int, *, failed: bool) -> None:
        """It waits no more."""
        place.waiting = False
        self._places.pop(place, None)

    def standings(self) -> Iterator[Standing]:
        """Who waits here, by model and class. How long, nobody knows."""
        requests = [place.request for place in self._places]
        for model in {request.model for request in requests}:
            for each in ORDER:
                waiting = sum(_is(request, model, each) for request in requests)
                yield Standing(model, each, waiting, 0.0)

    def _over(self) -> None:
        self._turns.let_go(self._coming)
        for place in list(self._places):
            place.move()


def _is(request: Request, model: str, service_class: str) -> bool:
    return request.model == model and request.service_class == service_class
