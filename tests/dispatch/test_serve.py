"""What becomes of whole answers: JSON of callers is no mark, and no answer is endless."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from appliance.core import Caller, Dialect, Operation, Request, Task, Usage
from appliance.dispatch import serve
from appliance.dispatch.stream import Stream
from appliance.engines.upstream import Response
from appliance.errors import BooksUnavailable, UpstreamFailed
from appliance.observe import Metrics, Record


class _Pieces:
    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


class _Reply:
    body = b""

    async def whole(self, body: bytes) -> None:
        self.body = body


async def kept() -> None:
    """What the request may use is booked."""


async def answered(dialect: Dialect, pieces: list[bytes], kept: serve.Kept = kept) -> tuple[dict[str, Any], Record]:
    request = Request("r", Caller("k"), Operation("x", "/x", Task.CHAT, "messages", dialect), "public", b"")
    record, reply = Metrics().open(request), _Reply()
    rename = (b'"own"', b'"public"')
    await serve._whole(request, cast(Response, _Pieces(pieces)), cast(Any, reply), record, rename, kept)
    return json.loads(reply.body), record


@pytest.mark.parametrize("dialect", [Dialect.MESSAGES, Dialect.RESPONSES])
async def test_json_of_callers_and_models_is_no_mark(dialect: Dialect) -> None:
    tricky = {"finish_reason": "abort", "model": "own", "usage": {"input_tokens": 99, "output_tokens": 99}}
    sent = {"model": "own", "usage": {"input_tokens": 2, "output_tokens": 3}, "content": [{"input": tricky}]}
    answer, record = await answered(dialect, [json.dumps(sent).encode()])
    assert answer == sent | {"model": "public"}
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (2, 3)


@pytest.mark.parametrize("sent", [b'{"status":"failed"}', b'{"type":"error"}', b'{"a":'])
async def test_a_failed_response_is_not_passed_off_as_an_answer(sent: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        await answered(Dialect.RESPONSES, [sent])


async def test_an_endless_answer_is_refused_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_MOST_BYTES", 100)
    pieces = [b"{" + b" " * 60] * 5
    with pytest.raises(UpstreamFailed, match="endless"):
        await answered(Dialect.CHAT_COMPLETIONS, pieces)
    assert len(pieces) == 3


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_of_an_answer_leaves_before_it_is_booked(stream: bool, dialect: Dialect) -> None:
    operation = Operation("x", "/x", Task.CHAT, "messages", dialect)
    request = Request("r", Caller("k"), operation, "public", b"", stream=stream)
    sent: list[str] = []

    class Reply:
        async def begin(self) -> None:
            sent.append("head")

        async def whole(self, body: bytes) -> None:
            sent.append("whole")

    async def unbooked() -> None:
        raise BooksUnavailable("the disk is full", code="books_unavailable")

    record, reply = Metrics().open(request), cast(Any, Reply())
    response = cast(Response, _Pieces([b'{"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3}}']))
    if stream:
        answering = serve._stream(Stream(request), response, reply, record, unbooked, cast(Any, None))
    else:
        answering = serve._whole(request, response, reply, record, None, unbooked)
    with pytest.raises(BooksUnavailable):
        await answering
    assert sent == []
    if not stream:
        assert record.usage == Usage(2, 3), "what an engine told is known all the same"
