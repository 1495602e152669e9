"""What is said while the log can't be written, to callers and to administrators, and what a start found."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from pathlib import Path

import pytest

from appliance.audit import flow
from appliance.audit.disk import RealDisk
from appliance.audit.health import in_words
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.config.audit import Audit
from appliance.errors import AuditUnavailable, in_full
from tests.fakes.disk import FakeDisk
from tests.fakes.house import until


class Full(RealDisk):
    """As the kernel says it where a descriptor is written to: without the name of a file."""

    full = False

    def write(self, descriptor: int, content: bytes | memoryview, offset: int) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(descriptor, content, offset)


async def test_administrators_are_told_folder_and_reason_and_callers_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Full()
    journal = await Journal.open(tmp_path / "audit", tmp_path / "audit-keys", Audit(), disk=disk)
    disk.full = True
    with pytest.raises(AuditUnavailable):
        await journal.write(Kind.INTENT, {}).kept()
    why = f"{tmp_path / 'audit'}: No space left on device"
    assert journal.trouble == why
    assert caplog.messages == [f"the audit log can't be written, so nothing is answered: {why}"]
    with pytest.raises(AuditUnavailable) as refused:
        journal.require()
    assert in_full(refused.value) == f"the audit log can't be written: {why}"
    assert str(tmp_path) not in str(refused.value), "that goes out to callers"
    disk.full = False
    await journal.close(5)
    assert journal.trouble is None


async def test_a_disk_that_hangs_on_hides_no_reason_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_PATIENCE", 0.02)
    disk = FakeDisk()
    journal = await Journal.open(tmp_path / "audit", tmp_path / "audit-keys", Audit(), disk=disk)
    disk.works.clear()
    with pytest.raises(AuditUnavailable):
        await journal.write(Kind.INTENT, {}).kept()
    assert journal.trouble == f"{tmp_path / 'audit'}: the disk doesn't answer within 0.02 s"
    disk.fail("write", errno.EIO)
    disk.works.set()
    await asyncio.to_thread(until, lambda: "Input/output error" in str(journal.trouble))
    before = disk.failed
    await asyncio.to_thread(until, lambda: disk.failed > before + 2)
    assert "Input/output error" in str(journal.trouble)
    disk.mend()
    await journal.close(5)


async def test_a_torn_end_is_told_in_words_and_damages_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, keys = tmp_path / "audit", tmp_path / "audit-keys"
    journal = await Journal.open(folder, keys, Audit())
    await journal.write(Kind.INTENT, {}).kept()
    await journal.close(5)
    with (folder / "000000000001.jsonl").open("ab") as segment:
        segment.write(b'{"at":"2026-')
    journal = await Journal.open(folder, keys, Audit())
    await journal.close(5)
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert "half written, as a power cut leaves it" in told.message
    assert "damaged" not in told.message
    assert "{" not in told.message


def test_an_incident_without_words_of_its_own_is_still_no_python() -> None:
    assert in_words({"incident": "audit_elsewhere", "after": 7}) == "incident audit_elsewhere; after 7"
