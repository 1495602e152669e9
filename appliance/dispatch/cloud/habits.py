"""What providers that speak OpenAI's chat completions take: they are alike, and each is different somewhere.

Told apart by the host of their URL. What isn't known by name gets what all of them take. Sources, November 2026:
OpenAI's and Azure's API references; Mistral answers 422 to every field that it doesn't know, and to ids of calls that
aren't nine letters and digits; Cohere's compatibility API refuses `stream_options`, `n` and `parallel_tool_calls`.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from appliance import config
from appliance.dispatch.cloud.convert import NO_LIKE, plain_text, strict_schema
from appliance.dispatch.cloud.provider import SAMPLING, Body, Unfit

_FIELDS = (
    "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "stop", "n", "temperature", "top_p",
    "frequency_penalty", "presence_penalty", "seed", "reasoning_effort",
)  # fmt: skip
"""Those that go out as they are; others are the engine's own, or are set here."""
_MESSAGE_FIELDS = ("role", "content", "name", "refusal", "tool_calls", "tool_call_id")
_MOST_STOPS = 4


@dataclass(frozen=True, slots=True)
class Habits:
    """How a provider differs from the others."""

    limit: str = "max_tokens"
    """The field for the most tokens of an answer."""
    parts: bool = False
    """It knows refusals, and content in parts."""
    tells_usage: bool = True
    """It takes the wish for usage at the end of a stream. Without, it tells none, or always."""
    names: bool = True
    """It takes names of who speaks."""
    short_ids: bool = False
    """It takes ids of calls only in its own form, nine letters and digits."""
    unknown: frozenset[str] = frozenset({"reasoning_effort"})
    """Fields that it refuses."""

    def body(self, chat: Body, model: str, *, plain: bool) -> Body:
        """A request that asks `model` there for what `chat` asks the engine. Raises `Unfit`."""
        if any(chat.get(name) for name in NO_LIKE):
            raise Unfit("a field that it has no like of")
        left_out = self.unknown | SAMPLING if plain else self.unknown
        if "n" in left_out and (chat.get("n") or 1) != 1:
            raise Unfit("it gives one answer only")
        if "parallel_tool_calls" in left_out and chat.get("parallel_tool_calls") is False:
            raise Unfit("it calls as many tools as it likes")
        body = {name: chat[name] for name in _FIELDS if name not in left_out and chat.get(name) is not None}
        if isinstance(body.get("stop"), list) and len(body["stop"]) > _MOST_STOPS:
            raise Unfit("more stop sequences than it takes")
        _bind(body, chat.get("structured_outputs"))
        body["messages"] = [self._message(message) for message in chat["messages"]]
        if tools := body.get("tools"):
            body["tools"] = [_tool(tool["function"]) for tool in tools]
        else:
            for name in ("tools", "tool_choice", "parallel_tool_calls"):
                body.pop(name, None)
        limit = chat.get("max_completion_tokens") or chat.get("max_tokens")
        if limit is not None:
            body[self.limit] = limit
        if self.tells_usage:
            body["stream_options"] = {"include_usage": True}
        return body | {"model": model, "stream": True}

    def _message(self, message: Body) -> Body:
        told = {name: message[name] for name in _MESSAGE_FIELDS if message.get(name) is not None}
        if told["role"] == "tool":
            told.pop("name", None)
        if "name" in told and not self.names:
            raise Unfit("names of who speaks")
        if told["role"] == "developer":  # all know `system`, and OpenAI's own models take it for the same
            told["role"] = "system"
        if not self.parts:
            refusal = told.pop("refusal", None)
            content = told.get("content") or refusal
            if content is not None:
                told["content"] = plain_text(content)
        elif not isinstance(told.get("content", ""), str):
            plain_text(told["content"])  # raises for parts that are no text
        if self.short_ids and not all(map(_is_short, _ids(told))):
            raise Unfit("ids of calls that it doesn't take")  # others in their place would be nothing that was cleared
        return told


_OPENAI = Habits(limit="max_completion_tokens", parts=True, unknown=frozenset())
_KNOWN = {
    "openai.com": _OPENAI,
    "openai.azure.com": _OPENAI,
    "mistral.ai": Habits(
        tells_usage=False, names=False, short_ids=True, unknown=frozenset({"reasoning_effort", "seed"})
    ),
    "cohere.ai": (_COHERE := Habits(
        tells_usage=False, unknown=frozenset({"reasoning_effort", "n", "parallel_tool_calls"})
    )),
    "cohere.com": _COHERE,
}  # fmt: skip


def habits(provider: config.Provider) -> Habits:
    """Those of a provider of the config."""
    if provider.api == "azure":
        return _OPENAI
    host = urlsplit(provider.url).hostname or ""
    return next((each for name, each in _KNOWN.items() if host == name or host.endswith(f".{name}")), Habits())


def _tool(function: Body) -> Body:
    """Strict only where its schema is: the gateway asks its own engine for it where a call must be made."""
    told = {name: function[name] for name in ("name", "description", "parameters") if function.get(name) is not None}
    strict = {"strict": True} if function.get("strict") and strict_schema(function.get("parameters")) else {}
    return {"type": "function", "function": told | strict}


def _bind(body: Body, structured: Body | None) -> None:
    """Say in the provider's way what vLLM's `structured_outputs` says."""
    if not structured:
        return
    schema = structured.get("json")
    if schema is None or body.get("response_format"):
        raise Unfit("it can't bind an answer to patterns or choices")
    named = {"name": "answer", "schema": schema, "strict": strict_schema(schema)}
    body["response_format"] = {"type": "json_schema", "json_schema": named}


def _ids(message: Body) -> list[str]:
    answered = [message["tool_call_id"]] if "tool_call_id" in message else []
    return answered + [call["id"] for call in message.get("tool_calls") or ()]


def _is_short(id_: str) -> bool:
    return len(id_) == 9 and id_.isascii() and id_.isalnum()
