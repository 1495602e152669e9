"""What providers are really sent is found to say what was masked, in either dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.config import Provider
from appliance.core import DataClass
from appliance.dispatch.cloud.convert import to_chat, to_message
from appliance.dispatch.cloud.habits import habits
from appliance.privacy.asked import Asked
from appliance.privacy.gate import Gate
from appliance.privacy.said import Said
from appliance.privacy.verdict import Verdict
from tests.privacy.test_fields import CHAT, MESSAGE, payload
from tests.privacy.test_gate import FINAL, gate

URLS = ("https://api.openai.com/v1", "https://api.mistral.ai/v1", "https://api.cohere.ai/compatibility/v1")
UNFIT = ("structured_outputs", "logprobs", "top_logprobs")
NAMELESS = [{name: value for name, value in message.items() if name != "name"} for message in CHAT["messages"]]


async def released(at: Gate, operation: str, body: dict[str, Any]) -> tuple[Verdict, dict[str, Any]]:
    built = {name: value for name, value in payload(operation, body).items() if name not in UNFIT}
    verdict = await at.protect(Asked(operation, json.dumps(built).encode(), DataClass.INTERNAL, None, 5))
    assert verdict.held is None, verdict.why
    return verdict, json.loads(verdict.payload)


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    ("operation", "body"),
    [("chat", CHAT | {"messages": NAMELESS, "stop": "P1", "logprobs": None}), ("message", MESSAGE)],
)
async def test_chat_completions_are_cleared(operation: str, body: dict[str, Any], url: str) -> None:
    at = gate()
    verdict, masked = await released(at, operation, body)
    chat = to_chat(masked) if operation == "message" else masked
    if "cohere" in url:
        chat = {name: value for name, value in chat.items() if name not in ("parallel_tool_calls", "n")}
    final = habits(Provider.model_validate({"url": url})).body(chat, "mistral-large-latest", plain=False)
    assert at.clear(verdict.ticket, body=json.dumps(final).encode(), **FINAL)


async def test_messages_are_cleared() -> None:
    at = gate()
    body = {**CHAT, "messages": [NAMELESS[0], *NAMELESS[2:]], "response_format": {"type": "text"}}
    verdict, masked = await released(at, "chat", body)
    final = to_message(masked, 4096) | {"model": "mistral-large-latest", "stream": True}
    assert at.clear(verdict.ticket, body=json.dumps(final).encode(), **FINAL)


def test_strings_may_be_put_together_from_lines_and_json_may_be_unpacked() -> None:
    said = Said(json.dumps({"a": ["eins\nzwei", "drei"], "b": '{"c": "vier", "n": 12345678.50}'}).encode())
    for same in (
        {"content": "drei\n\neins\nzwei"},
        {"content": ["eins", "zwei"], "n": 4096},
        {"input": {"c": "vier", "n": 12345678.5}},
        {"arguments": '{"n": 1.23456785e7}'},
        {"model": "m", "content": " drei "},
    ):
        assert said.anything_new(json.dumps(same).encode(), {"m"}) is None, same
    for other in (
        {"content": "eins zwei"},
        {"content": "fünf"},
        {"fünf": "drei"},
        {"content": "drei\nfünf"},
        {"n": 12345679},
        {"arguments": '{"d": "vier"}'},
        {"content": "einszwei"},
    ):
        assert said.anything_new(json.dumps(other).encode(), {"m"}) is not None, other
