"""The wire formats of OpenAI and of Anthropic, as their references document them, for doubles of providers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 422: "invalid_request_error", 429: "rate_limit_error", 500: "api_error",
    503: "service_unavailable", 529: "overloaded_error",
}  # fmt: skip
CHAT_FIELDS = {
    "messages", "model", "stream", "stream_options", "max_completion_tokens", "max_tokens", "temperature", "top_p", "n",
    "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format", "seed", "frequency_penalty",
    "presence_penalty", "reasoning_effort",
}  # fmt: skip
MESSAGE_FIELDS = {
    "messages", "model", "stream", "max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "system", "tools",
    "tool_choice", "output_config", "thinking", "metadata",
}  # fmt: skip


@dataclass(frozen=True)
class Play:
    """One answer of a double."""

    text: str | None = None
    """None: what the last message said, repeated."""
    tools: list[tuple[str, str, str]] = field(default_factory=list)
    """Calls: id, name, JSON of the arguments."""
    finish: str | None = None
    """In the dialect's own word; None: what fits."""
    status: int = 200
    message: str = "it went wrong"
    """Of an error."""
    headers: dict[str, str] = field(default_factory=dict)
    size: int = 4
    """Characters in each event of a stream."""
    events: int | None = None
    """Of a stream, only so many are sent; then the connection breaks, or `error` comes."""
    error: bool = False
    """An error event comes after `events` of them."""
    body: bytes | None = None
    """Sent instead of any answer, as it is."""
    kind: str = "text/event-stream"
    refusal: tuple[int, dict[str, Any]] | None = None
    """Status and JSON, sent as they are: for what stands in front of a provider and refuses in its place."""
    hold: threading.Event | None = None
    """Waited for before the first byte."""
    pause: threading.Event | None = None
    """Waited for after `events` events, which then are all that come before the rest."""
    cuts: Sequence[int] | None = None
    """Of a stream, the bytes before which it is cut; None: after each event."""
    usage: tuple[int, int] | None = (11, 7)


@dataclass(frozen=True)
class Heard:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    """Names in lower case."""
    raw: bytes

    @property
    def path(self) -> str:
        """With its query."""
        return self.line.split(" ")[1]

    @property
    def body(self) -> dict[str, Any]:
        """Its JSON."""
        return cast(dict[str, Any], json.loads(self.raw))


def _pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _text(body: dict[str, Any], play: Play) -> str:
    if play.text is not None or play.tools:
        return play.text or ""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text") or part.get("content")) for part in content)


class Chat:
    """As OpenAI speaks."""

    def __init__(self, heard: Heard, play: Play) -> None:
        self._heard, self._play = heard, play
        self._text = _text(heard.body, play)
        self._base = {"id": "chatcmpl-far", "created": 1700000000, "model": f"{heard.body.get('model')}-2026-01-01"}

    @property
    def _finish(self) -> str:
        return self._play.finish or ("tool_calls" if self._play.tools else "stop")

    def problem(self, key: str | None) -> tuple[int, str] | None:
        headers, body = self._heard.headers, self._heard.body
        azure = "/deployments/" in self._heard.path
        told = headers.get("api-key") if azure else headers.get("authorization", "").removeprefix("Bearer ")
        if key is not None and told != key:
            return 401, f"Incorrect API key provided: {told}"
        if azure and "?api-version=" not in self._heard.path:
            return 404, "Resource not found"
        if unknown := body.keys() - CHAT_FIELDS:
            return 400, f"Unrecognized request argument supplied: {', '.join(sorted(unknown))}"
        if not {"model", "messages"} <= body.keys():
            return 400, "you must provide a model and messages"
        return None

    def limits(self) -> dict[str, str]:
        limits = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"}
        return {"x-request-id": "req_far", "openai-processing-ms": "12", **limits, **self._play.headers}

    def error(self, status: int, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": ERRORS[status], "param": None, "code": None}}

    def error_event(self) -> bytes:
        return b"data: " + json.dumps(self.error(500, self._play.message)).encode() + b"\n\n"

    def _usage(self) -> dict[str, Any] | None:
        if self._play.usage is None:
            return None
        prompt, completion = self._play.usage
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self._text or None, "refusal": None}
        if self._play.tools:
            message["tool_calls"] = [
                {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
                for id_, name, arguments in self._play.tools
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish}
        return self._base | {"object": "chat.completion", "choices": [choice], "usage": self._usage()}

    def events(self) -> Iterator[bytes]:
        for choice in range(self._heard.body.get("n") or 1):
            yield self._chunk(choice, {"role": "assistant", "content": "", "refusal": None})
            for piece in _pieces(self._text, self._play.size):
                yield self._chunk(choice, {"content": piece})
            for index, (id_, name, arguments) in enumerate(self._play.tools):
                function = {"name": name, "arguments": ""}
                call: dict[str, Any] = {"index": index, "id": id_, "type": "function", "function": function}
                yield self._chunk(choice, {"tool_calls": [call]})
                for piece in _pieces(arguments, self._play.size):
                    yield self._chunk(choice, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            yield self._chunk(choice, {}, self._finish)
        if (self._heard.body.get("stream_options") or {}).get("include_usage"):
            yield self._data({"choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _chunk(self, index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._data({"choices": [choice], "usage": None})

    def _data(self, fields: dict[str, Any]) -> bytes:
        chunk = self._base | {"object": "chat.completion.chunk", "service_tier": "default"} | fields
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Messages:
    """As Anthropic speaks."""

    def __init__(self, heard: Heard, play: Play) -> None:
        self._heard, self._play = heard, play
        self._text = _text(heard.body, play)

    @property
    def _finish(self) -> str:
        return self._play.finish or ("tool_use" if self._play.tools else "end_turn")

    def problem(self, key: str | None) -> tuple[int, str] | None:
        headers, body = self._heard.headers, self._heard.body
        if key is not None and headers.get("x-api-key") != key:
            return 401, "invalid x-api-key"
        if key is not None and "anthropic-version" not in headers:
            return 400, "anthropic-version: header is required"
        for name in sorted(body.keys() - MESSAGE_FIELDS):
            return 400, f"{name}: Extra inputs are not permitted"
        for name in ("model", "messages", "max_tokens"):
            if name not in body:
                return 400, f"{name}: Field required"
        if body["messages"][0]["role"] != "user":
            return 400, "messages: first message must use the user role"
        for turn in body["messages"]:
            if turn["role"] not in ("user", "assistant") or not turn["content"]:
                return 400, "messages: wrong role, or text content blocks must be non-empty"
        return None

    def limits(self) -> dict[str, str]:
        limits = {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49"}
        return {"request-id": "req_far", **limits, **self._play.headers}

    def error(self, status: int, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": ERRORS[status], "message": message}, "request_id": "req_far"}

    def error_event(self) -> bytes:
        return b"event: error\ndata: " + json.dumps(self.error(529, self._play.message)).encode() + b"\n\n"

    def _message(self, usage: dict[str, int]) -> dict[str, Any]:
        return {
            "id": "msg_far", "type": "message", "role": "assistant", "content": [],
            "model": f"{self._heard.body['model']}-20260101", "stop_reason": None, "stop_sequence": None,
            "usage": usage,
        }  # fmt: skip

    def _sequence(self) -> str | None:
        return self._heard.body["stop_sequences"][0] if self._finish == "stop_sequence" else None

    def whole(self) -> dict[str, Any]:
        prompt, completion = self._play.usage or (0, 0)
        content: list[dict[str, Any]] = [{"type": "text", "text": self._text}] if self._text else []
        for id_, name, arguments in self._play.tools:
            content.append({"type": "tool_use", "id": id_, "name": name, "input": json.loads(arguments)})
        usage = {"input_tokens": prompt, "output_tokens": completion}
        ending = {"content": content, "stop_reason": self._finish, "stop_sequence": self._sequence()}
        return self._message(usage) | ending

    def events(self) -> Iterator[bytes]:
        prompt, completion = self._play.usage or (0, 0)
        usage = {"input_tokens": prompt, "cache_read_input_tokens": 0, "output_tokens": 1}
        yield self._event("message_start", message=self._message(usage))
        yield self._event("ping")
        blocks = 0
        if self._text:
            yield self._event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            for piece in _pieces(self._text, self._play.size):
                yield self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
            yield self._event("content_block_stop", index=0)
            blocks = 1
        for index, (id_, name, arguments) in enumerate(self._play.tools, blocks):
            block = {"type": "tool_use", "id": id_, "name": name, "input": {}}
            yield self._event("content_block_start", index=index, content_block=block)
            for piece in _pieces(arguments, self._play.size):
                delta = {"type": "input_json_delta", "partial_json": piece}
                yield self._event("content_block_delta", index=index, delta=delta)
            yield self._event("content_block_stop", index=index)
        ending = {"stop_reason": self._finish, "stop_sequence": self._sequence()}
        yield self._event("message_delta", delta=ending, usage={"output_tokens": completion})
        yield self._event("message_stop")

    def _event(self, type_: str, **fields: Any) -> bytes:
        return f"event: {type_}\ndata: {json.dumps({'type': type_, **fields})}\n\n".encode()
