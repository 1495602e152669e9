"""What callers get: with the official SDKs, in every dialect, whole and streamed."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.fakes.house import Running

USER: Any = {"role": "user", "content": "tokens=3"}
TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(scope="module")
def sdk(shared: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared.base_url}/v1", api_key=shared.key, max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def claude(shared: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=shared.base_url, api_key=shared.key, max_retries=0) as sdk:
        yield sdk


class TestOpenAI:
    def test_a_chat(self, sdk: openai.OpenAI) -> None:
        answer = sdk.chat.completions.create(model="chat", messages=[USER])
        assert answer.choices[0].message.content == "tiny tiny tiny"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage
        assert answer.usage.completion_tokens == 3

    def test_a_stream_with_usage_only_where_it_was_asked_for(self, sdk: openai.OpenAI) -> None:
        chunks = list(sdk.chat.completions.create(model="chat", messages=[USER], stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "tiny tiny tiny"
        assert not [chunk for chunk in chunks if chunk.usage]
        options: Any = {"include_usage": True}
        chunks = list(sdk.chat.completions.create(model="chat", messages=[USER], stream=True, stream_options=options))
        assert chunks[-1].usage
        assert chunks[-1].usage.completion_tokens == 3

    def test_several_choices_logprobs_and_the_rest_reach_the_engine(self, sdk: openai.OpenAI, shared: Running) -> None:
        asked: Any = {"n": 2, "logprobs": True, "top_logprobs": 1, "stop": ["x"], "seed": 7, "temperature": 0.5}
        answer = sdk.chat.completions.create(model="chat", messages=[USER], **asked)
        assert len(answer.choices) == 2
        assert answer.choices[0].logprobs
        heard = shared.house.heard()[-1]["body"]
        assert {name: heard[name] for name in asked} == asked

    def test_a_tool_call_whole_and_streamed(self, sdk: openai.OpenAI) -> None:
        message: Any = {"role": "user", "content": "call=look say={}"}
        answer = sdk.chat.completions.create(model="chat", messages=[message], tools=TOOLS)
        (call,) = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, call.function.arguments) == ("look", "{}")
        with sdk.chat.completions.stream(model="chat", messages=[message], tools=TOOLS) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.tool_calls
        assert final.choices[0].message.tool_calls[0].function.arguments == "{}"

    def test_an_answer_in_a_schema(self, sdk: openai.OpenAI, shared: Running) -> None:
        shape: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
        message: Any = {"role": "user", "content": 'say={"a":1}'}
        answer = sdk.chat.completions.create(model="chat", messages=[message], response_format=shape)
        assert json.loads(answer.choices[0].message.content or "") == {"a": 1}
        assert shared.house.heard()[-1]["body"]["response_format"] == shape

    def test_a_completion_of_one_and_of_several_prompts(self, sdk: openai.OpenAI) -> None:
        assert sdk.completions.create(model="chat", prompt="tokens=2").choices[0].text == "tiny tiny"
        chunks = list(sdk.completions.create(model="chat", prompt=["tokens=2", "b"], stream=True))
        assert {chunk.choices[0].index for chunk in chunks} == {0, 1}

    def test_a_response_whole_and_streamed(self, sdk: openai.OpenAI, shared: Running) -> None:
        assert sdk.responses.create(model="chat", input="tokens=3").output_text == "tiny tiny tiny"
        assert shared.house.heard()[-1]["body"]["store"] is False
        events = list(sdk.responses.create(model="chat", input="tokens=3", stream=True))
        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed"
        assert "".join(each.delta for each in events if each.type == "response.output_text.delta") == "tiny tiny tiny"

    def test_embeddings(self, sdk: openai.OpenAI) -> None:
        answer = sdk.embeddings.create(model="vectors", input=["a", "b"], encoding_format="float")
        assert [len(each.embedding) for each in answer.data] == [4, 4]

    def test_models(self, sdk: openai.OpenAI) -> None:
        assert [model.id for model in sdk.models.list()] == ["chat", "vectors"]
        assert sdk.models.retrieve("chat").owned_by == "appliance"

    def test_errors_are_the_sdks_own(self, sdk: openai.OpenAI, shared: Running) -> None:
        with pytest.raises(openai.NotFoundError) as missing:
            sdk.chat.completions.create(model="nope", messages=[USER])
        assert missing.value.code == "model_not_found"
        assert missing.value.param == "model"
        with pytest.raises(openai.BadRequestError):
            sdk.chat.completions.create(model="chat", messages=[])
        with pytest.raises(openai.AuthenticationError):
            sdk.with_options(api_key="wrong").models.list()
        with pytest.raises(openai.APIError):
            list(sdk.chat.completions.create(
                model="chat", messages=[{"role": "user", "content": "fault=error gap=0.01"}], stream=True
            ))  # fmt: skip


class TestAnthropic:
    def test_a_message_whole_and_streamed(self, claude: anthropic.Anthropic) -> None:
        answer = claude.messages.create(model="chat", max_tokens=50, messages=[USER], system="be brief")
        assert answer.content[0].type == "text"
        assert answer.content[0].text == "tiny tiny tiny"
        assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 3)
        with claude.messages.stream(model="chat", max_tokens=50, messages=[USER]) as stream:
            assert "".join(stream.text_stream) == "tiny tiny tiny"
            assert stream.get_final_message().usage.output_tokens == 3

    def test_counting(self, claude: anthropic.Anthropic) -> None:
        assert claude.messages.count_tokens(model="chat", messages=[USER]).input_tokens == 2

    def test_models(self, claude: anthropic.Anthropic) -> None:
        assert [model.id for model in claude.models.list()] == ["chat", "vectors"]
        assert claude.models.retrieve("chat").display_name == "The tiny model"

    def test_errors_are_the_sdks_own(self, claude: anthropic.Anthropic) -> None:
        with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
            claude.messages.create(model="chat", max_tokens=0, messages=[USER])
        with pytest.raises(anthropic.NotFoundError):
            claude.messages.create(model="nope", max_tokens=5, messages=[USER])
        with pytest.raises(anthropic.AuthenticationError):
            claude.with_options(api_key="wrong").messages.create(model="chat", max_tokens=5, messages=[USER])
        broken: Any = {"role": "user", "content": "fault=error gap=0.01"}
        with pytest.raises(anthropic.APIStatusError):
            list(claude.messages.create(model="chat", max_tokens=50, messages=[broken], stream=True))


def test_rerank_and_score(client: httpx.Client) -> None:
    asked = {"model": "vectors", "query": "a", "documents": ["b", {"text": "c"}], "top_n": 1}
    assert [each["index"] for each in client.post("/v1/rerank", json=asked).json()["results"]] == [0]
    asked = {"model": "vectors", "text_1": "a", "text_2": ["b", "c"]}
    assert len(client.post("/v1/score", json=asked).json()["data"]) == 2


def test_events_pass_as_they_come(client: httpx.Client) -> None:
    asked = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "tokens=4 gap=0.15"}]}
    with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        arrivals = [time.monotonic() for line in answer.iter_lines() if "tiny" in line]
    assert len(arrivals) == 4
    assert min(later - earlier for earlier, later in itertools.pairwise(arrivals)) > 0.05
