"""The words of an answer, in every dialect and in both ways to send it, from what the real server sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.core import Caller, Dialect, Operation, Request, Task
from appliance.dispatch.said import said

RECORDED = Path(__file__).parent / "recorded"


def request(*, stream: bool) -> Request:
    operation = Operation("x", "/x", Task.CHAT, "messages", Dialect.CHAT_COMPLETIONS)
    return Request("r", Caller("k"), operation, "chat", b"{}", stream=stream)


@pytest.mark.parametrize("name", ["chat", "completion", "responses", "messages"])
def test_each_word_of_a_recorded_stream_is_there_once(name: str) -> None:
    events = (RECORDED / f"{name}.sse").read_bytes()
    text = said(request(stream=True), events)
    assert len(text.split()) >= 2
    for word in set(text.split()):
        assert text.split().count(word) <= 2, text
    assert said(request(stream=True), events[: len(events) // 2]) in text, "also of one that was cut off"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"choices": [{"message": {"role": "assistant", "content": "Paris it is"}}]}, "Paris it is"),
        ({"choices": [{"index": 0, "text": "Paris"}], "object": "text_completion"}, "Paris"),
        ({"output": [{"content": [{"type": "output_text", "text": "Paris"}]}]}, "Paris"),
        ({"content": [{"type": "text", "text": "Paris"}], "role": "assistant"}, "Paris"),
        (
            {"choices": [{"message": {"content": None, "tool_calls": [{"function": {"arguments": '{"a": 1}'}}]}}]},
            '{"a": 1}',
        ),
        ({"choices": [{"message": {"content": "A"}, "logprobs": {"content": [{"token": "A"}]}}]}, "A"),
    ],
)
def test_of_a_whole_answer(answer: dict[str, Any], expected: str) -> None:
    assert said(request(stream=False), json.dumps(answer).encode()) == expected


@pytest.mark.parametrize("answer", [b"", b"{", b"[" * 100_000, b'"x"', b"<html>"])
def test_what_is_no_answer_says_nothing(answer: bytes) -> None:
    assert said(request(stream=False), answer) == ""
    assert said(request(stream=True), b"data: " + answer + b"\n\n") == ""
