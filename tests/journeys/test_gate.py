"""A new model that isn't right takes nobody's place: people stream on with the old one, and the reason shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest

from appliance import control
from tests.fakes.house import House, Running, until

Start = Callable[..., Running]
PATH = "/v1/chat/completions"


@pytest.fixture
def running(house: House, start: Start) -> Running:
    """`chat` is answered by the card `old`, which takes 10 ms for a token."""
    house.card("old", faults={"crawl": 0.01})
    house.serve("chat", "old")
    return start(house).ready()


WRONG: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("crashes at load", {"start": "crash"}, {}, "ValueError: the checkpoint is not what the configuration says"),
    ("hangs at load", {"start": "never"}, {"startup_seconds": 0.5}, "no answer within startup_seconds (0.5 s)"),
    ("runs out of memory at load", {"start": "oom"}, {}, "killed by signal 9): OutOfMemoryError: CUDA out of memory"),
    ("runs out of memory later", {"killed": True}, {}, "killed by signal 9): OutOfMemoryError: CUDA out of memory"),
    ("answers rubbish", {"rubbish": True}, {}, "did not pass its gate (no rubbish): it finds a plain English text as"),
    ("answers nothing", {"empty": True}, {}, "did not pass its gate (smoke prompt): the answer is empty"),
    ("is 8 times slower", {"crawl": 0.08}, {}, "did not pass its gate (speed): it takes "),
]


@pytest.mark.parametrize(("what", "faults", "settings", "why"), WRONG, ids=[case[0] for case in WRONG])
async def test_a_new_model_that_is_wrong_leaves_the_old_one_serving(
    house: House, running: Running, what: str, faults: dict[str, Any], settings: dict[str, Any], why: str
) -> None:
    stop = asyncio.Event()
    whole: list[str] = []

    async def streams(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            body = {"model": "chat", "messages": [{"role": "user", "content": "tokens=5"}], "stream": True}
            async with client.stream("POST", PATH, json=body) as answer:
                text = "".join([piece async for piece in answer.aiter_text()])
            assert answer.status_code == 200
            assert text.endswith("data: [DONE]\n\n")
            assert text.count("old") == 5
            whole.append(text)

    house.card("new", faults=faults)
    async with running.async_client() as client:
        tasks = [asyncio.create_task(streams(client)) for _ in range(4)]
        house.serve("chat", "new", **settings)
        house.write()
        lines = await asyncio.to_thread(lambda: list(control.ask(house.state, "POST", "/apply")))
        seen = len(whole)
        while len(whole) < seen + 8 and not any(task.done() for task in tasks):  # noqa: ASYNC110 - a count
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*tasks)
    assert why in lines[-1]["error"]
    status = running.status()
    assert status["models"]["chat"]["card"] == "old"
    assert why in status["models"]["chat"]["trouble"]
    until(lambda: len(running.engine_pids()) == 1)


async def test_what_was_found_at_the_gate_is_shown_told_and_on_record(house: House, running: Running) -> None:
    house.card("new", faults={"crawl": 0.01})
    house.serve("chat", "new")
    house.write()
    lines = list(control.ask(house.state, "POST", "/apply"))
    assert "chat: gate: speed" in [line.get("progress") for line in lines]
    shown = running.status()["acceptance"]["chat"]
    assert (shown["passed"], shown["failed"]) == (True, None)
    assert shown["version"].startswith("new@")
    assert shown["nats_english"] == 3
    assert shown["times_slower"] < 2
    assert {note["path"] for note in house.heard("gate")} == {
        PATH, "/v1/completions", "/tokenize", "/detokenize"
    }  # fmt: skip
    assert house.heard() == []  # nothing of it went through the queue, or onto the books
    assert running.stop() == 0
    folders = (house.state / "audit", house.state / "logs")
    kept = b"".join(file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file())
    assert b"capital of France" not in kept
    assert b'"nats_english":"3"' in kept


def asked(house: House, card: str) -> int:
    """Questions of the gate to the engines of a card so far."""
    return sum(note["card"] == card for note in house.heard("gate"))


def test_rubbish_is_served_by_no_start_either(house: House, start: Start) -> None:
    house.card("wrong", faults={"rubbish": True})
    house.serve("chat", "wrong")
    house.write(engines=house.settings["engines"] | {"restart_backoff_seconds": 60})
    running = start(house)
    why = until(lambda: running.model()["reason"])
    assert "wrong did not pass its gate (no rubbish)" in why
    with running.client() as client:
        body = {"model": "chat", "messages": [{"role": "user", "content": "tokens=1"}]}
        assert client.post(PATH, json=body).status_code == 503
    assert not (house.state / "acceptance").exists()


def test_a_restart_asks_little_and_an_engine_that_crashed_is_asked_nothing_again(house: House, start: Start) -> None:
    house.card("right")
    house.serve("chat", "right")
    running = start(house).ready()
    first = asked(house, "right")
    assert first > 10
    (engine,) = running.engine_pids()
    psutil.Process(engine).kill()
    until(lambda: running.model()["starts"] == 2)
    running.ready()
    assert asked(house, "right") == first
    assert running.stop() == 0
    start(house).ready()
    assert asked(house, "right") - first == 4  # the smoke prompt, a likelihood, the tokenizer there and back
