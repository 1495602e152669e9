"""Who does something stands in the log sealed, and what was begun has an end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.audit.archive import Actor, Archive
from appliance.core import Caller, Role
from appliance.errors import AuditUnavailable
from tests.fakes import journal


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = journal.archive(tmp_path)
    yield made
    made.subjects.close()


def test_what_is_sealed_tells_no_name_by_its_length(archive: Archive) -> None:
    names = ["Bo", "Anna", "Maximilian", "Christopher Öz", "key:key_0123456789ab", "x" * 38]
    callers = [Caller("key_0123456789ab", Role.USER, name, None) for name in names]
    nobody = Caller("key_0123456789ab", Role.USER, None, None)
    assert len({len(archive.caller(caller)["sealed"]) for caller in [*callers, nobody]}) == 1
    targets = [archive.target(name, key)["target"] for name in names for key in (None, "key_0123456789ab")]
    assert len({len(target["sealed"]) for target in targets}) == 1


@pytest.mark.parametrize("name", ["anna", "é" * 100, '"' * 256, "🙂" * 256, "\x00" * 256])
def test_what_is_sealed_is_whole_also_where_it_is_long(archive: Archive, name: str) -> None:
    target = archive.target(name, "key_1")["target"]
    subject = archive.subjects.known(name)
    assert subject is not None
    inside = subject.open(target["sealed"])
    assert len(inside) in (96, 192, 384, 768, 1536, 3072)
    told = json.loads(inside)
    assert (told["user"], told["key"], set(told["pad"]) - {" "}) == (name, "key_1", set())


async def test_an_act_whose_beginning_cant_be_kept_has_an_end_on_record(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record may have come to disk, or come there later: nobody may take it for something that was done."""

    async def lost(_: journal.Ticket) -> None:
        raise AuditUnavailable("not now", code="audit_unavailable")

    monkeypatch.setattr(journal.Ticket, "kept", lost)
    with pytest.raises(AuditUnavailable):
        async with archive.act("keys.create", Actor.host()):
            pytest.fail("it must not be done")
    records: Any = archive.journal
    begun, failed = (record["body"] for record in records.records)
    assert (begun["phase"], failed["phase"], failed["of"]) == ("intent", "failed", 1)
    assert failed["error"] == "AuditUnavailable"
