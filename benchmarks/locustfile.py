"""Locust users who chat: they ask, read the streamed answer, think, and ask again about what they were told.

`benchmarks.bench` runs it and reads what it writes. By hand, with Locust's own display:

    CHAT_KEY=... CHAT_MODEL=chat CHAT_RECORDS=/dev/null locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000

Each request becomes one line of JSON in the file `CHAT_RECORDS`: a `Measured`, with times and counts but never
a word of what was asked or answered. `CHAT_SEED` (a number) makes the same users say the same again, and
`CHAT_THINK` is the mean of their thinking time in seconds; `CHAT_CA` names the authority of an https address.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count, pairwise
from typing import Any, ClassVar

import requests
from locust import HttpUser, task

from benchmarks.measured import Measured
from benchmarks.people import Talker


def events(response: requests.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream, each as soon as it is there; `[DONE]` is an empty one."""
    held = b""
    for data in response.iter_content(chunk_size=None):
        *frames, held = (held + data).split(b"\n\n")
        for frame in frames:
            text = frame.removeprefix(b"data: ")
            yield {} if text == b"[DONE]" else json.loads(text)


class Chatter(HttpUser):
    """One user. Several run side by side in one process, on gevent."""

    numbers: ClassVar[Iterator[int]] = count()

    def on_start(self) -> None:
        """Become somebody: the number decides what is said."""
        self.number = next(self.numbers)
        self.talker = Talker(f"{os.environ.get('CHAT_SEED', '1')}-{self.number}")
        self.model = os.environ["CHAT_MODEL"]
        self.think = float(os.environ.get("CHAT_THINK", "2"))
        self.client.trust_env = False  # never by way of a proxy: what is measured is in the house
        self.client.verify = os.environ.get("CHAT_CA") or True
        self.client.headers["authorization"] = f"Bearer {os.environ['CHAT_KEY']}"

    def wait_time(self) -> float:
        """Think."""
        return self.talker.thinking(self.think)

    @task
    def turn(self) -> None:
        """Ask once, read the answer to its end, write down how it went."""
        wanted = self.talker.ask()
        body = {
            "model": self.model,
            "messages": self.talker.messages,
            "max_tokens": wanted,
            "temperature": 0.7,
            "seed": self.number,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        measured = Measured(
            user=self.number,
            turn=len(self.talker.messages) // 2 + 1,
            language=self.talker.language,
            started=time.time(),
        )
        answer = ""
        began = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions", json=body, stream=True, timeout=(10, 120), catch_response=True
        ) as response:
            try:
                measured.status = response.status_code
                if response.status_code == 200:  # 0: no connection
                    answer = self._read(response, measured, began)
                else:
                    measured.error = f"status {response.status_code}"
            except (requests.RequestException, ValueError) as failure:
                measured.error = type(failure).__name__
            measured.end_to_end_ms = (time.perf_counter() - began) * 1000
            if measured.error:
                response.failure(measured.error)
        self.talker.hear("" if measured.error else answer)
        with open(os.environ["CHAT_RECORDS"], "a") as file:  # noqa: PTH123 - a plain append
            file.write(json.dumps(asdict(measured)) + "\n")

    def _read(self, response: requests.Response, measured: Measured, began: float) -> str:
        words: list[str] = []
        arrived: list[float] = []
        done = False
        for event in events(response):
            if "error" in event:
                measured.error = str(event["error"].get("code") or "error event")
                return ""
            done = done or not event
            for choice in event.get("choices", ()):
                if content := choice["delta"].get("content"):
                    words.append(content)
                    arrived.append(time.perf_counter())
            if usage := event.get("usage"):
                measured.prompt_tokens = usage["prompt_tokens"]
                measured.tokens = usage["completion_tokens"]
        if not done or not arrived:
            measured.error = "no answer" if done else "stream ended early"
            return ""
        measured.tokens = measured.tokens or len(arrived)
        measured.first_token_ms = (arrived[0] - began) * 1000
        measured.gaps_ms = [(later - earlier) * 1000 for earlier, later in pairwise(arrived)]
        return "".join(words)
