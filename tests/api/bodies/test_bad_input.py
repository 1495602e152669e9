"""Bad input: a 4xx in the caller's own envelope that names the field, quickly, and the engine never hears of it."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from appliance.api.bodies import chat
from appliance.api.bodies.base import parse
from appliance.api.routes import MODEL_ROUTES
from appliance.errors import BadRequest
from tests.fakes.house import Running

USER = {"role": "user", "content": "hello"}
CHAT: dict[str, Any] = {"model": "chat", "messages": [USER]}
COMPLETION = {"model": "chat", "prompt": "hello"}
RESPONSE = {"model": "chat", "input": "hello"}
MESSAGE: dict[str, Any] = {"model": "chat", "messages": [USER], "max_tokens": 8}
EMBEDDING = {"model": "vectors", "input": "hello"}
PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/responses": RESPONSE,
    "/v1/messages": MESSAGE,
    "/v1/messages/count_tokens": {"model": "chat", "messages": [USER]},
    "/v1/embeddings": EMBEDDING,
    "/v1/rerank": {"model": "vectors", "query": "a", "documents": ["a", "b"]},
    "/v1/score": {"model": "vectors", "text_1": "a", "text_2": ["a", "b"]},
}
NEVER: dict[str, Any] = {
    "priority": 0,
    "kv_transfer_params": {"do_remote_prefill": True},
    "cache_salt": "x",
    "chat_template": "{{ 1 }}",
    "mm_processor_kwargs": {},
    "media_io_kwargs": {},
    "prompt_embeds": "AAAA",
    "guided_json": {},
    "guided_grammar": "root ::= x",
    "logits_processors": ["os.system"],
    "vllm_xargs": {},
    "bad_words": ["x"],
    "truncate_prompt_tokens": 3,
    "add_generation_prompt": False,
    "continue_final_message": True,
    "return_token_ids": True,
    "documents_": [],
    "request_id": "x",
    "use_beam_search": True,
    "prompt_logprobs": 3,
    "echo_": True,
}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def image(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "look", **function}}]}


def schema(schema: object) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", {"model": "nope"}, "model"),
    ("/v1/chat/completions", {"model": None}, "model"),
    ("/v1/chat/completions", {"model": ""}, "model"),
    ("/v1/chat/completions", {"model": 7}, "model"),
    ("/v1/chat/completions", {"model": "vectors"}, "model"),
    ("/v1/chat/completions", {"messages": []}, "messages"),
    ("/v1/chat/completions", {"messages": "hi"}, "messages"),
    ("/v1/chat/completions", {"messages": None}, "messages"),
    ("/v1/chat/completions", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("/v1/chat/completions", {"messages": [USER, {"role": "robot", "content": "x"}]}, "messages[1]"),
    ("/v1/chat/completions", {"messages": [{"content": "x"}]}, "messages[0]"),
    ("/v1/chat/completions", {"messages": [{**USER, "content": []}]}, "messages[0].content"),
    ("/v1/chat/completions", {"messages": [{**USER, "content": 3}]}, "messages[0].content"),
    ("/v1/chat/completions", {"messages": [{**USER, "colour": "red"}]}, "messages[0].colour"),
    ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ("/v1/chat/completions", {"messages": [USER] * 2049}, "messages"),
    ("/v1/chat/completions", {"temperature": "hot"}, "temperature"),
    ("/v1/chat/completions", {"temperature": -1}, "temperature"),
    ("/v1/chat/completions", {"temperature": 2.1}, "temperature"),
    ("/v1/chat/completions", {"top_p": 0}, "top_p"),
    ("/v1/chat/completions", {"n": 16_384}, "n"),
    ("/v1/chat/completions", {"n": 0}, "n"),
    ("/v1/chat/completions", {"n": 2.5}, "n"),
    ("/v1/chat/completions", {"n": "2"}, "n"),
    ("/v1/chat/completions", {"max_tokens": 0}, "max_tokens"),
    ("/v1/chat/completions", {"max_tokens": 512}, "max_tokens"),
    ("/v1/chat/completions", {"max_tokens": 10**30}, "max_tokens"),
    ("/v1/chat/completions", {"max_completion_tokens": 100_000}, "max_completion_tokens"),
    ("/v1/chat/completions", {"min_tokens": 100_000}, "min_tokens"),
    ("/v1/chat/completions", {"seed": 2**64}, "seed"),
    ("/v1/chat/completions", {"stop": ["x"] * 17}, "stop"),
    ("/v1/chat/completions", {"stop": [""]}, "stop"),
    ("/v1/chat/completions", {"stream": "yes"}, "stream"),
    ("/v1/chat/completions", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ("/v1/chat/completions", {"top_logprobs": 2}, "top_logprobs"),
    ("/v1/chat/completions", {"logit_bias": {"1": 101}}, "logit_bias"),
    ("/v1/chat/completions", {"logit_bias": {"x": 1}}, "logit_bias"),
    ("/v1/chat/completions", schema(nested(400)), "response_format"),
    ("/v1/chat/completions", schema(nested(20)), "response_format.json_schema.schema"),
    ("/v1/chat/completions", schema({"enum": list(range(20_001))}), "response_format.json_schema.schema"),
    ("/v1/chat/completions", schema("text"), "response_format.json_schema.schema"),
    ("/v1/chat/completions", {"response_format": {"type": "grammar"}}, "response_format"),
    ("/v1/chat/completions", {"structured_outputs": {"regex": "a" * 2049}}, "structured_outputs.regex"),
    ("/v1/chat/completions", {"structured_outputs": {"grammar": "root ::= x"}}, "structured_outputs.grammar"),
    ("/v1/chat/completions", tool(parameters=nested(20)), "tools[0].function.parameters"),
    ("/v1/chat/completions", schema({"pattern": "a" * 2049}), "response_format.json_schema.schema"),
    ("/v1/chat/completions", schema({"patternProperties": {"a" * 2049: {}}}), "response_format.json_schema.schema"),
    ("/v1/chat/completions", tool(parameters={"a": [{"pattern": "a" * 2049}]}), "tools[0].function.parameters"),
    ("/v1/chat/completions", {"structured_outputs": {"choice": ["a" * 2049]}}, "structured_outputs.choice[0]"),
    ("/v1/completions", {"prompt": ["a"] * 8, "n": 3}, "n"),
    ("/v1/completions", {"prompt": [1] * 513}, "prompt"),
    ("/v1/embeddings", {"input": [[1], [1] * 513]}, "input"),
    ("/v1/chat/completions", {"metadata": [[]] * 60_000}, "body"),
    ("/v1/chat/completions", tool(name="a b"), "tools[0].function.name"),
    ("/v1/chat/completions", {"tools": tool()["tools"] * 129}, "tools"),
    ("/v1/chat/completions", {"tools": [{"type": "web_search"}]}, "tools[0]"),
    ("/v1/chat/completions", {"tool_choice": "auto"}, "tool_choice"),
    ("/v1/chat/completions", {"chat_template_kwargs": {"bos_token": "x"}}, "chat_template_kwargs.bos_token"),
    ("/v1/chat/completions", {"modalities": ["audio"]}, "modalities"),
    ("/v1/chat/completions", image("https://example.com/a.png"), "messages[0].content[0].image_url.url"),
    ("/v1/chat/completions", image("file:///etc/passwd"), "messages[0].content[0].image_url.url"),
    ("/v1/chat/completions", image("DATA:image/png;base64,AAAA"), "messages[0].content[0].image_url.url"),
    ("/v1/completions", {"prompt": ""}, "prompt"),
    ("/v1/completions", {"prompt": []}, "prompt"),
    ("/v1/completions", {"prompt": ["a"] * 17}, "prompt"),
    ("/v1/completions", {"prompt": [-1]}, "prompt"),
    ("/v1/completions", {"prompt": None}, "prompt"),
    ("/v1/completions", {"best_of": 2}, "best_of"),
    ("/v1/completions", {"suffix": "x"}, "suffix"),
    ("/v1/completions", {"logprobs": 21}, "logprobs"),
    ("/v1/responses", {"input": ""}, "input"),
    ("/v1/responses", {"input": []}, "input"),
    ("/v1/responses", {"previous_response_id": "resp_1"}, "previous_response_id"),
    ("/v1/responses", {"background": True}, "background"),
    ("/v1/responses", {"tools": [{"type": "web_search"}]}, "tools[0]"),
    ("/v1/responses", {"tools": [{"type": "mcp", "server_url": "https://a"}]}, "tools[0]"),
    ("/v1/responses", {"max_output_tokens": 100_000}, "max_output_tokens"),
    ("/v1/responses", {"include": ["web_search_call.results"]}, "include"),
    (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://a/b"}]}]},
        "input",
    ),
    (
        "/v1/responses",
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": nested(20)}}},
        "text.format.schema",
    ),
    ("/v1/messages", {"max_tokens": None}, "max_tokens"),
    ("/v1/messages", {"max_tokens": 100_000}, "max_tokens"),
    ("/v1/messages", {"messages": []}, "messages"),
    ("/v1/messages", {"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
    ("/v1/messages", {"temperature": 1.5}, "temperature"),
    ("/v1/messages", {"stop_sequences": ["x"] * 17}, "stop_sequences"),
    ("/v1/messages", {"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
    ("/v1/messages", {"tools": [{"name": "look", "input_schema": nested(20)}]}, "tools[0].input_schema"),
    ("/v1/messages", {"mcp_servers": []}, "mcp_servers"),
    (
        "/v1/messages",
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://a"}}]}]},
        "messages[0].content[0].source",
    ),
    ("/v1/embeddings", {"input": []}, "input"),
    ("/v1/embeddings", {"input": ["x"] * 2049}, "input"),
    ("/v1/embeddings", {"model": "chat"}, "model"),
    ("/v1/embeddings", {"encoding_format": "hex"}, "encoding_format"),
    ("/v1/embeddings", {"dimensions": 0}, "dimensions"),
    ("/v1/rerank", {"documents": []}, "documents"),
    ("/v1/rerank", {"documents": ["x"] * 2049}, "documents"),
    ("/v1/rerank", {"query": ""}, "query"),
    ("/v1/score", {"text_1": ["a", "b", "c"]}, "text_1"),
    *((path, {field: value}, field) for field, value in NEVER.items() for path in ("/v1/chat/completions",)),
    *((path, {"priority": 0}, "priority") for path in PATHS),
]


def told(answer: httpx.Response) -> dict[str, Any]:
    """The error in an answer, after a look at its envelope."""
    body = answer.json()
    if answer.request.url.path.startswith("/v1/messages"):
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
        assert body["request_id"] == answer.headers["x-request-id"]
    else:
        assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("path", "change", "field"), BAD, ids=[f"{p[4:]}-{next(iter(c))}-{i}" for i, (p, c, _) in enumerate(BAD)]
)
def test_a_bad_field_is_named_and_the_engine_never_hears_of_it(
    client: httpx.Client, shared: Running, path: str, change: dict[str, Any], field: str
) -> None:
    before = len(shared.house.heard())
    answer = client.post(path, json=PATHS[path] | change)
    assert answer.status_code == (404 if change == {"model": "nope"} else 400), answer.text
    error = told(answer)
    if path.startswith("/v1/messages"):
        assert field in error["message"]
    else:
        assert error["param"].startswith(field), error
        assert error["type"] == "invalid_request_error"
    assert len(shared.house.heard()) == before


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b'{"model":"chat","messages":[{"role":"user","content":"\xff\xfe"}]}', 400),
        (b'{"model":"chat","messages":[{"role":"user","content":"\\ud800"}]}', 400),
        (b'{"model":"chat","messages":[{"role":"user","content":"x"}],"temperature":NaN}', 400),
        (b'{"model":"chat","messages":[{"role":"user","content":"x"}],"temperature":Infinity}', 400),
        (b'{"model":"chat","messages":[{"role":"user","content":"x"}],"seed":' + b"9" * 5000 + b"}", 400),
        (b'{"model":"chat","messages":[{"role":"user","content":"x"}],"user":' + b"9" * 5000 + b',"x":1}', 400),
        (b'{"model":"chat","messages":' + b"[" * 100_000, 400),
        (b'{"model":"chat","metadata":' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"}", 400),
        (b'{"model":"chat","messages":[{"role":"user","content":"x"}]}trailing', 400),
        (b'{"model":"chat","messages":[{"role":"user","content":"' + b"x" * (4 * 2**20) + b'"}]}', 413),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_what_is_no_json_or_too_much_of_it_is_refused(
    client: httpx.Client, shared: Running, path: str, raw: bytes, status: int
) -> None:
    before = len(shared.house.heard())
    answer = client.post(path, content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text[:300]
    assert len(answer.content) < 2000
    assert "error" in answer.json()
    assert len(shared.house.heard()) == before


def test_a_refusal_takes_less_than_a_tenth_of_a_second(client: httpx.Client) -> None:
    worst = [CHAT | schema(nested(400)), CHAT | {"n": 16_384}, CHAT | {"messages": [{**USER, "x": "y" * 3_000_000}]}]
    for body in worst:
        raw = json.dumps(body).encode()
        times = []
        for _ in range(3):
            began = time.perf_counter()
            assert client.post("/v1/chat/completions", content=raw).status_code == 400
            times.append(time.perf_counter() - began)
        assert min(times) < 0.1


def test_a_prompt_that_is_too_long_is_refused_in_the_callers_words(client: httpx.Client) -> None:
    long = "word " * 600
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "/v1/chat/completions": ({"messages": [{**USER, "content": long}]}, "messages"),
        "/v1/completions": ({"prompt": long}, "prompt"),
        "/v1/responses": ({"input": long}, "input"),
        "/v1/embeddings": ({"input": long}, "input"),
    }
    for path, (change, field) in cases.items():
        streams: list[dict[str, Any]] = [{}] if path == "/v1/embeddings" else [{}, {"stream": True}]
        for stream in streams:
            answer = client.post(path, json=PATHS[path] | change | stream)
            assert answer.status_code == 400
            assert (told(answer)["param"], told(answer)["code"]) == (field, "context_length_exceeded")
    answer = client.post("/v1/messages", json=MESSAGE | {"messages": [{**USER, "content": long}]})
    assert answer.status_code == 400
    assert told(answer)["type"] == "invalid_request_error"
    assert "context length" in told(answer)["message"]


def test_the_engine_hears_known_fields_only_and_ours(client: httpx.Client, shared: Running) -> None:
    asked = {
        "temperature": 0.5,
        "metadata": {"a": "b"},
        "store": True,
        "user": "u",
        "service_tier": "flex",
        "stream": True,
    }
    assert client.post("/v1/chat/completions", json=CHAT | asked).status_code == 200
    assert shared.house.heard()[-1]["body"] == CHAT | {
        "priority": 10,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": shared.house.heard()[-1]["body"]["max_tokens"],
    }


def test_a_doubled_key_can_not_say_one_thing_to_us_and_another_to_the_engine(
    client: httpx.Client, shared: Running
) -> None:
    raw = b'{"model":"nope","model":"chat","messages":[{"role":"user","content":"a"}],"n":99,"n":1}'
    assert client.post("/v1/chat/completions", content=raw).status_code == 200
    heard = shared.house.heard()[-1]["body"]
    assert (heard["model"], heard["n"]) == ("chat", 1)


MANY: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [1] * 900_000}),
    ("/v1/chat/completions", {"stop": [1] * 900_000}),
    ("/v1/embeddings", {"input": [""] * 900_000}),
    ("/v1/responses", {"input": [{}] * 40_000}),
    ("/v1/messages", {"system": [1] * 900_000}),
    ("/v1/chat/completions", {"k" * 3_000_000: 1}),
    ("/v1/chat/completions", {"messages": [{"role": "r" * 3_000_000}]}),
]


@pytest.mark.parametrize(("path", "change"), MANY, ids=range(len(MANY)))
def test_of_many_errors_only_the_first_few_are_made_and_echoes_are_short(path: str, change: dict[str, Any]) -> None:
    kind = next(route.body for route in MODEL_ROUTES if route.operation.path == path)
    raw = json.dumps(PATHS[path] | change, separators=(",", ":")).encode()
    with pytest.raises(ValidationError) as many:
        kind.model_validate_json(raw)
    assert many.value.error_count() < 20
    with pytest.raises(BadRequest) as caught:
        parse(kind, raw)
    assert len(caught.value.message) < 500
    assert len(caught.value.param or "") <= 200


def test_text_may_hold_as_many_commas_and_brackets_as_it_likes() -> None:
    text = 'f({"a": [1, 2]}) \\ \\" ' * 60_000
    body = parse(chat.ChatCompletions, json.dumps(CHAT | {"messages": [{**USER, "content": text}]}).encode())
    assert body.messages[0].content == text
