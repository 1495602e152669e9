"""The journal in memory does as the real one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.config.audit import Audit
from appliance.errors import AuditUnavailable
from tests.fakes import journal as fakes

NOON = 1_795_000_000.0
BODIES: list[tuple[Kind, dict[str, Any]]] = [
    (Kind.INTENT, {"model": "chat", "found": {}}), (Kind.ACT, {"act": "read", "filters": {"team": "ü\u2028"}}),
    (Kind.INCIDENT, {"incident": "x", "seconds": 2}),
]  # fmt: skip


async def test_it_writes_the_same_lines_and_answers_alike(tmp_path: Path) -> None:
    real = await Journal.open(tmp_path / "audit", tmp_path / "keys", Audit(), wall=lambda: NOON)
    fake = fakes.Journal(tmp_path / "fake", wall=lambda: NOON)
    for kind, body in BODIES:
        for each in (real, fake):
            ticket = each.write(kind, body)
            await ticket.kept()
            assert ticket.seq == each.head[0]
            each.note(kind, body)
    with pytest.raises(ValueError, match=r"."):
        fake.write(Kind.ACT, {"act": b"no text"})
    with pytest.raises(ValueError, match=r"."):
        real.write(Kind.ACT, {"act": b"no text"})
    assert fake.head == real.head
    assert set(fake.describe()) == set(real.describe())
    await real.close(5)
    (file,) = (tmp_path / "audit").glob("0*.jsonl")
    assert file.read_bytes().splitlines() == fake.lines


async def test_it_refuses_alike(tmp_path: Path) -> None:
    real = await Journal.open(tmp_path / "audit", tmp_path / "keys", Audit())
    fake = fakes.Journal(tmp_path / "fake")
    await real.close(5)
    fake.fail()
    refusals = []
    for each in (real, fake):
        with pytest.raises(AuditUnavailable) as caught:
            each.write(*BODIES[0])
        refusals.append((str(caught.value), caught.value.code, caught.value.retry_after))
    assert refusals[0] == refusals[1]
