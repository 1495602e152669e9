"""Providers that speak OpenAI's chat completions, Azure's among them, through OpenAI's own SDK."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx2

from appliance import config
from appliance.core import Dialect, Request
from appliance.dispatch.cloud.convert import to_chat
from appliance.dispatch.cloud.events import Arguments, Call, Event, Finish, Text, Thought, Used
from appliance.dispatch.cloud.habits import habits
from appliance.dispatch.cloud.provider import Body, Clear, Failed, Why, meaning
from appliance.dispatch.cloud.transport import ToOutlet

_REASONS = {
    "stop": "stop", "eos": "stop", "length": "length", "model_length": "length", "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}  # fmt: skip


class OpenAI:
    """One such provider."""

    def __init__(self, name: str, provider: config.Provider, socket: Path) -> None:
        """Imports the SDK, which takes a second or two. `socket` is the outlet's for this provider."""
        import openai

        logging.getLogger("openai").setLevel(logging.WARNING)  # it would tell bodies
        self._sdk = openai
        self._name = name
        self._provider = provider
        self._socket = socket
        self._habits = habits(provider)

    def body(self, request: Request, payload: Body, model: str, *, plain: bool) -> Body:
        """See `Provider`."""
        chat = to_chat(payload) if request.operation.dialect is Dialect.MESSAGES else payload
        return self._habits.body(chat, model, plain=plain)

    async def events(self, body: Body, clear: Clear) -> AsyncGenerator[Event, None]:
        """See `Provider`."""
        reader = _Reader()
        try:
            async with self._http(clear) as http:
                stream = await self._client(http).post(
                    "/chat/completions", cast_to=object, body=body, stream=True,
                    stream_cls=self._sdk.AsyncStream[object],
                )  # fmt: skip
                async with stream:
                    async for chunk in stream:
                        for event in reader.read(chunk):
                            yield event
        except Exception as raised:  # of whatever kind: it comes from what a provider sent
            raise meaning(raised) from None

    def _http(self, clear: Clear) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=ToOutlet(self._name, self._socket, clear), trust_env=False, timeout=None
        )  # fmt: skip

    def _client(self, http: httpx2.AsyncClient) -> Any:
        key = "held-by-the-outlet"
        provider = self._provider
        if provider.api == "azure":
            client: Any = self._sdk.AsyncAzureOpenAI(
                api_key=key, azure_endpoint=provider.url, api_version=provider.api_version, max_retries=0,
                http_client=http,
            )  # fmt: skip
        else:
            client = self._sdk.AsyncOpenAI(api_key=key, base_url=provider.url, max_retries=0, http_client=http)
        client._platform = "Linux"  # noqa: SLF001 - else it asks the system, and starts a program for that
        return client


class _Reader:
    """Reads the chunks of one stream."""

    def __init__(self) -> None:
        self._calls: dict[tuple[int, int | None], tuple[int, str]] = {}
        """By choice and the provider's number: ours, and the call's id."""
        self._begun: Counter[int] = Counter()

    def read(self, chunk: Any) -> Iterator[Event]:
        if usage := chunk.get("usage"):
            yield Used(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        for choice in chunk.get("choices") or ():
            index = choice.get("index", 0)
            delta = choice.get("delta") or {}
            if delta.get("reasoning_content") or delta.get("reasoning"):
                yield Thought()
            yield from _texts(index, delta.get("content"))
            if refusal := delta.get("refusal"):
                yield Text(index, refusal, refusal=True)
            for call in delta.get("tool_calls") or ():
                yield from self._call(index, call)
            if delta.get("function_call"):
                raise Failed(Why.BROKEN)
            if (reason := choice.get("finish_reason")) is not None:
                if reason not in _REASONS:
                    raise Failed(Why.BROKEN)
                yield Finish(index, _REASONS[reason])

    def _call(self, choice: int, call: Any) -> Iterator[Event]:
        key, function, id_ = (choice, call.get("index")), call.get("function") or {}, call.get("id")
        known = self._calls.get(key)
        # some providers don't number calls, or give all the same number
        new = known is None or (id_ != known[1] if id_ else key[1] is None)
        if new and (name := function.get("name")):
            known = self._begun[choice], id_ or f"call_{secrets.token_hex(12)}"
            self._calls[key] = known
            self._begun[choice] += 1
            yield Call(choice, *known, name)
        if known is None:
            raise Failed(Why.BROKEN)
        if arguments := function.get("arguments"):
            yield Arguments(choice, known[0], arguments)


def _texts(choice: int, content: Any) -> Iterator[Event]:
    if isinstance(content, list):  # Mistral's models that think first
        for part in content:
            yield Text(choice, part["text"]) if part["type"] == "text" else Thought()
    elif content:
        yield Text(choice, content)
