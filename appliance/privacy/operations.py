"""What requests look like, place by place, as `appliance.api.bodies` builds them: what isn't here can't be read."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.privacy.shapes import (
    Shape,
    arguments,
    by,
    document,
    either,
    held,
    identifier,
    many,
    name,
    our_own,
    plain,
    record,
    schema,
    speaker,
    text,
    without,
    word,
)

_IMAGE, _AUDIO = held("an image"), held("audio")
_PART = by("type", {
    "text": record(type=word("text"), text=text),
    "refusal": record(type=word("refusal"), refusal=text),
    "image_url": _IMAGE,
    "input_audio": _AUDIO,
})  # fmt: skip
_CONTENT = either(text, many(_PART))
_CALL = record(id=identifier, type=word("function"), function=record(name=name, arguments=arguments))
_FUNCTION = record(name=name, description=text, parameters=schema, strict=plain)
_INSTRUCTIONS = record(role=word("system", "developer"), content=_CONTENT, name=speaker)
_CHAT = record(
    model=our_own,
    messages=many(by("role", {
        "system": _INSTRUCTIONS,
        "developer": _INSTRUCTIONS,
        "user": record(role=word("user"), content=_CONTENT, name=speaker),
        "assistant": record(
            role=word("assistant"), content=_CONTENT, name=speaker, refusal=text, tool_calls=many(_CALL),
            reasoning=text, reasoning_content=text,
        ),
        "tool": record(role=word("tool"), content=_CONTENT, tool_call_id=identifier, name=name),
    })),
    tools=many(record(type=word("function"), function=_FUNCTION)),
    tool_choice=either(
        word("none", "auto", "required"), record(type=word("function"), function=record(name=name))
    ),
    response_format=by("type", {
        "text": record(type=word("text")),
        "json_object": record(type=word("json_object")),
        "json_schema": record(
            type=word("json_schema"),
            json_schema=record(name=name, description=text, schema=schema, strict=plain),
        ),
    }),
    structured_outputs=record(json=schema, regex=text, choice=many(text)),
    stop=either(text, many(text)),
    logit_bias=held("a list of tokens, which nobody here can read"),
    stream_options=record(include_usage=plain),
    chat_template_kwargs=record(enable_thinking=plain, thinking=plain),
    reasoning_effort=word("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    **dict.fromkeys((
        "frequency_penalty", "presence_penalty", "max_tokens", "max_completion_tokens", "min_tokens", "n", "seed",
        "stream", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "ignore_eos", "logprobs",
        "top_logprobs", "parallel_tool_calls", "priority",
    ), plain),
)  # fmt: skip

_TEXT_BLOCK = record(type=word("text"), text=text)
_BLOCK = by("type", {
    "text": _TEXT_BLOCK,
    "image": _IMAGE,
    "tool_use": record(type=word("tool_use"), id=identifier, name=name, input=document),
    "tool_result": record(
        type=word("tool_result"), tool_use_id=identifier, is_error=plain,
        content=either(text, many(by("type", {"text": _TEXT_BLOCK, "image": _IMAGE}))),
    ),
})  # fmt: skip
_MESSAGE = record(
    model=our_own,
    # only the model that thought a thought can read it again, and that one is in the house
    messages=many(record(
        role=word("user", "assistant"),
        content=either(text, without(("thinking", "redacted_thinking"), many(_BLOCK))),
    )),
    system=either(text, many(_TEXT_BLOCK)),
    tools=many(record(name=name, description=text, input_schema=schema, strict=plain)),
    tool_choice=record(type=word("auto", "any", "tool", "none"), name=name, disable_parallel_tool_use=plain),
    thinking=record(type=word("enabled", "disabled", "adaptive"), budget_tokens=plain),
    output_config=record(
        effort=word("low", "medium", "high", "xhigh", "max"),
        format=record(type=word("json_schema"), schema=schema),
    ),
    stop_sequences=many(text),
    **dict.fromkeys(("max_tokens", "stream", "temperature", "top_k", "top_p"), plain),
)  # fmt: skip

SHAPES: Mapping[str, Shape] = {"chat": _CHAT, "message": _MESSAGE}
"""By operation. What isn't here is answered in the house only."""
