"""What is on record of a request as begun has an end there, whatever hindered it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance import pipeline, testimony
from appliance.audit.record import Kind
from appliance.config import Accounts, UseCase
from appliance.core import Caller, DataClass, Operation, Request, Role, Task
from appliance.engines.served import Arms
from appliance.errors import (
    AuditUnavailable,
    BudgetExceeded,
    HeldBack,
    Loading,
    NotProven,
    Overloaded,
    Refused,
    Unreachable,
    UpstreamFailed,
)
from appliance.observe import Metrics
from appliance.privacy.verdict import Held, Verdict
from tests.fakes import journal

ROLLOUTS: Any = SimpleNamespace(settle=lambda _: None, copied=lambda *_: None)


_SPEC = SimpleNamespace(fingerprint="f" * 64)


class _Place:
    served: Any = SimpleNamespace(engine=None, version="endpoint")
    moved = False

    async def turn(self) -> Any:
        return self.served

    def leave(self, tokens: int, *, failed: bool = False) -> None:
        """It goes."""


class _Booking:
    headers = ()

    async def kept(self) -> None:
        """It is."""

    def settle(self, prompt: int, completion: int) -> None:
        assert (prompt, completion) == (0, 0)


class _Books:
    async def reserve(self, _: Any) -> _Booking:
        return _Booking()

    def cost(self, *_: Any) -> int:
        return 0


async def test_what_was_asked_that_cant_be_kept_is_the_outcome_of_the_intent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log fails between the two records of a request whose content is stored."""
    archive = journal.archive(tmp_path)
    records: Any = archive.journal
    write = records.write

    def failing(kind: Kind, body: Any) -> Any:
        if kind is Kind.CONTENT:
            records.fail()
        return write(kind, body)

    monkeypatch.setattr(records, "write", failing)
    monkeypatch.setattr(pipeline, "choose", lambda _, arms: arms.stable)
    fine: Any = SimpleNamespace(require=lambda: None, objection=lambda: None)
    fleet: Any = SimpleNamespace(arms=lambda _: Arms(_Place.served))
    turns: Any = SimpleNamespace(enter=lambda *_: _Place())
    books: Any = _Books()
    log: Any = SimpleNamespace(write=lambda _: None)
    reply: Any = SimpleNamespace(note=lambda _: None)
    accounts = Accounts(use_cases={"review": UseCase(store_content=True)})
    witness = testimony.Testimony(archive, accounts, "3f9c2a71")
    request = Request(
        "req_1", Caller("key_1", Role.USER, "anna"), Operation("chat", "/x", Task.CHAT, "messages"), "chat", b"{}",
        use_case="review",
    )  # fmt: skip
    line = pipeline.Pipeline(fine, fleet, turns, books, witness, Metrics(), log, ROLLOUTS)
    with pytest.raises(AuditUnavailable):
        await line.run(request, reply, lambda _: request)
    intent, outcome = records.records
    assert (intent["kind"], outcome["kind"], outcome["body"]["intent"]) == ("intent", "outcome", 1)
    assert (outcome["body"]["status"], outcome["body"]["code"]) == (503, "audit_unavailable")
    archive.subjects.close()


async def test_a_request_that_is_refused_since_nothing_can_be_written_counts_once(tmp_path: Path) -> None:
    archive = journal.archive(tmp_path)
    records: Any = archive.journal
    fine: Any = SimpleNamespace(require=lambda: None, objection=lambda: None)
    log: Any = SimpleNamespace(write=lambda _: None, refused=lambda *_: None)
    nothing: Any = SimpleNamespace(arms=None)
    witness = testimony.Testimony(archive, Accounts(), "3f9c2a71")
    caller = Caller("key_1", Role.USER, "anna")
    request = Request("req_1", caller, Operation("chat", "/x", Task.CHAT, "messages"), "chat", b"{}")
    line = pipeline.Pipeline(fine, nothing, nothing, nothing, witness, Metrics(), log, ROLLOUTS)
    records.fail()
    for _ in range(3):
        with pytest.raises(AuditUnavailable) as refused:
            await line.run(request, nothing, lambda _: request)
        line.refused("req_1", caller, "chat", refused.value)
    assert records._health.wrote()["refused"] == 3
    archive.subjects.close()


class _Burst:
    """The way out, where everything is held back."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def helps(self, *_: Any) -> bool:
        return True

    async def answer(self, request: Request, refusal: Refused, reply: Any, record: Any, told: Any) -> None:
        self.asked.append(request)
        told.verdict = Verdict(DataClass.PERSONAL, {"secret": 1}, Held.SECRET)
        told.held = "secret"
        raise HeldBack("it holds a key", held="secret")


class House:
    """A pipeline whose house refuses, and all that came of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "choose", lambda _, arms: arms.stable)
        self.monkeypatch = monkeypatch
        self.archive = journal.archive(folder)
        self.burst = _Burst()
        self.books: Any = _Books()
        self.proof: Any = SimpleNamespace(require=lambda: None, objection=lambda: None)
        self.turns: Any = SimpleNamespace(enter=lambda *_: _Place())
        self.noted: dict[bytes, bytes] = {}
        self.request = Request(
            "req_1", Caller("key_1", Role.USER, "anna"), Operation("chat", "/x", Task.CHAT, "messages"), "chat", b"{}",
        )  # fmt: skip

    def refuses(self, refusal: Refused) -> None:
        """What the engine answers once it is asked."""

        async def serve(*_: Any) -> None:
            raise refusal

        self.monkeypatch.setattr(pipeline, "serve", serve)

    async def run(self) -> None:
        fleet: Any = SimpleNamespace(arms=lambda _: Arms(_Place.served))
        log: Any = SimpleNamespace(write=lambda _: None)
        reply: Any = SimpleNamespace(note=self.noted.update, begun=False)
        witness = testimony.Testimony(self.archive, Accounts(), "3f9c2a71")
        burst: Any = self.burst
        line = pipeline.Pipeline(self.proof, fleet, self.turns, self.books, witness, Metrics(), log, ROLLOUTS, burst)
        await line.run(self.request, reply, lambda model: replace(self.request, model=model))

    @property
    def records(self) -> list[Any]:
        written: Any = self.archive.journal
        return list(written.records)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    made = House(tmp_path, monkeypatch)
    yield made
    made.archive.subjects.close()


async def test_why_a_request_stays_is_on_record_also_where_an_engine_was_asked_before(house: House) -> None:
    house.refuses(UpstreamFailed("the engine failed", code="engine_failed"))
    with pytest.raises(HeldBack):
        await house.run()
    intent, outcome, refusal = house.records
    assert (intent["kind"], outcome["body"]["code"]) == ("intent", "engine_failed")
    assert {name: refusal["body"][name] for name in ("class", "found", "held", "code", "request")} == {
        "class": "personal", "found": {"secret": 1}, "held": "secret", "code": "held_back", "request": "req_1",
    }  # fmt: skip


async def test_what_leaves_in_place_of_a_smaller_model_is_asked_of_the_smaller_one(house: House) -> None:
    async def reserve(want: Any) -> _Booking:
        raise BudgetExceeded("used up", retry_after=60, step_down_to="small")

    def enter(request: Request, _: Any) -> _Place:
        if request.model == "small":
            raise Overloaded("busy", code="overloaded", retry_after=1)
        return _Place()

    house.books.reserve, house.turns.enter = reserve, enter
    with pytest.raises(HeldBack):
        await house.run()
    assert [each.model for each in house.burst.asked] == ["small"]
    assert house.noted[b"x-appliance-stepped-down-from"] == b"chat"


async def test_whose_engine_had_gone_before_it_heard_of_it_is_asked_once_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Place, "served", SimpleNamespace(engine=SimpleNamespace(spec=_SPEC), base=None, version="a@1"))
    asked = []

    async def serve(*_: Any) -> None:
        asked.append(_)
        if len(asked) == 1:
            raise Unreachable("nobody listens", code="engine_failed")

    house.monkeypatch.setattr(pipeline, "serve", serve)
    await house.run()
    assert len(asked) == 2
    assert [each["body"].get("outcome") for each in house.records if each["kind"] == "outcome"] == [
        "failed",
        "answered",
    ]


async def test_an_endpoint_that_cannot_be_reached_is_not_asked_again(house: House) -> None:
    house.refuses(Unreachable("nobody listens", code="engine_failed"))
    with pytest.raises(HeldBack):
        await house.run()
    assert [each["kind"] for each in house.records] == ["intent", "outcome", "refusal"]


async def test_what_waited_for_another_version_is_made_anew_for_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Place, "moved", True)
    served = []

    async def serve(request: Request, *_: Any) -> None:
        served.append(request)

    house.monkeypatch.setattr(pipeline, "serve", serve)
    await house.run()
    assert served == [house.request]
    assert served[0] is not house.request


async def test_nothing_leaves_once_the_seal_is_not_proven_any_more(house: House) -> None:
    def unproven() -> None:
        raise NotProven("the last verification failed", code="not_proven")

    def enter(*_: Any) -> _Place:
        house.proof.require = unproven
        raise Loading("it starts", code="loading", retry_after=1)

    house.turns.enter = enter
    with pytest.raises(NotProven):
        await house.run()
    assert house.burst.asked == []
