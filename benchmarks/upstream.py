"""A static upstream: speaks like vLLM, computes nothing, so that what a gateway costs can be seen.

It answers `/v1/chat/completions` in vLLM's framing on a TCP port of the loopback and on a Unix socket at once.
Without `stream` the answer is one fixed completion. With it, `max_tokens` content chunks come at a steady pace,
each in an HTTP chunk of its own as uvicorn sends them, then the finish reason, the usage (where asked for) and
`[DONE]`. Everything else gets `{}` under 200, which satisfies health checks.

    python -m benchmarks.upstream --port 9000 --socket /run/user/1000/upstream.sock --gap-ms 20
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from pathlib import Path
from typing import Any, cast

import httptools
import uvloop

WORDS = (" Das", " Haus", " antwortet", " selbst", ",", " and", " nothing", " leaves", " it", ".")


class Answers:
    """The bytes of every answer, made once. `gap` is the pace of streams in seconds per chunk."""

    def __init__(self, gap: float) -> None:
        self.gap = gap
        common = {"id": "chatcmpl-0123456789abcdef", "created": 1_790_000_000, "model": "chat"}
        message: dict[str, object] = {
            "role": "assistant",
            "content": "".join(WORDS) * 4,
            "refusal": None,
            "tool_calls": [],
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
        self.empty = _whole({})
        self.completion = _whole(
            common | {"object": "chat.completion", "choices": [choice], "usage": _usage(4 * len(WORDS))}
        )

        def chunk(delta: dict[str, str], finish_reason: str | None = None, **more: object) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason} | more
            return _event(common | {"object": "chat.completion.chunk", "choices": [choice]})

        self.head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self.role = chunk({"role": "assistant", "content": ""})
        self.words = tuple(chunk({"content": word}) for word in WORDS)
        self.finish = chunk({"content": ""}, "length", stop_reason=None)
        self._last = common | {"object": "chat.completion.chunk", "choices": []}
        self.done = _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"

    def usage(self, tokens: int) -> bytes:
        """The event that tells how many tokens a stream had."""
        return _event(self._last | {"usage": _usage(tokens)})


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 40, "total_tokens": 40 + tokens, "completion_tokens": tokens}


def _whole(answer: object) -> bytes:
    body = json.dumps(answer, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _event(event: object) -> bytes:
    return _chunked(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One connection of a gateway, which may ask again and again."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None
        self._path = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the stream that nobody reads any more."""
        if self._next is not None:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        """Read what arrives; hang up on what isn't HTTP."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_url(self, url: bytes) -> None:
        """A request begins."""
        self._path = url
        self._body = b""

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        answers = self._answers
        if not self._path.endswith(b"/chat/completions"):
            self._transport.write(answers.empty)
            return
        request: dict[str, Any] = json.loads(self._body)
        if not request.get("stream"):
            self._transport.write(answers.completion)
            return
        options = request.get("stream_options") or {}
        count = request.get("max_tokens") or request.get("max_completion_tokens") or 16
        last = answers.finish + (answers.usage(count) if options.get("include_usage") else b"") + answers.done
        self._transport.write(answers.head + answers.role)
        self._stream(0, count, self._loop.time(), last)

    def _stream(self, index: int, count: int, began: float, last: bytes) -> None:
        words = self._answers.words
        self._transport.write(words[index % len(words)])
        index += 1
        if index == count:
            self._transport.write(last)
            return
        # counted from the beginning, so that a late timer doesn't slow the pace down
        due = began + index * self._answers.gap
        self._next = self._loop.call_at(due, self._stream, index, count, began, last)


async def serve(port: int, socket: Path, gap: float) -> None:
    """Answer on 127.0.0.1:`port` and on `socket` until SIGTERM; prints `ready` once both are open."""
    loop = asyncio.get_running_loop()
    answers = Answers(gap)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    async with (
        await loop.create_server(lambda: Connection(answers), "127.0.0.1", port),
        await loop.create_unix_server(lambda: Connection(answers), str(socket)),
    ):
        print("ready", flush=True)  # noqa: T201 - whoever started this process waits for the line
        await stopped.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upstream", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to make")
    parser.add_argument("--gap-ms", type=float, default=20.0, help="pace of streams (default: %(default)s)")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.socket, options.gap_ms / 1000))


if __name__ == "__main__":
    main()
