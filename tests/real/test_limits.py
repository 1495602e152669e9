"""Refusals through the real engine, as the official SDKs show them."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes.house import until
from tests.real.house import ANSWER, Appliance

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]


def key(appliance: Appliance, *options: str) -> str:
    """A key that the command line makes while the appliance runs, once it is known."""
    made = appliance.run("keys", "create", "--json", *options)
    assert made.returncode == 0, made.stderr
    text = str(json.loads(made.stdout)["key"])
    until(lambda: known(appliance, text))
    return text


def known(appliance: Appliance, text: str) -> bool:
    """Whether a key opens anything, whatever its role may do."""
    try:
        gpt(appliance, text).models.list()
    except openai.AuthenticationError as refusal:
        return refusal.code != "invalid_api_key"
    except openai.PermissionDeniedError:
        pass
    return True


def gpt(appliance: Appliance, text: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{appliance.address}/v1", api_key=text, max_retries=0, timeout=ANSWER)


def test_a_budget_that_is_used_up_is_told_with_its_reason(appliance: Appliance) -> None:
    text = key(appliance, "--user", "anna", "--tokens-per-day", "400")
    client = gpt(appliance, text)
    told = None
    for _ in range(12):
        try:
            client.chat.completions.create(model="chat", messages=QUESTION, max_tokens=16)
        except openai.RateLimitError as refusal:
            told = refusal
            break
    assert told is not None, "400 tokens are not enough for twelve answers"
    assert told.code == "budget_exceeded"
    assert "400 tokens" in told.message
    assert "Europe/Berlin" in told.message
    assert int(told.response.headers["retry-after"]) > 0
    claude = anthropic.Anthropic(base_url=appliance.address, api_key=text, max_retries=0, timeout=ANSWER)
    with pytest.raises(anthropic.RateLimitError, match="400 tokens"):
        claude.messages.create(model="chat", messages=QUESTION, max_tokens=300)


def test_limits_of_a_minute_are_in_openais_headers_and_hold(appliance: Appliance) -> None:
    client = gpt(appliance, key(appliance, "--requests-per-minute", "2"))
    answer = client.chat.completions.with_raw_response.create(model="chat", messages=QUESTION, max_tokens=4)
    assert (answer.headers["x-ratelimit-limit-requests"], answer.headers["x-ratelimit-remaining-requests"]) == (
        "2",
        "1",
    )
    assert answer.parse().choices
    list(client.chat.completions.create(model="chat", messages=QUESTION, max_tokens=4, stream=True))
    with pytest.raises(openai.RateLimitError) as told:
        client.chat.completions.create(model="chat", messages=QUESTION, max_tokens=4)
    assert told.value.code == "rate_limit_exceeded"
    assert 0 < int(told.value.response.headers["retry-after"]) <= 60


def test_what_a_key_may_not_do_and_one_that_was_revoked(appliance: Appliance) -> None:
    text = key(appliance, "--role", "auditor")
    with pytest.raises(openai.PermissionDeniedError) as told:
        gpt(appliance, text).chat.completions.create(model="chat", messages=QUESTION)
    assert told.value.code == "not_allowed"
    listed = json.loads(appliance.run("keys", "list", "--json").stdout)
    (id_,) = (each["id"] for each in listed if each["role"] == "auditor" and not each["revoked"])
    assert appliance.run("keys", "revoke", id_).returncode == 0
    until(lambda: not known(appliance, text))
