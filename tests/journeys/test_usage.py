"""What was used, told by the appliance while it runs, by its command line, and after it was killed."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from appliance.config import Allowance
from appliance.core import Role
from tests.fakes import house as houses
from tests.fakes import keys
from tests.fakes.house import ROOT, House, Running, until

PRICE = {"prompt_euros_per_million": 1000, "completion_euros_per_million": 2000}
ACCOUNTS = {"prices": {"models": {"chat": PRICE, "vectors": PRICE}}, "use_cases": {"mail": {}}}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """An appliance whose tokens cost something. Each test has keys of its own."""
    for house in houses.house():
        house.card("tiny")
        house.card("embedder", task="embedding")
        house.serve("chat", "tiny")
        house.serve("vectors", "embedder")
        house.write(accounts=ACCOUNTS)
        running = Running(house).ready("chat").ready("vectors")
        yield running
        running.stop()


def gpt(running: Running, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.base_url}/v1", api_key=key, max_retries=0, timeout=30)


def ask(running: Running, key: str, text: str, **more: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return gpt(running, key).chat.completions.create(model="chat", messages=messages, **more)  # type: ignore[arg-type]


def get(running: Running, key: str, path: str) -> httpx.Response:
    answer = httpx.get(f"{running.base_url}{path}", headers={"x-api-key": key}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


def own(running: Running, key: str) -> dict[str, Any]:
    """What the key used this month."""
    month: dict[str, Any] = get(running, key, "/v1/usage").json()["key"]["month"]
    return month


def command(house: House, *arguments: str) -> str:
    line = [sys.executable, "-m", "appliance", *arguments, "--config", str(house.config)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def test_whatever_was_answered_is_counted_as_the_engine_counts_it(running: Running) -> None:
    _, key = keys.make(running, user="counted")
    client = gpt(running, key)
    prompt = completion = 0

    def count(usage: Any) -> None:
        nonlocal prompt, completion
        prompt += usage.prompt_tokens
        completion += getattr(usage, "completion_tokens", 0)

    count(ask(running, key, "one two tokens=5").usage)
    count(ask(running, key, "tokens=3", n=2).usage)
    *_, last = ask(running, key, "tokens=4", stream=True, stream_options={"include_usage": True})
    count(last.usage)
    assert all(chunk.usage is None for chunk in ask(running, key, "tokens=4", stream=True)), "it was not asked for"
    count(last.usage)
    count(client.embeddings.create(model="vectors", input=["a b c", "d"], encoding_format="float").usage)
    answer = client.responses.create(model="chat", input="tokens=6", max_output_tokens=9)
    assert answer.usage is not None
    prompt += answer.usage.input_tokens
    completion += answer.usage.output_tokens
    assert prompt > 0 < completion
    sums = {
        "requests": 6, "prompt_tokens": prompt, "completion_tokens": completion,
        "euros": f"0.{prompt * 1000 + completion * 2000:06d}000", "unsettled": 0,
    }  # fmt: skip
    until(lambda: own(running, key) == sums)
    assert get(running, key, "/v1/usage").json()["user"] == {"name": "counted"}, "sums of a person are nobody's to see"


def test_a_client_that_leaves_pays_for_what_was_generated_until_then(running: Running) -> None:
    _, key = keys.make(running)
    with ask(running, key, "one two tokens=400 gap=0.05", max_tokens=400, stream=True) as stream:
        for _, _ in zip(range(6), stream, strict=False):
            pass
    until(lambda: own(running, key)["requests"] == 1)
    used = own(running, key)
    assert used["prompt_tokens"] == 5
    assert 4 <= used["completion_tokens"] < 100


def test_what_was_refused_costs_nothing(running: Running) -> None:
    _, key = keys.make(running, allowance=Allowance(tokens_per_day=500))
    plain = {"model": "chat", "messages": [{"role": "user", "content": "x"}]}
    for wrong, status in (({"max_tokens": 400}, 429), ({"model": "nope"}, 404), ({"max_tokens": -1}, 400)):
        url = f"{running.base_url}/v1/chat/completions"
        assert httpx.post(url, json=plain | wrong, headers={"x-api-key": key}).status_code == status
    ask(running, key, "tokens=1", max_tokens=1)
    until(lambda: own(running, key)["requests"] == 1)

    def budget() -> tuple[int, int, int]:
        (shown,) = get(running, key, "/v1/usage").json()["budgets"]
        return shown["used"], shown["reserved"], shown["left"]

    until(lambda: budget() == (3, 0, 497))  # what is shown may be a fifth of a second old


def test_the_api_and_the_command_line_tell_administrators_the_same(running: Running) -> None:
    _, admin = keys.make(running, role=Role.ADMIN)
    id_, key = keys.make(running, name="a tool", user="told", team="=told", use_cases=frozenset({"mail"}))
    ask(running, key, "tokens=2")
    ask(running, key, "tokens=2", extra_headers={"X-Use-Case": "mail"})
    until(lambda: own(running, key)["requests"] == 2)

    (told_by,) = get(running, admin, "/admin/usage?by=user&team=%3Dtold").json()["data"]
    who = told_by["user"]
    asked = get(running, admin, f"/admin/usage?by=team,user,use_case,key,model&user={who}").json()
    row = {"team": "=told", "user": who, "key": who, "model": "chat", "requests": 1, "prompt_tokens": 2,
           "completion_tokens": 2, "euros": "0.006000000", "unsettled": 0}  # fmt: skip
    assert asked["data"] == [row | {"use_case": ""}, row | {"use_case": "mail"}]
    table = get(running, admin, f"/admin/usage?by=team&user={who}&format=csv").content.decode()
    assert list(csv.reader(io.StringIO(table, newline="")))[1][0] == "'=told"

    told = json.loads(command(running.house, "usage", "--by", "team,user,use_case,key,model", "--json"))
    assert [row for row in told["data"] if row["user"] == who] == asked["data"]
    shown = command(running.house, "usage", "--by", "key")
    assert who in shown
    assert id_ not in shown


def test_a_budget_that_is_raised_holds_at_once_and_counts_what_was_used(
    house: House, start: Callable[[House], Running]
) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["accounts"] = {"teams": {"sales": {"tokens_per_day": 500}}}
    running = start(house).ready()
    _, key = keys.make(running, team="sales")
    ask(running, key, "tokens=100", max_tokens=100)
    with pytest.raises(openai.RateLimitError):
        ask(running, key, "tokens=100", max_tokens=100)
    house.write(accounts={"teams": {"sales": {"tokens_per_day": 1000}}})
    assert "changes" in running.apply()
    assert ask(running, key, "tokens=100", max_tokens=100).usage.total_tokens == 102
    until(lambda: get(running, key, "/v1/usage").json()["budgets"][0]["left_percent"] == 79)


def test_after_a_kill_what_was_in_flight_is_booked_in_full_and_shown_as_unsettled(
    house: House, start: Callable[[House], Running]
) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    running = start(house).ready()
    id_, key = keys.make(running, allowance=Allowance(tokens_per_day=10_000))
    settled = ask(running, key, "tokens=7").usage
    until(lambda: own(running, key)["requests"] == 1)
    stream = iter(ask(running, key, "tokens=inf gap=0.05", max_tokens=300, stream=True))
    next(stream)
    running.process.send_signal(signal.SIGKILL)
    running.process.wait(30)
    with pytest.raises(openai.APIError):
        list(stream)

    told = json.loads(command(house, "usage", "--by", "key", "--json"))
    assert [row["requests"] for row in told["data"] if row["key"] == id_] == [1], "it waits for the next start"
    again = start(house).ready()
    used = own(again, key)
    assert (used["requests"], used["unsettled"]) == (2, 1)
    assert used["completion_tokens"] == settled.completion_tokens + 300
    assert used["prompt_tokens"] > settled.prompt_tokens + 256, "the most that the prompt could have been"
    (budget,) = get(again, key, "/v1/usage").json()["budgets"]
    assert budget["used"] == used["prompt_tokens"] + used["completion_tokens"]
    assert budget["reserved"] == 0
    lines = command(house, "usage", "--by", "key").splitlines()
    assert "unsettled" in lines[2]


def test_whoever_asks_for_usage_first_waits_for_nothing_to_be_loaded(
    house: House, start: Callable[..., Running]
) -> None:
    """What is loaded while requests are answered holds all of them up: it was a tenth of a second."""
    house.card("tiny")
    house.serve("chat", "tiny")
    running = start(house, environment={"PYTHONPROFILEIMPORTTIME": "1"}).ready()
    running.printed("✓ ready")
    _, admin = keys.make(running, role=Role.ADMIN)
    before = running.output.read_text()
    assert "import time:" in before
    for path in ("/admin/usage", "/admin/usage?by=day&format=csv", "/admin/events", "/admin/keys"):
        get(running, admin, path)
    assert "import time:" not in running.output.read_text()[len(before) :]
