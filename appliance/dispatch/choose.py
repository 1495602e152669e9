"""Where a request is answered. Pure: it looks, it decides, it does nothing."""

from __future__ import annotations

from appliance.core import Request
from appliance.engines.fleet import Served
from appliance.errors import BadRequest


def choose(request: Request, served: Served) -> Served:
    """What answers `request`: here always the house itself.

    Raises `BadRequest` when the model is not for this kind of request.
    """
    if served.task is not request.operation.task:
        raise BadRequest(
            f"the model {served.name} is for {served.task}, not for {request.operation.path}",
            param="model",
            code="model_not_suitable",
        )
    return served
