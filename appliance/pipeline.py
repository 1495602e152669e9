"""The story of a request, in the order in which it happens: each step is a promise."""

from __future__ import annotations

import asyncio

from appliance.core import Caller, Reply, Request
from appliance.dispatch.choose import choose
from appliance.dispatch.serve import serve
from appliance.egress.assurance import Assurance
from appliance.engines.fleet import Fleet
from appliance.errors import Refused
from appliance.observe import AccessLog, Metrics


class Pipeline:
    """Takes checked requests to the model that answers them."""

    def __init__(self, assurance: Assurance, fleet: Fleet, metrics: Metrics, access_log: AccessLog) -> None:
        self._assurance = assurance
        self._fleet = fleet
        self._metrics = metrics
        self._access_log = access_log

    @property
    def proven(self) -> bool:
        """Whether the proof of the seal lets requests be answered."""
        return self._assurance.objection() is None

    async def run(self, request: Request, reply: Reply) -> None:
        """Answer `request` through `reply`.

        Raises `Refused` for what can't be answered. Cancelled when the caller has gone: the engine then
        stops generating, and what was used until then is settled all the same.
        """
        record = self._metrics.open(request)
        try:
            self._assurance.require()
            route = choose(request, self._fleet.find(request.model))
            await serve(request, route, reply, record)
            record.outcome, record.status = "answered", 200
        except Refused as refusal:
            record.outcome, record.status = "refused" if refusal.status < 500 else "failed", refusal.status
            raise
        except asyncio.CancelledError:
            record.outcome, record.status = "caller_gone", 499
            raise
        finally:
            self._metrics.settle(record)
            self._access_log.write(record)

    def refused(self, id_: str, caller: Caller | None, operation: str | None, refusal: Refused) -> None:
        """Note in the access log a request that was refused before `run`."""
        self._access_log.refused(id_, caller, operation, refusal)
