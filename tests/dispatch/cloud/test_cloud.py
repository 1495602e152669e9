"""What goes to a provider and what comes back to the caller, in every pair of dialects, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.core import Usage
from appliance.dispatch.cloud.cloud import Candidate
from tests.dispatch.cloud.parts import CHAT, MESSAGE, ORIGINALS, Far, chat, far, message
from tests.fakes.dialects import Play

PERSON, FIRM = ORIGINALS["Klient_001"], ORIGINALS["Firma_001"]
TOLD = "Sehr geehrter Klient_001, die Firma_001 grüßt Klient_002."
RESTORED = f"Sehr geehrter {PERSON}, die {FIRM} grüßt Klient_002."
ARGUMENTS = '{"Klient_001": ["Firma_001", 1]}'
CALLS = [("call_1", "look_up", ARGUMENTS), ("call_2", "look_up", "{}")]
PAYLOADS = {"chat": chat, "message": message}
OPERATIONS = {"chat": CHAT, "message": MESSAGE}
PAIRS = pytest.mark.parametrize(
    ("name", "dialect"), [(name, dialect) for name in ("openai", "azure", "anthropic") for dialect in PAYLOADS]
)
TOOL = {"name": "look_up", "description": "Look somebody up.", "parameters": {"type": "object", "properties": {}}}


async def ask(house: Far, dialect: str, *, stream: bool = False, **more: Any) -> Any:
    return await house.ask(PAYLOADS[dialect](stream=stream, **more), OPERATIONS[dialect])


def text_of(answer: dict[str, Any]) -> str:
    found = answer["content"][0]["text"] if "content" in answer else answer["choices"][0]["message"]["content"]
    assert isinstance(found, str)
    return found


@PAIRS
async def test_a_whole_answer(name: str, dialect: str) -> None:
    with far(name) as house:
        house.doubles[name].say(Play(TOLD))
        answered = await ask(house, dialect)
        answer = house.reply.answer
        assert text_of(answer) == RESTORED
        assert answer["model"] == "public"
        assert answered == type(answered)(name, "eu", "far-model", Usage(11, 7))
        assert house.record.usage == Usage(11, 7)
        assert house.record.dispatched
        assert house.record.finish == "stop"
        if dialect == "chat":
            assert answer["choices"][0]["finish_reason"] == "stop"
            assert answer["usage"] == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        else:
            assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
            assert answer["usage"] == {"input_tokens": 11, "output_tokens": 7}


@PAIRS
async def test_a_streamed_answer(name: str, dialect: str) -> None:
    with far(name) as house:
        house.doubles[name].say(Play(TOLD))
        await ask(house, dialect, stream=True)
        assert house.reply.text == RESTORED
        assert house.reply.ended
        events = house.reply.events
        if dialect == "chat":
            assert house.reply.sent[-1].endswith(b"data: [DONE]\n\n")
            assert {event["model"] for event in events} == {"public"}
            assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
            assert [event["choices"][0]["finish_reason"] for event in events[-2:-1]] == ["stop"]
            assert events[-1]["usage"]["total_tokens"] == 18
        else:
            order = list(dict.fromkeys(event["type"] for event in events))
            assert order == [
                "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
                "message_stop",
            ]  # fmt: skip
            assert events[0]["message"]["model"] == "public"
            assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
            assert events[-2]["usage"] == {"input_tokens": 11, "output_tokens": 7}


@PAIRS
@pytest.mark.parametrize("stream", [False, True])
async def test_calls_of_tools(name: str, dialect: str, stream: bool) -> None:
    tool: Any = {"type": "function", "function": TOOL}
    if dialect == "message":
        tool = {"name": TOOL["name"], "description": TOOL["description"], "input_schema": TOOL["parameters"]}
    with far(name) as house:
        house.doubles[name].say(Play("Firma_001?", CALLS))
        await ask(house, dialect, stream=stream, tools=[tool])
        expected = {PERSON: [FIRM, 1]}
        if stream:
            assert house.reply.text == f"{FIRM}?"
            assert json.loads(house.reply.arguments[0]) == expected
            told = b"".join(house.reply.sent)
            assert (b'"finish_reason":"tool_calls"' if dialect == "chat" else b'"stop_reason":"tool_use"') in told
        elif dialect == "chat":
            choice = house.reply.answer["choices"][0]
            assert choice["finish_reason"] == "tool_calls"
            calls = choice["message"]["tool_calls"]
            assert [(call["id"], call["type"], call["function"]["name"]) for call in calls] == [
                (id_, "function", each) for id_, each, _ in CALLS
            ]
            assert [json.loads(call["function"]["arguments"]) for call in calls] == [expected, {}]
        else:
            assert house.reply.answer["stop_reason"] == "tool_use"
            assert house.reply.answer["content"] == [
                {"type": "text", "text": f"{FIRM}?"},
                {"type": "tool_use", "id": "call_1", "name": "look_up", "input": expected},
                {"type": "tool_use", "id": "call_2", "name": "look_up", "input": {}},
            ]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("openai", "/v1/chat/completions"),
        ("azure", "/openai/deployments/far-model/chat/completions?api-version=2024-10-21"),
        ("anthropic", "/v1/messages"),
    ],
)
async def test_what_is_cleared_is_what_is_sent_and_nothing_else_is(name: str, path: str) -> None:
    with far(name) as house:
        await ask(house, "chat")
        (heard,) = house.doubles[name].heard
        assert house.cleared == [(name, "POST", path, heard.raw)]
        assert heard.path == path
        assert heard.headers == {
            "host": "outlet",
            "content-type": "application/json",
            "accept": "application/json",
            "x-clearance": "clearance-1",
            "content-length": str(len(heard.raw)),
        }
        assert heard.body["model"] == "far-model"


async def test_environment_and_proxies_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "AZURE_OPENAI_ENDPOINT",
    ):  # fmt: skip
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "ANTHROPIC_AUTH_TOKEN", "AZURE_OPENAI_AD_TOKEN"):
        monkeypatch.setenv(variable, "a-secret-of-somebody")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-more: a-secret-of-somebody")
    names = ("openai", "azure", "anthropic")
    with far(*names) as house:
        for name in names:
            await house.ask(chat(), names=[name])
            assert b"secret" not in house.doubles[name].received
            assert house.doubles[name].connections == 1


async def test_several_choices() -> None:
    with far("openai") as house:
        house.doubles["openai"].say(Play("Klient_001"), Play("Klient_001"))
        await ask(house, "chat", n=2)
        choices = house.reply.answer["choices"]
        assert [(each["index"], each["message"]["content"]) for each in choices] == [(0, PERSON), (1, PERSON)]
        await ask(house, "chat", n=2, stream=True)
        assert house.reply.text == PERSON


async def test_an_answer_in_json_stays_json() -> None:
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    for name in ("openai", "anthropic"):
        with far(name) as house:
            house.doubles[name].say(Play('{"name": "Klient_001"}'))
            await ask(house, "chat", response_format=form)
            assert json.loads(text_of(house.reply.answer)) == {"name": PERSON}


async def test_a_stop_sequence_comes_back_as_it_was_asked() -> None:
    with far("anthropic") as house:
        house.doubles["anthropic"].say(Play("Ja, ", finish="stop_sequence"))
        await ask(house, "message", stop_sequences=["Klient_001"])
        answer = house.reply.answer
        assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", PERSON)


@pytest.mark.parametrize(
    ("name", "told", "chat_reason", "message_reason"),
    [
        ("openai", "length", "length", "max_tokens"),
        ("openai", "content_filter", "content_filter", "refusal"),
        ("anthropic", "max_tokens", "length", "max_tokens"),
        ("anthropic", "refusal", "content_filter", "refusal"),
    ],
)
async def test_why_an_answer_ended(name: str, told: str, chat_reason: str, message_reason: str) -> None:
    with far(name) as house:
        house.doubles[name].say(Play("a", finish=told), Play("a", finish=told))
        await ask(house, "chat")
        assert house.reply.answer["choices"][0]["finish_reason"] == chat_reason
        await ask(house, "message")
        assert house.reply.answer["stop_reason"] == message_reason


async def test_usage_is_believed_within_what_the_request_can_take() -> None:
    with far("openai") as house:
        house.doubles["openai"].say(Play("x" * 30, usage=(10**6, 10**6)), Play("x" * 30, usage=None))
        await ask(house, "chat")
        assert house.record.usage == Usage(500, 200)
        await ask(house, "chat")
        assert house.record.usage == Usage(0, 10), "what isn't told is guessed from the text; of a prompt it is not"


async def test_an_answer_longer_than_was_reserved_is_booked_as_far_as_it_was_seen() -> None:
    """Without a limit of the caller's, a provider keeps to its own."""
    with far("openai") as house:
        house.doubles["openai"].say(Play("x" * 1200, usage=(11, 390)), Play("x" * 1200, usage=(11, 10**6)))
        await ask(house, "chat")
        assert house.record.usage == Usage(11, 390)
        await ask(house, "chat")
        assert house.record.usage == Usage(11, 400)


async def test_usage_that_the_caller_did_not_ask_for_is_not_shown() -> None:
    with far("openai") as house:
        await house.ask(chat(stream=True), usage_wanted=False)
        assert b"usage" not in b"".join(house.reply.sent)
        assert house.record.usage == Usage(11, 7)


async def test_who_answers_is_known_before_the_first_byte_and_booked_once() -> None:
    with far("openai", "anthropic") as house:
        house.doubles["openai"].say(Play(status=500))
        await ask(house, "chat", stream=True)
        assert house.chosen == [Candidate("anthropic", "public", "eu")]
        assert house.kept == 1


async def test_candidates_have_the_model_and_the_room() -> None:
    with far("openai", "anthropic") as house:
        cloud = house.cloud
        names = ["anthropic", "unknown", "openai"]
        assert [each.provider for each in cloud.candidates("public", names, 100_000)] == ["anthropic", "openai"]
        assert cloud.candidates("public", names, 100_001) == []
        assert cloud.candidates("other", names, 100) == []
