"""Engines that fail in every way they know: callers are told within a second, and none is told a false success."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.fakes.house import House, Running, over, until

Start = Callable[..., Running]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "PROMPT"}]},
    "/v1/completions": {"prompt": "PROMPT"},
    "/v1/responses": {"input": "PROMPT"},
    "/v1/messages": {"messages": [{"role": "user", "content": "PROMPT"}], "max_tokens": 100},
}


def body(path: str, prompt: str, **more: Any) -> dict[str, Any]:
    filled: dict[str, Any] = json.loads(json.dumps(BODIES[path]).replace("PROMPT", prompt))
    return {"model": "chat", **filled, **more}


def told_success(path: str, text: str) -> bool:
    """Whether an SDK would take a stream for complete."""
    mark = {"/v1/responses": "response.completed", "/v1/messages": "message_stop"}.get(path, "[DONE]")
    return mark in text


def told_error(path: str, text: str) -> bool:
    """Whether the last event is an error in the form of the dialect."""
    last = text.rstrip("\n").split("\n\n")[-1]
    data = json.loads(last.split("data: ", 1)[1])
    if path in ("/v1/messages", "/v1/responses"):
        assert last.startswith("event: error\n")
        return data["type"] == "error" and bool(data.get("error") or data.get("message"))
    return set(data["error"]) == {"message", "type", "param", "code"}


@pytest.fixture
def lone(house: House, start: Start) -> Running:
    """An appliance with one model, to break."""
    house.card("tiny")
    house.serve("chat", "tiny", stall_seconds=1.5)
    return start(house).ready()


FAULTS = ["error", "unfinished", "cut", "bad_chunk", "endless_frame"]
# the two others have no word for it
STREAM_FAULTS = [
    *((path, fault) for path in BODIES for fault in FAULTS),
    *((path, "abort") for path in list(BODIES)[:2]),
]


@pytest.mark.parametrize(("path", "fault"), STREAM_FAULTS)
def test_a_stream_that_breaks_ends_with_an_error_and_never_with_success(
    client: httpx.Client, path: str, fault: str
) -> None:
    answer = client.post(path, json=body(path, f"tokens=6 gap=0.01 fault={fault} after=3", stream=True))
    assert answer.status_code == 200
    assert "tiny" in answer.text
    assert not told_success(path, answer.text)
    assert told_error(path, answer.text)
    for word in ("EngineCore", "validation error", "Traceback"):
        assert word not in answer.text


@pytest.mark.parametrize("fault", ["error", "cut", "broken", "busy"])
@pytest.mark.parametrize("path", BODIES)
def test_a_whole_answer_that_breaks_is_an_error_status(client: httpx.Client, path: str, fault: str) -> None:
    answer = client.post(path, json=body(path, f"tokens=6 fault={fault} after=3 CANARY"))
    assert answer.status_code == (503 if fault == "busy" else 502)
    assert "CANARY" not in answer.text
    assert "EngineCore" not in answer.text
    if fault == "busy":
        assert int(answer.headers["retry-after"]) > 0


def test_an_aborted_answer_is_not_passed_off_as_whole(client: httpx.Client) -> None:
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert client.post(path, json=body(path, "fault=abort")).status_code == 502


@pytest.mark.parametrize("path", BODIES)
def test_an_answer_that_is_no_json_is_not_passed_off_as_one(client: httpx.Client, path: str) -> None:
    answer = client.post(path, json=body(path, "fault=html"))
    assert answer.status_code == 502
    answer = client.post(path, json=body(path, "fault=html", stream=True))
    assert "It works!" not in answer.text
    assert answer.status_code == 502 or told_error(path, answer.text)


async def _stream(client: httpx.AsyncClient, path: str, prompt: str, begun: asyncio.Event) -> tuple[str, float]:
    text = ""
    try:
        async with client.stream("POST", path, json=body(path, prompt, stream=True)) as answer:
            async for piece in answer.aiter_text():
                text += piece
                if "tiny" in text:
                    begun.set()
            if answer.status_code != 200:
                return f"status {answer.status_code}: {text}", time.monotonic()
    except httpx.HTTPError as broken:
        return f"{text} {broken!r}", time.monotonic()
    return text, time.monotonic()


async def _killed(lone: Running, kill: Callable[[], None], prompt: str) -> None:
    """50 requests of all dialects run; the engine is killed; look at how each ended, and at what comes after."""
    paths, before = list(BODIES), lone.model()["starts"]
    async with lone.async_client() as client:
        begun = [asyncio.Event() for _ in range(50)]
        tasks = [asyncio.create_task(_stream(client, paths[number % 4], prompt, begun[number])) for number in range(50)]
        async with asyncio.timeout(20):
            await asyncio.gather(*(each.wait() for each in begun))
        kill()
        killed = time.monotonic()
        ends = await asyncio.gather(*tasks)
    for number, (text, ended) in enumerate(ends):
        assert ended - killed < 1, "each hears of it within a second"
        assert not told_success(paths[number % 4], text)
        assert told_error(paths[number % 4], text), text[-300:]
    await asyncio.to_thread(until, lambda: (now := lone.model())["starts"] > before and now["state"] == "ready")
    with lone.client() as again:
        for path in paths:
            assert again.post(path, json=body(path, "tokens=2")).status_code == 200
    assert lone.model()["requests"] == 0


async def test_fifty_requests_end_with_an_error_when_every_process_of_their_engine_is_killed(lone: Running) -> None:
    (pid,) = lone.engine_pids()
    await _killed(lone, lambda: os.kill(pid, signal.SIGKILL), "tokens=inf gap=0.05")
    assert lone.model()["starts"] == 2


async def test_fifty_requests_end_with_an_error_when_the_engines_worker_is_killed(lone: Running) -> None:
    def kill() -> None:
        with lone.client() as client:
            client.post("/v1/chat/completions", json=body("/v1/chat/completions", "tokens=9 fault=core_killed after=1"))

    await _killed(lone, kill, "tokens=inf gap=0.05")
    assert lone.model()["starts"] == 2


@pytest.mark.long
async def test_a_hundred_kills_never_give_a_false_success(house: House, start: Start) -> None:
    house.settings["engines"]["restart_backoff_seconds"] = 0.001  # steady after 0.06 s, so that waits stay short
    house.card("tiny")
    house.serve("chat", "tiny")
    lone = start(house)
    for _ in range(100):
        lone.ready()
        (pid,) = until(lone.engine_pids)
        await _killed(lone, lambda pid=pid: os.kill(pid, signal.SIGKILL), "tokens=inf gap=0.05")  # type: ignore[misc]


def test_a_crash_is_shown_with_its_reason_and_repaired(lone: Running) -> None:
    lone.house.break_engines(start="crash")
    with lone.client() as client:
        broken = client.post("/v1/chat/completions", json=body("/v1/chat/completions", "tokens=3 fault=die after=1"))
        assert broken.status_code == 502
        failed = until(
            lambda: (shown := lone.model())["state"] == "failed" and "checkpoint" in shown["reason"] and shown
        )
        assert "ValueError: the checkpoint is not what the configuration says" in failed["reason"]
        refused = client.post("/v1/chat/completions", json=body("/v1/chat/completions", "x"))
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "model_loading"
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
        lone.house.break_engines()
        lone.ready()
        assert client.get("/health/ready").status_code == 200
        assert client.post("/v1/chat/completions", json=body("/v1/chat/completions", "x")).status_code == 200


def test_an_engine_whose_tokens_stall_is_restarted_though_its_health_says_well(lone: Running) -> None:
    with lone.client() as client:
        lone.house.break_engines(stall=True)
        began = time.monotonic()
        answer = client.post("/v1/chat/completions", json=body("/v1/chat/completions", "tokens=9", stream=True))
        assert time.monotonic() - began < 25
        assert not told_success("/v1/chat/completions", answer.text)
        assert told_error("/v1/chat/completions", answer.text)
        until(lambda: "stalled" in (lone.house.state / "logs" / "appliance.log").read_text())
        lone.house.break_engines()
        lone.ready()
        assert client.post("/v1/chat/completions", json=body("/v1/chat/completions", "x")).status_code == 200


def test_a_long_answer_is_not_a_stall(lone: Running) -> None:
    with lone.client() as client:
        answer = client.post("/v1/chat/completions", json=body("/v1/chat/completions", "tokens=8 gap=0.5", stream=True))
    assert told_success("/v1/chat/completions", answer.text)
    assert lone.model()["starts"] == 1


def test_an_engine_that_loads_is_503_with_a_time_to_come_back(house: House, start: Start) -> None:
    house.card("slow", faults={"slow": 2})
    house.serve("chat", "slow")
    running = start(house)
    with running.client() as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == 503
        for path in BODIES:
            answer = client.post(path, json=body(path, "x"))
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["type"] == "overloaded_error"
        assert client.post("/v1/chat/completions", json={"model": "chat"}).status_code == 400
        running.ready()
        assert client.get("/health/ready").status_code == 200
        assert client.post(path, json=body(path, "x")).status_code == 200


def test_an_engine_that_never_answers_has_failed_in_time(house: House, start: Start) -> None:
    house.card("mute", faults={"start": "mute"})
    house.serve("chat", "mute", startup_seconds=1)
    running = start(house)
    assert "no answer within startup_seconds (1 s)" in until(lambda: running.model()["reason"])


async def test_a_caller_who_leaves_stops_the_generation_within_a_second(lone: Running) -> None:
    async with lone.async_client() as client:
        for path in BODIES:
            for stream in (True, False):
                before = len(lone.house.heard("gone"))
                asked = body(path, "tokens=inf gap=0.02", stream=stream)
                heard = len(lone.house.heard())
                asking = asyncio.create_task(client.post(path, json=asked))
                async with asyncio.timeout(30):
                    while len(lone.house.heard()) == heard:  # noqa: ASYNC110 - a file tells
                        await asyncio.sleep(0.01)
                asking.cancel()
                async with asyncio.timeout(30):
                    while len(lone.house.heard("gone")) == before:  # noqa: ASYNC110 - a file tells
                        await asyncio.sleep(0.01)
    until(lambda: lone.model()["requests"] == 0)
    log = lone.house.state / "logs" / "requests.log"
    until(lambda: log.read_text().count('"caller_gone"') == 8)


def test_a_slow_reader_holds_back_only_itself(lone: Running) -> None:
    parts = urlsplit(lone.base_url)
    asked = json.dumps(body("/v1/chat/completions", "tokens=inf pad=60000", stream=True)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {lone.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(asked)}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port)) as slow, lone.client() as client:
        slow.sendall(head.encode() + asked)
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        gateway = psutil.Process(lone.process.pid)

        def others() -> None:
            for _ in range(20):
                began = time.perf_counter()
                assert client.post("/v1/chat/completions", json=body("/v1/chat/completions", "tokens=2")).is_success
                assert time.perf_counter() - began < 10

        others()
        before = gateway.memory_info().rss
        others()
        assert gateway.memory_info().rss - before < 20 * 2**20
        assert lone.model()["requests"] == 1
    until(lambda: lone.model()["requests"] == 0)


def test_a_grandchild_of_the_engine_ends_with_it(house: House, start: Start) -> None:
    house.card("brood", faults={"brood": 3, "linger": True})
    house.serve("chat", "brood")
    running = start(house).ready()
    before = until(lambda: len(pids := running.engine_pids()) == 4 and pids)
    (engine,) = [note["pid"] for note in house.heard("start")]
    assert engine < 10, "the engine counts processes on its own"
    with running.client() as client:
        client.post("/v1/chat/completions", json=body("/v1/chat/completions", "tokens=3 fault=die after=1"))
    until(lambda: not set(before) & set(running.engine_pids()))
    running.ready()


@pytest.mark.parametrize("faults", [{}, {"brood": 2, "linger": True}, {"start": "never"}])
def test_nothing_survives_an_appliance_that_is_killed(house: House, start: Start, faults: dict[str, Any]) -> None:
    house.card("tiny", faults=faults)
    house.serve("chat", "tiny")
    running = start(house)
    until(running.engine_pids)
    if "start" not in faults:
        running.ready()
    family = running.family()
    assert len(family) > 3
    running.process.send_signal(signal.SIGKILL)
    until(lambda: all(map(over, family)), patience=5)
    assert not running.engine_pids()
    running.process.wait()
    again = start(house)  # stale sockets and the lock are no obstacle
    until(again.engine_pids)


def test_an_appliance_told_to_end_lets_requests_finish_and_leaves_nothing(house: House, start: Start) -> None:
    house.card("tiny", faults={"brood": 1})
    house.serve("chat", "tiny")
    running = start(house).ready()
    family = running.family()
    with (
        running.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json=body("/v1/chat/completions", "tokens=8 gap=0.1", stream=True)
        ) as answer,
    ):
        pieces = answer.iter_text()
        text = next(pieces)
        running.process.send_signal(signal.SIGTERM)
        text += "".join(pieces)
    assert told_success("/v1/chat/completions", text)
    assert running.stop() == 0
    until(lambda: all(map(over, family)), patience=5)
    assert not list((house.state / "run").glob("e*/engine.sock"))


def test_a_stream_that_outlasts_the_drain_ends_in_an_error_and_no_success(house: House, start: Start) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["listen"]["shutdown_seconds"] = 1
    running = start(house).ready()
    path = "/v1/chat/completions"
    with (
        running.client() as client,
        client.stream("POST", path, json=body(path, "tokens=inf gap=0.05", stream=True)) as answer,
    ):
        pieces = answer.iter_text()
        text = next(pieces)
        running.process.send_signal(signal.SIGTERM)
        text += "".join(pieces)
    assert '"code":"stopping"' in text
    assert "[DONE]" not in text
    assert running.stop() == 0
    assert "Traceback" not in running.output.read_text()
