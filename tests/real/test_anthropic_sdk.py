"""Anthropic's own SDK works unchanged."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.real.house import Appliance
from tests.real.test_openai_sdk import WEATHER

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
TOOL: Any = {"name": "get_weather", "description": "The weather of a city.", "input_schema": WEATHER}
SETTLED: Any = {"temperature": 0.0}


def ask(claude: anthropic.Anthropic, **fields: Any) -> Any:
    """A message that comes out the same each time."""
    settled = {"model": "chat", "messages": QUESTION, "max_tokens": 24, "extra_body": SETTLED}
    return claude.messages.create(**settled | fields)


def test_a_message_answers_with_text_and_usage(claude: anthropic.Anthropic) -> None:
    answer = ask(claude)
    assert "Paris" in answer.content[0].text
    assert (answer.model, answer.role, answer.type) == ("chat", "assistant", "message")
    assert answer.usage.input_tokens > 10
    assert answer.usage.output_tokens > 3


def test_the_streaming_helper_gives_text_and_the_final_message(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="chat", messages=QUESTION, max_tokens=24, extra_body=SETTLED) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    whole = ask(claude)
    assert len(pieces) > 3
    assert "".join(pieces) == final.content[0].text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens
    assert final.stop_reason == whole.stop_reason


async def test_the_async_client_streams_too(appliance: Appliance) -> None:
    async with (
        appliance.async_anthropic() as client,
        client.messages.stream(model="chat", messages=QUESTION, max_tokens=24, extra_body=SETTLED) as stream,
    ):
        assert "Paris" in "".join([piece async for piece in stream.text_stream])


def test_a_system_prompt_is_heard(claude: anthropic.Anthropic) -> None:
    briefly, at_length, in_blocks = (
        ask(claude, max_tokens=1, system=system).usage.input_tokens
        for system in ("Be brief.", "Be brief. " * 9, [{"type": "text", "text": "Be brief."}])
    )
    assert at_length > briefly + 20
    assert in_blocks == briefly


def test_a_stop_sequence_ends_the_answer_and_is_named(claude: anthropic.Anthropic) -> None:
    answer = ask(claude, stop_sequences=["Paris"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "Paris")
    assert "Paris" not in answer.content[0].text


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_forced_tool_call_fits_the_schema(claude: anthropic.Anthropic, choice: Any) -> None:
    answer = ask(claude, tools=[TOOL], tool_choice=choice, max_tokens=120)
    (call,) = (block for block in answer.content if block.type == "tool_use")
    assert answer.stop_reason == "tool_use"
    assert call.input["city"] in ("Paris", "Rome")
    assert 1 <= call.input["days"] <= 7


def test_a_tool_call_streams_and_its_result_goes_back(claude: anthropic.Anthropic) -> None:
    forced: Any = {"tools": [TOOL], "tool_choice": {"type": "any"}, "extra_body": SETTLED}
    with claude.messages.stream(model="chat", messages=QUESTION, max_tokens=120, **forced) as stream:
        call = next(block for block in stream.get_final_message().content if block.type == "tool_use")
    assert call.input["city"] in ("Paris", "Rome")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    turns = [*QUESTION, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    assert ask(claude, tools=[TOOL], messages=turns).content[0].text


def test_tokens_are_counted_as_they_are_used(claude: anthropic.Anthropic) -> None:
    counted = claude.messages.count_tokens(model="chat", messages=QUESTION)
    assert counted.input_tokens == ask(claude).usage.input_tokens


def test_models_are_listed(claude: anthropic.Anthropic) -> None:
    assert [model.id for model in claude.models.list()] == ["chat", "embed"]
    assert claude.models.retrieve("chat").display_name == "SmolLM2 135M Instruct, INT8"


def test_errors_are_the_sdks_own_and_name_the_field(appliance: Appliance, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="claude-opus"):
        ask(claude, model="claude-opus")
    with pytest.raises(anthropic.BadRequestError, match="top_k"):
        ask(claude, extra_body={"top_k": -3})
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        ask(claude, messages=[])
    with (
        appliance.anthropic().with_options(api_key="sk-appliance-wrong") as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        ask(stranger)
