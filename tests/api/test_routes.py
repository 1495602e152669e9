"""What can be reached from outside, what can't, and how that is said."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from appliance.api.routes import MODEL_ROUTES, ROUTES
from tests.fakes.house import Running

ENGINE_ONLY = [
    "/tokenize", "/detokenize", "/pooling", "/classify", "/invocations", "/ping", "/version", "/load", "/rerank",
    "/score", "/v2/rerank", "/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache", "/scale_elastic_ep",
    "/is_scaling_elastic_ep", "/inference/v1/generate", "/inference/v1/abort_requests", "/v1/load_lora_adapter",
    "/v1/audio/transcriptions", "/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/v1/chat/completions/render",
    "/v1/chat/completions/batch", "/server_info", "/start_profile", "/redoc", "/status", "/apply", "/keys/lend",
    "/v1", "/", "/V1/models", "/v1/chat/completions/", "/v1/chat", "/docs/../x", "/metrics/",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ENGINE_ONLY)
def test_what_is_not_on_the_list_is_a_404_in_the_envelope(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code in (400, 404) if ".." in path else answer.status_code == 404
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] in ("unknown_path", "invalid_request_target")


def test_everything_on_the_list_is_there(client: httpx.Client) -> None:
    for method, path in ROUTES:
        if method == "GET":
            concrete = path.format(model="chat", asset="favicon.png", id="reveal_0", seq="1")
            assert client.get(concrete).status_code == (403 if path.startswith("/admin") else 200), path
    for route in MODEL_ROUTES:
        assert client.post(route.operation.path, json={}).status_code == 400, route.operation.path


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
def test_another_method_is_a_405_that_says_which(client: httpx.Client, method: str) -> None:
    for route in MODEL_ROUTES:
        answer = client.request(method, route.operation.path)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
        if method != "HEAD":
            assert "error" in answer.json()
    assert client.post("/v1/models").status_code == 405


def test_the_anthropic_envelope_is_used_under_its_path(client: httpx.Client) -> None:
    for answer in (client.get("/v1/messages"), client.post("/v1/messages/nope"), client.post("/v1/messages", json={})):
        body = answer.json()
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": "Basic abc"},
        {"x-api-key": "wrong"},
        {"authorization": "KEY"},
        {"x-api-key": "ü".encode("latin-1").decode("latin-1")},
    ],
)
def test_without_the_key_there_is_nothing_but_health_docs_and_counts(shared: Running, headers: dict[str, str]) -> None:
    sent: Any = {name: value.replace("KEY", shared.key).encode("latin-1") for name, value in headers.items()}
    with httpx.Client(base_url=shared.base_url, headers=sent) as stranger:
        heard = len(shared.house.heard())
        for route in MODEL_ROUTES:
            answer = stranger.post(route.operation.path, json={"model": "chat"})
            assert answer.status_code == 401
            error = answer.json()["error"]
            assert error["type"] == "authentication_error"
            assert "wrong" not in answer.text
        assert stranger.get("/v1/models").status_code == 401
        assert stranger.get("/v1/models/chat").status_code == 401
        assert stranger.get("/health/ready").status_code == 200
        assert len(shared.house.heard()) == heard


def test_both_ways_to_send_a_key_open(shared: Running) -> None:
    for headers in ({"authorization": f"bearer {shared.key}"}, {"x-api-key": shared.key}):
        assert httpx.get(f"{shared.base_url}/v1/models", headers=headers).status_code == 200


def test_models_come_in_both_shapes(client: httpx.Client) -> None:
    plain = client.get("/v1/models").json()
    assert plain["object"] == "list"
    assert plain["data"][0] == plain["data"][0] | {
        "id": "chat", "object": "model", "owned_by": "appliance", "max_model_len": 512,
    }  # fmt: skip
    other = client.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()
    assert (other["first_id"], other["last_id"], other["has_more"]) == ("chat", "vectors", False)
    assert other["data"][0]["type"] == "model"
    assert client.get("/v1/models/nope").status_code == 404


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abc-123", True),
        ("a.b:c_d", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("<b>", False),
        ("", False),
    ],
)
def test_a_request_id_comes_back_or_is_made(client: httpx.Client, sent: str, kept: bool) -> None:
    for body in ({}, {"model": "chat", "messages": [{"role": "user", "content": "x"}]}):
        for stream in (False, True):
            answer = client.post(
                "/v1/chat/completions", json={**body, "stream": stream}, headers={"x-request-id": sent}
            )
            back = answer.headers["x-request-id"]
            assert (back == sent) if kept else re.fullmatch(r"req_[0-9a-f]{24}", back)


def test_every_answer_has_a_request_id(client: httpx.Client) -> None:
    for path in ("/v1/models", "/health/live", "/metrics", "/docs", "/openapi.json", "/nowhere", "/v1/messages"):
        assert client.get(path, headers={"x-request-id": "mine"}).headers.get_list("x-request-id") == ["mine"], path
        assert re.fullmatch(r"req_[0-9a-f]{24}", client.get(path).headers["x-request-id"]), path


def test_the_docs_load_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs").text
    links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page)
    assert links
    for link in links:
        assert link.startswith("/")
        assert client.get(link).status_code == 200
    schema = client.get("/openapi.json").json()
    assert {route.operation.path for route in MODEL_ROUTES} < set(schema["paths"])
    text = json.dumps(schema)
    for reference in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', text):
        assert reference in schema["components"]["schemas"], reference
    assert not re.findall(r'"https?://[^"]+', text)


def test_metrics_count_what_happened(client: httpx.Client) -> None:
    ask = {"model": "chat", "messages": [{"role": "user", "content": "tokens=3"}]}

    def counted(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    client.post("/v1/chat/completions", json=ask)
    (version,) = re.findall(r'outcome="answered",version="(tiny@[0-9a-f]{8})"', client.get("/metrics").text)
    answered = f'appliance_requests_total{{model="chat",operation="chat",outcome="answered",version="{version}"}}'
    tokens = f'appliance_tokens_total{{kind="completion",model="chat",version="{version}"}}'
    before = counted(answered), counted(tokens)
    client.post("/v1/chat/completions", json=ask)
    client.post("/v1/chat/completions", json=ask | {"stream": True})
    assert (counted(answered), counted(tokens)) == (before[0] + 2, before[1] + 6)
    assert counted('appliance_engine_state{model="chat",state="ready"}') == 1
    refused = counted('appliance_refusals_total{code="model_not_found"}')
    client.post("/v1/chat/completions", json=ask | {"model": "nope"})
    assert counted('appliance_refusals_total{code="model_not_found"}') == refused + 1
