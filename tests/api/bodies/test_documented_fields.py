"""Every field that the official SDKs can send is passed, ignored or refused on purpose: none is unknown by neglect."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from appliance.api.bodies import anthropic, chat, embeddings, responses
from appliance.api.bodies.base import Body

SDKS: list[tuple[type[Body], Any]] = [
    (chat.ChatCompletions, chat_create_params.CompletionCreateParamsStreaming),
    (chat.Completions, completion_create_params.CompletionCreateParamsStreaming),
    (responses.Responses, response_create_params.ResponseCreateParamsStreaming),
    (embeddings.Embeddings, embedding_create_params.EmbeddingCreateParams),
    (anthropic.Messages, message_create_params.MessageCreateParamsStreaming),
    (anthropic.CountTokens, message_count_tokens_params.MessageCountTokensParams),
]
IDS = [body.__name__ for body, _ in SDKS]


def known(body: type[Body]) -> set[str]:
    return {field.alias or name for name, field in body.model_fields.items()}


@pytest.mark.parametrize(("body", "params"), SDKS, ids=IDS)
def test_every_field_of_the_sdk_is_known(body: type[Body], params: Any) -> None:
    documented = set(typing.get_type_hints(params))
    assert len(documented) > 3
    assert documented - known(body) == set()


@pytest.mark.parametrize(("body", "params"), SDKS, ids=IDS)
def test_a_field_that_is_not_passed_on_says_why(body: type[Body], params: Any) -> None:
    assert [name for name, field in body.model_fields.items() if field.exclude and not field.description] == []


@pytest.mark.parametrize("body", [chat.ChatCompletions, chat.Completions, responses.Responses, embeddings.Embeddings])
def test_a_field_that_no_sdk_knows_is_vllms_own_and_says_so(body: type[Body]) -> None:
    extra = known(body).difference(*(typing.get_type_hints(params) for _, params in SDKS))
    for name in extra:
        description = body.model_fields[name].description or ""
        assert "vLLM" in description, name


@pytest.mark.parametrize("body", [body for body, _ in SDKS], ids=IDS)
def test_what_is_ignored_is_taken_whatever_it_holds_and_never_passed_on(body: type[Body]) -> None:
    values = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x", "max_tokens": 5}
    required = {name for name, field in body.model_fields.items() if field.is_required()}
    least = {"model": "m"} | {name: value for name, value in values.items() if name in required}
    ignored = [
        name for name, field in body.model_fields.items() if field.exclude and field.annotation is Any
    ]  # typed ones are held to what can be served
    anything: list[Any] = [None, "x", 1, {"a": [1]}, [{}]]
    for value in anything:
        parsed = body.model_validate({**least, **dict.fromkeys(ignored, value)})
        assert set(parsed.model_dump(exclude_unset=True, by_alias=True)) <= set(least)
