"""Every place that can hold text is read and can be replaced; what nobody can read is said to be so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from appliance.api.bodies.anthropic import Messages
from appliance.api.bodies.base import Body, parse
from appliance.api.bodies.chat import ChatCompletions
from appliance.privacy import fields
from appliance.privacy.fields import Fields
from appliance.privacy.kinds import Kind, Span

BODIES: dict[str, type[Body]] = {"chat": ChatCompletions, "message": Messages}
SCHEMA = {
    "type": "object",
    "title": "T1",
    "$defs": {"Anna": {"type": "string", "const": "T2"}},
    "properties": {
        "anna_mueller": {"type": "string", "description": "T3", "enum": ["T4", "T5"], "default": "T6"},
        "type": {"$ref": "#/$defs/Anna", "examples": ["T7", 4711815]},
    },
    "patternProperties": {"^T8": {}},
    "required": ["anna_mueller"],
}
SCHEMA_TEXTS = {
    "T1", "Anna", "T2", "anna_mueller", "T3", "T4", "T5", "T6", "#/$defs/Anna", "T7", "4711815", "^T8",
}  # fmt: skip
CHAT: dict[str, Any] = {
    "model": "chat",
    "messages": [
        {"role": "system", "content": "S1", "name": "S2"},
        {"role": "developer", "content": [{"type": "text", "text": "S3"}]},
        {"role": "user", "content": [{"type": "text", "text": "U1"}, {"type": "text", "text": "U2"}], "name": "U3"},
        {
            "role": "assistant", "content": None, "refusal": "A1", "reasoning": "A2", "reasoning_content": "A3",
            "tool_calls": [
                {"id": "ID-Anna", "type": "function",
                 "function": {"name": "get_anna", "arguments": '{"who": "C1", "nn": [12345, {"x": true}]}'}},
                {"id": "ID-2", "type": "function", "function": {"name": "no_arguments", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "ID-Anna", "name": "get_anna", "content": '{"R1": "R2\\u00fc", "nn": 1e3}'},
        {"role": "tool", "tool_call_id": "ID-2", "content": [{"type": "text", "text": "R3"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "A4"}]},
        {"role": "user", "content": "U4"},
    ],
    "tools": [
        {"type": "function",
         "function": {"name": "get_anna", "description": "D1", "parameters": SCHEMA, "strict": True}},
        {"type": "function", "function": {"name": "no_arguments"}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "get_anna"}},
    "response_format": {"type": "json_schema",
                        "json_schema": {"name": "F1", "description": "F2", "schema": SCHEMA, "strict": False}},
    "structured_outputs": {"json": SCHEMA, "regex": "X1|X2", "choice": ["X3"]},
    "stop": ["P1", "P2"], "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5, "top_p": 1.0,
    "n": 1, "seed": 7, "max_tokens": 10, "max_completion_tokens": 10, "reasoning_effort": "low", "logprobs": True,
    "top_logprobs": 2, "chat_template_kwargs": {"enable_thinking": False}, "parallel_tool_calls": True,
}  # fmt: skip
CHAT_TEXTS = SCHEMA_TEXTS | {
    "S1", "S2", "S3", "U1", "U2", "U3", "U4", "A1", "A2", "A3", "A4", "get_anna", "no_arguments", "who", "C1", "nn",
    "12345", "x", "R1", "R2ü", "1e3", "R3", "D1", "F1", "F2", "X1|X2", "X3", "P1", "P2",
}  # fmt: skip
MESSAGE: dict[str, Any] = {
    "model": "chat",
    "max_tokens": 10,
    "system": [{"type": "text", "text": "S1"}],
    "messages": [
        {"role": "user", "content": "U1"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Anna Müller", "signature": "c2ln"},
                {"type": "text", "text": "A1"},
                {"type": "tool_use", "id": "ID-1", "name": "get_anna", "input": {"who": "C1", "list": ["C2", 12345]}},
                {"type": "redacted_thinking", "data": "eHg="},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "ID-1", "content": "R1", "is_error": False},
                {"type": "tool_result", "tool_use_id": "ID-2", "content": [{"type": "text", "text": '["R2"]'}]},
                {"type": "text", "text": "U2"},
            ],
        },
    ],
    "tools": [{"name": "get_anna", "description": "D1", "input_schema": SCHEMA, "strict": True}],
    "tool_choice": {"type": "tool", "name": "get_anna", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "stop_sequences": ["P1"], "stream": False, "temperature": 1.0, "top_k": 4, "top_p": 0.5,
}  # fmt: skip
MESSAGE_TEXTS = SCHEMA_TEXTS | {
    "S1", "U1", "A1", "get_anna", "who", "C1", "list", "C2", "12345", "R1", "R2", "U2", "D1", "P1",
}  # fmt: skip


def payload(operation: str, body: Any) -> Any:
    """As the api builds it."""
    return json.loads(parse(BODIES[operation], json.dumps(body).encode()).payload("upstream", 100, 3))


def walked(operation: str, body: Any) -> tuple[Any, Fields]:
    built = payload(operation, body)
    return built, fields.texts(operation, built)


def chat(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": content}], **more}


@pytest.mark.parametrize(
    ("operation", "body", "expected"), [("chat", CHAT, CHAT_TEXTS), ("message", MESSAGE, MESSAGE_TEXTS)]
)
def test_all_text_is_read(operation: str, body: Any, expected: set[str]) -> None:
    _, read = walked(operation, body)
    assert read.unreadable is None
    assert {text.text for text in read.texts} == expected


@pytest.mark.parametrize(("operation", "body"), [("chat", CHAT), ("message", MESSAGE)])
def test_all_text_can_be_replaced(operation: str, body: Any) -> None:
    built, read = walked(operation, body)
    marked = json.loads(fields.replaced(built, read, ["NEU." for _ in read.texts]))
    again = fields.texts(operation, marked)
    assert {text.text for text in again.texts} == {"NEU."}
    for text in {text.text for text in read.texts if not text.text.isdigit()}:
        assert f'"{text}"' not in json.dumps(marked, ensure_ascii=False).replace("\\", "")


@pytest.mark.parametrize(("operation", "body"), [("chat", CHAT), ("message", MESSAGE)])
def test_nothing_else_is_changed(operation: str, body: Any) -> None:
    built, read = walked(operation, body)
    same = json.loads(fields.replaced(built, read, [text.text for text in read.texts]))
    expected = json.dumps(built)
    for number, own in enumerate(("ID-Anna", "ID-2") if operation == "chat" else ("ID-1", "ID-2"), 1):
        expected = expected.replace(f'"{own}"', f'"call{number:05}"')
    told = json.loads(expected)
    for message in told["messages"]:
        if operation == "message" and isinstance(message["content"], list):
            message["content"] = [part for part in message["content"] if "thinking" not in part["type"]]
    assert same == told


@pytest.mark.parametrize("operation", BODIES)
def test_each_field_that_a_caller_may_set_is_known(operation: str) -> None:
    """A field that is added to a body has to be added here, or what sets it stays in the house."""
    sent = {"chat": CHAT, "message": MESSAGE}[operation]
    passed_on = {name for name, field in BODIES[operation].model_fields.items() if not field.exclude}
    tried = set(sent) | {
        "logit_bias", "frequency_penalty", "presence_penalty", "min_tokens", "top_k", "min_p", "repetition_penalty",
        "ignore_eos",
    }  # fmt: skip
    assert passed_on <= tried
    for name in passed_on - set(sent) - {"logit_bias"}:
        read = fields.texts(operation, {**payload(operation, sent), name: 1})
        assert read.unreadable is None, name


def all_kinds(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for kind in _models(field.annotation):
            if kind not in seen:
                seen.add(kind)
                yield kind
                yield from all_kinds(kind, seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)


@pytest.mark.parametrize("operation", BODIES)
def test_each_part_of_a_body_is_tried_here(operation: str) -> None:
    unreadable = {"ImageUrl", "ImagePart", "InputAudio", "AudioPart", "Base64Source", "ImageBlock", "PlainFormat"}
    sent = json.dumps(CHAT if operation == "chat" else MESSAGE)
    for kind in all_kinds(BODIES[operation], set()):
        for name, field in kind.model_fields.items():
            if not field.exclude and kind.__name__ not in unreadable:
                assert f'"{field.alias or name}"' in sent or name == "thinking", f"{kind.__name__}.{name}"


@pytest.mark.parametrize(
    ("operation", "body", "told"),
    [
        ("chat", chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]), "an image"),
        ("chat", chat([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]), "audio"),
        ("chat", chat("x", logit_bias={"12": 5}), "a list of tokens"),
        ("message",
         {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [
             {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]}]},
         "an image"),
        ("message",
         {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [
             {"type": "tool_result", "tool_use_id": "1", "content": [
                 {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]}]}]},
         "an image"),
        ("message",
         {"model": "m", "max_tokens": 5, "messages": [{"role": "assistant", "content": [
             {"type": "thinking", "thinking": "Anna", "signature": "AAAA"}]}]},
         "nothing that can be read"),
        ("chat",
         {"model": "m", "messages": [{"role": "assistant", "tool_calls": [
             {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"broken": '}}]}]},
         "no JSON"),
    ],
)  # fmt: skip
def test_what_can_not_be_read(operation: str, body: Any, told: str) -> None:
    read = walked(operation, body)[1]
    assert read.unreadable is not None
    assert told in read.unreadable
    assert not read.texts


@pytest.mark.parametrize(
    "built",
    [
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "AnnaMüller": 1}]}]},
        {"messages": [{"role": "Anna", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", "Anna": "x"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [["Anna"]]},
        {"messages": "Anna"},
        {"messages": [], "user": "Anna"},
        {"messages": [], "metadata": {"Anna": "Anna"}},
        {"messages": [], "reasoning_effort": "Anna"},
        {"messages": [], "temperature": "Anna"},
        {"messages": [], "max_tokens": ["Anna"]},
        {"messages": [], "stop": [["Anna"]]},
        {"messages": [], "tool_choice": "Anna"},
        {"messages": [], "tools": [{"type": "web_search"}]},
        {"messages": [], "response_format": {"type": "Anna"}},
        ["Anna"],
        "Anna",
    ],
    ids=json.dumps,
)
def test_what_is_not_known_is_never_passed_over(built: Any) -> None:
    read = fields.texts("chat", built)
    assert read.unreadable
    assert "Anna" not in read.unreadable


def test_json_is_read_as_a_form() -> None:
    text = ' {"customer_name": "Anna M\\u00fcller", "kontoNummer": 4711815, "more": ["x", {"Ort": null}]} '
    _, read = walked("chat", chat(text))
    assert [view.text for view in read.views] == ["customer name: Anna Müller\nkonto Nummer: 4711815\nmore: x\nOrt: "]


def test_finds_in_a_form_are_finds_in_its_texts() -> None:
    built, read = walked("chat", chat('{"anna_mueller": "Anna Müller", "konto": 4711815}'))
    (view,) = read.views
    spans = [
        Span(0, len("anna mueller"), Kind.PERSON),
        Span(view.text.index("Anna M"), view.text.index("Anna M") + 11, Kind.PERSON),
        Span(view.text.index("konto"), len(view.text.rstrip()), Kind.REFERENCE),
    ]
    by_text = dict(zip([text.text for text in read.texts], read.spread([spans]), strict=True))
    assert [(span.start, span.end) for span in by_text["anna_mueller"]] == [(0, 12)]
    assert [(span.start, span.end) for span in by_text["Anna Müller"]] == [(0, 11)]
    assert [(span.start, span.end) for span in by_text["4711815"]] == [(0, 7)]
    new = fields.replaced(built, read, ["Klient_001", "Klient_001", "konto", "Kennung_001"])
    content = json.loads(new)["messages"][0]["content"]
    assert content == '{"Klient_001": "Klient_001", "konto": "Kennung_001"}'


def test_who_speaks_is_a_person_unless_it_is_a_role() -> None:
    body = {"model": "m", "messages": [
        {"role": "user", "content": "x", "name": "anna"}, {"role": "user", "content": "x", "name": "example_user"},
    ]}  # fmt: skip
    _, read = walked("chat", body)
    kinds = {text.text: text.kind for text in read.texts}
    assert (kinds["anna"], kinds["example_user"]) == (Kind.PERSON, None)
    spans = read.spread([[] for _ in read.views])
    assert [span.kind for found in spans for span in found] == [Kind.PERSON]


def test_json_inside_json_is_read_to_its_end() -> None:
    inner = json.dumps({"deep": json.dumps({"deeper": json.dumps(["Anna M\u00fcller"])})})
    _, read = walked("chat", chat(json.dumps({"outer": inner})))
    assert {text.text for text in read.texts} == {"outer", "deep", "deeper", "Anna Müller"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(JSON, st.booleans())
def test_any_json_stays_the_same_when_nothing_is_replaced(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    built = chat(text, tools=[{"type": "function", "function": {"name": "f", "parameters": {"x": value}}}])
    read = fields.texts("chat", built)
    assert read.unreadable is None
    assert json.loads(fields.replaced(built, read, [text.text for text in read.texts])) == built


@settings(deadline=None)
@given(JSON)
def test_any_json_stays_json_when_all_is_replaced(value: Any) -> None:
    built = chat(json.dumps({"x": value}))
    read = fields.texts("chat", built)
    others = [f"Klient_{number:03}" for number, _ in enumerate(read.texts)]
    content = json.loads(fields.replaced(built, read, others))["messages"][0]["content"]
    assert {text.text for text in fields.texts("chat", chat(content)).texts} == set(others)
