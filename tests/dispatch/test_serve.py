"""What becomes of whole answers: JSON of callers is no mark, and no answer is endless."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from appliance.core import Caller, Dialect, Operation, Request, Task
from appliance.dispatch import serve
from appliance.engines.upstream import Response
from appliance.errors import UpstreamFailed
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


async def answered(dialect: Dialect, pieces: list[bytes]) -> tuple[dict[str, Any], Record]:
    request = Request("r", Caller("k"), Operation("x", "/x", Task.CHAT, "messages", dialect), "public", b"")
    record, reply = Metrics().open(request), _Reply()
    await serve._whole(request, cast(Response, _Pieces(pieces)), cast(Any, reply), record, (b'"own"', b'"public"'))
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
