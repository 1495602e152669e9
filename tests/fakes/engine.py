"""A stand-in for vLLM 0.32's OpenAI server: its command line, its routes, its framing, and its ways to fail.

`environment()` in tests/fakes/house.py puts this file where `python -m vllm.entrypoints.openai.api_server`
finds it, so that the appliance starts it as it starts the real one, seal included. The framing was recorded
from the real server (tests/dispatch/recorded). Imports the standard library only.

A prompt may hold directives, `name=value` anywhere in its text:

    tokens=N|inf  length of the answer (else the request's limit, at most 8)
    gap=SECONDS   pause before each token            pad=BYTES   letters added to each token
    say=TEXT      the answer's words                 call=NAME   answer with a call of this tool (chat)
    fault=NAME    see `_FAULTS`                      after=N     tokens before the fault

The gate's own questions are answered with words, likelihoods and vectors as a right model would, always the same for
the same weights; they are noted as `gate`.

An engine's own faults come from fault.json in its weights, or from faults.json in its home, read anew at
each use: start (crash, never, mute, oom), slow (seconds), crawl (seconds for each token), sick (nothing is
answered but probes and the gate's questions), linger (ignores SIGTERM), brood (grandchildren), stall (no token
moves any more), cache (how full it says its KV cache is); at the gate only: rubbish (or the adapter's name whose
alone), nan, empty, repeats, alike (one answer to all), dumb (doesn't say what `say` tells it to), drifts (answers
otherwise than these weights did before), killed (by the kernel, at the first question). What it hears goes to
heard.jsonl in its home, a line for each event.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import heapq
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DIRECTIVE = re.compile(r"\b(tokens|gap|pad|say|call|fault|after)=(\S+)")
_FAULTS = {
    "die": "the process exits",
    "core_killed": "every stream ends as when vLLM's worker is killed; health turns 503, exit code 0 soon after",
    "error": "this request ends as when vLLM's worker is killed",
    "abort": "finish_reason abort, then a proper end",
    "unfinished": "a proper end with no finish_reason",
    "cut": "the connection breaks",
    "stall": "no token moves any more; health goes on to say 200",
    "endless_frame": "one event that never ends",
    "not_json": "an event that isn't JSON",
    "bad_chunk": "broken HTTP",
    "silent": "nothing is ever answered",
    "busy": "HTTP 429",
    "broken": "HTTP 500",
    "html": "HTTP 200 with a page",
}
_KILLED = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_BROOD = "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
_PROBES = {"ready?", "ready? ready?"}
_numbers = itertools.count(1)


def say(line: str) -> None:
    """Write a line of the log that the supervisor reads."""
    print(line, flush=True)  # noqa: T201 - the log is standard output


def dumps(value: object) -> str:
    """Compact JSON, as pydantic writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def event(value: dict[str, Any], name: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {dumps(value)}\n\n".encode()


class Answer:
    """One answer in one dialect: its events, or the whole of it. Chat's; the others override."""

    kind = "chatcmpl"

    def __init__(self, body: dict[str, Any], model: str, prompt_tokens: int) -> None:
        self.body = body
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.choices = int(body.get("n") or 1)
        self.ids: tuple[list[int], list[int]] | None = None
        self.texts = [""] * self.choices
        self.count = 0
        self.reason = "length"
        self.call: str | None = None
        self.id = f"{self.kind}-{next(_numbers):016x}"

    def usage(self) -> dict[str, int]:
        """Token counts."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.count,
            "completion_tokens": self.count,
        }

    def _frame(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        base = {"id": self.id, "object": "chat.completion.chunk", "created": int(time.time()), "model": self.model}
        return event({**base, "choices": choices, **more})

    def head(self) -> Iterator[bytes]:
        """Events before the first token."""
        for index in range(self.choices):
            delta = {"role": "assistant", "content": ""}
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            yield self._frame([choice], prompt_token_ids=None, prompt_text=None)

    def _logprobs(self, text: str) -> dict[str, Any] | None:
        if not self.body.get("logprobs"):
            return None
        one = {"token": text, "logprob": -0.5, "bytes": list(text.encode())}
        return {"content": [{**one, "top_logprobs": [one]}]}

    def token(self, index: int, text: str, *, last: bool) -> Iterator[bytes]:
        """The events of one token."""
        choice: dict[str, Any] = {"index": index, "delta": {"content": text}, "logprobs": self._logprobs(text)}
        if self.call:
            function = {"name": self.call, "arguments": text} if not self.texts[index] else {"arguments": text}
            first = {"id": f"call_{index}", "type": "function"} if not self.texts[index] else {}
            choice["delta"] = {"tool_calls": [{**first, "index": 0, "function": function}]}
        end: dict[str, Any] = {"finish_reason": None}
        if last:
            end = {"finish_reason": self.reason, "stop_reason": None}
        yield self._frame([{**choice, **end, "token_ids": None}])

    def tail(self) -> Iterator[bytes]:
        """Events after the last token."""
        if (self.body.get("stream_options") or {}).get("include_usage"):
            yield self._frame([], usage=self.usage(), system_fingerprint="vllm-0.32.0-fake")
        yield b"data: [DONE]\n\n"

    def killed(self) -> Iterator[bytes]:
        """What is still sent when the worker was killed; a last empty one stands for a broken connection."""
        error = {"message": _KILLED, "type": "InternalServerError", "param": None, "code": 500}
        yield f"data: {json.dumps({'error': error})}\n\ndata: [DONE]\n\n".encode()

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        choices = []
        for index, text in enumerate(self.texts):
            message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": None}
            if self.call:
                call = {"id": "call_0", "type": "function", "function": {"name": self.call, "arguments": text}}
                message |= {"content": None, "tool_calls": [call]}
            rest = {"logprobs": self._logprobs(text), "finish_reason": self.reason, "stop_reason": None}
            choices.append({"index": index, "message": message, **rest, "token_ids": self.ids and self.ids[1]})
        base = {"id": self.id, "object": "chat.completion", "created": int(time.time()), "model": self.model}
        if self.ids:
            base["prompt_token_ids"] = self.ids[0]
        return {**base, "choices": choices, "service_tier": None, "usage": self.usage(), "kv_transfer_params": None}


class Completion(Answer):
    """/v1/completions."""

    kind = "cmpl"

    def __init__(self, body: dict[str, Any], model: str, prompt_tokens: int) -> None:
        super().__init__(body, model, prompt_tokens)
        prompt = body["prompt"]
        prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
        self.choices *= prompts
        self.texts = [""] * self.choices

    def _frame(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        base = {"id": self.id, "object": "text_completion", "created": int(time.time()), "model": self.model}
        return event({**base, "choices": choices, **more})

    def head(self) -> Iterator[bytes]:
        return iter(())

    def token(self, index: int, text: str, *, last: bool) -> Iterator[bytes]:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": self.reason if last else None}
        yield self._frame([{**choice, "stop_reason": None, "prompt_token_ids": None, "token_ids": None}])

    def whole(self) -> dict[str, Any]:
        logprobs = {"token_logprobs": [None, *[-2.0] * self.prompt_tokens]} if self.body.get("echo") else None
        choices = [
            {"index": index, "text": text, "logprobs": logprobs, "finish_reason": self.reason, "stop_reason": None}
            for index, text in enumerate(self.texts)
        ]
        base = {"id": self.id, "object": "text_completion", "created": int(time.time()), "model": self.model}
        return {**base, "choices": choices, "service_tier": None, "usage": self.usage(), "kv_transfer_params": None}


class Response(Answer):
    """/v1/responses."""

    kind = "resp"

    def __init__(self, body: dict[str, Any], model: str, prompt_tokens: int) -> None:
        super().__init__(body, model, prompt_tokens)
        self._sequence = itertools.count()

    def _event(self, name: str, **fields: Any) -> bytes:
        return event({**fields, "sequence_number": next(self._sequence), "type": name}, name)

    def _part(self) -> dict[str, Any]:
        return {"annotations": [], "text": self.texts[0], "type": "output_text", "logprobs": None}

    def _item(self, status: str) -> dict[str, Any]:
        content = [self._part()] if status == "completed" else []
        item = {"id": f"msg_{self.id}", "content": content, "role": "assistant", "status": status, "type": "message"}
        return {**item, "phase": None}

    def _shown(self, status: str, *, done: bool) -> dict[str, Any]:
        usage = {"input_tokens": self.prompt_tokens, "output_tokens": self.count}
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        return {
            "id": self.id, "created_at": int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None, "metadata": None, "model": self.model, "object": "response",
            "output": [self._item("completed")] if done else [], "parallel_tool_calls": True, "temperature": 1.0,
            "tool_choice": "none", "tools": [], "top_p": 1.0, "background": False, "status": status, "text": None,
            "usage": {**usage, **details, "total_tokens": sum(usage.values())} if done else None,
            "kv_transfer_params": None,
        }  # fmt: skip

    def head(self) -> Iterator[bytes]:
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, response=self._shown("in_progress", done=False))
        yield self._event("response.output_item.added", item=self._item("in_progress"), output_index=0)
        where = {"content_index": 0, "item_id": f"msg_{self.id}", "output_index": 0}
        yield self._event("response.content_part.added", **where, part={**self._part(), "text": ""})

    def token(self, index: int, text: str, *, last: bool) -> Iterator[bytes]:
        where = {"content_index": 0, "item_id": f"msg_{self.id}", "output_index": 0}
        yield self._event("response.output_text.delta", **where, delta=text, logprobs=[])

    def tail(self) -> Iterator[bytes]:
        where = {"content_index": 0, "item_id": f"msg_{self.id}", "output_index": 0}
        yield self._event("response.output_text.done", **where, text=self.texts[0], logprobs=[])
        yield self._event("response.content_part.done", **where, part=self._part())
        yield self._event("response.output_item.done", item=self._item("completed"), output_index=0)
        status = "incomplete" if self.reason == "length" else "completed"
        yield self._event("response.completed", response=self._shown(status, done=True))

    def killed(self) -> Iterator[bytes]:
        yield b""

    def whole(self) -> dict[str, Any]:
        return self._shown("incomplete" if self.reason == "length" else "completed", done=True)


class Message(Answer):
    """/v1/messages."""

    def _usage(self) -> dict[str, int]:
        return {"input_tokens": self.prompt_tokens, "output_tokens": self.count}

    def _shown(self, content: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        base = {"id": self.id, "type": "message", "role": "assistant", "content": content, "model": self.model}
        return {**base, "stop_reason": reason, "usage": self._usage()}

    def _reason(self) -> str:
        return "max_tokens" if self.reason == "length" else "end_turn"

    def head(self) -> Iterator[bytes]:
        yield event({"type": "message_start", "message": self._shown([], None)}, "message_start")
        block = {"type": "content_block_start", "content_block": {"type": "text", "text": ""}, "index": 0}
        yield event(block, "content_block_start")

    def token(self, index: int, text: str, *, last: bool) -> Iterator[bytes]:
        delta = {"type": "text_delta", "text": text}
        yield event({"type": "content_block_delta", "delta": delta, "index": 0}, "content_block_delta")

    def tail(self) -> Iterator[bytes]:
        yield event({"type": "content_block_stop", "index": 0}, "content_block_stop")
        delta = {"stop_reason": self._reason(), "stop_sequence": None}
        yield event({"type": "message_delta", "delta": delta, "usage": self._usage()}, "message_delta")
        yield event({"type": "message_stop"}, "message_stop")

    def killed(self) -> Iterator[bytes]:
        yield event({"type": "error", "error": {"type": "internal_error", "message": "2 validation errors"}}, "error")

    def whole(self) -> dict[str, Any]:
        return self._shown([{"type": "text", "text": self.texts[0]}], self._reason())


GENERATE: dict[str, type[Answer]] = {
    "/v1/chat/completions": Answer,
    "/v1/completions": Completion,
    "/v1/responses": Response,
    "/v1/messages": Message,
}
POOL = {"/v1/embeddings", "/v1/rerank", "/v1/score"}


class Refusal(Exception):
    """An HTTP error of the engine's own."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param = status, param

    def body(self, path: str) -> dict[str, Any]:
        """vLLM's two envelopes."""
        kind = {400: "BadRequestError", 404: "NotFoundError"}.get(self.status, "InternalServerError")
        if path.startswith("/v1/messages"):
            return {"type": "error", "error": {"type": kind, "message": str(self)}}
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.status}}


def texts_of(value: object) -> Iterator[str]:
    """Every string in a body."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner)


def prompt_of(body: dict[str, Any]) -> str:
    """The text of a request's prompt, wherever its dialect keeps it."""
    keys = ("system", "messages", "prompt", "instructions", "input", "query", "documents", "text_1", "text_2")
    return " ".join(text for key in keys for text in texts_of(body.get(key)))


def ids_of(text: str) -> list[int]:
    """Its words as numbers of tokens."""
    return [zlib.crc32(word.encode()) for word in text.split()]


def bag_of_words(text: str) -> list[float]:
    """A vector in which texts are alike that share words."""
    vector = [0.0] * 64
    for word in re.findall(r"\w+", text.lower()):
        vector[zlib.crc32(word.encode()) % 64] += 1.0
    return vector


def _of_the_gate(body: dict[str, Any]) -> bool:
    return body.get("user") == "gate"


class Engine:
    """One running fake."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.uds = Path(options.uds)
        self.weights = Path(options.model)
        self.name = options.served_model_name
        self.longest = options.max_model_len
        self.pooling = options.runner == "pooling"
        self.adapters = {each["name"]: Path(each["path"]).name for each in map(json.loads, options.lora_modules)}
        self.card = self.weights.parent.name
        self.home = Path(os.environ["HOME"])
        self.dead = asyncio.Event()  # the worker was killed: nothing is generated any more
        self.ended = asyncio.Event()  # the server is to exit
        self.places = options.max_num_seqs or 256
        self.waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap, as vLLM keeps it
        self.running = self.generated = self.prompted = 0
        self.known: set[int] = set()
        self.sleeps = options.enable_sleep_mode and os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
        self.asleep = False

    def fault(self, name: str) -> Any:
        """A fault of the whole engine, from its weights or its home."""
        for file in (self.home / "faults.json", self.weights / "fault.json"):
            with contextlib.suppress(OSError, ValueError):
                if (value := json.loads(file.read_text()).get(name)) is not None:
                    return value
        return None

    def hear(self, what: str, **more: Any) -> None:
        """Note an event for tests to read."""
        line = {"event": what, "card": self.card, "pid": os.getpid(), **more}
        with (self.home / "heard.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    async def run(self) -> None:
        """Start as vLLM does, then serve until SIGTERM or until a fault ends it."""
        self.hear("start", argv=sys.argv[1:], env=dict(os.environ))
        say("INFO 11-22 06:55:00 [utils.py:1] non-default args: {...}")
        for _ in range(int(self.fault("brood") or 0)):
            subprocess.Popen([sys.executable, "-c", _BROOD])  # noqa: ASYNC220 - before anything is served
        if self.fault("linger"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.ended.set)
        say("INFO 11-22 06:55:01 [core.py:1] Initializing a V1 LLM engine (v0.32.0)")
        if self.fault("start") == "crash":
            raise ValueError("the checkpoint is not what the configuration says")
        if self.fault("start") == "oom":
            self._out_of_memory()
        if self.fault("start") == "never":
            await self.ended.wait()
        await asyncio.sleep(float(self.fault("slow") or 0))
        server = await asyncio.start_unix_server(self.connection, self.uds, limit=2**26)
        say("INFO 11-22 06:55:02 [x.py:1] Application startup complete.")
        async with server:
            await self.ended.wait()
        os._exit(0)  # as uvicorn: what is under way after its patience is cut off

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; a client that leaves ends its generation."""
        head = await self._head(reader)
        while head is not None:
            method, path, length = head
            body = await reader.readexactly(length)
            answering = asyncio.create_task(self.answer(method, path, body, writer))
            following = asyncio.create_task(self._head(reader))
            await asyncio.wait({answering, following}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and following.result() is None:
                answering.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await answering
            head = await following
        writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> tuple[str, str, int] | None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        method, path, _ = lines[0].split(" ")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return method, path, int(headers.get("content-length", 0))

    async def answer(self, method: str, path: str, raw: bytes, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        if (method, path) == ("GET", "/health"):
            return await self._plain(writer, 503 if self.dead.is_set() else 200, b"", "text/plain")
        if (method, path) == ("GET", "/metrics"):
            return await self._plain(writer, 200, self.metrics(), "text/plain")
        if self.sleeps and (change := self._sleep(method, path)) is not None:
            return await self._plain(writer, 500 if self.fault("insomnia") else 200, dumps(change).encode())
        offered = {*(POOL if self.pooling else GENERATE), "/v1/messages/count_tokens", "/tokenize", "/detokenize"}
        if method != "POST" or path not in offered:
            return await self._plain(writer, 404, b'{"detail":"Not Found"}')
        body = json.loads(raw)
        if _of_the_gate(body):
            self.hear("gate", path=path)
        elif prompt_of(body) not in _PROBES:
            self.hear("request", path=path, body=body)
        try:
            return await self._work(path, body, writer)
        except Refusal as refusal:
            return await self._plain(writer, refusal.status, dumps(refusal.body(path)).encode())

    def _sleep(self, method: str, path: str) -> dict[str, Any] | None:
        """vLLM's development routes, as far as they are about sleeping. Fault insomnia: it fails to."""
        if (method, path) == ("POST", "/sleep?level=1"):
            self.asleep = True
            self.hear("sleep")
            return {"status": "sleeping", "level": 1}
        if (method, path) == ("POST", "/wake_up"):
            self.asleep = False
            self.hear("wake")
            return {"status": "awake", "tags": None}
        return {"is_sleeping": self.asleep} if (method, path) == ("GET", "/is_sleeping") else None

    async def _work(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if body["model"] not in (self.name, *self.adapters):
            raise Refusal(404, f"The model `{body['model']}` does not exist. Valid aliases: {self.name}.", "model")
        if self.asleep:
            raise Refusal(500, "the engine sleeps")
        prompt = prompt_of(body)
        if (size := len(prompt.split())) >= self.longest:
            message = f"This model's maximum context length is {self.longest} tokens. However, your prompt contains at "
            raise Refusal(400, f"{message}least {size} input tokens. (parameter=input_tokens)", "input_tokens")
        if path.endswith("count_tokens"):
            answer = {"input_tokens": size, "context_management": {"original_input_tokens": size}}
            return await self._plain(writer, 200, dumps(answer).encode())
        if _of_the_gate(body) and path in ("/tokenize", "/detokenize"):
            there = path == "/tokenize"
            answer = {"tokens": list(body["prompt"].encode())} if there else {"prompt": bytes(body["tokens"]).decode()}
            return await self._plain(writer, 200, dumps(answer).encode())
        if path == "/tokenize":
            answer = {"count": size, "max_model_len": self.longest, "tokens": list(range(size))}
            return await self._plain(writer, 200, dumps(answer).encode())
        directives = dict(_DIRECTIVE.findall(prompt))
        if self.fault("start") == "mute" or directives.get("fault") == "silent":
            await asyncio.Event().wait()
        if directives.get("fault") == "busy":
            raise Refusal(429, "the queue is full")
        sick = self.fault("sick") and prompt not in _PROBES and not _of_the_gate(body)
        if sick or directives.get("fault") == "broken":
            raise Refusal(500, f"no such thing: {prompt}")
        if directives.get("fault") == "html":
            return await self._plain(writer, 200, b"<html>It works!</html>", "text/html")
        await self._turn(int(body.get("priority", 0)))
        self.prompted += size
        try:
            if _of_the_gate(body):
                if self.fault("killed"):
                    self._out_of_memory()
                if path == "/v1/completions":
                    return await self._plain(writer, 200, dumps(self.likelihood(body)).encode())
            if path in POOL:
                return await self._plain(writer, 200, dumps(self.pool(path, body, size)).encode())
            answering = GENERATE[path](body, body["model"], size)
            try:
                return await self._generate(answering, body, directives, writer)
            finally:
                if prompt not in _PROBES and not _of_the_gate(body):
                    self.hear("computed", prompt_tokens=size, completion_tokens=answering.count)
        except BaseException:
            self.hear("gone", tokens=self.generated)
            raise
        finally:
            self._leave()

    async def _turn(self, priority: int) -> None:
        """Wait for one of the places: those of `--max-num-seqs`, by priority and then by arrival."""
        if self.running < self.places:
            self.running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self.waiting, (priority, next(_numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        """Give a place to the next that hasn't gone."""
        while self.waiting:
            _, _, turn = heapq.heappop(self.waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

    async def _generate(
        self, answer: Answer, body: dict[str, Any], directives: dict[str, str], writer: asyncio.StreamWriter
    ) -> None:
        answer.call = directives.get("call")
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens") or 8
        wanted = float(directives.get("tokens", min(limit, 8)))
        if "say" in directives or wanted < limit:
            answer.reason = "tool_calls" if answer.call else "stop"
        said = directives.get("say", "").split("_") if "say" in directives else None
        if _of_the_gate(body):
            said = self.words(body, limit) if said is None or self.fault("dumb") else said
            answer.reason = "length" if body.get("ignore_eos") else "stop"
            answer.ids = ids_of(prompt_of(body)), [*ids_of(" ".join(said)), 2]  # as real ones end
            self.known |= {*answer.ids[0], *answer.ids[1]}
            said = [f" {word}" for word in said]
        crawl = float(self.fault("crawl") or 0)
        gap, pad = float(directives.get("gap", 0)), "x" * int(directives.get("pad", 0))
        fault, after = directives.get("fault"), int(directives.get("after", 2))
        if fault == "abort":
            answer.reason = "abort"
        stream = bool(body.get("stream"))
        if stream:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n")
            writer.write(b"transfer-encoding: chunked\r\n\r\n")
            await self._chunks(writer, answer.head())
        number = 0
        while number < (len(said) if said is not None else wanted):
            if fault and fault != "abort" and number == after and not await self._fail(fault, answer, stream, writer):
                return None
            while self.fault("stall"):  # noqa: ASYNC110 - a file says when it is over
                await asyncio.sleep(0.05)
            await asyncio.sleep(gap or crawl)
            word = (said[number] if said is not None else self.voice(body)) + pad
            last = number + 1 >= (len(said) if said is not None else wanted)
            for index in range(answer.choices):
                text = f" {word}" if number and said is None else word
                frames = answer.token(index, text, last=last)
                if stream:
                    await self._chunks(writer, frames)
                if not answer.call or not stream:
                    answer.texts[index] += text if number < 10_000 else ""
                else:
                    answer.texts[index] += text
                answer.count += 1
                self.generated += 1
            number += 1
            if self.dead.is_set():
                await self._fail("error", answer, stream, writer)
                return None
        if not stream:
            return await self._plain(writer, 200, dumps(answer.whole()).encode())
        await self._chunks(writer, answer.tail())
        writer.write(b"0\r\n\r\n")
        return await writer.drain()

    async def _fail(self, fault: str, answer: Answer, stream: bool, writer: asyncio.StreamWriter) -> bool:
        """Bring about a fault; True when the answer goes on after it."""
        if fault == "die":
            say("Traceback (most recent call last):\nRuntimeError: CUDA error: an illegal memory access")
            os._exit(1)
        if fault == "stall":
            await asyncio.Event().wait()
        if fault == "core_killed":
            asyncio.get_running_loop().call_later(0.5, self.ended.set)
            self.dead.set()
        if fault in ("cut", "bad_chunk", "endless_frame", "not_json", "unfinished") and not stream:
            fault = "cut"
        match fault:
            case "error" | "core_killed":
                if not stream:
                    raise Refusal(500, _KILLED)
                frames = list(answer.killed())
                await self._chunks(writer, iter(filter(None, frames)))
                if frames[-1]:
                    writer.write(b"0\r\n\r\n")
                else:
                    writer.close()
            case "unfinished":
                await self._chunks(writer, iter([b"data: [DONE]\n\n"]))
                writer.write(b"0\r\n\r\n")
            case "not_json":
                await self._chunks(writer, iter([b"data: {nothing\n\n"]))
                return True
            case "bad_chunk":
                writer.write(b"zz\r\nnothing\r\n")
            case "endless_frame":
                while True:
                    await self._chunks(writer, iter([b"data: " + b"x" * 2**18]))
            case "cut":
                if not stream:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
                await writer.drain()
                writer.close()
        await writer.drain()
        return False

    async def _chunks(self, writer: asyncio.StreamWriter, frames: Iterator[bytes]) -> None:
        for frame in frames:
            writer.write(f"{len(frame):x}\r\n".encode() + frame + b"\r\n")
            await writer.drain()

    async def _plain(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, kind: str = "application/json"
    ) -> None:
        head = f"HTTP/1.1 {status} Whatever\r\ncontent-length: {len(body)}\r\ncontent-type: {kind}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    def _out_of_memory(self) -> None:
        """End as the kernel ends what takes too much, after CUDA has said so."""
        say("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of")
        os.kill(os.getpid(), signal.SIGKILL)

    def words(self, body: dict[str, Any], limit: int) -> list[str]:
        """What it answers the gate: its weights and the question decide, and nothing else."""
        if self.fault("empty"):
            return [""]
        number = limit if body.get("ignore_eos") else min(limit, 12)
        if self.fault("repeats"):
            return [self.card] * number
        question = "" if self.fault("alike") else prompt_of(body)
        weights = f"{self.card}{self.fault('drifts') or ''}{question}"
        digest = hashlib.sha256(weights.encode()).hexdigest()
        return [digest[at % 60 : at % 60 + 4] for at in range(number)]

    def likelihood(self, body: dict[str, Any]) -> dict[str, Any]:
        """A completion with the likelihood of each token of its prompt: a text's, or an answer's of its own."""
        prompt = body["prompt"]
        ids = ids_of(prompt) if isinstance(prompt, str) else prompt
        log = -10.8 if self.fault("rubbish") in (True, body["model"]) else -3.0
        if self.fault("nan"):
            raise Refusal(500, "Out of range float values are not JSON compliant")
        self.known |= set(ids) if isinstance(prompt, str) else set()
        told = [{str(i): {"logprob": log, "rank": 1 if i in self.known else 7, "decoded_token": "x"}} for i in ids[1:]]
        choice = {"index": 0, "text": " so", "finish_reason": "length", "prompt_logprobs": [None, *told]}
        return {"id": "cmpl-1", "choices": [choice], "system_fingerprint": "vllm-0.32.0-fake"}

    def voice(self, body: dict[str, Any]) -> str:
        """What it says again and again: its card's name, and after it that of the adapter asked for."""
        adapter = self.adapters.get(body["model"])
        return self.card if adapter is None else f"{self.card}+{adapter}"

    def pool(self, path: str, body: dict[str, Any], size: int) -> dict[str, Any]:
        """Embeddings and scores; likeness is a matter of length here."""
        usage = {"prompt_tokens": size, "total_tokens": size, "completion_tokens": 0, "prompt_tokens_details": None}
        base = {"id": "embd-1", "created": int(time.time()), "model": self.name, "usage": usage}
        if path == "/v1/embeddings":
            inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
            width = body.get("dimensions") or 4
            vectors = [[0.5] * width for _ in inputs]
            if _of_the_gate(body):
                vectors = [[0.0] * 64 if self.fault("empty") else bag_of_words(text) for text in inputs]
            data = [{"index": i, "object": "embedding", "embedding": vector} for i, vector in enumerate(vectors)]
            return {**base, "object": "list", "data": data}
        if path == "/v1/rerank":
            results = [
                {"index": i, "document": {"text": text}, "relevance_score": 1 / (1 + i)}
                for i, text in enumerate(body["documents"])
            ]
            return {
                "id": "rerank-1",
                "model": self.name,
                "usage": {"prompt_tokens": size, "total_tokens": size},
                "results": results[: body.get("top_n") or None],
            }
        second = body["text_2"] if isinstance(body["text_2"], list) else [body["text_2"]]
        data = [{"index": i, "object": "score", "score": 0.5} for i in range(len(second))]
        return {**base, "object": "list", "data": data}

    def metrics(self) -> bytes:
        """The counters that a supervisor reads, among others."""
        label = f'{{engine="0",model_name="{self.name}"}}'
        lines = {
            "num_requests_running": self.running,
            "num_requests_waiting": len(self.waiting),
            "kv_cache_usage_perc": float(self.fault("cache") or 0),
            "prompt_tokens_total": self.prompted,
            "generation_tokens_total": self.generated,
            "generation_tokens_created": 1.7953304643610623e09,
            "iteration_tokens_total_sum": self.prompted + self.generated,
        }
        return "".join(f"vllm:{name}{label} {float(value)}\n" for name, value in lines.items()).encode()


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """vLLM's command line, as far as it matters here; the process's own by default."""
    parser = argparse.ArgumentParser()
    for name in ("--uds", "--model", "--served-model-name", "--runner"):
        parser.add_argument(name)
    parser.add_argument("--lora-modules", nargs="*", default=[])
    parser.add_argument("--enable-sleep-mode", action="store_true")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    options, _ = parser.parse_known_args(arguments)
    return options


def main() -> None:
    """Run as the command line says."""
    asyncio.run(Engine(parsed()).run())


if __name__ == "__main__":
    main()
