"""Urgent requests overtake others, in front of the real engine and inside it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.engines import load
from tests.real.house import ANSWER, Appliance, card

STORY: Any = [{"role": "user", "content": "Tell a long story about a house."}]
QUESTIONS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": STORY, "max_tokens": 4},
    "/v1/completions": {"prompt": "Once", "max_tokens": 4},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 4},
    "/v1/messages": {"messages": STORY, "max_tokens": 4},
    "/v1/embeddings": {"input": ["one", "two"]},
    "/v1/rerank": {"query": "one", "documents": ["two", "three"]},
    "/v1/score": {"text_1": "one", "text_2": "two"},
}

# an engine of their own takes half a minute; tests/journeys/test_waiting.py shows the order in each run
pytestmark = [pytest.mark.engine, pytest.mark.long]


def key_of(appliance: Appliance, service_class: str, team: str) -> dict[str, str]:
    """Headers with a new key."""
    made = appliance.run("keys", "create", "--class", service_class, "--team", team, "--json")
    assert made.returncode == 0, made.stderr
    return {"authorization": f"Bearer {json.loads(made.stdout)['key']}"}


@pytest.fixture(scope="module")
def narrow() -> Iterator[Appliance]:
    """A chat model with two places."""
    with tempfile.TemporaryDirectory(prefix="real-") as folder:
        model = card("smollm2-135m-int8") | {"batching": {"max_sequences": 2}}
        running = Appliance(Path(folder), {"chat": model})
        try:
            yield running.ready()
        finally:
            running.stop()


@pytest.mark.parametrize("path", QUESTIONS)
def test_the_engine_takes_the_priority_of_every_kind_of_request(appliance: Appliance, path: str) -> None:
    """An engine that goes by arrival, and a field that it doesn't know, would both be an error."""
    model = "chat" if "max" in str(QUESTIONS[path]) else "embed"
    with appliance.http() as client:
        answer = client.post(
            path, json={"model": model, **QUESTIONS[path]}, headers=key_of(appliance, "batch", "night")
        )
    assert answer.status_code == 200, answer.text


async def until(client: httpx.AsyncClient, shown: Callable[[str], bool]) -> None:
    """Wait until the metrics that `client` can read are as wanted."""
    async with asyncio.timeout(ANSWER):
        while not shown((await client.get("/metrics")).text):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.02)


async def done_before(client: httpx.AsyncClient, flood: list[Any], shown: Callable[[str], bool], urgent: Any) -> int:
    """How many of `flood` had ended when `urgent`, sent once the metrics had `shown` them all, had."""
    tasks = [asyncio.create_task(client.post(**each)) for each in flood]
    try:
        await until(client, shown)
        answer = await client.post(**urgent)
        assert answer.status_code == 200, answer.text
        return sum(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_inside_the_engine_the_urgent_overtake_those_who_wait(narrow: Appliance, path: str) -> None:
    """Straight to the engine, as our client speaks to it: in the body, or in a header where the body has no field."""

    def asked(priority: int, tokens: int) -> dict[str, Any]:
        body = {"model": "chat", "messages": STORY, "max_tokens": tokens}
        if path == "/v1/messages":
            return {"url": path, "json": body, "headers": {"x-vllm-priority": str(priority)}}
        return {"url": path, "json": body | {"priority": priority, "ignore_eos": True}}

    def all_there(page: str) -> bool:
        found = load.read(page.encode())
        return found.running + found.waiting == 10

    transport = httpx.AsyncHTTPTransport(uds=narrow.socket("chat"))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=ANSWER) as client:
        done = await done_before(client, [asked(20, 60) for _ in range(10)], all_there, asked(0, 2))
    assert done <= 4, "it waits for one of those that run, and for none that waits"


async def test_a_flood_of_batch_jobs_does_not_delay_an_interactive_request(narrow: Appliance) -> None:
    def asked(service_class: str, tokens: int) -> dict[str, Any]:
        body = {"model": "chat", "messages": STORY, "ignore_eos": True, "max_tokens": tokens}
        return {"url": "/v1/chat/completions", "json": body, "headers": keys[service_class]}

    keys = {each: key_of(narrow, each, "a") for each in ("batch", "interactive")}
    ten_wait = 'appliance_queue_length{model="chat",service_class="batch"} 10.0'
    async with httpx.AsyncClient(base_url=narrow.address, timeout=ANSWER, trust_env=False) as client:
        flood = [asked("batch", 60) for _ in range(12)]
        done = await done_before(client, flood, lambda page: ten_wait in page, asked("interactive", 2))
    assert done <= 4, "it goes before the ten that wait"
