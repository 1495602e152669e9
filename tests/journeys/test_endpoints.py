"""Models elsewhere in the house: through the outlet, to the configured address and to no other."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fakes.certificates import Authority
from tests.fakes.endpoint import endpoint
from tests.fakes.house import House, Running, until

Start = Callable[..., Running]
ASK = {"model": "far", "messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"


def serve(house: House, url: str, **settings: object) -> None:
    house.settings["models"]["far"] = {"endpoint": url, **settings}


def test_a_model_on_an_endpoint_answers_under_its_public_name_and_with_its_key(house: House, start: Start) -> None:
    with endpoint() as far:
        serve(house, far.url, key="env.FAR_KEY", upstream_model="org/far-model")
        running = start(house, environment={"FAR_KEY": "sk-far"})
        with running.client() as client:
            answer = client.post(PATH, json=ASK).json()
            assert answer["choices"][0]["message"]["content"] == "answered by org/far-model"
            assert answer["model"] == "far"
            stream = client.post(PATH, json=ASK | {"stream": True}).text
            assert stream.count('"model": "far"') == stream.count("data: {") == 2
            assert '"usage"' not in stream
            assert stream.endswith("data: [DONE]\n\n")
            assert client.get("/health/ready").json()["models"] == {"far": "endpoint"}
        headers = {name.lower(): value for name, value in far.heard[0]["headers"].items()}
        assert headers["authorization"] == "Bearer sk-far"
        assert running.key not in str(far.heard)
        assert {note["path"] for note in far.heard} == {"/v1/chat/completions"}
        assert far.heard[0]["body"] == ASK | {"model": "org/far-model"}
        everything = running.output.read_text() + "".join(
            file.read_text(errors="replace") for file in (house.state / "logs").iterdir()
        )
        assert "sk-far" not in everything
        assert all("sk-far" not in " ".join(process.cmdline()) for process in running.family())


def test_an_endpoint_behind_tls_is_believed_only_with_the_right_authority(
    house: House, start: Start, tmp_path: Path
) -> None:
    right, wrong = Authority(tmp_path, "right"), Authority(tmp_path, "wrong")
    with endpoint(right.issue("far")) as far:
        serve(house, far.url, ca=str(right.file))
        house.settings["models"]["doubtful"] = {"endpoint": far.url, "ca": str(wrong.file)}
        running = start(house)
        with running.client() as client:
            assert client.post(PATH, json=ASK).json()["choices"][0]["message"]["content"] == "answered by far"
            assert client.post(PATH, json=ASK | {"model": "doubtful"}).status_code == 502
        assert len(far.heard) == 1


def test_an_endpoint_that_is_down_is_an_error_and_heals(house: House, start: Start) -> None:
    with endpoint() as far:
        url = far.url
    serve(house, url)
    house.card("tiny")
    house.serve("chat", "tiny")
    running = start(house).ready()
    with running.client() as client:
        answer = client.post(PATH, json=ASK)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "engine_failed"
        assert client.post(PATH, json=ASK | {"model": "chat"}).status_code == 200


def test_a_name_that_leads_to_a_public_address_leads_nowhere() -> None:
    import asyncio

    from appliance.dispatch import outlet

    async def look(host: str) -> list[str]:
        return await outlet.private_addresses(host, 443)

    assert asyncio.run(look("127.0.0.1")) == ["127.0.0.1"]
    assert asyncio.run(look("10.1.2.3")) == ["10.1.2.3"]
    for public in ("8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"):
        with pytest.raises(PermissionError, match="not a private address"):
            asyncio.run(look(public))


def test_a_public_address_in_the_config_is_refused_at_once(house: House) -> None:
    from appliance import config
    from appliance.errors import ConfigInvalid

    serve(house, "https://8.8.8.8/v1")
    with pytest.raises(ConfigInvalid, match="private address"):
        config.load(house.write())


def test_there_is_no_outlet_where_no_endpoint_is(shared: Running) -> None:
    assert not [process for process in shared.family() if "appliance.dispatch.outlet" in process.cmdline()]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_outlet_ends_with_the_appliance_and_takes_no_secret_from_its_environment(
    house: House, start: Start, end: signal.Signals
) -> None:
    with endpoint() as far:
        serve(house, far.url, key="env.FAR_KEY")
        running = start(house, environment={"FAR_KEY": "sk-far"})
        (outlet,) = [process for process in running.family() if "appliance.dispatch.outlet" in process.cmdline()]
        assert "FAR_KEY" not in outlet.environ()
        with running.client() as client:
            assert client.post(PATH, json=ASK).status_code == 200
        running.process.send_signal(end)
        _, alive = psutil.wait_procs([outlet], timeout=5)
        assert not alive


def test_a_missing_secret_stops_the_start_by_name(house: House, start: Start) -> None:
    assert "MISSING_KEY" not in os.environ
    serve(house, "http://127.0.0.1:9", key="env.MISSING_KEY")
    with pytest.raises(AssertionError, match=r"env\.MISSING_KEY: nothing is there"):
        start(house)


def test_an_endpoint_on_a_unix_socket_needs_no_outlet(house: House, start: Start, shared: Running) -> None:
    sockets = sorted((shared.house.state / "run").glob("e*/engine.sock"))
    serve(house, f"unix:{sockets[0]}", upstream_model="chat")
    running = start(house)
    with running.client() as client:
        answer = client.post(PATH, json=ASK)
    assert answer.status_code == 200
    assert answer.json()["model"] == "far"
    assert not [process for process in running.family() if "appliance.dispatch.outlet" in process.cmdline()]


def test_an_endpoint_that_was_there_may_stay_in_an_applied_config(house: House, start: Start) -> None:
    with endpoint() as far:
        house.card("tiny")
        house.card("other")
        serve(house, far.url)
        house.serve("chat", "tiny")
        running = start(house).ready()
        house.serve("chat", "other")
        house.write()
        assert running.apply() == {"changes": ["chat: now answered by other"]}
        with httpx.Client(timeout=10) as client:
            answer = client.post(running.base_url + PATH, json=ASK, headers={"x-api-key": running.key})
        assert answer.status_code == 200
    until(lambda: len(running.engine_pids()) == 1)
