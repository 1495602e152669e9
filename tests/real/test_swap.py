"""Swaps on the real engine, under 32 people who read streams: none fails, none is mixed, and no memory stays behind.

How a mixed answer would be known: the engine gives each answer an id, which stands in every piece of it, and a version
is logged for it; and what each of the two models says to a fixed question, always taking the likeliest token, is
known from a time when it served alone. The likeliest token isn't always the same, since rounding differs with what
else is in the batch: so all that a model said alone counts, and a few answers that are new are let pass if they begin
as their own model's do for as long as any of the other's.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fakes.house import over, until
from tests.real.house import ANSWER, ROOT, START, Appliance, card

pytestmark = pytest.mark.long
CARDS = ("smollm2-135m-int8", "smollm2-135m-bnb4")
USERS, SWAPS = 32, int(os.environ.get("SWAPS", "20"))
ALONE_SECONDS = 30.0
"""How long each model's answers are collected before they are told apart."""
MOST_NEW = 0.05
"""Of all answers; every one of them is looked at, too."""
MOST_GROWTH = 1.05
QUESTIONS = [
    "What is the capital of France?", "Name three fruits.", "Why is the sky blue?", "Write a line about the sea.",
    "What is two plus two?", "Who wrote Hamlet?", "How do I boil an egg?", "Translate 'house' into German.",
]  # fmt: skip
TOKENS = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """One that was read to its end. `version` is what the access log says of it."""

    question: str
    text: str
    request: str
    ids: frozenset[str]


class People:
    """So many who ask, read a streamed answer, think, and ask again. Whatever goes wrong is kept in `failures`."""

    def __init__(self, house: Appliance, client: httpx.AsyncClient) -> None:
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._house = house
        self._client = client
        self._over = asyncio.Event()

    async def person(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - no secret
        while not self._over.is_set():
            question = chance.choice(QUESTIONS)
            try:
                self.answers.append(await self.ask(question))
            except (AssertionError, httpx.HTTPError, ValueError, KeyError) as failure:
                self.failures.append(f"{type(failure).__name__}: {failure}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), chance.uniform(0.5, 2))

    async def ask(self, question: str) -> Answer:
        """Raises `AssertionError` for an answer that isn't whole."""
        body = {
            "model": "chat", "messages": [{"role": "user", "content": question}], "max_tokens": TOKENS,
            "temperature": 0, "stream": True,
        }  # fmt: skip
        text, ids, finish, done = "", set(), None, False
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    done = True
                elif line.startswith("data: "):
                    piece: dict[str, Any] = json.loads(line[6:])
                    assert "error" not in piece, line
                    ids.add(piece["id"])
                    for choice in piece["choices"]:
                        text += choice["delta"].get("content") or ""
                        finish = choice["finish_reason"] or finish
        assert done, "no [DONE]"
        assert finish in ("stop", "length"), finish
        return Answer(question, text, response.headers["x-request-id"], frozenset(ids))

    @asynccontextmanager
    async def here(self, count: int) -> AsyncIterator[People]:
        """They ask while the block lasts."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self.person(number))
            try:
                yield self
            finally:
                self._over.set()


@asynccontextmanager
async def people(house: Appliance, count: int = USERS) -> AsyncIterator[People]:
    headers = {"authorization": f"Bearer {house.key}"}
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(
            base_url=house.address, headers=headers, timeout=START, trust_env=False, limits=limits
        ) as client,
        People(house, client).here(count) as crowd,
    ):
        yield crowd


def versions(house: Appliance) -> dict[str, str]:
    """Request to the version that answered it."""
    lines = (house.state / "logs" / "requests.log").read_text().splitlines()
    return {line["request"]: line["version"] for line in map(json.loads, lines) if line.get("version")}


def memory(house: Appliance) -> dict[str, float]:
    """MiB: of the appliance and its engines, shared pages counted once; and what the host uses, others' work too."""
    me = psutil.Process(house.process.pid)
    shares = 0.0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            shares += process.memory_full_info().pss
    return {"engines": shares / 2**20, "host": psutil.virtual_memory().used / 2**20}


async def swap(house: Appliance, to: str) -> str:
    """Have `to` take over; the output, once what it replaced is gone."""
    before = set(house.engine("chat").values())
    # after a quarter of that the new engine no longer gives way, however busy the old one is: 20 swaps in half an hour
    house.models = {"chat": card(to) | {"startup_seconds": 120}}
    house.write()
    applied = await asyncio.to_thread(house.run, "apply")
    assert applied.returncode == 0, applied.stderr
    await asyncio.to_thread(until, lambda: all(map(over, before)), START)
    shown = house.status()["models"]["chat"]
    assert (shown["state"], shown["card"]) == ("ready", to)
    return applied.stdout


def common(one: str, other: str) -> int:
    """Length of what both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def mixed(answer: Answer, own: set[str], others: set[str]) -> bool:
    """Whether it begins longer as an answer of the other model's than as any of its own's."""
    return max(common(answer.text, each) for each in others) > max(common(answer.text, each) for each in own)


def tell(line: str) -> None:
    """Progress of what takes half an hour."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")


@pytest.fixture
def house() -> Iterator[Appliance]:
    """An appliance to harm, with both models."""
    with tempfile.TemporaryDirectory(prefix="real-") as folder:
        models = Path(folder) / "models"
        for name in CARDS:
            shutil.copytree(ROOT / "models" / name, models / name)
        running = Appliance(Path(folder), {"chat": card(CARDS[0])}, models)
        try:
            yield running.ready()
        finally:
            running.stop()


async def test_twenty_swaps_under_32_people_fail_no_request_mix_no_answer_and_leave_no_memory(
    house: Appliance,
) -> None:
    known: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in CARDS}
    sizes: list[dict[str, float]] = []
    async with people(house) as crowd:
        for name in CARDS[::-1]:  # the last of the two is the one that serves at first
            await swap(house, name) if house.status()["models"]["chat"]["card"] != name else None
            seen = len(crowd.answers)
            await asyncio.sleep(ALONE_SECONDS)
            for answer in crowd.answers[seen:]:
                if versions(house).get(answer.request, "").startswith(f"{name}@"):
                    known[name][answer.question].add(answer.text)
        begun = len(crowd.answers)
        sizes.append(await asyncio.to_thread(memory, house))
        tell(f"begins with {begun} answers known, {sizes[0]}")
        for number in range(SWAPS):
            began = time.monotonic()
            await swap(house, CARDS[(number + 1) % 2])
            sizes.append(await asyncio.to_thread(memory, house))
            took = time.monotonic() - began
            tell(f"swap {number + 1}: {took:.0f} s, {len(crowd.answers)} answers, {crowd.failures[:3]}, {sizes[-1]}")
    await asyncio.to_thread(until, lambda: len(versions(house)) >= len(crowd.answers), ANSWER)
    logged = versions(house)
    assert crowd.failures == []
    kinds: Counter[str] = Counter()
    for answer in crowd.answers[begun:]:
        assert len(answer.ids) == 1, answer
        own = logged[answer.request].partition("@")[0]
        (other,) = set(CARDS) - {own}
        mine, others = known[own][answer.question], known[other][answer.question]
        kind = "known" if answer.text in mine else "mixed" if mixed(answer, mine, others) else "new"
        kinds[kind] += 1
        if kind != "known":
            tell(f"{kind}, by {own}: {answer.question} {answer.text!r}")
    tell(f"{kinds}; versions: {Counter(logged.values())}")
    assert kinds["mixed"] == 0
    assert kinds["new"] <= MOST_NEW * kinds.total()
    assert set(logged.values()) == {logged[answer.request] for answer in crowd.answers}
    assert len(set(logged.values())) == 2
    assert sizes[-1]["engines"] < MOST_GROWTH * sizes[0]["engines"], sizes
    assert len(engines(house)) == len(list((house.state / "run").glob("e*"))) == 1


# --- something happens to somebody on the way -----------------------------------------------------------

Strike = Callable[[Appliance], object]


async def struck(house: Appliance, when: str, strike: Strike, **settings: Any) -> tuple[str, list[str]]:
    """Swap to the other card under 8 people and `strike` as soon as the appliance says `when`.

    What `apply` said last, and the people's failures.
    """
    house.models = {"chat": card(CARDS[1]) | settings}
    house.write()
    async with people(house, 8) as crowd:
        await asyncio.to_thread(until, lambda: len(crowd.answers) > 8, ANSWER)
        apply = await asyncio.create_subprocess_exec(
            *house._command("apply"), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert apply.stdout is not None
        said, done = [], False
        async for line in apply.stdout:
            said.append(line.decode())
            if when in said[-1] and not done:
                done = True
                await asyncio.to_thread(strike, house)
        await apply.wait()
        assert done, f"never said {when!r}: {said}"
        seen = len(crowd.answers)
        await asyncio.to_thread(house.ready)
        await asyncio.to_thread(until, lambda: len(crowd.answers) > seen + 8, ANSWER)
    tell(f"{when}: {said[-1].strip()}")
    return said[-1], crowd.failures


def engines(house: Appliance) -> list[list[psutil.Process]]:
    """The processes of each engine, the oldest engine first."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.Process(house.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            command = process.cmdline()
            if "--uds" in command and "vllm.entrypoints.openai.api_server" in command:
                found.setdefault(command[command.index("--uds") + 1], []).append(process)
    return [found[socket] for socket in sorted(found, key=lambda name: int(Path(name).parent.name[1:]))]


def new(house: Appliance) -> list[psutil.Process]:
    """All of the newest engine."""
    (server, *more) = engines(house)[-1]
    return [server, *more, *server.children(recursive=True)]


def kill_new(house: Appliance) -> None:
    engines(house)[-1][-1].kill()


def kill_old(house: Appliance) -> None:
    engines(house)[0][-1].kill()


def stop_new(house: Appliance) -> None:
    """It hangs."""
    for process in new(house):
        process.suspend()


def starve_new(house: Appliance) -> None:
    """Give it next to no memory more than it has."""
    for process in new(house):
        most = process.memory_info().vms + 2**25
        process.rlimit(psutil.RLIMIT_AS, (most, most))


def nothing(house: Appliance) -> None:
    """What is wrong is in the card."""


WRONG: list[tuple[str, str, Strike, dict[str, Any], str]] = [
    ("killed as it loads", "loading", kill_new, {}, "killed by signal 9"),
    ("killed when it has answered", "answered", kill_new, {}, "killed by signal 9"),
    ("killed at its gate", "gate: answers", kill_new, {}, "killed by signal 9"),
    ("hangs as it loads", "loading", stop_new, {"startup_seconds": 20}, "no answer within startup_seconds (20 s)"),
    ("has no memory left", "loading weights", starve_new, {}, "emory"),
    ("is too slow", "gate: speed", nothing, {}, "gate.slower_times of its card allows 1.2"),
]


@pytest.mark.parametrize(("what", "when", "strike", "settings", "why"), WRONG, ids=[case[0] for case in WRONG])
async def test_a_new_engine_that_fails_changes_nothing_for_anybody(
    house: Appliance, what: str, when: str, strike: Strike, settings: dict[str, Any], why: str
) -> None:
    if strike is nothing:
        file = house.models_folder / CARDS[1] / "card.yaml"
        file.write_text(file.read_text().replace("slower_times: 6", "slower_times: 1.2"))
    last, failures = await struck(house, when, strike, **settings)
    assert "nothing was changed" in last
    assert why in last
    assert failures == []
    assert house.status()["models"]["chat"]["card"] == CARDS[0]
    await asyncio.to_thread(until, lambda: len(engines(house)) == 1, ANSWER)


@pytest.mark.parametrize("when", ["loading", "passed its gate"])
async def test_an_old_engine_that_is_killed_does_not_stop_the_swap(house: Appliance, when: str) -> None:
    _, failures = await struck(house, when, kill_old)
    # eight people were reading, or asked while nothing could answer; it may have drained by the time it is killed
    assert failures or when == "passed its gate"
    shown = house.status()["models"]["chat"]
    assert (shown["state"], shown["card"]) == ("ready", CARDS[1])
