"""The engine is told how urgent a request is where its body has a field for it, and a caller never tells it."""

from __future__ import annotations

import json

import pytest

from appliance.api.bodies.base import Body, parse
from appliance.api.routes import MODEL_ROUTES
from appliance.errors import BadRequest
from tests.api.bodies.test_bad_input import PATHS

BODIES = {route.operation.path: route.body for route in MODEL_ROUTES}


@pytest.mark.parametrize("path", PATHS)
def test_a_payload_has_the_priority_where_the_engine_takes_one(path: str) -> None:
    kind: type[Body] = BODIES[path]
    raw = json.dumps(PATHS[path]).encode()
    plain, urgent = (json.loads(parse(kind, raw).payload("m", 8, priority)) for priority in (None, 20))
    assert "priority" not in plain
    assert urgent == plain | ({"priority": 20} if kind.takes_priority else {})
    assert kind.takes_priority is ("/messages" not in path)


@pytest.mark.parametrize("path", PATHS)
def test_a_callers_own_priority_is_refused(path: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(BODIES[path], json.dumps(PATHS[path] | {"priority": 0}).encode())
    assert refused.value.param == "priority"
