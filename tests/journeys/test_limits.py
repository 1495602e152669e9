"""Limits and budgets through the appliance, as people meet them: in the official SDKs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import openai
import pytest

from appliance.config import Allowance
from appliance.core import Role
from tests.fakes import house as houses
from tests.fakes import keys
from tests.fakes.house import Running, until

SMALLER = {"at_limit": "step_down", "step_down_to": "small"}
FREE = {"prompt_euros_per_million": 0, "completion_euros_per_million": 0}
ACCOUNTS: dict[str, Any] = {
    "users": {
        "day": {"tokens_per_day": 1000},
        "month": {"tokens_per_month": 1000},
        "warned": {"tokens_per_day": 100, "at_limit": "warn"},
        "euros": {"euros_per_day": 1},
        "step": {"tokens_per_day": 1000, **SMALLER},
        "many": {"tokens_per_day": 4500},
    },
    "teams": {"day": {"tokens_per_day": 1000}, "step": {"tokens_per_day": 1000, **SMALLER}},
    "use_cases": {"day": {"tokens_per_day": 1000}, "free": {}},
    "prices": {"models": {
        "chat": {"prompt_euros_per_million": 0, "completion_euros_per_million": 10_000}, "small": FREE, "vectors": FREE,
    }},
}  # fmt: skip
PATIENCE = 30.0


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """An appliance with budgets. Each test has names, and so accounts, of its own."""
    for house in houses.house():
        house.card("tiny")
        house.card("little")
        house.card("embedder", task="embedding")
        house.serve("chat", "tiny")
        house.serve("small", "little")
        house.serve("vectors", "embedder")
        house.write(accounts=ACCOUNTS, audit={"works_council": False})  # so that sums of persons are told
        running = Running(house).ready("chat").ready("small").ready("vectors")
        yield running
        running.stop()


def gpt(running: Running, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.base_url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)


def claude(running: Running, key: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=running.base_url, api_key=key, max_retries=0, timeout=PATIENCE)


def ask(client: openai.OpenAI, text: str = "tokens=2", **more: Any) -> Any:
    asked: dict[str, Any] = {"model": "chat", "max_tokens": 8, "messages": [{"role": "user", "content": text}]} | more
    return client.chat.completions.create(**asked)


def use_up(client: openai.OpenAI, **more: Any) -> None:
    """Use so much of 1000 tokens that `LATER` doesn't fit any more: it may use 455."""
    for _ in range(2):
        assert ask(client, "tokens=300", max_tokens=300, **more).model == "chat"


LATER = 100
"""The most tokens that requests after `use_up` allow."""


def budget(running: Running, key: str, holder: str) -> dict[str, Any]:
    """What `GET /v1/usage` tells of the budget of `holder`."""
    body = httpx.get(f"{running.base_url}/v1/usage", headers={"x-api-key": key}).json()
    (found,) = [each for each in body["budgets"] if each["holder"] == holder]
    return found  # type: ignore[no-any-return]


# ---- limits per minute, and at the same time


def test_openais_headers_tell_what_is_left_of_a_minute(running: Running) -> None:
    _, key = keys.make(running, allowance=Allowance(requests_per_minute=2, tokens_per_minute=10_000))
    client = gpt(running, key)
    first = client.chat.completions.with_raw_response.create(
        model="chat", max_tokens=8, messages=[{"role": "user", "content": "tokens=2"}]
    )
    assert first.parse().usage.total_tokens == 4
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    assert first.headers["x-ratelimit-limit-tokens"] == "10000"
    assert 9000 < int(first.headers["x-ratelimit-remaining-tokens"]) < 10_000, "the worst case is set aside"
    assert first.headers["x-ratelimit-reset-tokens"].endswith("s")
    ask(client)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client)
    assert caught.value.status_code == 429
    assert caught.value.code == "rate_limit_exceeded"
    assert "limit of 2 requests a minute is reached; try again in" in caught.value.message
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_streams_and_other_dialects_have_the_headers_too(running: Running) -> None:
    _, key = keys.make(running, allowance=Allowance(requests_per_minute=4))
    raw = gpt(running, key).chat.completions.with_raw_response
    with raw.create(model="chat", stream=True, messages=[{"role": "user", "content": "x"}]).parse() as stream:
        assert stream.response.headers["x-ratelimit-remaining-requests"] == "3"
        assert list(stream)
    message = claude(running, key).messages.with_raw_response.create(
        model="chat", max_tokens=4, messages=[{"role": "user", "content": "x"}]
    )
    assert message.headers["x-ratelimit-remaining-requests"] == "2"
    vectors = gpt(running, key).embeddings.with_raw_response.create(model="vectors", input="x", encoding_format="float")
    assert vectors.headers["x-ratelimit-remaining-requests"] == "1"
    unlimited = gpt(running, keys.make(running)[1]).models.with_raw_response.list()
    assert not [name for name in unlimited.headers if name.startswith("x-ratelimit")]


def test_a_request_that_can_never_fit_is_told_so_and_not_repeated(running: Running) -> None:
    _, key = keys.make(running, allowance=Allowance(tokens_per_minute=450))
    patient = gpt(running, key).with_options(max_retries=5)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(patient, max_tokens=400)
    assert "more than this API key's limit of 450 tokens a minute; lower `max_tokens`" in caught.value.message
    assert caught.value.param == "max_tokens"
    assert ask(patient, max_tokens=8).usage.total_tokens == 4


def test_the_sdk_waits_for_retry_after_and_gets_its_answer(running: Running) -> None:
    _, key = keys.make(running, allowance=Allowance(requests_per_minute=30))
    client = gpt(running, key)
    left = [1]
    while left[-1] and len(left) < 100:
        raw = client.chat.completions.with_raw_response.create(
            model="chat", messages=[{"role": "user", "content": "tokens=1"}]
        )
        left.append(int(raw.headers["x-ratelimit-remaining-requests"]))
    assert left[-1] == 0
    assert ask(client.with_options(max_retries=4), "tokens=1").choices


async def test_no_more_run_at_once_than_may(running: Running) -> None:
    _, key = keys.make(running, allowance=Allowance(parallel_requests=3))
    client = openai.AsyncOpenAI(base_url=f"{running.base_url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)

    async def one(text: str) -> Any:
        return await client.chat.completions.create(model="chat", messages=[{"role": "user", "content": text}])

    found = await asyncio.gather(*(one("tokens=4 gap=0.25") for _ in range(12)), return_exceptions=True)
    refused = [each for each in found if isinstance(each, openai.RateLimitError)]
    assert len(found) - len(refused) == 3
    assert {each.code for each in refused} == {"rate_limit_exceeded"}
    assert {each.response.headers["retry-after"] for each in refused} == {"1"}
    assert "limit of 3 parallel requests is reached" in refused[0].message
    assert (await one("tokens=1")).choices, "a place that was left is free"
    await client.close()


# ---- budgets


@pytest.mark.parametrize(
    ("holder", "order", "headers", "says"),
    [
        ("key", {"allowance": Allowance(tokens_per_day=1000)}, {}, "this API key's budget of 1000 tokens a day"),
        ("user", {"user": "day"}, {}, "your user's budget of 1000 tokens a day"),
        ("user", {"user": "month"}, {}, "your user's budget of 1000 tokens a month"),
        ("team", {"team": "day"}, {}, "your team's budget of 1000 tokens a day"),
        (
            "use_case",
            {"use_cases": frozenset({"day", "free"})},
            {"X-Use-Case": "day"},
            "this use case's budget of 1000 tokens a day",
        ),
    ],
)
def test_a_budget_that_is_used_up_says_whose_it_is_and_until_when(
    running: Running, holder: str, order: dict[str, Any], headers: dict[str, str], says: str
) -> None:
    _, key = keys.make(running, **order)
    client = gpt(running, key)
    use_up(client, extra_headers=headers)
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client.with_options(max_retries=5), max_tokens=LATER, extra_headers=headers)
    assert (caught.value.code, caught.value.type) == ("budget_exceeded", "rate_limit_error")
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["code"] == "budget_exceeded"
    assert says in caught.value.message
    told = budget(running, key, holder)
    resets = told["resets_at"].replace("T", " ")[:16]
    assert f"until {resets} (Europe/Berlin)" in caught.value.message
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 31 * 86_400
    with pytest.raises(anthropic.RateLimitError) as said:
        claude(running, key).messages.create(
            model="chat", max_tokens=LATER, messages=[{"role": "user", "content": "x"}], extra_headers=headers
        )
    assert says in str(said.value)
    if holder == "use_case":
        assert ask(client, extra_headers={"X-Use-Case": "free"}).choices, "another use case has its own budget"


def test_a_refusal_for_the_worst_case_says_what_to_lower(running: Running) -> None:
    _, key = keys.make(running, allowance=Allowance(tokens_per_day=500))
    with pytest.raises(openai.RateLimitError) as caught:
        ask(gpt(running, key), max_tokens=300)
    assert "has 500 tokens left until" in caught.value.message
    assert "lower `max_tokens`" in caught.value.message
    assert caught.value.param == "max_tokens"
    assert ask(gpt(running, key), max_tokens=10).choices


def test_euros_are_booked_by_the_price_table(running: Running) -> None:
    _, key = keys.make(running, user="euros")
    client = gpt(running, key)
    assert ask(client, "tokens=60", max_tokens=60).usage.completion_tokens == 60
    until(lambda: budget(running, key, "user")["used"] == "0.600000000")
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "tokens=60", max_tokens=60)
    assert "budget of 1 euros a day has 0.4 euros left until" in caught.value.message
    assert ask(client, "tokens=60", max_tokens=60, model="small").usage.completion_tokens == 60, "that one is free"


def test_concurrent_requests_cannot_overspend_together(running: Running) -> None:
    """Each may use almost 500 tokens of 4500, so nine fit at once; and uses 102, so 44 fit one after the other."""
    _, key = keys.make(running, user="many")
    client = gpt(running, key)

    def one(_: int) -> Any:
        try:
            return ask(client, "tokens=100 gap=0.002", max_tokens=100)
        except openai.RateLimitError as refusal:
            return refusal

    with ThreadPoolExecutor(40) as pool:
        found = list(pool.map(one, range(200)))
    answered = [each for each in found if not isinstance(each, Exception)]
    assert {each.code for each in found if isinstance(each, openai.RateLimitError)} == {"budget_exceeded"}
    used = sum(each.usage.total_tokens for each in answered)
    assert 9 <= len(answered) <= 44
    assert used <= 4500
    until(lambda: budget(running, key, "user")["used"] == used)
    assert budget(running, key, "user")["reserved"] == 0


@pytest.mark.parametrize("order", [{"user": "step"}, {"team": "step"}], ids=["user", "team"])
def test_a_smaller_model_answers_when_the_budget_is_used_up(running: Running, order: dict[str, str]) -> None:
    _, key = keys.make(running, **order)
    client = gpt(running, key)
    use_up(client)
    raw = client.chat.completions.with_raw_response.create(
        model="chat", max_tokens=LATER, messages=[{"role": "user", "content": "tokens=2"}]
    )
    answer = raw.parse()
    assert answer.model == "small"
    assert answer.choices[0].message.content == "little little"
    assert raw.headers["x-appliance-stepped-down-from"] == "chat"
    raw = client.chat.completions.with_raw_response.create(
        model="small", max_tokens=LATER, messages=[{"role": "user", "content": "tokens=2"}]
    )
    assert "x-appliance-stepped-down-from" not in raw.headers, "it was asked for"
    chunks = list(ask(client, stream=True, max_tokens=LATER))
    assert {chunk.model for chunk in chunks} == {"small"}
    message = claude(running, key).messages.create(
        model="chat", max_tokens=LATER, messages=[{"role": "user", "content": "tokens=1"}]
    )
    assert message.model == "small"
    with pytest.raises(openai.RateLimitError, match="budget of 1000 tokens a day"):
        client.embeddings.create(model="vectors", input="x" * 400)  # the smaller model can't do that


def test_a_budget_that_only_warns_lets_everything_through(running: Running) -> None:
    _, key = keys.make(running, user="warned")
    client = gpt(running, key)
    for _ in range(3):
        assert ask(client, "tokens=80", max_tokens=80).model == "chat"
    until(lambda: budget(running, key, "user")["used"] == 246)
    assert budget(running, key, "user")["left_percent"] == 0


def test_each_threshold_is_told_once(running: Running) -> None:
    _, admin = keys.make(running, role=Role.ADMIN)
    id_, key = keys.make(running, allowance=Allowance(tokens_per_day=1000, tokens_per_month=2000, at_limit="warn"))

    def told() -> list[tuple[str, int]]:
        answer = httpx.get(f"{running.base_url}/admin/events?limit=1000", headers={"x-api-key": admin})
        events = [event for event in answer.json()["data"] if event["name"] == id_]
        assert {event["holder"] for event in events} <= {"key"}
        return sorted((event["span"], event["percent"]) for event in events)

    client = gpt(running, key)
    for tokens, events in (
        (498, []),
        (198, [("day", 70)]),
        (198, [("day", 70), ("day", 90)]),
        (1, [("day", 70), ("day", 90)]),
        (98, [("day", 70), ("day", 90), ("day", 100)]),
    ):
        ask(client, f"tokens={tokens}", max_tokens=tokens)
        until(lambda expected=events: told() == expected)  # type: ignore[misc]
    log = (running.house.state / "logs" / "appliance.log").read_text()
    for percent in (70, 90, 100):
        assert log.count(f"key {id_} has used {percent} % of its tokens of the day") == 1
    assert key not in log


# ---- who may not


def test_the_sdks_exceptions_show_why_somebody_may_not(running: Running) -> None:
    _, admin = keys.make(running, role=Role.ADMIN)
    with pytest.raises(openai.PermissionDeniedError) as denied:
        ask(gpt(running, admin))
    assert denied.value.code == "not_allowed"
    _, key = keys.make(running, use_cases=frozenset({"free"}))
    with pytest.raises(openai.PermissionDeniedError) as other:
        ask(gpt(running, key), extra_headers={"X-Use-Case": "day"})
    assert other.value.message == denied.value.message, "it would tell which part was wrong"
    assert ask(gpt(running, key), extra_headers={"X-Use-Case": "free"}).choices
    with pytest.raises(openai.AuthenticationError) as wrong:
        ask(gpt(running, key[:-1]))
    assert wrong.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError) as said:
        claude(running, "sk-appliance-wrong").messages.create(
            model="chat", max_tokens=4, messages=[{"role": "user", "content": "x"}]
        )
    assert said.value.type == "authentication_error"
    with pytest.raises(anthropic.PermissionDeniedError):
        claude(running, admin).messages.create(model="chat", max_tokens=4, messages=[{"role": "user", "content": "x"}])


def test_a_body_does_not_choose_its_class_or_its_account(running: Running) -> None:
    _, key = keys.make(running)
    for field in ("priority", "service_class", "user_class"):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(gpt(running, key), extra_body={field: 0})
        assert refused.value.param == field
    ask(gpt(running, key), user="euros", service_tier="priority")
    heard = running.house.heard()[-1]["body"]
    assert "service_tier" not in json.dumps(heard)
