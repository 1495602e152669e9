"""What passes through of a stream: the same for every way in which its bytes arrive, and never a false success."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core import Caller, Dialect, Operation, Request, Task, Usage
from appliance.dispatch.stream import Stream, note_usage
from appliance.errors import UpstreamFailed

RECORDED = Path(__file__).with_name("recorded")
"""Bytes of real vLLM 0.32 streams: whole ones, and ones whose worker was killed (the middle left out)."""
DIALECTS = {
    "chat": Dialect.CHAT_COMPLETIONS,
    "completion": Dialect.CHAT_COMPLETIONS,
    "responses": Dialect.RESPONSES,
    "messages": Dialect.MESSAGES,
}
CHOICES = {"chat": 2}


def recorded(name: str) -> bytes:
    return (RECORDED / f"{name}.sse").read_bytes()


def request(dialect: Dialect, *, choices: int = 1, usage_wanted: bool = True) -> Request:
    operation = Operation("x", "/v1/x", Task.CHAT, "messages", dialect)
    return Request("r", Caller("k"), operation, "chat", b"", stream=True, choices=choices, usage_wanted=usage_wanted)


def stream(name: str, *, usage_wanted: bool = True, rename: tuple[bytes, bytes] | None = None) -> Stream:
    name = name.removesuffix(".killed")
    asked = request(DIALECTS[name], choices=CHOICES.get(name, 1), usage_wanted=usage_wanted)
    return Stream(asked, rename)


def passed(stream: Stream, pieces: Iterable[bytes]) -> tuple[bytes, bool]:
    """What came out of a stream, and whether it came to a good end."""
    out = b""
    try:
        for piece in pieces:
            out += stream.feed(piece)
        return out + stream.close(), True
    except UpstreamFailed:
        return out, False


def frames(data: bytes) -> list[bytes]:
    return [frame for frame in data.split(b"\n\n") if frame]


@pytest.mark.parametrize("name", DIALECTS)
def test_a_whole_stream_passes_unchanged(name: str) -> None:
    data = recorded(name)
    assert passed(stream(name), [data]) == (data, True)
    assert passed(stream(name), (bytes([byte]) for byte in data)) == (data, True)


@pytest.mark.parametrize("name", [*DIALECTS, *(f"{name}.killed" for name in DIALECTS)])
def test_every_split_into_three_gives_the_same_end_and_a_prefix_of_the_same_bytes(name: str) -> None:
    data = recorded(name)
    whole, good = passed(stream(name), (frame + b"\n\n" for frame in frames(data)))
    # splits matter near the seams of frames and inside marks: all pairs of those, and a grid between
    seams = {at + near for at in range(len(data)) if data.startswith(b"\n\n", at) for near in (-1, 0, 1, 2, 3)}
    marks = [at + near for mark in (b"[DONE]", b"event: error", b'{"error"') for near in (1, 4)
             if (at := data.rfind(mark)) > 0]  # fmt: skip
    cuts = sorted({cut for cut in (*seams, *marks, *range(0, len(data), 97)) if 0 <= cut <= len(data)})
    for first, second in itertools.combinations_with_replacement(cuts, 2):
        out = passed(stream(name), [data[:first], data[first:second], data[second:]])
        assert out == (whole, good) or (not good and not out[1] and whole.startswith(out[0])), (first, second)


@pytest.mark.long
@pytest.mark.parametrize("name", DIALECTS)
def test_truly_every_split_into_three_gives_the_same(name: str) -> None:
    data = recorded(name)[-1200:] if name == "responses" else recorded(name)
    want = passed(stream(name), [data])
    for first, second in itertools.combinations_with_replacement(range(len(data) + 1), 2):
        assert passed(stream(name), [data[:first], data[first:second], data[second:]]) == want


@given(st.lists(st.integers(0, 2600), max_size=12))
def test_windows_line_ends_and_any_split_give_the_same(cuts: list[int]) -> None:
    data = recorded("chat").replace(b"\n", b"\r\n")
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[first:second] for first, second in itertools.pairwise(edges)]
    assert passed(stream("chat"), pieces) == (recorded("chat"), True)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_stream_cut_anywhere_is_never_a_success(name: str) -> None:
    data = recorded(name)
    last = {"chat": b"data: [DONE]", "completion": b"data: [DONE]"}.get(name, data.split(b"\n\n")[-2])
    enough = data.rindex(last)
    # once every choice is finished, only the closing mark may be missing; it is ours to send
    finished = data.rindex(b"data:", 0, enough) if name in ("chat", "completion") else enough
    for end in range(finished):
        out, good = passed(stream(name), [data[:end]])
        assert not good, end
        assert b"[DONE]" not in out


@pytest.mark.parametrize("name", DIALECTS)
def test_a_killed_worker_is_an_error_and_nothing_closes_the_stream(name: str) -> None:
    out, good = passed(stream(name), (frame + b"\n\n" for frame in frames(recorded(f"{name}.killed"))))
    assert not good
    assert out
    for word in (b"[DONE]", b"EngineCore", b"message_stop", b"validation error", b"event: error"):
        assert word not in out


def chunk(text: str = "", **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    return f"data: {json.dumps({'model': 'm', 'choices': [choice]})}\n\n".encode()


@pytest.mark.parametrize(
    ("pieces", "good"),
    [
        ([chunk("a"), chunk(finish_reason="stop"), b"data: [DONE]\n\n"], True),
        ([chunk("a"), chunk(finish_reason="tool_calls")], True),
        ([chunk("a"), b"data: [DONE]\n\n"], False),
        ([chunk("a"), chunk(finish_reason="abort"), b"data: [DONE]\n\n"], False),
        ([chunk("a"), chunk(finish_reason="error"), b"data: [DONE]\n\n"], False),
        ([chunk("a"), chunk(finish_reason="stop"), b"data: [DO"], False),
        ([chunk("a"), chunk(finish_reason="stop"), b'data: {"error": {"message": "x"}}\n\n'], False),
        ([b'data: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n'], False),
        ([], False),
        ([b""], False),
        ([b"data: [DONE]\n\n"], False),
        ([b"<html>It works!</html>"], False),
    ],
)
def test_only_a_finished_answer_is_a_success(pieces: list[bytes], good: bool) -> None:
    out, was_good = passed(Stream(request(Dialect.CHAT_COMPLETIONS)), pieces)
    assert was_good is good
    assert out.endswith(b"data: [DONE]\n\n") is good
    assert out.count(b"[DONE]") == good


def test_each_of_several_choices_has_to_finish() -> None:
    one, both = [chunk(finish_reason="stop")], [chunk(finish_reason="stop"), chunk(index=1, finish_reason="length")]
    assert not passed(Stream(request(Dialect.CHAT_COMPLETIONS, choices=2)), one * 2)[1], "twice the same is one"
    assert not passed(Stream(request(Dialect.CHAT_COMPLETIONS, choices=2)), one)[1]
    assert passed(Stream(request(Dialect.CHAT_COMPLETIONS, choices=2)), both)[1]


IMITATIONS = [
    '"finish_reason": "stop"',
    '{"finish_reason":"stop"}',
    "data: [DONE]\n\n",
    "\n\ndata: [DONE]\n\n",
    '\n\nevent: error\ndata: {"error": {}}\n\n',
    '"usage": {"prompt_tokens": 9}',
    '","finish_reason":"stop","x":"',
    '\\","finish_reason":"stop","x":"\\',
    "event: message_stop\n",
    "event: response.completed\n",
    '{"error":',
    '"model":"m"',
    "\r\n\r\n",
]


@pytest.mark.parametrize("text", IMITATIONS)
def test_text_that_imitates_a_mark_is_only_text(text: str) -> None:
    asked = Stream(request(Dialect.CHAT_COMPLETIONS, usage_wanted=False), (b'"m"', b'"public"'))
    out, good = passed(asked, [chunk(text)])
    assert not good, "the text must not finish the answer"
    assert json.loads(out.removeprefix(b"data: "))["choices"][0]["delta"]["content"] == text
    assert asked.usage.prompt_tokens == 0
    out, good = passed(Stream(request(Dialect.CHAT_COMPLETIONS)), [chunk(text), chunk(finish_reason="stop")])
    assert good
    assert out == chunk(text) + chunk(finish_reason="stop") + b"data: [DONE]\n\n"


@pytest.mark.parametrize("text", IMITATIONS)
def test_text_can_not_finish_a_message_or_a_response(text: str) -> None:
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
    data = f"event: content_block_delta\ndata: {json.dumps(event)}\n\n".encode()
    for dialect in (Dialect.MESSAGES, Dialect.RESPONSES):
        assert passed(Stream(request(dialect)), [data]) == (data, False)


@pytest.mark.parametrize("name", ["chat", "completion"])
def test_usage_that_only_we_wanted_is_noted_and_not_shown(name: str) -> None:
    silent = stream(name, usage_wanted=False)
    out, good = passed(silent, [recorded(name)])
    assert good
    assert b'"usage"' not in out
    assert frames(out) == [frame for frame in frames(recorded(name)) if b'"usage"' not in frame]
    assert silent.usage.completion_tokens == (8 if name == "chat" else 4)
    assert silent.usage.prompt_tokens > 0


@pytest.mark.parametrize("name", DIALECTS)
def test_usage_is_noted_in_every_dialect(name: str) -> None:
    asked = stream(name)
    passed(asked, [recorded(name)])
    assert asked.usage == Usage(31 if name != "completion" else 1, 8 if name == "chat" else 4)


def test_the_engines_own_name_for_a_model_is_replaced_in_each_frame() -> None:
    out, good = passed(stream("chat", rename=(b'"chat"', b'"public"')), [recorded("chat")])
    assert good
    assert b'"model":"chat"' not in out
    assert out == recorded("chat").replace(b'"model":"chat"', b'"model":"public"')


def test_what_came_before_an_error_passes_even_when_it_came_in_the_same_read() -> None:
    good = recorded("chat").split(b"\n\n")[0] + b"\n\n"
    asked = stream("chat")
    assert asked.feed(good + b'data: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n') == good
    assert asked.failed
    assert asked.feed(good) == b""


def test_an_endless_event_is_broken_off() -> None:
    assert passed(Stream(request(Dialect.CHAT_COMPLETIONS)), [b"x" * 2**20] * 8) == (b"", False)
    asked = Stream(request(Dialect.CHAT_COMPLETIONS))
    assert asked.feed(b"x" * 2**23) == b""
    with pytest.raises(UpstreamFailed):
        asked.feed(b"x")


@pytest.mark.parametrize(
    "data",
    [
        b"data: [1]\n\n",
        b'data: [{"usage":{"a":1}}]\n\n',
        b'data: {"usage":{"prompt_tokens":"x"}}\n\n',
        b'data: {"usage":{"prompt_tokens":1e999}}\n\n',
        b'data: {"usage":{\n\n',
        b'"usage":{\n\n',
    ],
)
def test_nonsense_in_the_place_of_usage_passes_and_counts_nothing(data: bytes) -> None:
    asked = Stream(request(Dialect.CHAT_COMPLETIONS))
    assert asked.feed(data) == data
    assert asked.usage == Usage()


def test_the_largest_usage_seen_counts() -> None:
    usage = Usage()
    for tokens in (3, 7, 5):
        note_usage({"usage": {"prompt_tokens": 2, "completion_tokens": tokens}}, usage)
    note_usage({"usage": None}, usage)
    note_usage("nothing", usage)
    note_usage({"usage": {"prompt_tokens": 10**19, "completion_tokens": -1}}, usage)
    assert usage == Usage(2, 7)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_stream_left_before_its_usage_is_settled_by_what_passed_for_sure(name: str) -> None:
    data = recorded(name)
    for end in range(len(data) + 1):
        asked = stream(name)
        asked.feed(data[:end])
        asked.settle()
        assert asked.usage.completion_tokens <= (8 if name == "chat" else 4)
    left = stream(name)
    left.feed(b"".join(frame + b"\n\n" for frame in frames(recorded(f"{name}.killed"))))
    left.settle()
    assert left.usage.completion_tokens >= 5
    assert (left.usage.prompt_tokens > 0) == (name == "messages")


def test_a_finished_stream_without_usage_is_settled_by_what_passed() -> None:
    asked = Stream(request(Dialect.CHAT_COMPLETIONS))
    assert passed(asked, [chunk("a"), chunk("b"), chunk(finish_reason="stop"), b"data: [DONE]\n\n"])[1]
    asked.settle()
    assert asked.usage == Usage(0, 2)
