"""Many want the engine at once: who goes next, who is told to come back, and what becomes of them when it fails."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from subprocess import run
from typing import Any

import httpx
import pytest

from tests.fakes.house import PATIENCE, ROOT, House, Running

HELD = "tokens=inf gap=0.05"
"""A prompt that the fake engine answers until somebody breaks it off."""


def key(house: House, team: str, service_class: str = "standard") -> dict[str, str]:
    """Headers with a new key."""
    command = [sys.executable, "-m", "appliance", "keys", "create", "--team", team, "--class", service_class, "--json"]
    made = run([*command, "--config", str(house.config)], cwd=ROOT, capture_output=True, text=True, check=True)
    return {"authorization": f"Bearer {json.loads(made.stdout)['key']}"}


def asked(prompt: str, headers: dict[str, str], **more: Any) -> dict[str, Any]:
    body = {"model": "chat", "messages": [{"role": "user", "content": prompt}], **more}
    return {"url": "/v1/chat/completions", "json": body, "headers": headers}


class Crowd:
    """Requests under way at a running appliance."""

    def __init__(self, running: Running, client: httpx.AsyncClient) -> None:
        self.running, self.client = running, client
        self.tasks: list[asyncio.Task[httpx.Response]] = []

    def send(self, count: int, prompt: str, headers: dict[str, str], **more: Any) -> list[asyncio.Task[httpx.Response]]:
        """So many requests at once."""
        sent = [asyncio.create_task(self.client.post(**asked(prompt, headers, **more))) for _ in range(count)]
        self.tasks += sent
        return sent

    async def until(self, shown: Callable[[str], bool]) -> None:
        """Wait until the appliance's metrics are as wanted."""
        async with asyncio.timeout(PATIENCE):
            while not shown((await self.client.get("/metrics")).text):  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.02)

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def heard(house: House) -> list[str]:
    """The prompts that the engine was asked to answer, in order."""
    bodies = [note["body"] for note in house.heard() if note["path"] == "/v1/chat/completions"]
    return [body["messages"][0]["content"] for body in bodies]


def waiting(count: int, service_class: str = "standard") -> Callable[[str], bool]:
    line = f'appliance_queue_length{{model="chat",service_class="{service_class}"}} {float(count)}'
    return lambda page: line in page


@pytest.fixture
def narrow(house: House, start: Callable[..., Running]) -> Running:
    """A chat model with four places, on which nobody may wait longer than a minute."""
    house.card("tiny")
    house.serve("chat", "tiny", batching={"max_sequences": 4}, stall_seconds=600)
    house.write(queue={"longest": 60, "engine_waiting": 4})
    return start(house).ready()


async def test_another_teams_request_goes_next_and_an_urgent_one_before_it(narrow: Running) -> None:
    flood, other, urgent = key(narrow.house, "a"), key(narrow.house, "b"), key(narrow.house, "a", "interactive")
    async with narrow.async_client() as client, Crowd(narrow, client) as crowd:
        runs = crowd.send(4, HELD, flood)
        await crowd.until(waiting(0))
        crowd.send(30, "tokens=3", flood)
        await crowd.until(waiting(30))
        (its,) = crowd.send(1, "tokens=1 say=other", other)
        await crowd.until(waiting(31))
        (first,) = crowd.send(1, "tokens=1 say=urgent", urgent)
        await crowd.until(waiting(1, "interactive"))
        runs[0].cancel()
        for each in (first, its):
            async with asyncio.timeout(PATIENCE):
                assert (await each).status_code == 200
    said = heard(narrow.house)
    assert said.index("tokens=1 say=urgent") == 4, "right after the four that ran"
    assert said.index("tokens=1 say=other") <= 6, "next among its class, or after one of the flood's"
    bodies = [note["body"] for note in narrow.house.heard() if "priority" in note["body"]]
    assert {body["priority"] for body in bodies if "urgent" in str(body)} == {0}
    assert {body["priority"] for body in bodies if "other" in str(body)} == {10}


async def test_a_full_queue_refuses_with_the_reason_and_when_to_come_back(narrow: Running) -> None:
    headers = key(narrow.house, "a")
    async with narrow.async_client() as client, Crowd(narrow, client) as crowd:
        crowd.send(64, HELD, headers)
        await crowd.until(waiting(60))
        refused = await client.post(**asked("tokens=1", headers))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        page = (await client.get("/metrics")).text
        assert 'appliance_shed_total{model="chat",service_class="standard"} 1.0' in page
        await crowd.until(lambda _: len(heard(narrow.house)) >= 4)
        assert len(heard(narrow.house)) == 4, "the engine has heard of no more than it has places"


async def test_those_who_leave_while_they_wait_are_never_heard_of(narrow: Running) -> None:
    headers = key(narrow.house, "a")
    async with narrow.async_client() as client, Crowd(narrow, client) as crowd:
        runs = crowd.send(4, HELD, headers)
        await crowd.until(waiting(0))
        gone = crowd.send(20, "tokens=1 say=gone", headers)
        await crowd.until(waiting(20))
        for task in gone:
            task.cancel()
        await crowd.until(waiting(0))
        (last,) = crowd.send(1, "tokens=1 say=last", headers)
        await crowd.until(waiting(1))
        runs[0].cancel()
        assert (await last).status_code == 200
    assert not [prompt for prompt in heard(narrow.house) if "gone" in prompt]


async def test_an_engine_that_dies_lets_nobody_wait_for_its_restart(narrow: Running) -> None:
    """They get 503 and when to come back, as all do while it restarts, and are served when they do."""
    headers = key(narrow.house, "a")
    async with narrow.async_client() as client, Crowd(narrow, client) as crowd:
        crowd.send(3, HELD, headers)
        crowd.send(1, "fault=die after=40 gap=0.05 tokens=50", headers)
        await crowd.until(lambda page: 'appliance_requests_in_flight{model="chat"} 4.0' in page)
        sent = crowd.send(50, "tokens=1", headers)
        await crowd.until(waiting(50))
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*sent)
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["error"]["code"] for answer in answers} == {"model_loading"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        await asyncio.to_thread(narrow.ready)
        assert (await client.post(**asked("tokens=1", headers))).status_code == 200


async def test_those_who_wait_when_a_model_is_swapped_are_served_by_the_new_one(narrow: Running) -> None:
    headers = key(narrow.house, "a")
    async with narrow.async_client() as client, Crowd(narrow, client) as crowd:
        crowd.send(4, "tokens=60 gap=0.05", headers)
        await crowd.until(lambda page: 'appliance_requests_in_flight{model="chat"} 4.0' in page)
        sent = crowd.send(10, "tokens=1", headers)
        await crowd.until(waiting(10))
        narrow.house.card("other")
        narrow.house.serve("chat", "other", batching={"max_sequences": 4}, stall_seconds=600, swap="replace")
        narrow.house.write()
        await asyncio.to_thread(narrow.apply)
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*crowd.tasks)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["choices"][0]["message"]["content"] for answer in answers[4:]} == {"other"}
    assert len(sent) == 10
