"""A day of the appliance in a house with a road to the outside: nothing is sent there, and no name is looked up.

python -m tests.journeys.test_no_egress day|poisoned     what happens in the house; prints what came of it
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import house as houses
from tests.fakes import street
from tests.fakes.house import House, Running
from tests.fakes.network import Outside

FOUR, SIX, NAME = "8.8.8.8", "2001:4860:4860::8888", "telemetry.example"
CHAT = "/v1/chat/completions"
POISON = f"""
{inspect.getsource(street.attempt)}
tried = attempt({FOUR!r}, {SIX!r}, {NAME!r})
Path(os.environ["HOME"], "tried.json").write_text(json.dumps(tried))
"""
"""Planted in an engine: before it serves it tries every way out, and notes what became of each."""


def ask(content: str = "tokens=3", **more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": content}], **more}


def furnish(house: House) -> None:
    """Two cards to swap, and one for embeddings."""
    house.card("tiny")
    house.card("other")
    house.card("small", task="embedding")
    house.serve("chat", "tiny")
    house.serve("vectors", "small")
    house.write()


def work(client: httpx.Client) -> list[list[int]]:
    """What callers do in a day: the status of each right answer, and of each refusal."""
    with client.stream("POST", CHAT, json=ask(stream=True)) as answer:
        assert "data: [DONE]" in list(answer.iter_lines())
    page = client.get("/docs").text
    linked = re.findall(r"""(?:src=|href=|url: )["']([^"']+)""", page)
    right = [
        client.post(CHAT, json=ask()),
        client.post("/v1/messages", json=ask(max_tokens=5)),
        client.post("/v1/responses", json={"model": "chat", "input": "tokens=3"}),
        client.post("/v1/embeddings", json={"model": "vectors", "input": ["a", "b"]}),
        client.get("/v1/models"),
        *map(client.get, linked),  # as a browser would, wherever it leads
    ]
    refused = [
        client.post(CHAT, json=ask(model="https://example.com/model")),
        client.post(CHAT, content=b"{"),
        client.post(CHAT, json=ask("fault=broken")),
        client.get("/v1/models", headers={"authorization": "Bearer wrong"}),
        client.get("/nowhere"),
    ]
    return [[answer.status_code for answer in answers] for answers in (right, refused)]


def day(house: House) -> dict[str, Any]:
    """Start, work, swap, work again, stop."""
    furnish(house)
    running = Running(house).ready("chat").ready("vectors")
    with running.client(trust_env=False) as client:
        before = work(client)
        house.serve("chat", "other")
        house.write()
        applied = running.apply()
        after = work(client)
    return {"answers": [before, after], "applied": applied, "exit": running.stop()}


def poisoned(house: House) -> dict[str, Any]:
    """An engine that tries to send before it serves."""
    (program,) = (house.folder / "engine").rglob("api_server.py")
    program.write_text(program.read_text().replace("\nif __name__", f"{POISON}\nif __name__"))
    furnish(house)
    running = Running(house).ready("chat").ready("vectors")
    (note,) = house.state.rglob("tried.json")
    return {"tried": json.loads(note.read_text()), "exit": running.stop()}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    with Outside(tmp_path) as outside:
        yield outside


def spend(outside: Outside, what: str) -> dict[str, Any]:
    """Have it happen in the house."""
    done = outside.run([sys.executable, "-m", "tests.journeys.test_no_egress", what], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_days_work_sends_nothing_and_looks_up_no_name(outside: Outside) -> None:
    outside.control()
    told = spend(outside, "day")
    outside.control()
    assert told["answers"] == [[[200] * 9, [404, 400, 502, 401, 404]]] * 2
    assert told["applied"] == {"changes": ["chat: now answered by other"]}
    assert told["exit"] == 0
    assert outside.names() == []
    assert outside.sent() == []


def test_what_an_engine_tries_to_send_arrives_nowhere(outside: Outside) -> None:
    told = spend(outside, "poisoned")
    outside.control()
    assert outside.sent() == []
    assert told["exit"] == 0
    unsealed = outside.attempt(FOUR, SIX, NAME)
    assert unsealed == dict.fromkeys(told["tried"], "done")
    assert "done" not in told["tried"].values()
    assert {packet.payload for packet in outside.sent()} >= {b"by tcp4", b"by tcp6", b"by udp4", b"by udp6", b"by ping"}
    assert set(outside.names()) == {NAME}


if __name__ == "__main__":
    for house in houses.house():
        print(json.dumps(globals()[sys.argv[1]](house)))  # noqa: T201 - the answer to whoever started it
