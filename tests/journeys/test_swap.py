"""A model is swapped while people stream: no request fails, no answer is mixed, and what fails is as it was before."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest

from appliance import control
from tests.fakes import house as houses
from tests.fakes.house import PATIENCE, House, Running, over, until

Start = Callable[..., Running]
PATH = "/v1/chat/completions"
TOKENS = 6


def ask(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": prompt}], **more}


class Crowd:
    """Users who stream without a pause. Their answers tell, word by word, which weights they came from."""

    def __init__(self, client: httpx.AsyncClient, users: int) -> None:
        self.answers: list[str] = []
        """The card that each whole answer came from."""
        self._client = client
        self._stop = False
        self._tasks = [asyncio.create_task(self._user()) for _ in range(users)]

    async def _user(self) -> None:
        while not self._stop:
            words, finish, done = [], None, False
            body = ask(f"tokens={TOKENS} gap=0.02", stream=True)
            async with self._client.stream("POST", PATH, json=body) as answer:
                assert answer.status_code == 200, (await answer.aread()).decode()
                async for line in answer.aiter_lines():
                    done = done or line == "data: [DONE]"
                    if line.startswith("data: {"):
                        (choice,) = json.loads(line[6:])["choices"]
                        words += choice["delta"].get("content", "").split()
                        finish = choice["finish_reason"] or finish
            assert done
            assert finish is not None
            assert len(words) == TOKENS
            assert len(set(words)) == 1, f"mixed: {words}"
            self.answers.append(words[0])

    async def until(self, what: Callable[[], bool]) -> None:
        """Let them go on until `what()` is true; raises what a user met."""
        async with asyncio.timeout(PATIENCE):
            while not what():
                self._look()
                await asyncio.sleep(0.01)

    async def more(self, count: int) -> None:
        """Let them go on until there are so many answers more."""
        seen = len(self.answers)
        await self.until(lambda: len(self.answers) >= seen + count)

    async def during(self, what: Callable[[], Any]) -> Any:
        """What `what` returns, called in a thread while they go on."""
        doing = asyncio.create_task(asyncio.to_thread(what))
        await self.until(doing.done)
        return doing.result()

    def _look(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def end(self) -> None:
        self._stop = True
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks)


@asynccontextmanager
async def crowd(running: Running, users: int = 32) -> AsyncIterator[Crowd]:
    """People at work, none of whom has met a failure when this ends."""
    async with running.async_client() as client:
        people = Crowd(client, users)
        yield people
        await people.end()


def serve(house: House, card: str, **settings: Any) -> None:
    house.serve("chat", card, **settings)
    house.write()


def engines(running: Running, card: str) -> list[psutil.Process]:
    """The processes that serve `card`, without what keeps them."""
    found = []
    for pid in running.engine_pids():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if str(running.house.folder / "models" / card / "weights") in process.cmdline():
                found.append(process)
    return found


def alone(running: Running, card: str) -> None:
    """Wait until nothing but `card` is served by anything."""
    until(lambda: len(running.engine_pids()) == 1 and len(engines(running, card)) == 1)


class Applying:
    """`appliance apply` in its course: what it has told so far, and its end."""

    def __init__(self, running: Running) -> None:
        self._lines: Iterator[dict[str, Any]] = control.ask(running.house.state, "POST", "/apply")
        self.told: list[str] = []

    def until(self, text: str) -> Applying:
        """Read on until something told has `text` in it."""
        while text not in "".join(self.told[-1:]):
            line = next(self._lines)
            assert not {"error", "changes"} & line.keys(), f"it ended before {text!r}: {line}"
            self.told.append(line.get("progress", ""))
        return self

    def end(self) -> dict[str, Any]:
        return list(self._lines)[-1]


CARDS: dict[str, dict[str, Any]] = {
    "one": {}, "two": {}, "slow": {"slow": 1.0}, "crash": {"start": "crash"}, "never": {"start": "never"},
}  # fmt: skip


def furnished(house: House) -> House:
    """A house whose `chat` is answered by the card `one`; there are other cards to change to."""
    for card, faults in CARDS.items():
        house.card(card, faults=faults)
    house.serve("chat", "one")
    return house


@pytest.fixture(scope="module")
def steady() -> Iterator[Running]:
    """An appliance for all that leave it running."""
    for house in houses.house():
        furnished(house).write()
        running = Running(house).ready()
        yield running
        running.stop()


@pytest.fixture
def running(steady: Running) -> Iterator[Running]:
    """The same, in the state in which it was started."""
    good = copy.deepcopy(steady.house.settings)
    yield steady
    steady.house.settings = good
    steady.house.write()
    assert "error" not in steady.apply()
    alone(steady, "one")


@pytest.fixture
def house(running: Running) -> House:
    return running.house


@pytest.fixture
def own(start: Start) -> Iterator[Running]:
    """One of its own, for a test that ends it."""
    for house in houses.house():
        yield start(furnished(house)).ready()


async def swaps(running: Running, count: int, how: str) -> None:
    house = running.house
    before = len(running.family())
    async with crowd(running) as people:
        await people.more(32)
        for number in range(count):
            card = ("two", "one")[number % 2]
            serve(house, card, swap=how)
            applied = await people.during(running.apply)
            assert applied == {"changes": [f"chat: now answered by {card}"]}
            seen = len(people.answers)
            await people.until(lambda seen=seen, card=card: people.answers[seen:].count(card) >= 32)  # type: ignore[misc]
    assert set(people.answers) == {"one", "two"}
    assert people.answers[-1] == card
    alone(running, card)
    until(lambda: len(running.family()) == before)


@pytest.mark.parametrize("how", ["beside", "replace"])
async def test_under_32_streaming_users_swaps_fail_no_request_and_mix_no_answer(running: Running, how: str) -> None:
    await swaps(running, 3, how)


@pytest.mark.long
@pytest.mark.parametrize("how", ["beside", "replace"])
async def test_20_swaps_in_a_row_do_neither(running: Running, how: str) -> None:
    await swaps(running, 20, how)


async def test_while_an_engine_is_replaced_there_is_never_a_second_one(house: House, running: Running) -> None:
    most = 0
    serve(house, "slow", swap="replace")
    async with crowd(running, 4) as people:
        await people.more(4)
        applying = asyncio.create_task(asyncio.to_thread(running.apply))
        while not applying.done():
            most = max(most, len(running.engine_pids()))
            await asyncio.sleep(0.005)
        await people.more(4)
    assert most == 1
    assert set(people.answers) == {"one", "slow"}


FAILURES = [
    ("crash", {}, "the checkpoint is not what the configuration says"),
    ("never", {"startup_seconds": 0.5}, "no answer within startup_seconds"),
]


@pytest.mark.parametrize("how", ["beside", "replace"])
@pytest.mark.parametrize(("card", "settings", "why"), FAILURES, ids=[card for card, *_ in FAILURES])
async def test_a_new_engine_that_fails_leaves_the_old_one_and_says_why(
    house: House, running: Running, how: str, card: str, settings: dict[str, Any], why: str
) -> None:
    serve(house, card, swap=how, **settings)
    async with crowd(running, 8) as people:
        await people.more(8)
        applied = await people.during(running.apply)
        assert why in applied["error"]
        await people.more(8)
    assert set(people.answers) == {"one"}
    shown = running.model()
    assert (shown["card"], shown["state"]) == ("one", "ready")
    assert why in shown["trouble"]
    alone(running, "one")
    serve(house, "two")
    assert running.apply() == {"changes": ["chat: now answered by two"]}
    assert running.model()["trouble"] is None


async def test_without_room_for_both_the_old_one_is_replaced_and_what_never_fits_is_refused_with_the_numbers(
    house: House, running: Running
) -> None:
    house.settings["engines"]["memory_gib"] = 2
    serve(house, "one", memory_gib=1.5)
    running.apply()
    async with crowd(running, 8) as people:
        await people.more(8)
        serve(house, "slow", memory_gib=1.25)
        applying = await people.during(lambda: Applying(running).until("has made room"))
        assert await people.during(applying.end) == {"changes": ["chat: now answered by slow"]}
        serve(house, "two", memory_gib=2.5)
        refused = await people.during(running.apply)
        for number in ("needs 2.5 GiB", "slow@", "frees 1.2 GiB", "lets engines take 2"):
            assert number in refused["error"]
        await people.more(8)
    assert set(people.answers) == {"one", "slow"}


async def test_whoever_leaves_while_a_model_is_replaced_is_never_heard_of(house: House, running: Running) -> None:
    serve(house, "slow", swap="replace")
    async with running.async_client() as client:
        applying = Applying(running)
        await asyncio.to_thread(applying.until, "has made room")
        stays = asyncio.create_task(client.post(PATH, json=ask("tokens=1 say=stays")))
        gone = [asyncio.create_task(client.post(PATH, json=ask("tokens=1 say=gone"))) for _ in range(5)]
        await waiting(client, 6)
        for task in gone:
            task.cancel()
        await waiting(client, 1)
        assert "changes" in await asyncio.to_thread(applying.end)
        assert (await stays).json()["choices"][0]["message"]["content"] == "stays"
    assert "gone" not in json.dumps(house.heard())


async def waiting(client: httpx.AsyncClient, count: int) -> None:
    """Return when so many wait in the queues."""
    line = f'appliance_queue_length{{model="chat",service_class="standard"}} {float(count)}'
    async with asyncio.timeout(PATIENCE):
        while line not in (await client.get("/metrics")).text:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.02)


async def test_the_bounds_of_the_queue_hold_while_a_model_is_replaced(house: House, running: Running) -> None:
    house.write(queue={"longest": 3})
    running.apply()
    serve(house, "slow", swap="replace")
    async with running.async_client() as client:
        applying = Applying(running)
        await asyncio.to_thread(applying.until, "has made room")
        held = [asyncio.create_task(client.post(PATH, json=ask("tokens=1"))) for _ in range(3)]
        await waiting(client, 3)
        refused = await client.post(PATH, json=ask("tokens=1"))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        await asyncio.to_thread(applying.end)
        assert [answer.status_code for answer in await asyncio.gather(*held)] == [200] * 3


async def test_a_wait_that_is_over_is_told_with_when_to_come_back(house: House, running: Running) -> None:
    serve(house, "never", swap="replace", wait_seconds=0.3, startup_seconds=2)
    async with running.async_client() as client:
        applying = Applying(running)
        await asyncio.to_thread(applying.until, "has made room")
        late = await client.post(PATH, json=ask("tokens=1"))
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "model_loading"
        assert int(late.headers["retry-after"]) >= 1
        assert "error" in await asyncio.to_thread(applying.end)
        assert (await client.post(PATH, json=ask("tokens=1"))).status_code == 200


async def test_counting_tokens_waits_for_a_model_that_is_replaced_as_well(house: House, running: Running) -> None:
    serve(house, "slow", swap="replace")
    async with running.async_client() as client:
        applying = Applying(running)
        await asyncio.to_thread(applying.until, "has made room")
        body = {"model": "chat", "messages": [{"role": "user", "content": "a b c"}]}
        counted = await client.post("/v1/messages/count_tokens", json=body)
        assert counted.json()["input_tokens"] > 0
        await asyncio.to_thread(applying.end)


async def test_shutting_down_ends_the_waiting(own: Running) -> None:
    serve(own.house, "never", swap="replace")
    async with own.async_client() as client:
        applying = Applying(own)
        await asyncio.to_thread(applying.until, "has made room")
        held = asyncio.create_task(client.post(PATH, json=ask("tokens=1")))
        await waiting(client, 1)
        stopping = asyncio.create_task(asyncio.to_thread(own.stop))
        answer = await held
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")
        assert await stopping == 0
    until(lambda: not own.engine_pids())


@pytest.mark.parametrize("how", ["beside", "replace"])
async def test_a_drain_that_takes_too_long_is_cut_and_said(house: House, running: Running, how: str) -> None:
    serve(house, "one", drain_seconds=0.3)
    running.apply()
    serve(house, "two", swap=how)
    async with (
        running.async_client() as client,
        client.stream("POST", PATH, json=ask("tokens=inf gap=0.05", stream=True)) as answer,
    ):
        pieces = answer.aiter_text()
        text = await anext(pieces)
        assert "changes" in await asyncio.to_thread(running.apply)
        text += "".join([piece async for piece in pieces])
    assert '"error"' in text
    assert "[DONE]" not in text
    until(lambda: "1 requests are cut off, since they took longer than drain_seconds (0.3 s)" in log(house))
    alone(running, "two")


def log(house: House) -> str:
    return (house.state / "logs" / "appliance.log").read_text()


def test_settings_that_are_not_the_engines_are_taken_over_while_it_runs(house: House, running: Running) -> None:
    before = len(house.heard("start"))
    later = {"wait_seconds": 7, "drain_seconds": 8, "memory_gib": 3, "swap": "beside", "idle": {"after_seconds": 900}}
    serve(house, "one", **later)
    assert "error" not in running.apply()
    assert len(house.heard("start")) == before
    with running.client() as client:
        assert client.post(PATH, json=ask("tokens=1")).status_code == 200


@pytest.mark.parametrize("how", ["beside", "replace"])
@pytest.mark.parametrize("step", ["waiting for its first answer", "draining"])
async def test_a_new_engine_that_is_killed_on_its_way_leaves_the_old_one(
    house: House, running: Running, how: str, step: str
) -> None:
    """Before its answer. Once it has taken over, it is restarted as any other."""
    serve(house, "slow", swap=how)
    async with crowd(running, 8) as people:
        await people.more(8)
        doing = asyncio.create_task(asyncio.to_thread(running.apply))
        if step == "draining":
            await people.until(doing.done)
            assert doing.result() == {"changes": ["chat: now answered by slow"]}
        else:
            await people.until(lambda: bool(engines(running, "slow")))
            engines(running, "slow")[0].kill()
            await people.until(doing.done)
            assert "killed by signal 9" in doing.result()["error"]
            assert "killed by signal 9" in running.model()["trouble"]
        await people.more(8)
    alone(running, "slow" if step == "draining" else "one")


async def test_an_old_engine_that_is_killed_while_the_new_one_starts_hinders_nothing(
    house: House, running: Running
) -> None:
    serve(house, "slow")
    applying = Applying(running).until("starting slow")
    until(lambda: engines(running, "slow"))
    engines(running, "one")[0].kill()
    assert applying.end() == {"changes": ["chat: now answered by slow"]}
    alone(running, "slow")
    assert (running.model()["card"], running.model()["state"]) == ("slow", "ready")


async def test_an_old_engine_that_is_killed_in_its_drain_takes_along_only_what_it_was_answering(
    house: House, running: Running
) -> None:
    serve(house, "two")
    async with (
        running.async_client() as client,
        client.stream("POST", PATH, json=ask("tokens=inf gap=0.02", stream=True)) as answer,
    ):
        pieces = answer.aiter_text()
        await anext(pieces)
        assert "changes" in await asyncio.to_thread(running.apply)
        (old,) = engines(running, "one")
        old.kill()
        assert '"error"' in "".join([piece async for piece in pieces])
        whole = await client.post(PATH, json=ask("tokens=1"))
        assert whole.json()["choices"][0]["message"]["content"] == "two"
    alone(running, "two")


async def test_an_old_engine_that_is_killed_before_it_made_room_is_replaced_all_the_same(
    house: House, running: Running
) -> None:
    serve(house, "two", swap="replace")
    async with (
        running.async_client() as client,
        client.stream("POST", PATH, json=ask("tokens=inf gap=0.02", stream=True)) as answer,
    ):
        pieces = answer.aiter_text()
        await anext(pieces)
        applying = Applying(running)
        await asyncio.to_thread(applying.until, "finishes its 1 requests")
        held = asyncio.create_task(client.post(PATH, json=ask("tokens=1")))
        await waiting(client, 1)
        engines(running, "one")[0].kill()
        assert await asyncio.to_thread(applying.end) == {"changes": ["chat: now answered by two"]}
        assert (await held).json()["choices"][0]["message"]["content"] == "two"
    alone(running, "two")


@pytest.mark.parametrize("how", ["beside", pytest.param("replace", marks=pytest.mark.long)])
def test_an_appliance_that_is_killed_in_mid_swap_starts_as_its_config_says(
    own: Running, start: Start, how: str
) -> None:
    serve(own.house, "slow", swap=how)
    Applying(own).until("starting slow")
    until(lambda: engines(own, "slow"))
    family = own.family()
    os.kill(own.process.pid, signal.SIGKILL)
    own.process.wait()
    until(lambda: all(map(over, family)))
    again = start(own.house).ready()
    assert again.model()["card"] == "slow"
    alone(again, "slow")


@pytest.mark.long
def test_an_engine_that_does_not_end_is_waited_for_before_the_next_takes_its_place(
    house: House, running: Running
) -> None:
    house.break_engines(linger=True)
    serve(house, "two")
    running.apply()
    alone(running, "two")
    house.break_engines()
    serve(house, "one", swap="replace")
    assert running.apply() == {"changes": ["chat: now answered by one"]}
    alone(running, "one")
