"""What tests of the cloud stand on: doubles at Unix sockets in the outlet's place, a caller that keeps all, a clock."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from appliance import config
from appliance.clearance import NotCleared
from appliance.core import Caller, Dialect, Operation, Request, Task
from appliance.dispatch.cloud.cloud import Answered, Candidate, Cloud, Masked
from appliance.observe import Metrics
from appliance.privacy.restore import Restorer
from appliance.privacy.said import Said
from tests.fakes.providers import Double, provider

CHAT = Operation("chat", "/v1/chat/completions", Task.CHAT, "messages")
MESSAGE = Operation("message", "/v1/messages", Task.CHAT, "messages", Dialect.MESSAGES)
ORIGINALS = {"Klient_001": 'Jürgen "Jogi" Müller', "Firma_001": "Bäckerei Weiß\n& Söhne"}
CLOUD_MODEL = {
    "model": "far-model", "context_length": 100_000, "prompt_euros_per_million": 1, "completion_euros_per_million": 2,
}  # fmt: skip


class Clock:
    """Goes on when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Held:
    """A `Reply` that keeps all it is given."""

    def __init__(self) -> None:
        self.begun = False
        self.ended = False
        self.body = b""
        self.sent: list[bytes] = []
        self.noted: list[tuple[bytes, bytes]] = []

    def note(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.noted += headers

    async def whole(self, body: bytes) -> None:
        self.begun = self.ended = True
        self.body = body

    async def begin(self) -> None:
        assert not self.begun
        self.begun = True

    async def frames(self, data: bytes) -> None:
        assert self.begun
        self.sent.append(data)

    async def end(self) -> None:
        self.ended = True

    @property
    def answer(self) -> dict[str, Any]:
        """The whole answer."""
        answer: dict[str, Any] = json.loads(self.body)
        return answer

    @property
    def text(self) -> str:
        """Of a stream, the text of the first choice, in either dialect."""
        deltas = [event["delta"].get("text") for event in self.events if event.get("type") == "content_block_delta"]
        choices = [choice for event in self.events for choice in event.get("choices", ()) if choice["index"] == 0]
        return "".join(filter(None, [*deltas, *(choice["delta"].get("content") for choice in choices)]))

    @property
    def arguments(self) -> list[str]:
        """Of a stream, the arguments of each call of the first choice, in either dialect."""
        calls: dict[int, list[str]] = {}
        for event in self.events:
            if event.get("delta", {}).get("type") == "input_json_delta":
                calls.setdefault(event["index"], []).append(event["delta"]["partial_json"])
            for choice in event.get("choices", ()):
                for call in choice["delta"].get("tool_calls", ()):
                    calls.setdefault(call["index"], []).append(call["function"]["arguments"])
        return ["".join(parts) for _, parts in sorted(calls.items())]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Of a stream, the data of all events but [DONE]."""
        lines = b"".join(self.sent).decode().split("\n")
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


class Far:
    """A cloud whose providers are doubles at Unix sockets."""

    def __init__(self, cloud: Cloud, clock: Clock, doubles: dict[str, Double], sockets: dict[str, Path]) -> None:
        self.cloud = cloud
        self.clock = clock
        self.doubles = doubles
        self.sockets = sockets
        self.cleared: list[tuple[str, str, str, bytes]] = []
        self.chosen: list[Candidate] = []
        self.kept = 0
        self._payload = b""
        self.reply = Held()
        self.record = Metrics().open(asked({}))

    async def clear(self, name: str, method: str, path: str, body: bytes) -> str:
        """Clears what says nothing new, as the gate does, and keeps what it was asked."""
        self.cleared.append((name, method, path, body))
        if (new := Said(self._payload).anything_new(body, {"far-model"})) is not None:
            raise NotCleared(new)
        return f"clearance-{len(self.cleared)}"

    async def keep(self) -> None:
        """What the request may use is booked."""
        assert not self.reply.begun
        self.kept += 1

    async def ask(self, payload: dict[str, Any], operation: Operation = CHAT, **changed: Any) -> Answered:
        """Serve a request, as the pipeline does."""
        return await self.prepared(payload, operation, **changed)()

    def prepared(
        self, payload: dict[str, Any], operation: Operation = CHAT, *, clear: Any = None, kept: Any = None,
        names: Sequence[str] | None = None, **changed: Any,
    ) -> Callable[[], Awaitable[Answered]]:  # fmt: skip
        """All that comes before `Cloud.serve`, and that itself when it is called."""
        request = asked(payload, operation, **changed)
        self._payload = request.payload
        self.reply, self.record = Held(), Metrics().open(request)
        candidates = self.cloud.candidates("public", list(names or self.doubles), 1000)
        masked = Masked(
            request.payload, candidates, clear or self.clear, lambda: Restorer(ORIGINALS), self.chosen.append
        )  # fmt: skip
        return partial(self.cloud.serve, request, masked, self.reply, self.record, kept or self.keep)


def asked(payload: dict[str, Any], operation: Operation = CHAT, **changed: Any) -> Request:
    """A request as the gateway would send it to an engine."""
    known: dict[str, Any] = {
        "stream": bool(payload.get("stream")), "choices": payload.get("n") or 1, "most_prompt_tokens": 500,
        "most_completion_tokens": 200,
    }  # fmt: skip
    body = json.dumps({"model": "own", **payload}).encode()
    return Request("r", Caller("k"), operation, "public", body, **known | changed)


def chat(text: str = "Guten Tag", **more: Any) -> dict[str, Any]:
    """The payload of a chat completion."""
    return {"messages": [{"role": "user", "content": text}], **more}


def message(text: str = "Guten Tag", **more: Any) -> dict[str, Any]:
    """The payload of a message."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 100, **more}


URLS = {
    "openai": "https://api.openai.com/v1",
    "azure": "https://house.openai.azure.com",
    "anthropic": "https://api.anthropic.com",
    "mistral": "https://api.mistral.ai/v1",
}


def settings(name: str, **changed: Any) -> config.Provider:
    """A provider of the config; by its name, up to a `-`, it speaks as that one does."""
    kind = name.split("-")[0]
    api = kind if kind in ("azure", "anthropic") else "openai"
    more = {"api_version": "2024-10-21"} if api == "azure" else {}
    told = {"api": api, "url": URLS[kind], "region": "eu", "models": {"public": CLOUD_MODEL}, **more, **changed}
    return config.Provider.model_validate(told)


@contextmanager
def far(*names: str, **changed: Any) -> Iterator[Far]:
    """The cloud, with a double for each name."""
    with tempfile.TemporaryDirectory(prefix="far-") as folder, ExitStack() as stack:
        sockets = {name: Path(folder) / f"{number}.sock" for number, name in enumerate(names)}
        doubles = {name: stack.enter_context(provider(address=path)) for name, path in sockets.items()}
        clock = Clock()
        cloud = Cloud({name: settings(name, **changed) for name in names}, sockets, clock)
        yield Far(cloud, clock, doubles, sockets)
