"""Asks one engine directly, outside of the queue, and takes nothing on trust that it says."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.engines.upstream import Response, Upstream
from appliance.errors import NotAccepted

SEED = 7
_MOST_BYTES = 8 * 2**20
_CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a chat, without sampling."""

    text: str
    """What it said; of a model that thinks and got no further, its thoughts."""
    finish: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely an engine finds tokens that it is given: for each its natural logarithm, and its rank from 1."""

    logs: tuple[float, ...]
    ranks: tuple[int, ...]
    engine: str
    """The engine's own name for itself, version and kernels."""

    @property
    def nats(self) -> float:
        """Mean negative log likelihood of a token."""
        return -sum(self.logs) / len(self.logs)


@dataclass(frozen=True, slots=True)
class Timing:
    """One streamed answer: seconds to the first token, and for each token after it."""

    first: float
    each: float


class Asked:
    """One engine, as the gate speaks to it. Everything raises `NotAccepted` for an answer that is none."""

    def __init__(self, upstream: Upstream, model: str) -> None:
        self._upstream = upstream
        self._model = model

    def adapter(self, name: str) -> Asked:
        """The same engine, asked for the answers of an adapter."""
        return Asked(self._upstream, name)

    async def chat(self, messages: Sequence[Mapping[str, str]], most: int, seed: int = SEED) -> Answer:
        """The likeliest answer of at most `most` tokens, through the route and the template that callers get."""
        body = {"messages": list(messages), "max_tokens": most, "seed": seed, "return_token_ids": True, **_GREEDY}
        said = await self._json(_CHAT, body)
        try:
            (choice,) = said["choices"]
            message = choice["message"]
            text = message.get("content") or message.get("reasoning") or message.get("reasoning_content") or ""
            return Answer(
                text=_text(text),
                finish=str(choice["finish_reason"]),
                prompt=_ids(said["prompt_token_ids"]),
                tokens=_ids(choice["token_ids"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise _malformed(_CHAT) from cause

    async def likelihood(self, prompt: str | Sequence[int]) -> Likelihood:
        """How likely each token of `prompt` is after those before it; the first has none."""
        path = "/v1/completions"
        what = prompt if isinstance(prompt, str) else list(prompt)
        said = await self._json(path, {"prompt": what, "max_tokens": 1, "prompt_logprobs": 0, **_GREEDY})
        try:
            (choice,) = said["choices"]
            # without `prompt_logprobs` beyond 0 there is one for each: the token that stands there
            told = [next(iter(each.values())) for each in choice["prompt_logprobs"][1:]]
            logs = tuple(_number(each["logprob"]) for each in told)
            ranks = tuple(int(each["rank"]) for each in told)
            engine = str(said.get("system_fingerprint") or "")
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as cause:
            raise _malformed(path) from cause
        if not logs:
            raise _malformed(path)
        return Likelihood(logs, ranks, engine)

    async def there_and_back(self, text: str) -> str:
        """`text` after the tokenizer has taken it apart and put it together."""
        path = "/tokenize"
        try:
            tokens = _ids((await self._json(path, {"prompt": text, "add_special_tokens": False}))["tokens"])
            path = "/detokenize"
            return _text((await self._json(path, {"tokens": list(tokens)}))["prompt"])
        except (KeyError, TypeError, ValueError) as cause:
            raise _malformed(path) from cause

    async def vectors(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """The embedding of each text; some of the numbers may be none (NaN)."""
        path = "/v1/embeddings"
        said = await self._json(path, {"input": list(texts), "encoding_format": "float"})
        try:
            data = sorted(said["data"], key=lambda each: int(each["index"]))
            found = [tuple(_number(value) for value in each["embedding"]) for each in data]
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise _malformed(path) from cause
        if len(found) != len(texts) or not all(found):
            raise _malformed(path)
        return found

    async def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """How well each document fits the query; some may be no number (NaN)."""
        path = "/v1/rerank"
        said = await self._json(path, {"query": query, "documents": list(documents)})
        try:
            results = sorted(said["results"], key=lambda each: int(each["index"]))
            found = [_number(each["relevance_score"]) for each in results]
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise _malformed(path) from cause
        if len(found) != len(documents):
            raise _malformed(path)
        return found

    async def timed(self, prompt: str, tokens: int) -> Timing:
        """Stream an answer of exactly `tokens` tokens (2 or more)."""
        body = {
            "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "min_tokens": tokens,
            "ignore_eos": True, "stream": True, "seed": SEED, **_GREEDY,
        }  # fmt: skip
        began = last = time.monotonic()
        first: float | None = None
        heard = b""
        async with self._posted(_CHAT, body) as response:
            while data := await response.read():
                last = time.monotonic()
                heard += data
                if len(heard) > _MOST_BYTES:
                    raise _malformed(_CHAT)
                if first is None and heard.count(_END_OF_EVENT) > 1:  # the first of all only says whose turn it is
                    first = last
        if first is None or b'"finish_reason":"length"' not in heard or not heard.endswith(b"data: [DONE]\n\n"):
            raise NotAccepted(f"a streamed answer of {tokens} tokens didn't come to its end")
        return Timing(first - began, (last - first) / (tokens - 1))

    async def _json(self, path: str, body: Mapping[str, Any]) -> Any:
        async with self._posted(path, body) as response:
            data = await response.whole(_MOST_BYTES)
        try:
            return json.loads(data)
        except ValueError as cause:
            raise _malformed(path) from cause

    @contextlib.asynccontextmanager
    async def _posted(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Response]:
        response = await self._upstream.post(path, json.dumps({"model": self._model, "user": _USER, **body}).encode())
        try:
            if response.status != 200:
                # vLLM says what no JSON can hold, such as a NaN, with HTTP 500
                raise NotAccepted(f"it answers {path} with HTTP {response.status}")
            yield response
        finally:
            response.close()


_USER = "gate"
"""Whom the questions are from: for whoever reads the engine's log."""
_GREEDY = {"temperature": 0, "top_p": 1}
_END_OF_EVENT = b"\n\n"


def _malformed(path: str) -> NotAccepted:
    return NotAccepted(f"what it answers at {path} isn't what vLLM answers there")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _ids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(each, int) for each in value):
        raise TypeError("no tokens")
    return tuple(value)


def _number(value: object) -> float:
    if value is None:  # how a NaN is written where JSON is taken seriously
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no number")
    return float(value)
