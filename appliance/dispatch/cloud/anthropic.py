"""Anthropic's messages, through its own SDK."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx2

from appliance import config
from appliance.core import Dialect, Request
from appliance.dispatch.cloud.convert import NO_LIKE, strict_schema, to_message
from appliance.dispatch.cloud.events import Arguments, Call, Event, Finish, Text, Thought, Used
from appliance.dispatch.cloud.provider import SAMPLING, Body, Clear, Failed, Unfit, Why, meaning
from appliance.dispatch.cloud.transport import ToOutlet

_KNOWN = (
    "max_tokens", "stop_sequences", "system", "messages", "tools", "tool_choice", "temperature", "top_p", "top_k",
)  # fmt: skip
_OWN_THOUGHTS = ("thinking", "redacted_thinking")
"""Blocks that only the model which thought them can read, so those of another are left out."""
_USUAL_TOKENS = 32_000
"""Of an answer to a request that names no limit, as Anthropic demands one: all its models give so many."""
_REASONS = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "tool_use": "tool_calls", "refusal": "content_filter",
}  # fmt: skip


class Anthropic:
    """A provider that speaks so."""

    def __init__(self, name: str, provider: config.Provider, socket: Path) -> None:
        """Imports the SDK, which takes some seconds. `socket` is the outlet's for this provider."""
        import anthropic

        logging.getLogger("anthropic").setLevel(logging.WARNING)  # it would tell bodies
        self._sdk = anthropic
        self._name = name
        self._socket = socket
        self._url = provider.url.rstrip("/").removesuffix("/v1")  # the SDK's own paths begin with it

    def body(self, request: Request, payload: Body, model: str, *, plain: bool) -> Body:
        """See `Provider`."""
        if request.operation.dialect is Dialect.MESSAGES:
            message = _own(payload)
        else:
            if any(payload.get(name) for name in NO_LIKE):
                raise Unfit("a field that it has no like of")
            most = request.most_completion_tokens or _USUAL_TOKENS
            message = to_message(payload, min(most, _USUAL_TOKENS))
        left_out = SAMPLING if plain else ()
        body = {name: message[name] for name in _KNOWN if message.get(name) is not None and name not in left_out}
        if tools := body.get("tools"):
            body["tools"] = [_tool(tool) for tool in tools]
        elif any(map(_tells_of_tools, body["messages"])):
            raise Unfit("calls of tools that it isn't told of")
        if form := (message.get("output_config") or {}).get("format"):
            body["output_config"] = {"format": form}
        return body | {"model": model, "stream": True}

    async def events(self, body: Body, clear: Clear) -> AsyncGenerator[Event, None]:
        """See `Provider`."""
        reader = _Reader()
        try:
            transport = ToOutlet(self._name, self._socket, clear)
            async with httpx2.AsyncClient(transport=transport, trust_env=False, timeout=None) as http:
                client: Any = self._sdk.AsyncAnthropic(
                    api_key="held-by-the-outlet", base_url=self._url, max_retries=0, http_client=http,
                    open_telemetry=False,
                )  # fmt: skip
                client._platform = "Linux"  # noqa: SLF001 - else it asks the system
                stream = await client.post(
                    "/v1/messages", cast_to=object, body=body, stream=True, stream_cls=self._sdk.AsyncStream[object]
                )
                async with stream:
                    async for told in stream:
                        for event in reader.read(told):
                            yield event
        except self._sdk.APIStatusError as error:  # an error event
            raise Failed(Why.BUSY if error.type == "overloaded_error" else Why.BROKEN) from None
        except Exception as raised:  # of whatever kind: it comes from what a provider sent
            raise meaning(raised) from None


class _Reader:
    """Reads the events of one stream."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        self._finish: Finish | None = None

    def read(self, event: Any) -> Iterator[Event]:
        match event["type"]:
            case "message_start":
                yield _used(event["message"].get("usage"))
            case "content_block_start":
                yield from self._block(event["index"], event["content_block"])
            case "content_block_delta":
                yield from self._delta(event["index"], event["delta"])
            case "message_delta":
                yield _used(event.get("usage"))
                delta = event["delta"]
                if (reason := delta.get("stop_reason")) is not None:
                    self._finish = Finish(0, _REASONS[reason], delta.get("stop_sequence"))
            case "message_stop" if self._finish is not None:
                yield self._finish

    def _block(self, index: int, block: Any) -> Iterator[Event]:
        match block["type"]:
            case "text":
                if block["text"]:
                    yield Text(0, block["text"])
            case "tool_use":
                number = self._calls[index] = len(self._calls)
                yield Call(0, number, block["id"], block["name"])
                if block.get("input"):
                    yield Arguments(0, number, json.dumps(block["input"], ensure_ascii=False))
            case "thinking" | "redacted_thinking":
                yield Thought()
            case _:  # of tools that Anthropic would run itself, for which nobody asked
                raise Failed(Why.BROKEN)

    def _delta(self, index: int, delta: Any) -> Iterator[Event]:
        match delta["type"]:
            case "text_delta":
                yield Text(0, delta["text"])
            case "input_json_delta":
                yield Arguments(0, self._calls[index], delta["partial_json"])
            case "thinking_delta":
                yield Thought()


def _used(usage: Any) -> Used:
    if not isinstance(usage, dict):
        return Used()
    read = [usage.get(name) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")]
    prompt = sum(each for each in read if isinstance(each, int))
    return Used(prompt or None, usage.get("output_tokens"))


def _own(message: Body) -> Body:
    turns = []
    for turn in message["messages"]:
        content = turn["content"]
        if isinstance(content, list):
            if any(_has_image(block) for block in content):
                raise Unfit("something other than text")
            content = [block for block in content if block["type"] not in _OWN_THOUGHTS]
        if content:
            turns.append({"role": turn["role"], "content": content})
    if not turns or turns[-1]["role"] != "user":
        raise Unfit("a conversation that no person ends")
    return message | {"messages": turns}


def _tells_of_tools(turn: Body) -> bool:
    content = turn["content"]
    return isinstance(content, list) and any(block["type"] in ("tool_use", "tool_result") for block in content)


def _has_image(block: Body) -> bool:
    content = block.get("content")
    return block["type"] == "image" or (isinstance(content, list) and any(map(_has_image, content)))


def _tool(tool: Body) -> Body:
    known = {name: tool[name] for name in ("name", "description", "input_schema") if tool.get(name) is not None}
    return known | ({"strict": True} if tool.get("strict") and strict_schema(tool["input_schema"]) else {})
