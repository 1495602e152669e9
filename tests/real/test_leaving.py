"""A caller who leaves stops the engine's work for him."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.fakes.house import until
from tests.real.house import ANSWER, Appliance

ENDLESS = {"model": "chat", "prompt": "Once upon a time", "max_tokens": 8000, "ignore_eos": True}


@pytest.mark.parametrize("stream", [True, False], ids=["in mid-stream", "while waiting for the whole"])
def test_the_engine_stops_within_a_second(appliance: Appliance, stream: bool) -> None:
    until(lambda: appliance.running("chat") == 0, ANSWER)
    with httpx.Client(transport=httpx.HTTPTransport(uds=appliance.socket("chat")), timeout=ANSWER) as engine:

        def running() -> int:
            lines = engine.get("http://engine/metrics").text.splitlines()
            (value,) = (line.rsplit(" ", 1)[1] for line in lines if line.startswith("vllm:num_requests_running{"))
            return int(float(value))

        with appliance.http() as client:
            request = client.build_request("POST", "/v1/completions", json=ENDLESS | {"stream": stream}, timeout=3)
            if stream:
                answer = client.send(request, stream=True)
                next(answer.iter_raw())
                assert until(running, ANSWER) == 1
                answer.close()
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.send(request)
        left = time.monotonic()
        until(lambda: running() == 0, ANSWER)
    assert time.monotonic() - left < 1
