"""Copies for a shadow: after the answer, behind all others, few at once, and shown to nobody."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from appliance import mirror
from appliance.core import Caller, Operation, Request, ServiceClass, Task
from appliance.engines.served import Arms, Split
from appliance.errors import NotFound, UpstreamFailed
from appliance.mirror import Mirror
from appliance.observe import Metrics, Record

CHAT = Operation("chat", "/v1/chat/completions", Task.CHAT, "messages")


def request(payload: dict[str, Any] | None = None, **more: Any) -> Request:
    body = json.dumps(payload or {"model": "chat", "messages": [], "priority": 10}).encode()
    return Request("r", Caller("k"), CHAT, "chat", body, most_prompt_tokens=8, most_completion_tokens=8, **more)


def answer(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class _Hold:
    def __init__(self, held: list[int]) -> None:
        self.held = held

    def __enter__(self) -> Any:
        self.held.append(1)
        return object()

    def __exit__(self, *_: object) -> None:
        self.held.pop()


class Bench:
    """A stable version and a shadow, whose engine answers as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: list[int] = []
        self.load = SimpleNamespace(waiting=0)
        spec = SimpleNamespace(settings=SimpleNamespace(batching=SimpleNamespace(scheduling="priority")))
        engine = SimpleNamespace(load=self.load, spec=spec)
        about = {"context_length": 512, "task": Task.CHAT, "name": "chat", "upstream_name": "chat", "ready": True}
        self.stable: Any = SimpleNamespace(**about, version="one@1", engine=engine)
        self.shadow: Any = SimpleNamespace(**about, version="two@2", engine=engine, hold=lambda: _Hold(self.held))
        self.arms = Arms(self.stable, self.shadow, mirror=Split(100, "request", "s"))
        self.metrics = Metrics()
        self.heard: list[tuple[str, float | None]] = []
        self.sent: list[Request] = []
        self.says: Any = "as it is"
        self.go = asyncio.Event()
        self.go.set()
        self.mirror = Mirror(
            lambda _: self.arms, self.metrics, lambda record, alike: self.heard.append((record.outcome, alike))
        )

        async def serve(request: Request, _: Any, reply: Any, record: Any, kept: Any, place: Any) -> None:
            self.sent.append(request)
            await self.go.wait()
            place.first_token()
            if isinstance(self.says, Exception):
                raise self.says
            await reply.whole(answer(self.says))

        monkeypatch.setattr(mirror, "serve", serve)

    async def ask(self, text: str = "as it is", outcome: str = "answered", **more: Any) -> bool:
        """One request to the stable version; whether its copy was sent."""
        copy = self.mirror.take(request(**more), self.stable)
        assert copy is not None
        shown: list[bytes] = []

        async def whole(body: bytes) -> None:
            shown.append(body)

        reply: Any = SimpleNamespace(whole=whole, begun=False)
        await copy.heard(reply).whole(answer(text))
        assert shown == [answer(text)], "the caller gets the answer as it is"
        sent = copy.send(self.ended(outcome))
        await asyncio.sleep(0)
        return sent

    def ended(self, outcome: str = "answered") -> Record:
        record = self.metrics.open(request())
        record.outcome = outcome
        return record

    async def done(self) -> None:
        await asyncio.gather(*self.mirror._running)

    def counted(self, outcome: str) -> float:
        return float(self.metrics.copies.labels("chat", "two@2", outcome)._value.get())


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_it_is_sent_after_the_answer_with_the_lowest_priority_and_compared(bench: Bench) -> None:
    assert await bench.ask("As it is!", service_class=ServiceClass.INTERACTIVE)
    await bench.done()
    assert bench.heard == [("answered", 1.0)]
    (copy,) = bench.sent
    assert copy.service_class is ServiceClass.BATCH
    assert json.loads(copy.payload)["priority"] == 20
    assert bench.counted("answered") == 1
    assert bench.held == []


async def test_what_says_nothing_is_not_compared(bench: Bench) -> None:
    """Vectors and scores hold no words, and no two of them would differ."""
    bench.shadow.task = bench.stable.task = Task.EMBEDDING
    embeddings = Operation("embeddings", "/v1/embeddings", Task.EMBEDDING, "input")
    asked = dataclasses.replace(request(), operation=embeddings)
    copy = bench.mirror.take(asked, bench.stable)
    assert copy is not None
    copy.answer = mirror.Kept()
    assert copy.send(bench.ended())
    await bench.done()
    assert bench.heard == [("answered", None)]


async def test_answers_are_compared_beside_the_loop_in_which_streams_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    at: list[int] = []

    def compared(*_: str) -> float:
        at.append(threading.get_ident())
        return 0.5

    monkeypatch.setattr(mirror, "agreement", compared)
    assert await bench.ask()
    await bench.done()
    assert bench.heard == [("answered", 0.5)]
    assert at != [threading.get_ident()]


async def test_what_was_not_answered_has_nothing_to_be_compared_with(bench: Bench) -> None:
    for outcome in ("failed", "refused", "caller_gone"):
        assert not await bench.ask(outcome=outcome)
    assert not bench.sent
    assert bench.mirror._open == 0


async def test_a_copy_that_fails_counts_as_that_and_hurts_nobody(bench: Bench) -> None:
    bench.says = UpstreamFailed("it broke", code="engine_failed")
    assert await bench.ask()
    await bench.done()
    bench.says = RuntimeError("a bug, with words of a prompt")
    assert await bench.ask()
    await bench.done()
    assert bench.heard == [("failed", None)] * 2
    assert bench.counted("failed") == 2
    assert bench.held == []


async def test_while_somebody_waits_there_a_copy_is_dropped_and_counted(bench: Bench) -> None:
    bench.load.waiting = 1
    assert not await bench.ask()
    bench.load.waiting = 0
    bench.shadow.ready = False
    copy = bench.mirror.take(request(), bench.stable)
    assert copy is None, "one that isn't ready gets none"
    bench.shadow.ready = True
    assert await bench.ask()
    assert bench.counted("dropped") == 1


async def test_few_run_at_once_and_the_rest_is_dropped(bench: Bench) -> None:
    bench.go.clear()
    assert [await bench.ask() for _ in range(6)] == [True] * 4 + [False] * 2
    assert len(bench.sent) == 4
    bench.go.set()
    await bench.done()
    assert await bench.ask(), "and there is room again"
    assert bench.counted("dropped") == 2


async def test_no_more_answers_are_kept_than_a_few(bench: Bench) -> None:
    taken = [bench.mirror.take(request(), bench.stable) for _ in range(20)]
    assert [each is not None for each in taken] == [True] * 16 + [False] * 4
    for each in taken:
        if each is not None:
            each.send(bench.ended("failed"))
    assert bench.mirror.take(request(), bench.stable) is not None


async def test_of_a_long_answer_only_the_beginning_is_kept() -> None:
    kept = mirror.Kept()
    await kept.frames(b"x" * 2**20)
    await kept.frames(b"y" * 2**20)
    assert len(kept.content) == 2**20
    await kept.begin()
    await kept.end()
    assert kept.begun


async def test_what_gets_no_copy(bench: Bench) -> None:
    assert bench.mirror.take(request(choices=2), bench.stable) is None
    assert bench.mirror.take(Request("r", Caller("k"), CHAT, "chat", b"{}"), bench.stable) is None, "only counted"
    assert bench.mirror.take(request(), bench.shadow) is None, "what the shadow itself has answered, after it took over"

    def gone(_: str) -> Arms:
        raise NotFound("it is served no more", code="model_not_found")

    bench.mirror._arms = gone
    assert bench.mirror.take(request(), bench.stable) is None


async def test_at_the_end_copies_are_broken_off_and_none_is_sent_any_more(bench: Bench) -> None:
    bench.go.clear()
    assert await bench.ask()
    await bench.mirror.close()
    assert bench.counted("cancelled") == 1
    assert bench.held == []
    assert bench.mirror.take(request(), bench.stable) is None
