"""Requests from one dialect into the other, and what can't go over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core import Operation
from appliance.dispatch.cloud.convert import plain_text, strict_schema, to_chat, to_message
from appliance.dispatch.cloud.habits import habits
from appliance.dispatch.cloud.provider import Unfit
from appliance.privacy.said import Said
from tests.dispatch.cloud import parts
from tests.fakes.dialects import Play

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
LOOSE = {"type": "object", "properties": {"a": {"type": "string"}}}

CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Speak German."}]},
        {"role": "user", "content": [{"type": "text", "text": "Wer ist"}, {"type": "text", "text": "Klient_001?"}]},
        {
            "role": "assistant",
            "content": "Ich sehe nach.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": "ü"}'}},
                {"id": "c2", "type": "function", "function": {"name": "look_up", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "name": "look_up", "content": "ein Kunde"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "niemand"}]},
        {"role": "user", "content": "Und?"},
    ],
    "tools": [{"type": "function", "function": {"name": "look_up", "description": "d", "parameters": SCHEMA}}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "max_completion_tokens": 50,
    "temperature": 0.5,
    "stop": "ENDE",
}
MESSAGE: dict[str, Any] = {
    "system": "Be brief.\n\nSpeak German.",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Wer ist"}, {"type": "text", "text": "Klient_001?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Ich sehe nach."},
                {"type": "tool_use", "id": "c1", "name": "look_up", "input": {"a": "ü"}},
                {"type": "tool_use", "id": "c2", "name": "look_up", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "ein Kunde"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "niemand"},
                {"type": "text", "text": "Und?"},
            ],
        },
    ],
    "tools": [{"name": "look_up", "description": "d", "input_schema": SCHEMA}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "max_tokens": 50,
    "temperature": 0.5,
    "stop_sequences": ["ENDE"],
}


def test_a_chat_as_a_message() -> None:
    assert to_message(CHAT, 9) == MESSAGE


def test_a_message_as_a_chat() -> None:
    chat = to_chat(MESSAGE)
    assert chat == {
        "messages": [
            {"role": "system", "content": "Be brief.\n\nSpeak German."},
            {"role": "user", "content": "Wer ist\nKlient_001?"},
            {
                "role": "assistant",
                "content": "Ich sehe nach.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": "ü"}'}},
                    {"id": "c2", "type": "function", "function": {"name": "look_up", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "ein Kunde"},
            {"role": "tool", "tool_call_id": "c2", "content": "niemand"},
            {"role": "user", "content": "Und?"},
        ],
        "tools": CHAT["tools"],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 50,
        "temperature": 0.5,
        "stop": ["ENDE"],
    }


def user(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a"}], **more}


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ("none", {"type": "none"}),
        ("auto", {"type": "auto"}),
        ({"type": "function", "function": {"name": "look_up"}}, {"type": "tool", "name": "look_up"}),
    ],
)
def test_which_tool(chat: Any, message: Any) -> None:
    tools = CHAT["tools"]
    assert to_message(user(tools=tools, tool_choice=chat), 9)["tool_choice"] == message
    back = to_chat(user(tools=MESSAGE["tools"], tool_choice=message, max_tokens=9))
    assert back["tool_choice"] == chat


def test_thoughts_of_another_model_stay_here() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [thought, {"type": "redacted_thinking", "data": "x"}]},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "c"},
    ]
    chat = to_chat({"messages": turns, "max_tokens": 9, "thinking": {"type": "enabled", "budget_tokens": 2000}})
    assert [each["content"] for each in chat["messages"]] == ["a", "b", "c"]
    assert "thinking" not in chat


def test_a_limit_that_nobody_named_is_the_reservation() -> None:
    assert to_message(user(), 9)["max_tokens"] == 9
    assert to_message(user(max_tokens=5), 9)["max_tokens"] == 5


def test_the_form_of_an_answer() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert to_message(user(response_format=form), 9)["output_config"] == config
    assert to_message(user(structured_outputs={"json": SCHEMA}), 9)["output_config"] == config
    assert "output_config" not in to_message(user(response_format={"type": "text"}), 9)
    chat = to_chat(user(max_tokens=9, output_config=config))["response_format"]["json_schema"]
    assert (chat["schema"], chat["strict"]) == (SCHEMA, True)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
CALL = {"id": "c", "type": "function", "function": {"name": "a", "arguments": "[1]"}}


@pytest.mark.parametrize("name", ["openai", "azure", "mistral", "anthropic"])
@pytest.mark.parametrize(("payload", "operation"), [(CHAT, parts.CHAT), (MESSAGE, parts.MESSAGE)])
async def test_the_gate_finds_nothing_new_in_it(name: str, payload: dict[str, Any], operation: Operation) -> None:
    form = {"json": SCHEMA} if operation is parts.CHAT else {"format": {"type": "json_schema", "schema": SCHEMA}}
    more = {"structured_outputs" if operation is parts.CHAT else "output_config": form, "stream": True}
    text = json.dumps(payload | more, ensure_ascii=False)
    told = json.loads(text.replace('"c1"', '"abcdef001"').replace('"c2"', '"abcdef002"'))
    with parts.far(name) as house:
        house.doubles[name].say(Play("{}"))
        await house.ask(told, operation)
        assert house.reply.text == "{}"
        assert house.cleared


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
VALUES = st.recursive(st.none() | st.booleans() | st.integers(-(10**9), 10**9) | WORDS, st.lists)
CALLS = st.dictionaries(WORDS, VALUES, max_size=3)
PARTS = st.lists(st.builds(lambda text: {"type": "text", "text": text}, WORDS), min_size=1, max_size=3)


def turns(calls: list[dict[str, Any]], said: list[Any]) -> list[Any]:
    messages = [{"role": "user", "content": content} for content in said]
    for number, call in enumerate(calls):
        function = {"name": "look_up", "arguments": json.dumps(call, ensure_ascii=bool(number))}
        told = {"id": f"abcdef{number:03}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [told]})
        messages.append({"role": "tool", "tool_call_id": told["id"], "content": said[0]})
    return messages


@given(st.lists(CALLS, max_size=2), st.lists(WORDS | PARTS, min_size=1, max_size=3), WORDS)
def test_nothing_new_comes_in_on_the_way(calls: list[dict[str, Any]], said: list[Any], system: str) -> None:
    messages = [{"role": "system", "content": system}, *turns(calls, said)]
    chat = {"messages": messages, "tools": CHAT["tools"], "max_tokens": 9, "model": "own"}
    message = to_message(chat, 9)
    there_and_back = to_chat(message)
    known = Said(json.dumps(chat).encode())
    for body in (message, there_and_back, habits(parts.settings("openai")).body(there_and_back, "far", plain=False)):
        assert known.anything_new(json.dumps(body).encode(), {"far"}) is None
    spoken = [each["content"] for each in there_and_back["messages"] if each["role"] == "tool"]
    assert spoken == [plain_text(said[0])] * len(calls)
    told = [call for each in there_and_back["messages"] for call in each.get("tool_calls", ())]
    assert [json.loads(call["function"]["arguments"]) for call in told] == calls


NOT_AS_A_MESSAGE = {
    "several answers": user(n=2),
    "an image": {"messages": [{"role": "user", "content": [IMAGE]}]},
    "instructions in the middle": {"messages": [*user()["messages"], {"role": "system", "content": "b"}]},
    "an answer begun": {"messages": [*user()["messages"], {"role": "assistant", "content": "b"}]},
    "begun by the model": {"messages": [{"role": "assistant", "content": "b"}, *user()["messages"]]},
    "nobody spoke": {"messages": [{"role": "system", "content": "b"}]},
    "a speaker's name": {"messages": [{"role": "user", "content": "a", "name": "b"}]},
    "arguments that are no object": {
        "messages": [*user()["messages"], {"role": "assistant", "tool_calls": [CALL]}, *user()["messages"]]
    },
    "hotter than it goes": user(temperature=1.5),
    "any JSON": user(response_format={"type": "json_object"}),
    "a loose schema": user(structured_outputs={"json": LOOSE}),
    "a pattern": user(structured_outputs={"regex": "a+"}),
    "a stop of white space": user(stop=["\n"]),
    "a tool with a dot": user(tools=[{"type": "function", "function": {"name": "a.b"}}]),
}


@pytest.mark.parametrize("what", NOT_AS_A_MESSAGE)
def test_what_a_message_can_t_say(what: str) -> None:
    with pytest.raises(Unfit):
        to_message(NOT_AS_A_MESSAGE[what], 9)


SOURCE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "content": [SOURCE]}],
        [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [SOURCE]}]}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    ],
)
def test_what_a_chat_can_t_say(turns: Any) -> None:
    with pytest.raises(Unfit):
        to_chat({"messages": turns, "max_tokens": 9})


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (SCHEMA, True),
        (LOOSE, False),
        (None, False),
        (SCHEMA | {"required": []}, False),
        (SCHEMA | {"properties": {"a": {"type": "array", "items": LOOSE}}}, False),
        (SCHEMA | {"properties": {"a": {"enum": ["b", None, 1]}}}, True),
    ],
)
def test_a_strict_schema_forbids_all_else_and_demands_what_it_names(schema: Any, strict: bool) -> None:
    assert strict_schema(schema) is strict
