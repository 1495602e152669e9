"""The fake engine, on which most tests stand, is held against the real one.

Both get the same bytes over their sockets. What the fake sends has to be a part of what the real one sends:
the same status and framing, the same sequence of events, no field and no type of its own.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import engine as fake_engine
from tests.fakes.house import until
from tests.real.house import ANSWER, Appliance

QUESTION = [{"role": "user", "content": "Count from one to one hundred."}]
CHAT = {"model": "chat", "messages": QUESTION, "max_tokens": 6, "temperature": 0}
PROMPT = {"model": "chat", "prompt": "Once upon a time", "max_tokens": 6, "temperature": 0}
INPUT = {"model": "chat", "input": "Count from one to one hundred.", "max_output_tokens": 6, "temperature": 0}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
LONG = [{"role": "user", "content": "word " * 9000}]
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("chat", "/v1/chat/completions", CHAT),
    ("chat with logprobs", "/v1/chat/completions", CHAT | {"logprobs": True}),
    ("chat stream", "/v1/chat/completions", CHAT | USAGE),
    ("chat stream of two", "/v1/chat/completions", CHAT | USAGE | {"n": 2, "temperature": 1}),
    ("completion", "/v1/completions", PROMPT),
    ("completion stream", "/v1/completions", PROMPT | USAGE),
    ("response", "/v1/responses", INPUT),
    ("response stream", "/v1/responses", INPUT | {"stream": True}),
    ("message", "/v1/messages", CHAT),
    ("message stream", "/v1/messages", CHAT | {"stream": True}),
    ("count_tokens", "/v1/messages/count_tokens", {"model": "chat", "messages": QUESTION}),
    ("embedding", "/v1/embeddings", {"model": "embed", "input": ["one", "two"]}),
    ("rerank", "/v1/rerank", {"model": "embed", "query": "one", "documents": ["one", "two"]}),
    ("score", "/v1/score", {"model": "embed", "text_1": "one", "text_2": ["one", "two"]}),
    ("too long for chat", "/v1/chat/completions", {"model": "chat", "messages": LONG}),
    ("too long for messages", "/v1/messages", {"model": "chat", "messages": LONG, "max_tokens": 6}),
    ("unknown model", "/v1/chat/completions", CHAT | {"model": "nobody"}),
    ("unknown path", "/v1/nothing", {}),
]


@pytest.fixture(scope="module")
def sockets(appliance: Appliance) -> Iterator[dict[tuple[str, str], str]]:
    """Socket by kind of engine and model."""
    with tempfile.TemporaryDirectory(prefix="fake-") as folder:
        fakes = {}
        for model, length in (("chat", "8192"), ("embed", "256")):
            socket = Path(folder) / f"{model}.sock"
            options = ["--uds", str(socket), "--model", folder, "--served-model-name", model, "--max-model-len", length]
            options += ["--runner", "pooling"] if model == "embed" else []
            fakes[model] = subprocess.Popen(
                [sys.executable, fake_engine.__file__, *options], env={"HOME": folder}, stdout=subprocess.DEVNULL
            )
            until(socket.exists)
        yield {
            **{("fake", model): f"{folder}/{model}.sock" for model in fakes},
            **{("real", model): appliance.socket(model) for model in fakes},
        }
        for process in fakes.values():
            process.kill()
            process.wait()


def ask(socket: str, path: str, body: dict[str, Any]) -> httpx.Response:
    """An engine's answer."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=ANSWER) as client:
        return client.post(f"http://engine{path}", json=body)


def framing(answer: httpx.Response) -> dict[str, Any]:
    """How a client finds the end of an answer, and what it takes it for."""
    headers = answer.headers
    kind = headers.get("content-type", "").replace(" ", "")
    return {"type": kind, "length": "content-length" in headers, "chunked": headers.get("transfer-encoding")}


def events(answer: httpx.Response) -> list[tuple[str, Any]]:
    """Name and data of each event; an answer in one piece is one event."""
    if "event-stream" not in answer.headers["content-type"]:
        return [("whole", answer.json())]
    found = []
    for frame in answer.text.removesuffix("\n\n").split("\n\n"):
        name, _, data = frame.rpartition("data: ")
        found.append((name.strip(), data if data == "[DONE]" else json.loads(data)))
    return found


def story(answer: httpx.Response) -> list[str]:
    """The sequence of events, repetitions folded; of several choices one after the other: they race."""
    steps: dict[int, list[str]] = {}
    for name, data in events(answer):
        about, choice = "", 0
        if data == "[DONE]":
            about, choice = data, 99
        elif "choices" in data and not data["choices"]:
            about, choice = "usage", 98
        elif "choices" in data:
            (first, *_) = data["choices"]
            about, choice = "last token" if first["finish_reason"] else "token", first["index"]
        steps.setdefault(choice, []).append(f"{name} {about}".strip())
    return [step for _, each in sorted(steps.items()) for step, _ in itertools.groupby(each)]


def strange(fake: Any, real: Any, where: str = "") -> Iterator[str]:
    """Where `fake` has a field or a type that `real` hasn't. Null says nothing about a type."""
    if isinstance(fake, dict) and isinstance(real, dict):
        for key, value in fake.items():
            if key in real:
                yield from strange(value, real[key], f"{where}.{key}")
            else:
                yield f"{where}.{key} is only in the fake"
    elif isinstance(fake, list) and isinstance(real, list):
        for value in fake[:1] if real else []:
            yield from strange(value, real[0], f"{where}[]")
    elif fake is not None and real is not None:
        numbers = isinstance(fake, int | float) and isinstance(real, int | float)
        if type(fake) is not type(real) and not numbers:
            yield f"{where} is {type(fake).__name__}, in truth {type(real).__name__}"


@pytest.mark.parametrize(("path", "body"), [each[1:] for each in REQUESTS], ids=[each[0] for each in REQUESTS])
def test_the_fake_answers_as_the_real_engine_does(
    sockets: dict[tuple[str, str], str], path: str, body: dict[str, Any]
) -> None:
    model = "embed" if body.get("model") == "embed" else "chat"
    fake, real = (ask(sockets[kind, model], path, body) for kind in ("fake", "real"))
    assert fake.status_code == real.status_code
    assert framing(fake) == framing(real)
    assert story(fake) == story(real)
    truth = dict(zip(story_names(real), events(real), strict=True))
    assert [
        line
        for name, (_, data) in zip(story_names(fake), events(fake), strict=True)
        if name in truth
        for line in strange(data, truth[name][1], name)
    ] == []


def story_names(answer: httpx.Response) -> list[str]:
    """A name for each event by which the same one is found in another engine's answer."""
    names = []
    for name, data in events(answer):
        choices = data.get("choices") if isinstance(data, dict) else None
        names.append(f"{name} {sorted(choices[0]) if choices else choices}")
    return names


def test_the_supervisors_counters_are_in_both(sockets: dict[tuple[str, str], str]) -> None:
    def counters(socket: str) -> set[str]:
        with httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=ANSWER) as client:
            lines = client.get("http://engine/metrics").text.splitlines()
        return {line.split("{")[0] for line in lines if line.startswith("vllm:")}

    fake, real = (counters(sockets[kind, "chat"]) for kind in ("fake", "real"))
    assert {"vllm:num_requests_running", "vllm:generation_tokens_total"} <= fake
    assert fake <= real
