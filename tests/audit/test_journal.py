"""The journal: what is acknowledged is on disk, whatever the disk does; and while it can't be, all hear so."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from appliance.audit import flow, segments
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.config.audit import Audit
from appliance.errors import AuditFailed, AuditUnavailable
from tests.audit import chain
from tests.fakes.disk import FakeDisk
from tests.fakes.house import until

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0


class Wall:
    """A wall clock to be set."""

    def __init__(self) -> None:
        self.moment = NOON

    def __call__(self) -> float:
        return self.moment


Open = Callable[..., Awaitable[Journal]]


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
async def start(tmp_path: Path, wall: Wall) -> AsyncIterator[Open]:
    """Opens the log in the test's folder, and closes it after the test."""
    opened: list[Journal] = []

    async def begin(disk: FakeDisk | None = None, **settings: Any) -> Journal:
        found = await Journal.open(tmp_path / "audit", tmp_path / "audit-keys", Audit(**settings), wall=wall, disk=disk)
        opened.append(found)
        return found

    yield begin
    for journal in opened:
        await journal.close(0.2)


async def eventually(what: Callable[[], Any]) -> None:
    """Wait for `what` while the event loop runs."""
    await asyncio.to_thread(until, what)


def well(journal: Journal) -> bool:
    return journal.describe()["well"] == 1


async def kept(journal: Journal, number: int) -> int:
    ticket = journal.write(Kind.INTENT, {"number": number})
    await ticket.kept()
    return ticket.seq


# ---- records


async def test_a_record_is_in_its_file_once_it_is_kept(start: Open, log: Path) -> None:
    journal = await start()
    assert await kept(journal, 7) == 1
    line = (log / "000000000001.jsonl").read_text()
    assert json.loads(line) == {
        "at": "2026-11-22T12:00:00.000Z", "body": {"number": 7}, "kind": "intent", "prev": "0" * 64, "seq": 1,
    }  # fmt: skip
    assert journal.head == (1, hashlib.sha256(line[:-1].encode()).hexdigest())


async def test_a_record_does_not_wait_for_the_disk_and_its_ticket_does(start: Open) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    disk.works.clear()
    ticket = journal.write(Kind.INTENT, {})
    waiting = asyncio.ensure_future(ticket.kept())
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()
    assert journal.describe()["waiting"] == 1
    disk.works.set()
    await waiting
    await ticket.kept()
    assert journal.describe()["waiting"] == 0


async def test_records_stand_in_the_order_of_their_calls_over_runs(start: Open, log: Path) -> None:
    for run in range(3):
        journal = await start()
        for number in range(run * 100, run * 100 + 100):
            if number % 3:
                journal.note(Kind.OUTCOME, {"number": number})
            else:
                journal.write(Kind.INTENT, {"number": number})
        await journal.close(5)
    assert [body["number"] for body in chain.bodies(log)] == list(range(300))


async def test_what_comes_while_the_disk_is_busy_goes_in_one_group(start: Open) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    disk.works.clear()
    first = asyncio.ensure_future(kept(journal, 0))
    await asyncio.wait([first], timeout=0.05)
    others = [asyncio.ensure_future(kept(journal, number)) for number in range(1, 500)]
    await asyncio.wait(others, timeout=0.05)
    disk.works.set()
    await asyncio.gather(first, *others)
    assert disk.writes == 2


async def test_an_outcome_goes_with_the_next_intent(start: Open) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    for number in range(100):
        seq = await kept(journal, number)
        journal.note(Kind.OUTCOME, {"intent": seq})
    assert disk.writes < 150  # not 200; some requests may take longer than a note lingers


async def test_a_note_comes_to_the_disk_by_itself(start: Open, log: Path) -> None:
    journal = await start()
    journal.note(Kind.OUTCOME, {"intent": 1})
    await eventually(lambda: journal.describe()["waiting"] == 0)
    assert len(chain.records(log)) == 1


async def test_who_leaves_while_waiting_for_the_disk_leaves_the_others_waiting(start: Open) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    disk.works.clear()
    leaving, staying = (asyncio.ensure_future(kept(journal, number)) for number in range(2))
    await asyncio.wait([leaving, staying], timeout=0.05)
    leaving.cancel()
    disk.works.set()
    assert await staying == 2
    assert leaving.cancelled()


HOSTILE: list[dict[str, Any]] = [
    {"user": '\0\x01\x1f\x7f\x80\u2028\u2029\ufeff"\\/\r\n\t\b\f'},
    {"user": "u" * 1_000_000},
    {"user": '","seq":1}\n{"at":"'},
    {"user": "💥\uffff\U0010ffff\u0301"},
    {"\u20ac": 1, "\r": 2, "ö": 3, "\ufb33": 4, "1": 5, "\x80": 6},
    {"deep": {"a": [{"b": [[], {}, None, True, 1 - 2**53, 2**53 - 1]}]}},
]


@pytest.mark.parametrize("body", HOSTILE)
async def test_whatever_callers_say_stands_in_one_canonical_line(start: Open, log: Path, body: dict[str, Any]) -> None:
    journal = await start()
    await journal.write(Kind.REFUSAL, body).kept()
    journal.note(Kind.REFUSAL, body)
    await journal.close(5)
    assert chain.bodies(log) == [body, body]
    for line in segments.lines(segments.listed(log)[0]):
        assert rfc8785.dumps(json.loads(line)) == line


IMPOSSIBLE: list[dict[Any, Any]] = [
    {"n": 0.5}, {"n": 2**53 + 1}, {"n": float("nan")}, {"n": "\ud800"}, {"\ud800": 1}, {"n": b""}, {"n": {1: 2}},
    {"💥": 1}, {"n": {"💥": 1}}, {"n": [{"n": 1.0}]}, {1: 2},
]  # fmt: skip


@pytest.mark.parametrize("body", IMPOSSIBLE, ids=str)
async def test_what_has_no_one_form_is_no_record(start: Open, log: Path, body: dict[str, Any]) -> None:
    journal = await start()
    with pytest.raises(ValueError, match=r"."):
        journal.write(Kind.INTENT, body)
    journal.note(Kind.OUTCOME, body)
    await journal.close(5)
    assert chain.bodies(log) == [{"incident": "audit_no_record", "kind": "outcome"}]


# ---- checkpoints and segments


async def test_a_checkpoint_comes_after_so_many_records(start: Open, log: Path) -> None:
    journal = await start(checkpoint_records=10)
    seen: list[int] = []
    journal.on_checkpoint.append(lambda checkpoint: seen.append(checkpoint.last))
    await asyncio.gather(*(kept(journal, number) for number in range(35)))
    await eventually(lambda: seen == [10, 20, 30])
    assert journal.checkpoint is not None
    assert journal.checkpoint.last == 30
    assert [checkpoint.last for checkpoint in chain.checkpoints(log)] == [10, 20, 30]
    await journal.close(5)
    assert [checkpoint.last for checkpoint in chain.checkpoints(log)] == [10, 20, 30, 35]


async def test_a_checkpoint_comes_after_so_many_seconds_and_none_without_records(start: Open, log: Path) -> None:
    journal = await start(checkpoint_seconds=0.02)
    seen = asyncio.Event()
    journal.on_checkpoint.append(lambda checkpoint: seen.set())
    journal.note(Kind.ACT, {})
    await seen.wait()
    assert journal.describe()["checkpoint_age_seconds"] == 0
    await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.1)
    assert len(chain.checkpoints(log)) == 1


async def test_a_checkpoint_can_be_asked_for(start: Open, log: Path) -> None:
    journal = await start()
    assert await journal.checkpoint_now() is None
    journal.note(Kind.ACT, {})
    assert journal.describe()["checkpoint_age_seconds"] > 0
    first = await journal.checkpoint_now()
    assert first is not None
    assert first.last == 1
    assert await journal.checkpoint_now() == first
    journal.write(Kind.ACT, {})
    both = await asyncio.gather(journal.checkpoint_now(), journal.checkpoint_now())
    assert both[0] == both[1] == chain.checkpoints(log)[1]


async def test_records_of_a_run_before_come_under_the_first_checkpoint(start: Open, log: Path, tmp_path: Path) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    await kept(journal, 1)
    disk.fail("write", errno.EIO, "checkpoints")
    await journal.close(0.1)
    journal = await start(checkpoint_seconds=0.02)
    await eventually(lambda: journal.checkpoint is not None)
    assert chain.checkpoints(log)[0].last == 1


async def test_a_segment_ends_at_its_size_and_is_compressed(start: Open, log: Path) -> None:
    journal = await start(segment_mib=1)
    for number in range(25):
        await journal.write(Kind.INTENT, {"number": number, "text": "x" * 100_000}).kept()
    await eventually(lambda: len(list(log.glob("*.gz"))) == 2)
    await journal.close(5)
    assert [(segment.first, segment.compressed) for segment in segments.listed(log)] == [
        (1, True), (12, True), (23, False),
    ]  # fmt: skip
    assert [body["number"] for body in chain.bodies(log)] == list(range(25))


async def test_a_segment_ends_with_its_day(start: Open, log: Path, wall: Wall) -> None:
    journal = await start()
    await kept(journal, 1)
    wall.moment = NOON + DAY / 2 - 0.001
    await kept(journal, 2)
    wall.moment = NOON + DAY / 2
    await kept(journal, 3)
    await journal.close(5)
    wall.moment = NOON + 5 * DAY
    journal = await start()
    assert [segment.first for segment in segments.listed(log)] == [1, 3]
    await kept(journal, 4)
    await journal.close(5)
    assert [(segment.first, segment.compressed) for segment in segments.listed(log)] == [
        (1, True), (3, True), (4, False),
    ]  # fmt: skip
    assert [record["at"][:10] for record in chain.records(log)] == ["2026-11-22"] * 2 + ["2026-11-23", "2026-11-27"]
    chain.checkpoints(log)


async def test_with_a_clock_that_is_set_back_the_order_is_by_number(start: Open, log: Path, wall: Wall) -> None:
    journal = await start(checkpoint_records=2)
    for number, moment in enumerate([NOON, NOON - 3600, NOON - 3 * DAY, NOON - 400 * DAY, 0, NOON]):
        wall.moment = moment
        await kept(journal, number)
    await journal.close(5)
    assert [body["number"] for body in chain.bodies(log)] == list(range(6))
    journal = await start()
    assert await kept(journal, 6) == 7


async def test_a_segment_that_can_not_be_compressed_stays_and_is_compressed_later(
    start: Open, log: Path, wall: Wall
) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    disk.fail("write", errno.ENOSPC, ".new")
    await kept(journal, 1)
    wall.moment += DAY
    await kept(journal, 2)
    await eventually(lambda: disk.failed)
    assert well(journal)
    assert [segment.compressed for segment in segments.listed(log)] == [False, False]
    assert len(chain.bodies(log)) == 2
    disk.mend()
    wall.moment += DAY
    await kept(journal, 3)
    await eventually(lambda: len(list(log.glob("*.gz"))) == 2)
    assert [segment.compressed for segment in segments.listed(log)] == [True, True, False]
    assert not (log / "000000000001.jsonl").exists()


async def test_other_settings_hold_from_the_next_record_on(start: Open, log: Path) -> None:
    journal = await start()
    journal.apply(Audit(checkpoint_records=1))
    await asyncio.gather(*(kept(journal, number) for number in range(3)))
    await journal.close(5)
    assert [checkpoint.last for checkpoint in chain.checkpoints(log)] == [1, 2, 3]


# ---- faults of the disk

FAULTS = [("write", errno.EIO), ("write", errno.EROFS), ("write", errno.ENOSPC), ("sync", errno.EIO)]


@pytest.mark.parametrize(("operation", "error"), FAULTS, ids=str)
async def test_nothing_is_acknowledged_while_the_disk_fails_and_then_it_goes_on_by_itself(
    start: Open, log: Path, caplog: pytest.LogCaptureFixture, operation: str, error: int
) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    await kept(journal, 1)
    disk.fail(operation, error)
    with pytest.raises(AuditUnavailable) as refused:
        await kept(journal, 2)
    assert (refused.value.status, refused.value.code) == (503, "audit_unavailable")
    with pytest.raises(AuditUnavailable):
        journal.write(Kind.INTENT, {"number": 3})
    with pytest.raises(AuditUnavailable):
        journal.require()
    with pytest.raises(AuditUnavailable):
        await journal.checkpoint_now()
    journal.note(Kind.OUTCOME, {"number": 4})
    failed = disk.failed
    await eventually(lambda: disk.failed > failed)
    assert not well(journal)
    disk.mend()
    await eventually(lambda: well(journal))
    await kept(journal, 5)
    told = chain.bodies(log)
    incident = told.pop(3)
    assert [body["number"] for body in told] == [1, 2, 4, 5]
    assert incident == {"incident": "audit_unwritable", "refused": 4, "seconds": incident["seconds"]}
    assert incident["seconds"] >= 1
    assert len([entry for entry in caplog.records if entry.levelname == "ERROR"]) == 1
    await journal.close(5)
    disk.cut_power()
    assert [body.get("number") for body in chain.bodies(log)] == [1, 2, 4, None, 5]


async def test_a_disk_that_fills_up_in_the_middle_of_a_record_leaves_no_half_one(start: Open, log: Path) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    await kept(journal, 1)
    disk.fill(room=30)
    with pytest.raises(AuditUnavailable):
        await kept(journal, 2)
    assert (log / "000000000001.jsonl").stat().st_size % 10  # the start of the second record is in the file
    disk.mend()
    await eventually(lambda: well(journal))
    assert [body.get("number") for body in chain.bodies(log)[:2]] == [1, 2]


async def test_a_disk_that_takes_little_at_a_time_gets_all(start: Open, log: Path) -> None:
    disk = FakeDisk()
    disk.most = 7
    journal = await start(disk)
    await asyncio.gather(*(kept(journal, number) for number in range(5)))
    await journal.close(5)
    assert len(chain.bodies(log)) == 5


@pytest.mark.parametrize("operation", ["open", "truncate"])
async def test_a_file_that_can_not_be_opened_again_is_tried_until_it_can(
    start: Open, log: Path, operation: str
) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    await kept(journal, 1)
    disk.fail("sync", errno.EIO)
    disk.fail(operation, errno.EROFS)
    with pytest.raises(AuditUnavailable):
        await kept(journal, 2)
    failed = disk.failed
    await eventually(lambda: disk.failed > failed + 1)
    disk.mend()
    await eventually(lambda: well(journal))
    assert [body.get("number") for body in chain.bodies(log)[:2]] == [1, 2]


async def test_a_new_segment_that_can_not_be_made_stops_all_until_it_can(start: Open, log: Path, wall: Wall) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    await kept(journal, 1)
    disk.fail("open", errno.EROFS)
    wall.moment += DAY
    with pytest.raises(AuditUnavailable):
        await kept(journal, 2)
    disk.mend()
    await eventually(lambda: well(journal))
    await journal.close(5)
    assert [body.get("number") for body in chain.bodies(log)[:2]] == [1, 2]
    assert [segment.first for segment in segments.listed(log)] == [1, 2]


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_what_can_not_be_signed_stops_all_until_it_can(start: Open, log: Path, operation: str) -> None:
    disk = FakeDisk()
    journal = await start(disk, checkpoint_records=2)
    disk.fail(operation, errno.EIO, "checkpoints")
    await kept(journal, 1)
    with pytest.raises(AuditUnavailable):
        await asyncio.gather(kept(journal, 2), journal.checkpoint_now())
    await eventually(lambda: not well(journal))
    with pytest.raises(AuditUnavailable):
        journal.write(Kind.INTENT, {})
    disk.mend()
    await eventually(lambda: well(journal))
    await journal.close(5)
    assert chain.checkpoints(log)[0].last == 2
    disk.cut_power()
    assert chain.checkpoints(log)[-1].last == len(chain.records(log))


async def test_a_disk_that_hangs_refuses_all_until_it_answers(
    start: Open, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_PATIENCE", 0.05)
    disk = FakeDisk()
    journal = await start(disk)
    disk.works.clear()
    with pytest.raises(AuditUnavailable):
        await kept(journal, 1)
    with pytest.raises(AuditUnavailable):
        await kept(journal, 2)
    disk.works.set()
    await eventually(lambda: well(journal))
    await kept(journal, 3)
    assert [body.get("number") for body in chain.bodies(log)] == [1, None, 3]


async def test_a_file_that_somebody_removes_is_noticed_before_it_is_signed(start: Open, log: Path) -> None:
    journal = await start()
    await kept(journal, 1)
    (log / "000000000001.jsonl").rename(log / "elsewhere")
    with pytest.raises(AuditUnavailable):
        await journal.checkpoint_now()
    assert not well(journal)
    (log / "elsewhere").rename(log / "000000000001.jsonl")
    await eventually(lambda: well(journal))
    await journal.close(5)
    assert len(chain.bodies(log)) == 2


async def test_nothing_is_acknowledged_that_lies_in_a_file_without_its_name(start: Open, log: Path) -> None:
    journal = await start()
    await kept(journal, 1)
    (log / "000000000001.jsonl").rename(log / "elsewhere")
    with pytest.raises(AuditUnavailable):
        await kept(journal, 2)
    assert not well(journal)
    (log / "elsewhere").rename(log / "000000000001.jsonl")
    await eventually(lambda: well(journal))
    await journal.close(5)
    assert [body.get("number") for body in chain.bodies(log)] == [1, 2, None]


async def test_what_cannot_be_noted_apart_from_the_log_keeps_nobody_waiting(
    start: Open, log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await start()
    (tmp_path / "audit-keys" / "newest-checkpoint").unlink()
    (tmp_path / "audit-keys" / "newest-checkpoint").mkdir()
    for number in range(2):
        await kept(journal, number)
        assert await journal.checkpoint_now() is not None
    assert well(journal)
    assert [message for message in caplog.messages if "newest-checkpoint can't be written" in message]
    assert len(chain.checkpoints(log)) == 2


async def test_a_file_that_somebody_adds_to_is_not_signed_and_the_next_start_tells(
    start: Open, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await start()
    await kept(journal, 1)
    file = log / "000000000001.jsonl"
    file.write_bytes(file.read_bytes() * 2)
    with pytest.raises(AuditUnavailable):
        await journal.checkpoint_now()
    assert "000000000001.jsonl: somebody else changed or removed it; start the appliance anew" in caplog.text
    await journal.close(0.1)
    journal = await start()
    await journal.close(5)
    assert [body.get("incident") for body in chain.bodies(log)] == [None, "audit_torn"]


@pytest.mark.parametrize("only", ["0001.jsonl", "checkpoints"])
async def test_what_a_start_finds_in_memory_only_is_written_to_the_disk_again(
    start: Open, log: Path, only: str
) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    await kept(journal, 1)
    disk.fail("sync", errno.EIO, only)
    journal.note(Kind.OUTCOME, {"number": 2})
    await journal.close(0.1)  # as if it were killed: the file reads well, and isn't on disk
    disk.mend()
    assert len(chain.records(log)) == 2
    journal = await start(disk)
    await kept(journal, 3)
    await journal.close(5)
    disk.cut_power()
    assert [body["number"] for body in chain.bodies(log)] == [1, 2, 3]
    assert chain.checkpoints(log)[-1].last == 3


# ---- its end, and others


async def test_what_is_closed_is_whole_signed_and_open_to_others(
    start: Open, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await start()
    for number in range(50):
        journal.note(Kind.OUTCOME, {"number": number})
    await journal.close(5)
    await journal.close(5)
    assert [body["number"] for body in chain.bodies(log)] == list(range(50))
    assert chain.checkpoints(log)[-1].last == 50
    with pytest.raises(AuditUnavailable):
        journal.write(Kind.INTENT, {})
    assert not caplog.records
    journal.note(Kind.OUTCOME, {})
    assert "is lost" in caplog.text
    assert (await start()).head == journal.head


async def test_closing_on_a_disk_that_fails_comes_to_an_end_and_says_so(
    start: Open, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    await kept(journal, 1)
    disk.fail("sync", errno.EIO)
    journal.note(Kind.OUTCOME, {"number": 2})
    await journal.close(0.3)
    assert "before all is on record" in caplog.text
    disk.cut_power()
    journal = await start()
    await kept(journal, 3)
    assert [body["number"] for body in chain.bodies(log)] == [1, 3]


async def test_closing_while_the_disk_gets_well_signs_what_is_told_of_it(start: Open, log: Path) -> None:
    disk = FakeDisk()
    journal = await start(disk)
    disk.fail("sync", errno.EIO)
    journal.note(Kind.OUTCOME, {"number": 1})
    await eventually(lambda: disk.failed)
    closing = asyncio.ensure_future(journal.close(10))
    await asyncio.wait([closing], timeout=0.05)
    disk.mend()
    await closing
    assert [body.get("incident") for body in chain.bodies(log)] == [None, "audit_unwritable"]
    assert chain.checkpoints(log)[-1].last == 2


async def test_a_log_is_open_once_only(start: Open, log: Path) -> None:
    journal = await start()
    with pytest.raises(AuditFailed, match="another process writes to the log"):
        await start()
    await kept(journal, 1)
    await journal.close(5)
    await start()


async def test_work_on_closed_segments_keeps_no_record_waiting(start: Open) -> None:
    journal = await start()
    begun, may_end = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        may_end.wait()
        return "done"

    working = asyncio.ensure_future(journal.exclusively(work))
    await asyncio.to_thread(begun.wait)
    await kept(journal, 1)
    assert not working.done()
    may_end.set()
    assert await working == "done"


async def test_work_on_closed_segments_raises_where_it_was_asked_for(start: Open) -> None:
    journal = await start()

    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await journal.exclusively(work)
    await journal.close(5)
    with pytest.raises(AuditFailed, match="closed"):
        await journal.exclusively(work)


async def test_files_are_private(start: Open, tmp_path: Path) -> None:
    journal = await start()
    await kept(journal, 1)
    await journal.close(5)
    for path in (tmp_path / "audit", tmp_path / "audit-keys"):
        assert path.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o600}
