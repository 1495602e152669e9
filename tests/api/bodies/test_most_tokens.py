"""What a request is reserved at is never less than what an engine may compute for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.api.bodies.base import Body, parse
from appliance.api.routes import MODEL_ROUTES

BODIES: dict[str, type[Body]] = {route.operation.path: route.body for route in MODEL_ROUTES}
ROOM = 4096
LONG = "long " * 500


def most(path: str, **body: Any) -> tuple[int, int]:
    """Prompt and answer, of a model with a context of `ROOM`."""
    parsed = parse(BODIES[path], json.dumps({"model": "m", **body}).encode())
    return parsed.most_tokens(parsed.payload("m", 16), ROOM)


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def test_a_prompt_is_at_most_its_bytes_and_what_a_template_adds() -> None:
    prompt, answer = most("/v1/chat/completions", messages=user("x" * 1000), max_tokens=7, n=3)
    assert 1000 < prompt < 1500
    assert answer == 21
    assert most("/v1/chat/completions", messages=user("x" * 9000), n=3)[0] == ROOM, (
        "it is computed once for all answers"
    )
    assert most("/v1/messages/count_tokens", messages=user("x")) == (0, 0)


def test_of_several_prompts_each_may_fill_the_context_whatever_their_text_looks_like() -> None:
    prompts = ["x" * 4000] * 30
    assert most("/v1/completions", prompt=prompts)[0] >= 30 * 4000
    assert most("/v1/completions", prompt=["data: x", *prompts])[0] >= 30 * 4000
    assert most("/v1/completions", prompt=prompts, n=2, max_tokens=5)[1] == 300


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/v1/chat/completions", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
        ("/v1/chat/completions", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        ("/v1/responses", {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}),
        ("/v1/messages", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}),
    ],
)
def test_few_bytes_of_an_image_or_of_audio_may_fill_the_context(path: str, part: dict[str, object]) -> None:
    field = "input" if path == "/v1/responses" else "messages"
    assert most(path, **{field: user([part])}, **({"max_tokens": 5} if path == "/v1/messages" else {}))[0] == ROOM


@pytest.mark.parametrize("first", [LONG, [LONG]])
def test_one_text_is_read_again_beside_each_of_several(first: object) -> None:
    assert most("/v1/score", text_1=first, text_2=["x"] * 100)[0] >= 100 * len(LONG)
    assert most("/v1/score", text_1=[LONG, LONG], text_2=["x", "x"])[0] < 3 * len(LONG)
    assert most("/v1/rerank", query=LONG, documents=["x"] * 100)[0] >= 100 * len(LONG)


def test_a_character_may_be_more_once_a_tokenizer_has_normalized_it() -> None:
    note, blessing = "\U0001d160", "\ufdfa"  # 4 bytes become 12 (NFC, as Qwen's do it), 3 become 33 (NFKC)
    assert most("/v1/chat/completions", messages=user(note * 100))[0] >= 1200
    assert most("/v1/embeddings", input=blessing * 100)[0] >= 3300
    assert most("/v1/rerank", query=blessing * 100, documents=["x"] * 10)[0] >= 33_000
    assert most("/v1/embeddings", input="ü" * 100)[0] < 250, "ordinary text stays what it is"


def test_templates_write_tools_with_more_space_than_they_came_with() -> None:
    # `[0, 0, 0]` has 3 tokens for 2 bytes of `[0,0,0]`, and 4 where it is indented
    schema = {"type": "object", "properties": {"x": {"enum": [0] * 500}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert most("/v1/chat/completions", messages=user("x"), tools=[tool])[0] >= 4 * 500
    assert (
        most("/v1/messages", messages=user("x"), max_tokens=5, tools=[{"name": "f", "input_schema": schema}])[0] >= 2000
    )
