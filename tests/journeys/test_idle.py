"""Models that idle give their memory back, and come back when somebody asks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from appliance.__main__ import main
from tests.fakes import house as houses
from tests.fakes.house import House, Running, until

PATH = "/v1/chat/completions"
SOON = {"after_seconds": 0.3}

Start = Callable[..., Running]


def ask(model: str = "chat", text: str = "hello") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def idles(running: Running, name: str = "chat") -> None:
    until(lambda: running.model(name)["state"] == "idle")


def starts(running: Running) -> int:
    return int(running.model()["starts"])


@pytest.fixture(scope="module")
def sleepy() -> Iterator[Running]:
    """An appliance whose only model has soon been idle for long enough."""
    for house in houses.house():
        house.card("one")
        house.serve("chat", "one", idle=SOON, wait_seconds=20)
        house.write()
        running = Running(house)
        yield running
        running.stop()


@pytest.fixture
def running(sleepy: Running) -> Iterator[Running]:
    """The same, healthy and idle."""
    idles(sleepy)
    yield sleepy
    sleepy.house.break_engines()


def test_an_idle_model_ends_and_comes_back_for_the_next_request(running: Running) -> None:
    before = starts(running)
    assert running.engine_pids() == []
    assert main(["status", "--config", str(running.house.config)]) == 0
    with running.client() as client:
        assert client.get("/health/ready").status_code == 200
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["chat"]
        answer = client.post(PATH, json=ask())
        assert answer.json()["choices"][0]["message"]["content"].startswith("one")
        until(lambda: 'appliance_engine_memory_bytes{model="chat",version="one@' in client.get("/metrics").text)
    assert starts(running) == before + 1
    idles(running)
    assert running.status()["memory"]["models"]["chat"]["holds"] == 0
    journal = b"".join(file.read_bytes() for file in (running.house.state / "audit").rglob("*") if file.is_file())
    assert b"config" in journal or b"start" in journal
    assert b"engine_down" not in journal, "to idle is no incident"


async def test_many_requests_at_once_start_it_once_and_all_are_answered(running: Running) -> None:
    before = starts(running)
    async with running.async_client() as client:
        answers = await asyncio.gather(*(client.post(PATH, json=ask(text=f"hello {n}")) for n in range(32)))
    assert [answer.status_code for answer in answers] == [200] * 32
    assert starts(running) == before + 1


def test_who_waits_for_one_that_cannot_start_is_told_why(running: Running) -> None:
    running.house.break_engines(start="crash")
    with running.client() as client:
        answer = client.post(PATH, json=ask())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "could not be started" in answer.json()["error"]["message"]
        running.house.break_engines()
        until(lambda: client.post(PATH, json=ask()).status_code == 200)


async def test_who_waits_for_one_whose_start_is_killed_is_told_so(running: Running) -> None:
    running.house.break_engines(start="never")
    async with running.async_client() as client:
        asked = [asyncio.create_task(client.post(PATH, json=ask())) for _ in range(4)]
        pids = await asyncio.to_thread(until, running.engine_pids)
        running.house.break_engines()
        os.kill(pids[0], signal.SIGKILL)
        answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {503}
    assert all("could not be started" in answer.json()["error"]["message"] for answer in answers)
    with running.client() as again:
        until(lambda: again.post(PATH, json=ask()).status_code == 200)


async def test_nobody_waits_for_longer_than_the_config_says_nor_when_the_appliance_stops(
    house: House, start: Start
) -> None:
    house.card("one")
    house.serve("chat", "one", idle=SOON, wait_seconds=1)
    house.serve("other", "one", idle=SOON)
    running = start(house)
    await asyncio.to_thread(idles, running)
    await asyncio.to_thread(idles, running, "other")
    house.break_engines(start="never")
    async with running.async_client() as client:
        answer = await client.post(PATH, json=ask())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "hasn't answered within 1 s" in answer.json()["error"]["message"]
        other: asyncio.Task[httpx.Response] = asyncio.create_task(client.post(PATH, json=ask("other")))
        await asyncio.to_thread(until, lambda: len(running.engine_pids()) == 2)
        assert await asyncio.to_thread(running.stop) == 0
        assert (await other).status_code == 503
    assert running.engine_pids() == []


def test_models_take_turns_in_memory_for_two(house: House, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    for card, task in {"one": "chat", "two": "chat", "three": "chat", "vectors": "embedding"}.items():
        house.card(card, task=task)
    for name, card in {"chat": "one", "other": "two", "vectors": "vectors"}.items():
        house.serve(name, card, idle={"after_seconds": 600}, memory_gib=1)
    house.settings["engines"]["memory_gib"] = 2
    running = start(house)

    def states() -> dict[str, str]:
        return {name: model["state"] for name, model in running.status()["models"].items()}

    until(lambda: list(states().values()) == ["ready", "ready", "idle"])
    with running.client() as client:
        for turn in range(7):
            name = ("vectors", "chat", "other")[turn % 3]
            path, body = ("/v1/embeddings", {"model": name, "input": "x"}) if name == "vectors" else (PATH, ask(name))
            assert client.post(path, json=body).status_code == 200
        until(lambda: list(states().values()).count("ready") == 2)
        assert states()["vectors"] == "ready"
        idle = "chat" if states()["chat"] == "idle" else "other"
        house.serve(idle, "three", idle={"after_seconds": 600}, memory_gib=1)
        house.write()
        assert running.apply() == {"changes": [f"{idle}: now answered by three"]}, "another made room for it"
        assert list(states().values()).count("ready") == 2
        assert client.post(PATH, json=ask(idle)).json()["choices"][0]["message"]["content"].startswith("three")

        house.serve("always", "one", memory_gib=1.5)
        house.write()
        refusal = running.apply()["error"]
        assert "2.5 together; `engines.memory_gib` lets engines take 2" in refusal
    until(lambda: running.status()["memory"]["models"][idle]["holds"] > 0)
    assert main(["plan", "--json", "--config", str(house.config)]) == 1
    plan = json.loads(capsys.readouterr().out)
    assert plan["running"]
    assert not plan["fits"]
    assert plan["models"][idle]["holds_gib"] > 0


def test_what_can_never_fit_is_refused_with_the_numbers(house: House, start: Start) -> None:
    house.card("one")
    house.serve("always", "one", memory_gib=1.5)
    house.serve("chat", "one", idle=SOON, memory_gib=1)
    house.settings["engines"]["memory_gib"] = 2
    running = start(house).ready("always")
    assert running.model("chat")["state"] == "idle"
    with running.client() as client:
        answer = client.post(PATH, json=ask())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    message = answer.json()["error"]["message"]
    assert "can't come back now: it needs 1.0 GiB of memory (as `memory_gib` says); 0.5 GiB can be had now" in message


def test_sleep_is_refused_where_there_is_no_gpu(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    house.card("one")
    house.serve("chat", "one", idle=SOON | {"then": "sleep"})
    assert main(["check-config", "--config", str(house.write())]) == 2
    assert "models.chat.idle.then: sleep has an engine give back a GPU's memory" in capsys.readouterr().err
