"""Writes an answer in the caller's dialect: as a stream of events, or whole."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from appliance.core import Dialect, Request, Usage
from appliance.dispatch.cloud.events import Arguments, Call, Event, Finish, Text
from appliance.dispatch.cloud.provider import Failed, Why

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


@dataclass(slots=True)
class _Choice:
    """What one choice consists of."""

    text: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    calls: list[tuple[Call, list[str]]] = field(default_factory=list)
    finish: Finish | None = None


class Gathered:
    """All events of an answer, by choice; its calls come in order."""

    def __init__(self) -> None:
        self.choices: dict[int, _Choice] = {}

    def note(self, event: Event) -> None:
        """Take one more."""
        match event:
            case Text(choice, text, refusal):
                into = self._choice(choice)
                (into.refusal if refusal else into.text).append(text)
            case Call(choice):
                self._choice(choice).calls.append((event, []))
            case Arguments(choice, index, text):
                self._choice(choice).calls[index][1].append(text)
            case Finish(choice):
                self._choice(choice).finish = event

    def _choice(self, index: int) -> _Choice:
        return self.choices.setdefault(index, _Choice())


class ChatWriter:
    """Chat completions, under the model's public name."""

    def __init__(self, request: Request) -> None:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": request.model,
        }
        self._usage_wanted = request.usage_wanted
        self._begun: set[int] = set()

    def event(self, event: Event) -> bytes:
        """Whole frames that tell of `event`; none for what callers aren't told."""
        match event:
            case Text(choice, text, refusal):
                return self._delta(choice, {"refusal" if refusal else "content": text})
            case Call(choice, index, id_, name):
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": id_, "type": "function", "function": function}
                return self._delta(choice, {"tool_calls": [call]})
            case Arguments(choice, index, text):
                return self._delta(choice, {"tool_calls": [{"index": index, "function": {"arguments": text}}]})
            case Finish(choice, reason):
                return self._delta(choice, {}, reason)
        return b""

    def _delta(self, choice: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        first = b""
        if choice not in self._begun:
            self._begun.add(choice)
            first = self._delta(choice, {"role": "assistant", "content": ""})
        told = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": reason}
        return first + _data(self._head | {"choices": [told]})

    def end(self, usage: Usage) -> bytes:
        """The frames that end the stream."""
        last = _data(self._head | {"choices": [], "usage": _chat_usage(usage)}) if self._usage_wanted else b""
        return last + b"data: [DONE]\n\n"

    def whole(self, gathered: Gathered, usage: Usage) -> bytes:
        """The answer in one."""
        choices = [_chat_choice(index, choice) for index, choice in sorted(gathered.choices.items())]
        answer = self._head | {"object": "chat.completion", "choices": choices, "usage": _chat_usage(usage)}
        return _json(answer)


def _chat_choice(index: int, choice: _Choice) -> dict[str, Any]:
    text, refusal = "".join(choice.text), "".join(choice.refusal)
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if refusal or choice.calls else "")}
    message["refusal"] = refusal or None
    if choice.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(arguments)}}
            for call, arguments in choice.calls
        ]
    reason = choice.finish.reason if choice.finish else None
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def _chat_usage(usage: Usage) -> dict[str, int]:
    total = usage.prompt_tokens + usage.completion_tokens
    return {
        "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens, "total_tokens": total,
    }  # fmt: skip


class MessageWriter:
    """Anthropic's messages, whose blocks come one after another."""

    def __init__(self, request: Request) -> None:
        self._head: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "content": [],
            "model": request.model, "stop_reason": None, "stop_sequence": None,
        }  # fmt: skip
        self._begun = False
        self._blocks = 0
        self._open: str | int | None = None
        """`text`, or the number of the call whose block is open."""
        self._finish: Finish | None = None
        self._calls = 0

    def event(self, event: Event) -> bytes:
        """Whole frames that tell of `event`. Raises `Failed` for calls that come side by side."""
        match event:
            case Text(_, text):  # a refusal is text here, and the reason to stop says what it is
                return self._into("text", {"type": "text", "text": ""}) + self._delta("text_delta", "text", text)
            case Call(_, index, id_, name):
                self._calls += 1
                return self._into(index, {"type": "tool_use", "id": id_, "name": name, "input": {}})
            case Arguments(_, index, text):
                if self._open != index:
                    raise Failed(Why.BROKEN)
                return self._delta("input_json_delta", "partial_json", text)
            case Finish():
                self._finish = event
        return b""

    def _into(self, block: str | int, start: dict[str, Any]) -> bytes:
        if self._open == block:
            return b""
        head = self._start() + self._close()
        self._open = block
        return head + _event("content_block_start", index=self._blocks, content_block=start)

    def _start(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        usage = {"input_tokens": 0, "output_tokens": 0}
        return _event("message_start", message=self._head | {"usage": usage})

    def _delta(self, kind: str, name: str, text: str) -> bytes:
        return _event("content_block_delta", index=self._blocks, delta={"type": kind, name: text})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        self._blocks += 1
        return _event("content_block_stop", index=self._blocks - 1)

    def end(self, usage: Usage) -> bytes:
        """The frames that end the stream."""
        delta = _ending(self._finish, called=bool(self._calls))
        told = _event("message_delta", delta=delta, usage=_message_usage(usage))
        return self._start() + self._close() + told + _event("message_stop")

    def whole(self, gathered: Gathered, usage: Usage) -> bytes:
        """The answer in one. Raises `Failed` where a call's arguments are no JSON object."""
        choice = gathered.choices.get(0, _Choice())
        text = "".join(choice.text + choice.refusal)
        content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        for call, arguments in choice.calls:
            content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _object(arguments)})
        ending = _ending(choice.finish, called=bool(choice.calls))
        return _json(self._head | {"content": content} | ending | {"usage": _message_usage(usage)})


def _object(arguments: list[str]) -> dict[str, Any]:
    try:
        read = json.loads("".join(arguments) or "{}")
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise Failed(Why.BROKEN)
    return read


def _ending(finish: Finish | None, *, called: bool) -> dict[str, str | None]:
    reason = _STOP_REASONS[finish.reason] if finish else None
    if reason == "end_turn" and called:  # OpenAI says `stop` after a call that it was told to make
        reason = "tool_use"
    if finish and finish.sequence is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": finish.sequence}
    return {"stop_reason": reason, "stop_sequence": None}


def _message_usage(usage: Usage) -> dict[str, int]:
    return {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}


def writer(request: Request) -> ChatWriter | MessageWriter:
    """The writer for what the caller speaks."""
    return MessageWriter(request) if request.operation.dialect is Dialect.MESSAGES else ChatWriter(request)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _data(value: object) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _event(type_: str, **fields: Any) -> bytes:
    return f"event: {type_}\n".encode() + _data({"type": type_, **fields})
