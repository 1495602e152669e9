"""Streams as some providers send them, which the references of others don't have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.errors import UpstreamFailed
from tests.dispatch.cloud.parts import MESSAGE, ORIGINALS, Far, chat, far, message
from tests.fakes.dialects import Play

PERSON = ORIGINALS["Klient_001"]


def stream(*deltas: dict[str, Any], finish: str = "stop") -> Play:
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    return Play(body=b"".join(b"data: " + json.dumps({"choices": [each]}).encode() + b"\n\n" for each in choices))


def call(arguments: str = "{}", **fields: Any) -> dict[str, Any]:
    function = {"name": "look_up", "arguments": arguments}
    return {"type": "function", "function": function} | fields


async def calls(house: Far, play: Play) -> list[tuple[str, str]]:
    house.doubles["openai"].say(play)
    await house.ask(chat())
    told = house.reply.answer["choices"][0]["message"]["tool_calls"]
    return [(each["id"], each["function"]["arguments"]) for each in told]


async def test_calls_that_come_whole_and_without_numbers() -> None:
    with far("openai") as house:
        told = await calls(house, stream({"tool_calls": [call(id="a"), call(id="b")]}))
        assert told == [("a", "{}"), ("b", "{}")]
        told = await calls(house, stream({"tool_calls": [call(), call()]}))
        assert len({id_ for id_, _ in told}) == 2, "they get ids where they have none"


async def test_calls_that_all_have_the_same_number() -> None:
    deltas = [{"tool_calls": [call(index=0, id=id_)]} for id_ in ("a", "b")]
    with far("openai") as house:
        assert await calls(house, stream(*deltas)) == [("a", "{}"), ("b", "{}")]


async def test_a_name_that_comes_with_each_part_of_the_arguments() -> None:
    deltas = [{"tool_calls": [call(part, index=0, id="a")]} for part in ('{"a": "Klient', '_001"', "}")]
    with far("openai") as house:
        ((_, arguments),) = await calls(house, stream(*deltas, finish="tool_calls"))
        assert json.loads(arguments) == {"a": PERSON}


async def test_a_call_that_ends_with_stop_is_one_all_the_same() -> None:
    with far("openai") as house:
        house.doubles["openai"].say(stream({"tool_calls": [call(id="a")]}), stream({"tool_calls": [call(id="a")]}))
        await house.ask(message(), MESSAGE)
        assert house.reply.answer["stop_reason"] == "tool_use"
        await house.ask(message(stream=True), MESSAGE)
        assert house.reply.events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_calls_side_by_side_can_t_be_blocks_one_after_another() -> None:
    deltas = [{"tool_calls": [call("", index=0, id="a"), call("", index=1, id="b")]}]
    deltas += [{"tool_calls": [{"index": index, "function": {"arguments": "{}"}}]} for index in (0, 1)]
    with far("openai", "azure") as house:
        assert await calls(house, stream(*deltas)) == [("a", "{}"), ("b", "{}")]
        house.doubles["openai"].say(stream(*deltas))
        with pytest.raises(UpstreamFailed):
            await house.ask(message(stream=True), MESSAGE)
        assert house.doubles["azure"].heard == []


async def test_thoughts_are_not_shown() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "ja"}]
    with far("openai") as house:
        house.doubles["openai"].say(stream({"reasoning_content": "hm"}, {"reasoning": "hm"}, {"content": parts}))
        await house.ask(chat())
        assert house.reply.answer["choices"][0]["message"]["content"] == "ja"


async def test_a_refusal_stays_one() -> None:
    with far("openai") as house:
        house.doubles["openai"].say(stream({"refusal": "Nein, Klient"}, {"refusal": "_001."}))
        await house.ask(chat())
        told = house.reply.answer["choices"][0]["message"]
        assert (told["content"], told["refusal"]) == (None, f"Nein, {PERSON}.")


@pytest.mark.parametrize(
    "deltas",
    [
        [{"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}],
        [{"tool_calls": [call(index=0, id={"a": 1})]}],
        [{"function_call": {"name": "a", "arguments": "{}"}}],
        [{"content": ["a"]}],
        [{"content": 5}],
    ],
)
async def test_what_is_no_answer_is_passed_on_by_nobody(deltas: list[dict[str, Any]]) -> None:
    with far("openai", "anthropic") as house:
        house.doubles["openai"].say(stream(*deltas))
        assert (await house.ask(chat(stream=True))).provider == "anthropic"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use", "id": "a"}},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "{"}},
        {"type": "message_delta", "delta": {"stop_reason": "pause_turn"}},
        {"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": {"a": 1}}},
        {"type": "content_block_delta", "index": 0},
    ],
)
async def test_nor_what_is_no_answer_of_anthropic_s(event: dict[str, Any]) -> None:
    events = [event, {"type": "message_stop"}]
    body = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events).encode()
    with far("anthropic", "openai") as house:
        house.doubles["anthropic"].say(Play(body=body))
        assert (await house.ask(chat(stream=True))).provider == "openai"


async def test_a_choice_that_nobody_asked_for_is_no_answer() -> None:
    body = b'data: {"choices": [{"index": 1, "delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n'
    with far("openai", "anthropic") as house:
        house.doubles["openai"].say(Play(body=body))
        assert (await house.ask(chat())).provider == "anthropic"
