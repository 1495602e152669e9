"""What the real engine would refuse, do wrong, or should never be asked."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.real.house import Appliance

LONG = "word " * 9000
CHAT = [{"role": "user", "content": LONG}]
TOO_LONG: list[tuple[str, str, dict[str, Any]]] = [
    ("chat/completions", "messages", {"model": "chat", "messages": CHAT}),
    ("completions", "prompt", {"model": "chat", "prompt": LONG}),
    ("responses", "input", {"model": "chat", "input": LONG}),
    ("messages", "messages", {"model": "chat", "messages": CHAT, "max_tokens": 8}),
    ("messages/count_tokens", "messages", {"model": "chat", "messages": CHAT}),
    ("embeddings", "input", {"model": "embed", "input": LONG}),
    ("rerank", "documents", {"model": "embed", "query": "word", "documents": [LONG]}),
    ("score", "text_2", {"model": "embed", "text_1": "word", "text_2": LONG}),
]
FORBIDDEN = [
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("POST", "/inference/v1/generate"),
    ("POST", "/inference/v1/abort_requests"),
    ("POST", "/scale_elastic_ep"),
    ("POST", "/is_scaling_elastic_ep"),
    ("POST", "/invocations"),
    ("POST", "/pooling"),
    ("POST", "/classify"),
    ("POST", "/rerank"),
    ("POST", "/score"),
    ("POST", "/v2/rerank"),
    ("POST", "/v1/chat/completions/render"),
    ("POST", "/v1/chat/completions/batch"),
    ("POST", "/v1/audio/transcriptions"),
    ("GET", "/v1/responses/resp_1"),
    ("POST", "/v1/responses/resp_1/cancel"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/sleep"),
    ("POST", "/reset_prefix_cache"),
    ("POST", "/collective_rpc"),
    ("GET", "/server_info"),
    ("GET", "/version"),
    ("GET", "/load"),
    ("GET", "/ping"),
    ("GET", "/health"),
]


@pytest.mark.parametrize(("path", "field", "body"), TOO_LONG, ids=[path for path, *_ in TOO_LONG])
def test_text_over_the_models_context_is_refused_naming_its_field(
    http: httpx.Client, path: str, field: str, body: dict[str, Any]
) -> None:
    answer = http.post(f"/v1/{path}", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    if path.startswith("messages"):
        assert answer.json()["type"] == "error"
        assert error["message"].startswith(f"{field}: ")
        assert "context length" in error["message"]
    else:
        assert (error["param"], error["code"]) == (field, "context_length_exceeded")


def test_a_stream_over_the_context_is_refused_before_it_begins(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json={"model": "chat", "messages": CHAT, "stream": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "field",
    [
        {"priority": 1},
        {"cache_salt": "x"},
        {"kv_transfer_params": {}},
        {"chat_template": "{{ 1 }}"},
        {"mm_processor_kwargs": {}},
        {"guided_grammar": "root ::= 'x'"},
        {"prompt_logprobs": 1},
        {"add_special_tokens": True},
    ],
    ids=lambda field: next(iter(field)),
)
def test_what_vllm_knows_but_no_api_documents_is_refused_by_name(http: httpx.Client, field: dict[str, Any]) -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    assert http.post("/v1/chat/completions", json=body).status_code == 200
    answer = http.post("/v1/chat/completions", json=body | field)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unknown_field"
    assert answer.json()["error"]["param"] == next(iter(field))


def test_what_only_the_engine_can_tell_is_a_400_and_no_failure(http: httpx.Client) -> None:
    narrow = http.post("/v1/embeddings", json={"model": "embed", "input": "Hi", "dimensions": 64})
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}
    chat = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "response_format": schema}
    for answer in (narrow, http.post("/v1/chat/completions", json=chat)):
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_the_engines_other_routes_do_not_exist(appliance: Appliance, http: httpx.Client) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=appliance.socket("chat"))) as engine:
        statuses = {path: engine.request(method, f"http://engine{path}").status_code for method, path in FORBIDDEN}
    there = {path for path, status in statuses.items() if status != 404}
    assert {"/tokenize", "/inference/v1/generate", "/invocations", "/version"} <= there, "nothing was shown"
    for method, path in FORBIDDEN:
        assert http.request(method, path, json={}).status_code == 404, path


def test_metrics_are_the_appliances_own(http: httpx.Client) -> None:
    shown = http.get("/metrics").text
    assert "appliance_requests_total" in shown
    assert "vllm:" not in shown
