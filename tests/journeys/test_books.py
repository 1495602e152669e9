"""What is used stands in the books, however a request or the appliance ends: engine, books and audit log agree."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest

from appliance.accounts.store import Store
from appliance.audit.verifier import verify
from tests.fakes.house import House, Running, until

Start = Callable[..., Running]
CHAT = "/v1/chat/completions"
FAR = ("2000-01-01", "2999-12-31")


@dataclass(frozen=True)
class Sums:
    """Tokens of prompts and answers."""

    requests: int
    prompt: int
    completion: int
    unsettled: int = 0


def booked(house: House) -> Sums:
    """What the store of an appliance holds of all that was ever used."""
    store = Store.sqlite(house.state)
    try:
        rows = store.usage(*FAR, per=None)
    finally:
        store.close()
    used = [row for _, row in rows]
    return Sums(
        sum(each.requests for each in used),
        sum(each.prompt_tokens for each in used),
        sum(each.completion_tokens for each in used),
        sum(each.unsettled for each in used),
    )


def computed(house: House) -> Sums:
    """What the engine noted of each answer that it ended or that was broken off."""
    notes = house.heard("computed")
    return Sums(
        len(notes), sum(each["prompt_tokens"] for each in notes), sum(each["completion_tokens"] for each in notes)
    )


def chat(prompt: str, **more: object) -> dict[str, object]:
    return {"model": "chat", "messages": [{"role": "user", "content": prompt}], "max_tokens": 30, **more}


@pytest.fixture
def lone(house: House, start: Start) -> Running:
    """An appliance of one model, whose books are empty."""
    house.card("tiny")
    house.serve("chat", "tiny")
    return start(house).ready()


def test_answers_whole_and_streamed_are_booked_as_the_engine_counted_them(house: House, lone: Running) -> None:
    with lone.client() as client:
        for stream in (False, True):
            assert client.post(CHAT, json=chat("five words stand in here", stream=stream)).status_code == 200
        assert client.post("/v1/completions", json={"model": "chat", "prompt": "one two"}).status_code == 200
        message = {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": "one"}]}
        assert client.post("/v1/messages", json=message).status_code == 200
    until(lambda: booked(house) == computed(house) and computed(house).requests == 4)


def test_who_leaves_in_the_middle_has_used_what_the_engine_computed_until_then(house: House, lone: Running) -> None:
    with lone.client() as client, client.stream("POST", CHAT, json=chat("tokens=inf gap=0.01", stream=True)) as answer:
        lines = answer.iter_lines()
        for _ in range(12):
            next(lines)
    until(lambda: computed(house).requests == 1)
    until(lambda: booked(house).requests == 1)
    ours, engines = booked(house), computed(house)
    assert ours.prompt == engines.prompt == 3
    assert 3 <= ours.completion <= engines.completion, "a token on its way when the caller left may lie between them"


def test_who_leaves_before_a_whole_answer_came_has_used_what_was_reserved(house: House, lone: Running) -> None:
    with lone.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json=chat("tokens=inf gap=0.01"), timeout=1)
    until(lambda: booked(house).requests == 1)
    assert booked(house).completion == 30, "nobody told how many of the 30 tokens were generated"
    assert booked(house).prompt == computed(house).prompt


def test_what_an_engine_died_over_is_booked_at_what_passed_and_the_prompt_in_full(house: House, lone: Running) -> None:
    with lone.client() as client:
        answer = client.post(CHAT, json=chat("fault=die after=3", stream=True))
    assert "[DONE]" not in answer.text
    used = until(lambda: (sums := booked(house)).requests == 1 and sums)
    assert used.completion == 3
    assert used.prompt >= 2, "nobody can count it any more"


def test_what_was_refused_before_the_engine_heard_of_it_costs_nothing(house: House, lone: Running) -> None:
    with lone.client() as client:
        assert client.post(CHAT, json={"model": "chat", "messages": []}).status_code == 400
        assert client.post(CHAT, json=chat("word " * 600)).status_code == 400
        assert client.post(CHAT, json=chat("fault=busy")).status_code == 503
        assert client.post(CHAT, json=chat("the last one")).status_code == 200
    until(lambda: booked(house).completion > 0)
    assert booked(house).prompt == 4


@pytest.mark.parametrize("stream", [False, True])
def test_what_nobody_was_there_to_hear_costs_nothing(house: House, start: Start, stream: bool) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["models"]["away"] = {
        "endpoint": f"unix:{house.folder / 'nobody.sock'}", "task": "chat", "upstream_model": "m",
    }  # fmt: skip
    with start(house).ready().client() as client:
        refused = client.post(CHAT, json=chat("hello", stream=stream) | {"model": "away"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (502, "engine_failed")
        assert client.post(CHAT, json=chat("the last one")).status_code == 200
    until(lambda: booked(house).completion > 0)
    assert booked(house) == computed(house)


class Load:
    """Callers who ask again and again until the appliance is gone."""

    def __init__(self, running: Running, number: int, seed: int) -> None:
        self._running = running
        self._number = number
        self._random = random.Random(seed)  # noqa: S311 - repeatable, and no secret
        self.answered = Sums(0, 0, 0)
        """Of answers that came to their end."""
        self.heard: set[str] = set()
        """The ids of requests of whose answer anything came."""

    async def until_killed(self, after: float) -> None:
        async with self._running.async_client() as client:
            asking = [asyncio.create_task(self._ask(client)) for _ in range(self._number)]
            await asyncio.sleep(after)  # the random moment
            for process in self._running.family():
                with contextlib.suppress(ProcessLookupError):  # one that ended with those before it
                    os.kill(process.pid, signal.SIGKILL)
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        while True:
            stream = self._random.random() < 0.5
            body = chat(f"some words tokens={self._random.randint(1, 20)} gap=0.002", stream=stream)
            if stream:
                body["stream_options"] = {"include_usage": True}
            async with client.stream("POST", CHAT, json=body) as answer:
                self.heard.add(answer.headers["x-request-id"])
                await answer.aread()
            assert answer.status_code == 200, answer.text
            if stream:
                events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
                assert events[-1] == "[DONE]"
                usage = json.loads(events[-2])["usage"]
            else:
                usage = answer.json()["usage"]
            told = self.answered
            self.answered = Sums(
                told.requests + 1,
                told.prompt + usage["prompt_tokens"],
                told.completion + usage["completion_tokens"],
            )


CALLERS = 16
MOST_IN_FLIGHT = Sums(CALLERS, CALLERS * 512, CALLERS * 30)
"""What the callers' requests can be reserved at: the context length, and `max_tokens`."""


def intended(house: House) -> set[str]:
    """The ids of all requests of which the audit log holds an intent."""
    found = set()
    for file in (house.state / "audit").glob("*.jsonl*"):
        lines = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        records = [json.loads(line) for line in lines.splitlines() if b'"kind":"intent"' in line]
        found |= {record["body"]["request"] for record in records}
    return found


async def kill(house: House, start: Start, times: int) -> None:
    chance = random.Random(4)  # noqa: S311 - as above
    for number in range(times):
        before = booked(house) if house.state.exists() else Sums(0, 0, 0)
        running = start(house).ready()
        load = Load(running, CALLERS, number)
        await load.until_killed(chance.uniform(0.0, 0.6))
        running.process.wait()
        start(house).ready().stop()  # it books what was left open
        after, answered = booked(house), load.answered
        new = Sums(
            after.requests - before.requests, after.prompt - before.prompt, after.completion - before.completion,
            after.unsettled - before.unsettled,
        )  # fmt: skip
        where = f"kill {number}: {new} booked, {answered} answered"
        assert answered.requests <= new.requests <= answered.requests + CALLERS, where
        assert answered.prompt <= new.prompt <= answered.prompt + MOST_IN_FLIGHT.prompt, where
        assert answered.completion <= new.completion <= answered.completion + MOST_IN_FLIGHT.completion, where
        assert new.unsettled <= CALLERS, where
        assert load.heard <= intended(house), f"kill {number}: somebody heard what isn't on record"
        checked = verify(house.state / "audit")
        assert checked.genuine, f"kill {number}: {checked}"
    engines, ours = computed(house), booked(house)
    assert engines.completion <= ours.completion <= engines.completion + times * MOST_IN_FLIGHT.completion


async def test_killed_in_mid_load_books_and_log_hold_all_that_was_answered(house: House, start: Start) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    await kill(house, start, 3)


@pytest.mark.long
async def test_two_hundred_kills(house: House, start: Start) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    await kill(house, start, 200)
