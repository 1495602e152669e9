"""What is on record of a request as begun has an end there, whatever hindered it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance import pipeline, testimony
from appliance.audit.record import Kind
from appliance.config import Accounts, UseCase
from appliance.core import Caller, Operation, Request, Role, Task
from appliance.errors import AuditUnavailable
from appliance.observe import Metrics
from tests.fakes import journal


class _Place:
    served: Any = SimpleNamespace(engine=None)

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
    monkeypatch.setattr(pipeline, "choose", lambda _, served: served)
    fine: Any = SimpleNamespace(require=lambda: None, objection=lambda: None)
    fleet: Any = SimpleNamespace(find=lambda _: _Place.served)
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
    line = pipeline.Pipeline(fine, fleet, turns, books, witness, Metrics(), log)
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
    nothing: Any = SimpleNamespace()
    witness = testimony.Testimony(archive, Accounts(), "3f9c2a71")
    caller = Caller("key_1", Role.USER, "anna")
    request = Request("req_1", caller, Operation("chat", "/x", Task.CHAT, "messages"), "chat", b"{}")
    line = pipeline.Pipeline(fine, nothing, nothing, nothing, witness, Metrics(), log)
    records.fail()
    for _ in range(3):
        with pytest.raises(AuditUnavailable) as refused:
            await line.run(request, nothing, lambda _: request)
        line.refused("req_1", caller, "chat", refused.value)
    assert records._health.wrote()["refused"] == 3
    archive.subjects.close()
