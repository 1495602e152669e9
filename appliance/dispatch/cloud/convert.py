"""Requests from one dialect into the other. What has no like in the other one is not guessed: `Unfit`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from appliance.dispatch.cloud.provider import Body, Unfit

_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NO_LIKE = ("logprobs", "top_logprobs", "logit_bias", "min_tokens")
"""Fields of chat completions whose answers could not be restored, or that count in our own model's tokens."""
_SHARED = ("temperature", "top_p", "top_k")


def to_chat(message: Body) -> Body:
    """A request for a message, as one for a chat completion."""
    chat: Body = {name: message[name] for name in _SHARED if message.get(name) is not None}
    chat["max_tokens"] = message["max_tokens"]
    if stop := message.get("stop_sequences"):
        chat["stop"] = stop
    messages: list[Body] = []
    if system := message.get("system"):
        messages.append({"role": "system", "content": plain_text(system)})
    for turn in message["messages"]:
        messages.extend(_assistant_turn(turn) if turn["role"] == "assistant" else _user_turn(turn))
    if not messages or messages[-1]["role"] == "assistant":
        raise Unfit("it can't go on with a text of its own")
    chat["messages"] = messages
    if tools := message.get("tools"):
        chat["tools"] = [
            {"type": "function", "function": _without_none(
                name=tool["name"], description=tool.get("description"), parameters=tool["input_schema"],
                strict=tool.get("strict"),
            )}
            for tool in tools
        ]  # fmt: skip
        choice = message.get("tool_choice") or {"type": "auto"}
        chat["tool_choice"] = {
            "auto": "auto", "any": "required", "none": "none",
            "tool": {"type": "function", "function": {"name": choice.get("name")}},
        }[choice["type"]]  # fmt: skip
        if choice.get("disable_parallel_tool_use"):
            chat["parallel_tool_calls"] = False
    config = message.get("output_config") or {}
    if form := config.get("format"):
        schema = form["schema"]
        named = {"name": "answer", "schema": schema, "strict": strict_schema(schema)}
        chat["response_format"] = {"type": "json_schema", "json_schema": named}
    return chat


def _user_turn(turn: Body) -> Iterable[Body]:
    content = turn["content"]
    if isinstance(content, str):
        yield {"role": "user", "content": content}
        return
    for block in content:
        if block["type"] == "tool_result":
            told = plain_text(block.get("content") or "")
            yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": told}
    texts = [block for block in content if block["type"] != "tool_result"]
    if texts:
        yield {"role": "user", "content": plain_text(texts)}


def _assistant_turn(turn: Body) -> Iterable[Body]:
    content = turn["content"]
    if isinstance(content, str):
        yield {"role": "assistant", "content": content}
        return
    said = [block for block in content if block["type"] not in ("tool_use", "thinking", "redacted_thinking")]
    calls = [
        {
            "id": block["id"],
            "type": "function",
            "function": {"name": block["name"], "arguments": json.dumps(block["input"], ensure_ascii=False)},
        }
        for block in content
        if block["type"] == "tool_use"
    ]
    if said or calls:
        yield _without_none(role="assistant", content=plain_text(said) or None, tool_calls=calls or None)


def to_message(chat: Body, most_tokens: int) -> Body:
    """A request for a chat completion, as one for a message; `most_tokens` where it names no limit."""
    if (chat.get("n") or 1) != 1:
        raise Unfit("it gives one answer only")
    message: Body = {name: chat[name] for name in _SHARED if chat.get(name) is not None}
    if message.get("top_k") is not None and message["top_k"] < 1:
        del message["top_k"]
    if message.get("temperature", 0) > 1:
        raise Unfit("a temperature over 1")
    message["max_tokens"] = chat.get("max_completion_tokens") or chat.get("max_tokens") or most_tokens
    if stop := chat.get("stop"):
        message["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        if not all(each.strip() for each in message["stop_sequences"]):
            raise Unfit("a stop sequence of white space alone")
    turns = list(chat["messages"])
    system = []
    while turns and turns[0]["role"] in ("system", "developer"):
        system.append(plain_text(turns.pop(0)["content"]))
    if system:
        message["system"] = "\n\n".join(system)
    message["messages"] = _turns(turns)
    if tools := chat.get("tools"):
        message["tools"] = [_tool(tool["function"]) for tool in tools]
        message["tool_choice"] = _tool_choice(chat)
    if (form := _format(chat)) is not None:
        message["output_config"] = {"format": {"type": "json_schema", "schema": form}}
    return message


def _turns(messages: list[Body]) -> list[Body]:
    turns: list[Body] = []
    for message in messages:
        match message["role"]:
            case "user":
                role, blocks = "user", _text_blocks(message.get("content"))
            case "assistant":
                role, blocks = "assistant", _said(message)
            case "tool":
                role, blocks = "user", [_result(message)]
            case _:
                raise Unfit("instructions in the middle of the conversation")
        if message.get("name") and message["role"] != "tool":
            raise Unfit("names of who speaks")
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns or turns[0]["role"] != "user" or turns[-1]["role"] != "user":
        raise Unfit("a conversation that a person neither begins nor ends")
    return turns


def _said(message: Body) -> list[Body]:
    blocks = _text_blocks(message.get("content")) or _text_blocks(message.get("refusal"))
    for call in message.get("tool_calls") or ():
        try:
            arguments = json.loads(call["function"]["arguments"] or "{}")
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict) or not _CALL_ID.fullmatch(call["id"]):
            raise Unfit("a call that it can't take back")
        blocks.append({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments})
    return blocks


def _result(message: Body) -> Body:
    return {
        "type": "tool_result",
        "tool_use_id": message["tool_call_id"],
        "content": plain_text(message["content"]),
    }


def _tool(function: Body) -> Body:
    if not _TOOL_NAME.fullmatch(function["name"]):
        raise Unfit("a tool of a name that it doesn't take")
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return _without_none(
        name=function["name"], description=function.get("description"), input_schema=parameters,
        strict=function.get("strict"),
    )  # fmt: skip


def _tool_choice(chat: Body) -> Body:
    choice = chat.get("tool_choice") or "auto"
    told: Body
    if isinstance(choice, dict):
        told = {"type": "tool", "name": choice["function"]["name"]}
    else:
        told = {"type": {"auto": "auto", "required": "any", "none": "none"}[choice]}
    if chat.get("parallel_tool_calls") is False and told["type"] != "none":
        told["disable_parallel_tool_use"] = True
    return told


def _format(chat: Body) -> Body | None:
    """The schema that the answer must keep to."""
    form, structured = chat.get("response_format"), chat.get("structured_outputs")
    kind = form["type"] if form else "text"
    if structured:
        if structured.get("json") is None or kind != "text":
            raise Unfit("it can't bind an answer to patterns or choices")
        schema = structured["json"]
    elif kind == "json_schema":
        schema = form["json_schema"].get("schema") if form else None
    elif kind == "text":
        return None
    else:
        raise Unfit("it knows no JSON without a schema")
    if not strict_schema(schema):
        raise Unfit("it takes schemas that allow no further properties only")
    assert isinstance(schema, dict)  # noqa: S101 - as it is a strict one
    return schema


def plain_text(content: Any) -> str:
    """The text of a message's content, or of blocks; parts are set on lines of their own. Raises `Unfit` for others."""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in _text_blocks(content))


def _text_blocks(content: Any) -> list[Body]:
    """`content` as blocks of text; empty ones are left out, since they are refused."""
    if not content:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    blocks = []
    for part in content:
        if part["type"] not in ("text", "refusal"):
            raise Unfit("something other than text")
        if text := part[part["type"]]:
            blocks.append({"type": "text", "text": text})
    return blocks


def strict_schema(schema: Any) -> bool:
    """Whether providers take a schema as a strict one: each object in it forbids all else and demands what it names."""
    return isinstance(schema, dict) and _strict(schema)


def _strict(part: Any) -> bool:
    if isinstance(part, list):
        return all(map(_strict, part))
    if not isinstance(part, dict):
        return True
    if part.get("type") == "object" or "properties" in part:
        names = part.get("properties") or {}
        if part.get("additionalProperties") is not False or set(part.get("required") or ()) != set(names):
            return False
    return all(map(_strict, part.values()))


def _without_none(**fields: Any) -> Body:
    return {name: value for name, value in fields.items() if value is not None}
