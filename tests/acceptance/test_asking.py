"""Whatever an engine answers, the gate either understands it or refuses it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.acceptance.asking import Asked
from appliance.engines.upstream import Upstream
from appliance.errors import NotAccepted

CHOICE = {"message": {"content": "Yes."}, "finish_reason": "stop", "token_ids": [5, 2]}
CHAT = {"choices": [CHOICE], "prompt_token_ids": [1]}


@contextlib.asynccontextmanager
async def engine(body: bytes, status: int = 200) -> AsyncIterator[Asked]:
    """One that gives the same answer to everything."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Whatever\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
        await writer.drain()
        writer.close()

    with tempfile.TemporaryDirectory(prefix="ask-") as folder:
        server = await asyncio.start_unix_server(connected, Path(folder) / "s")
        upstream = Upstream(Path(folder) / "s")
        try:
            yield Asked(upstream, "chat")
        finally:
            upstream.close()
            server.close()


ASK: dict[str, Callable[[Asked], Any]] = {
    "chat": lambda asked: asked.chat([{"role": "user", "content": "?"}], 8),
    "likelihood": lambda asked: asked.likelihood("one two"),
    "round trip": lambda asked: asked.there_and_back("one two"),
    "vectors": lambda asked: asked.vectors(["one", "two"]),
    "scores": lambda asked: asked.scores("one", ["two", "three"]),
    "stream": lambda asked: asked.timed("one", 8),
}
BODIES: list[Any] = [
    {}, [], None, "text", 7, {"choices": []}, {"choices": [{}]}, {"choices": None}, {"tokens": "x"}, {"tokens": []},
    {**CHAT, "choices": [{**CHOICE, "token_ids": []}]}, {**CHAT, "choices": [{**CHOICE, "message": None}]},
    {**CHAT, "choices": [{**CHOICE, "message": {"content": [1]}}]}, {**CHAT, "choices": [CHOICE, CHOICE]},
    {"choices": [{"prompt_logprobs": None}]}, {"choices": [{"prompt_logprobs": [None]}]},
    {"choices": [{"prompt_logprobs": [None, {}]}]}, {"choices": [{"prompt_logprobs": [None, {"1": {"logprob": "x"}}]}]},
    {"data": [{"index": 0, "embedding": [1.0]}]}, {"data": [{"index": i, "embedding": []} for i in range(2)]},
    {"data": [{"index": i, "embedding": "AAAA"} for i in range(2)]}, {"results": [{"index": 0}]}, {"results": []},
]  # fmt: skip


@pytest.mark.parametrize("question", ASK)
async def test_what_is_no_answer_is_refused(question: str) -> None:
    bodies = [json.dumps(body).encode() for body in BODIES] + [b"", b"{", b"<html>", b"\xff\xfe", b"data: [DONE]\n\n"]
    for body in bodies:
        async with engine(body) as asked:
            with pytest.raises(NotAccepted):
                await ASK[question](asked)


@pytest.mark.parametrize("question", ASK)
async def test_an_error_is_told_by_its_status_and_by_nothing_that_the_engine_says(question: str) -> None:
    async with engine(b'{"error": {"message": "the prompt was: secret"}}', 500) as asked:
        with pytest.raises(NotAccepted, match=r"with HTTP 500$"):
            await ASK[question](asked)


async def test_a_model_that_thinks_longer_than_it_may_has_answered() -> None:
    thought = {**CHOICE, "message": {"content": None, "reasoning": "Hm."}, "finish_reason": "length"}
    async with engine(json.dumps({**CHAT, "choices": [thought]}).encode()) as asked:
        answer = await ASK["chat"](asked)
    assert (answer.text, answer.finish, answer.tokens) == ("Hm.", "length", (5, 2))


async def test_no_number_is_no_likelihood_of_any_height() -> None:
    told = [None, {"1": {"logprob": -2.0, "rank": 1}}, {"2": {"logprob": None, "rank": 1}}]
    async with engine(json.dumps({"choices": [{"prompt_logprobs": told}]}).encode()) as asked:
        likelihood = await ASK["likelihood"](asked)
    assert not likelihood.nats <= 1e9
