"""The body that each provider gets: what the engine alone knows stays here, and what it refuses does, too."""

from __future__ import annotations

from typing import Any

import pytest

from appliance import config
from appliance.dispatch.cloud.habits import habits
from appliance.dispatch.cloud.provider import Unfit
from tests.dispatch.cloud.parts import CHAT, MESSAGE, chat, far, message, settings
from tests.fakes.dialects import Play

OWN: dict[str, Any] = {
    "priority": 3, "chat_template_kwargs": {"enable_thinking": False}, "top_k": 5, "min_p": 0.1, "ignore_eos": True,
    "repetition_penalty": 1.1,
}  # fmt: skip
STRICT = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def body(name: str, payload: dict[str, Any], *, plain: bool = False) -> dict[str, Any]:
    told = settings(name) if name in ("openai", "azure", "mistral") else provider(name)
    return habits(told).body(payload, "far", plain=plain)


def provider(host: str) -> config.Provider:
    return config.Provider.model_validate({"url": f"https://{host}/v1"})


@pytest.mark.parametrize("name", ["openai", "azure", "mistral", "api.cohere.ai", "api.together.xyz"])
def test_what_the_engine_alone_knows_stays_here(name: str) -> None:
    sent = body(name, chat(**OWN, stream_options={"include_usage": True}, stop=["a"], max_tokens=7))
    assert sent.keys() - {"max_tokens", "max_completion_tokens", "stream_options"} == {
        "messages", "model", "stream", "stop",
    }  # fmt: skip
    assert (sent["model"], sent["stream"]) == ("far", True)


@pytest.mark.parametrize(
    ("name", "limit", "usage"),
    [
        ("openai", "max_completion_tokens", True),
        ("eu.api.openai.com", "max_completion_tokens", True),
        ("azure", "max_completion_tokens", True),
        ("mistral", "max_tokens", False),
        ("api.cohere.ai", "max_tokens", False),
        ("api.together.xyz", "max_tokens", True),
        ("generativelanguage.googleapis.com", "max_tokens", True),
        ("notopenai.com", "max_tokens", True),
    ],
)
def test_each_has_its_own_field_for_the_most_tokens(name: str, limit: str, usage: bool) -> None:
    sent = body(name, chat(max_tokens=7))
    assert sent[limit] == 7
    assert ("stream_options" in sent) is usage


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"logprobs": True}, ["openai", "mistral"]),
        ({"logit_bias": {"5": 1}}, ["openai"]),
        ({"min_tokens": 5}, ["openai"]),
        ({"stop": list("abcde")}, ["openai"]),
        ({"structured_outputs": {"regex": "a+"}}, ["openai"]),
        ({"structured_outputs": {"choice": ["a"]}}, ["openai"]),
        ({"n": 2}, ["api.cohere.ai"]),
        ({"parallel_tool_calls": False}, ["api.cohere.ai"]),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, ["mistral"]),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, ["openai", "mistral"]),
    ],
)
def test_what_has_no_like_there_is_not_asked_there(more: dict[str, Any], names: list[str]) -> None:
    for name in names:
        with pytest.raises(Unfit):
            body(name, chat() | more)


def test_wishes_of_how_to_sample() -> None:
    wishes: dict[str, Any] = {
        "temperature": 0.3,
        "top_p": 0.5,
        "frequency_penalty": 1.0,
        "presence_penalty": 1.0,
        "seed": 7,
    }
    assert wishes.items() <= body("openai", chat(**wishes)).items()
    assert "seed" not in body("mistral", chat(**wishes))
    assert not wishes.keys() & body("openai", chat(**wishes), plain=True).keys()


def test_refusals_and_parts_only_openai_knows() -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None, "refusal": "no", "reasoning_content": "hm"},
        {"role": "user", "content": "b"},
    ]
    assert body("openai", {"messages": messages})["messages"] == [
        {"role": "system", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "refusal": "no"},
        {"role": "user", "content": "b"},
    ]
    assert body("mistral", {"messages": messages})["messages"] == [
        {"role": "system", "content": "a"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "b"},
    ]


@pytest.mark.parametrize(("id_", "fits"), [("abcDEF123", True), ("call_1", False), ("abcDEF12-", False)])
def test_mistral_takes_ids_of_calls_in_its_own_form_only(id_: str, fits: bool) -> None:
    call = {"id": id_, "type": "function", "function": {"name": "a", "arguments": "{}"}}
    said = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id_, "name": "a", "content": "b"},
    ]
    for messages in (said[:1], said[1:]):
        if fits:
            (sent,) = body("mistral", {"messages": messages})["messages"]
            assert id_ in (sent.get("tool_call_id"), *[each["id"] for each in sent.get("tool_calls", ())])
            assert "name" not in sent
        else:
            with pytest.raises(Unfit):
                body("mistral", {"messages": messages})


@pytest.mark.parametrize(("schema", "strict"), [(STRICT, True), ({"type": "object"}, False)])
def test_strict_only_where_the_schema_is(schema: dict[str, Any], strict: bool) -> None:
    function = {"name": "a", "parameters": schema, "strict": True}
    sent = body("openai", chat(tools=[{"type": "function", "function": function}]))
    assert ("strict" in sent["tools"][0]["function"]) is strict


def test_no_tools_are_no_field() -> None:
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & body("mistral", chat(tools=[])).keys()


async def test_anthropic_s_own_dialect_goes_on_as_far_as_it_is_known() -> None:
    payload = message(
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
            {"role": "user", "content": "b"},
        ],
        system=[{"type": "text", "text": "c"}], thinking={"type": "enabled", "budget_tokens": 1024}, top_k=3,
        tools=[{"name": "a", "input_schema": {"type": "object"}, "strict": True}], tool_choice={"type": "auto"},
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": STRICT}},
    )  # fmt: skip
    with far("anthropic") as house:
        house.doubles["anthropic"].say(Play("{}"))
        await house.ask(payload, MESSAGE)
        (heard,) = house.doubles["anthropic"].heard
        assert heard.body == {
            "model": "far-model",
            "stream": True,
            "max_tokens": 100,
            "system": [{"type": "text", "text": "c"}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "user", "content": "b"},
            ],
            "tools": [{"name": "a", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "auto"},
            "top_k": 3,
            "output_config": {"format": {"type": "json_schema", "schema": STRICT}},
        }


async def test_anthropic_wants_to_know_of_the_tools_that_were_called() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "a", "arguments": "{}"}}
    said = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "b"}]
    payload = chat() | {"messages": [*chat()["messages"], *said]}
    with far("anthropic", "openai") as house:
        assert (await house.ask(payload)).provider == "openai"
        tools = [{"type": "function", "function": {"name": "a"}}]
        assert (await house.ask(payload | {"tools": tools})).provider == "anthropic"


async def test_the_same_request_is_sent_in_the_same_bytes() -> None:
    payload = chat(temperature=0.5, stop=["a"], seed=3, max_tokens=5)
    with far("openai") as house:
        for _ in range(2):
            await house.ask(payload, CHAT)
        first, second = house.doubles["openai"].heard
        assert first.raw == second.raw
