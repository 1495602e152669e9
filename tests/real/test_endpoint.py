"""A model of this appliance can be one that another server of the house runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.real.house import Appliance

ASKED: Any = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}


@pytest.fixture(scope="module")
def relay(appliance: Appliance) -> Iterator[Appliance]:
    """An appliance with no engine: its models are the shared one's, by TCP and by Unix socket."""
    with tempfile.TemporaryDirectory(prefix="real-") as folder:
        (Path(folder) / "key").write_text(appliance.key)
        there = {"endpoint": f"{appliance.address}/v1", "key": "file:key"}
        models = {
            "far": there | {"upstream_model": "chat"},
            "embed": there | {"task": "embedding"},
            "near": {"endpoint": f"unix:{appliance.socket('chat')}", "upstream_model": "chat"},
        }
        running = Appliance(Path(folder), models)
        try:
            yield running.ready()
        finally:
            running.stop()


@pytest.mark.parametrize("model", ["far", "near"])
def test_a_model_elsewhere_answers_and_streams_under_its_name_here(
    relay: Appliance, gpt: openai.OpenAI, model: str
) -> None:
    own = gpt.chat.completions.create(model="chat", max_completion_tokens=5, **ASKED)
    with relay.openai() as client:
        whole = client.chat.completions.create(model=model, max_completion_tokens=5, **ASKED)
        chunks = list(client.chat.completions.create(model=model, max_completion_tokens=5, stream=True, **ASKED))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert own.choices[0].message.content == whole.choices[0].message.content == streamed
    assert {whole.model, *(chunk.model for chunk in chunks)} == {model}
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("model", ["far", "near"])
def test_other_dialects_pass_under_the_name_here_too(relay: Appliance, model: str) -> None:
    question: Any = ASKED["messages"]
    with relay.anthropic() as claude, relay.openai() as gpt:
        with claude.messages.stream(model=model, messages=question, max_tokens=8) as stream:
            assert stream.get_final_message().model == model
        with gpt.responses.stream(model=model, input="Hi", max_output_tokens=8) as events:
            assert events.get_final_response().model == model


def test_embeddings_elsewhere(relay: Appliance, gpt: openai.OpenAI) -> None:
    own = gpt.embeddings.create(model="embed", input="Hello").data[0].embedding
    with relay.openai() as client:
        assert client.embeddings.create(model="embed", input="Hello").data[0].embedding == pytest.approx(own, abs=1e-5)


def test_an_error_from_there_keeps_its_meaning(relay: Appliance) -> None:
    with relay.openai() as client, pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="far", prompt="word " * 9000)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")
