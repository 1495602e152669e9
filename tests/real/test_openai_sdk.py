"""OpenAI's own SDK works unchanged."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel

from tests.real.house import Appliance

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": WEATHER},
}
RESPONSES_TOOL: FunctionToolParam = {
    "type": "function", "name": "get_weather", "description": "", "parameters": WEATHER, "strict": None
}  # fmt: skip


class Capital(BaseModel):
    """A shape for answers."""

    city: Literal["Paris", "Rome", "Berlin"]
    sure: bool


def ask(gpt: openai.OpenAI, **fields: Any) -> Any:
    """A chat completion that comes out the same each time."""
    settled = {"model": "chat", "messages": QUESTION, "temperature": 0, "seed": 7, "max_completion_tokens": 12}
    return gpt.chat.completions.create(**settled | fields)


def dot(one: list[float], other: list[float]) -> float:
    """How alike two unit vectors are."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def fits(arguments: str) -> bool:
    """Whether a tool call's arguments are what the tool's schema asks for."""
    called = json.loads(arguments)
    return set(called) == {"city", "days"} and called["city"] in ("Paris", "Rome") and 1 <= called["days"] <= 7


# --- chat completions -----------------------------------------------------------------------------------


def test_chat_answers_with_text_usage_and_the_public_model_name(gpt: openai.OpenAI) -> None:
    answer = ask(gpt, max_completion_tokens=24)
    assert "Paris" in answer.choices[0].message.content
    assert answer.model == "chat"
    assert answer.usage.prompt_tokens > 10
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_the_async_client_gets_the_same_answer(appliance: Appliance, gpt: openai.OpenAI) -> None:
    async with appliance.async_openai() as client:
        answer = await ask(client)
        stream = await ask(client, stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert answer.choices[0].message.content == streamed == ask(gpt).choices[0].message.content


def test_a_stream_holds_what_the_whole_answer_holds(gpt: openai.OpenAI) -> None:
    chunks = list(ask(gpt, stream=True, max_completion_tokens=6))
    whole = ask(gpt, max_completion_tokens=6)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert {chunk.model for chunk in chunks} == {"chat"}
    assert len(chunks) > 6, "it did not come piece by piece"


def test_usage_comes_in_a_stream_only_when_asked_for(gpt: openai.OpenAI) -> None:
    silent = list(ask(gpt, stream=True))
    telling = list(ask(gpt, stream=True, stream_options={"include_usage": True}))
    assert all(chunk.usage is None and chunk.choices for chunk in silent)
    assert telling[-1].choices == []
    assert telling[-1].usage == ask(gpt).usage


def test_the_streaming_helper_collects_the_answer(gpt: openai.OpenAI) -> None:
    with gpt.chat.completions.stream(model="chat", messages=QUESTION, temperature=0, seed=7) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert final.choices[0].message.content == deltas
    assert final.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_forced_tool_call_has_arguments_that_fit_the_schema(gpt: openai.OpenAI, choice: Any) -> None:
    (answer,) = ask(gpt, tools=[TOOL], tool_choice=choice, max_completion_tokens=120).choices
    (call,) = answer.message.tool_calls
    assert call.function.name == "get_weather"
    assert fits(call.function.arguments)


def test_a_tool_call_streams_its_arguments(gpt: openai.OpenAI) -> None:
    stream = ask(gpt, tools=[TOOL], tool_choice="required", max_completion_tokens=120, stream=True)
    calls = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].id
    assert calls[0].function.name == "get_weather"
    assert fits("".join(call.function.arguments or "" for call in calls))


def test_a_tool_result_goes_back_to_the_model(gpt: openai.OpenAI) -> None:
    first = ask(gpt, tools=[TOOL], tool_choice="required", max_completion_tokens=120).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"}
    assert ask(gpt, tools=[TOOL], messages=[*QUESTION, first, result]).choices[0].message.content


def test_parse_gives_an_object_of_the_callers_own_class(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.parse(
        model="chat", messages=QUESTION, response_format=Capital, temperature=0, max_completion_tokens=60
    )
    assert isinstance(answer.choices[0].message.parsed, Capital)


def test_json_object_gives_an_object(gpt: openai.OpenAI) -> None:
    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    answer = ask(gpt, messages=question, response_format={"type": "json_object"}, max_completion_tokens=200)
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_logprobs_belong_to_the_tokens_of_the_answer(gpt: openai.OpenAI) -> None:
    (answer,) = ask(gpt, logprobs=True, top_logprobs=3, max_completion_tokens=5).choices
    tokens = answer.logprobs.content
    assert "".join(token.token for token in tokens) == answer.message.content
    for token in tokens:
        assert token.logprob == max(other.logprob for other in token.top_logprobs), "temperature 0 takes the likeliest"
        assert len(token.top_logprobs) == 3


def test_n_gives_as_many_answers(gpt: openai.OpenAI) -> None:
    answer = ask(gpt, n=3, temperature=1.5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3


def test_n_answers_stream_side_by_side(gpt: openai.OpenAI) -> None:
    chunks = list(ask(gpt, n=3, temperature=1, stream=True))
    ended = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(ended) == [0, 1, 2]


def test_stop_ends_the_answer_before_the_word(gpt: openai.OpenAI) -> None:
    (answer,) = ask(gpt, stop=["Paris"], max_completion_tokens=40).choices
    assert answer.finish_reason == "stop"
    assert "Paris" not in answer.message.content


def test_a_seed_makes_chance_repeatable(gpt: openai.OpenAI) -> None:
    first, again, other = (
        ask(gpt, temperature=1.3, seed=seed, max_completion_tokens=24).choices[0].message.content for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_max_completion_tokens_bounds_the_answer(gpt: openai.OpenAI) -> None:
    answer = ask(gpt, max_completion_tokens=3)
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


# --- completions ----------------------------------------------------------------------------------------


def test_a_completion_streams_what_it_answers_whole(gpt: openai.OpenAI) -> None:
    asked: Any = {"model": "chat", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    whole = gpt.completions.create(**asked)
    streamed = gpt.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 8


def test_echo_brings_the_prompt_back_with_its_logprobs(gpt: openai.OpenAI) -> None:
    answer = gpt.completions.create(
        model="chat", prompt="Once upon a time", max_tokens=4, temperature=0, echo=True, logprobs=2
    )
    (choice,) = answer.choices
    assert choice.text.startswith("Once upon a time")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens is not None
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None, "nothing comes before the first token"


# --- responses ------------------------------------------------------------------------------------------


def test_a_response_answers_and_streams_alike(gpt: openai.OpenAI) -> None:
    asked: Any = {"model": "chat", "input": "What is the capital of France?", "temperature": 0, "max_output_tokens": 24}
    whole = gpt.responses.create(**asked)
    with gpt.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "Paris" in whole.output_text
    assert final.output_text == whole.output_text
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") > 3
    assert final.usage is not None
    assert final.usage.output_tokens > 0


def test_a_response_follows_the_conversation_and_instructions_sent_with_it(gpt: openai.OpenAI) -> None:
    turns: Any = [
        {"role": "user", "content": "My name is Zacharias."},
        {"role": "assistant", "content": "Hello Zacharias."},
        {"role": "user", "content": "What is my name?"},
    ]
    sizes = []
    for instructions, conversation in (("Be brief.", turns[2:]), ("Be brief.", turns), ("Be brief. " * 9, turns)):
        answer = gpt.responses.create(model="chat", instructions=instructions, input=conversation, max_output_tokens=2)
        assert answer.usage is not None
        sizes.append(answer.usage.input_tokens)
    last_turn, all_turns, longer_instructions = sizes
    assert all_turns > last_turn + 10
    assert longer_instructions > all_turns + 10


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
def test_a_response_calls_a_function_with_arguments_that_fit(gpt: openai.OpenAI, choice: Any) -> None:
    answer = gpt.responses.create(
        model="chat", input="The weather?", tools=[RESPONSES_TOOL], tool_choice=choice, temperature=0
    )
    (call,) = (item for item in answer.output if item.type == "function_call")
    assert call.name == "get_weather"
    assert fits(call.arguments)


def test_a_response_keeps_to_a_json_schema(gpt: openai.OpenAI) -> None:
    answer = gpt.responses.parse(
        model="chat", input="The capital of France?", text_format=Capital, temperature=0, max_output_tokens=60
    )
    assert isinstance(answer.output_parsed, Capital)


# --- embeddings -----------------------------------------------------------------------------------------


def test_embeddings_place_like_texts_near_each_other(gpt: openai.OpenAI) -> None:
    texts = ["Hello world", "Hi world", "The invoice is overdue"]
    hello, hi, invoice = (item.embedding for item in gpt.embeddings.create(model="embed", input=texts).data)
    assert len(hello) == 384
    assert math.isclose(dot(hello, hello), 1, rel_tol=1e-3)
    assert dot(hello, hi) > 0.7
    assert dot(hello, invoice) < 0.3


def test_embeddings_are_the_same_as_floats_and_as_base64(gpt: openai.OpenAI) -> None:
    floats = gpt.embeddings.create(model="embed", input="Hello", encoding_format="float").data[0].embedding
    packed = gpt.embeddings.create(model="embed", input="Hello", encoding_format="base64").data[0].embedding
    decoded = gpt.embeddings.create(model="embed", input="Hello").data[0].embedding  # base64 on the wire
    assert isinstance(packed, str)
    assert decoded == pytest.approx(floats, abs=1e-6)


# --- models, errors, ids --------------------------------------------------------------------------------


def test_models_are_listed_and_found_by_name(gpt: openai.OpenAI) -> None:
    assert [model.id for model in gpt.models.list()] == ["chat", "embed"]
    assert gpt.models.retrieve("embed").id == "embed"
    with pytest.raises(openai.NotFoundError):
        gpt.models.retrieve("gpt-4o")


def test_errors_are_the_sdks_own_and_name_the_field(appliance: Appliance, gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(gpt, model="gpt-4o")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(gpt, temperature=3)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as unsuitable:
        ask(gpt, model="embed")
    assert (unsuitable.value.code, unsuitable.value.param) == ("model_not_suitable", "model")
    with appliance.openai().with_options(api_key="sk-appliance-wrong") as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            ask(stranger)
        assert refused.value.code == "invalid_api_key"


def test_the_callers_request_id_comes_back_and_a_missing_one_is_made(gpt: openai.OpenAI) -> None:
    assert ask(gpt, extra_headers={"x-request-id": "order-4711"})._request_id == "order-4711"
    assert ask(gpt)._request_id.startswith("req_")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(gpt, n=0, extra_headers={"x-request-id": "order-4712"})
    assert refused.value.request_id == "order-4712"
