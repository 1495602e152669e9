"""Whatever breaks while records are removed, the log proves itself and the removal is finished; evidence stays."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from appliance.audit import closed, removal
from appliance.audit.archive import Actor
from appliance.audit.orders import Orders
from appliance.audit.record import Kind
from appliance.audit.retention import in_place_of, read
from appliance.config.audit import Retention
from appliance.errors import AuditFailed, AuditUnavailable
from appliance.signing import new_key, public, written
from tests.audit.days import ANNA, DAY, TERMS, Days, one_of_each

US = Actor.appliance()


@pytest.fixture
async def days(tmp_path: Path) -> Any:
    async with Days(tmp_path) as opened:
        yield opened


class Killed(Exception):
    """The process is gone."""


class Power:
    """Goes off at the step `at`: that step isn't done, or is done and nothing after it. Steps: what changes files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, *, done: bool) -> None:
        self.steps: list[str] = []
        self._at = at
        self._done = done
        for name in ("replace", "unlink", "fsync", "open"):
            monkeypatch.setattr(os, name, self._step(name, getattr(os, name)))

    def _step(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*told: Any, **more: Any) -> Any:
            what = str(Path(f"/proc/self/fd/{told[0]}").readlink()) if name == "fsync" else str(told[0])
            if not any(part in what for part in ("stub", ".new.gz", ".jsonl.gz")):
                return real(*told, **more)
            if name == "open" and not told[1] & os.O_CREAT:
                return real(*told, **more)
            self.steps.append(f"{name} {Path(what).name}")
            if self.off and not (len(self.steps) == self._at and self._done):
                raise Killed
            result = real(*told, **more)
            if self.off:
                raise Killed
            return result

        return step

    @property
    def off(self) -> bool:
        return len(self.steps) >= self._at


async def twice_due(days: Days) -> None:
    """A segment that was rewritten once and is due again, and one that is to go as a whole."""
    await one_of_each(days)
    await days.turn()
    await days.put(Kind.CONTENT, {"subject": ANNA})
    days.now += 6 * DAY
    await days.sweep.run(TERMS, US)
    days.now += 30 * DAY
    await days.turn(0)


@pytest.mark.parametrize("done", [False, True])
async def test_a_power_cut_at_any_step_leaves_a_log_that_verifies_and_is_finished(
    tmp_path: Path, *, done: bool
) -> None:
    for at in count(1):
        async with Days(tmp_path / str(at)) as days:
            await twice_due(days)
            with pytest.MonkeyPatch.context() as patched:
                power = Power(patched, at, done=done)
                with contextlib.suppress(Killed):
                    await days.sweep.run(TERMS, US)
            verdict = days.verdict()
            assert verdict.genuine, (power.steps, verdict.lines())
            await days.close()
            await days.open()
            assert not (await days.sweep.run(TERMS, US, dry=True)).failed
            assert days.verdict().genuine, (power.steps, days.verdict().lines())
            await days.sweep.run(TERMS, US)
            verdict = days.verdict()
            assert verdict.genuine, (power.steps, verdict.lines())
            assert not verdict.notes
            assert {each["kind"] for each in days.records().values()} == {"act", "incident"}
            files = {file.name.partition(".")[2] for file in (days.state / "audit").glob("0*")}
            assert files == {"jsonl", "jsonl.gz", "stub.json"}
        if not power.off:
            break
    assert at > 13


async def test_after_long_without_a_run_somebody_has_to_say_that_the_clock_is_right(days: Days) -> None:
    seqs = await one_of_each(days)
    orders = Orders(days.archive, days.state)
    orders.sweep = days.sweep
    await days.turn(39)
    await orders.daily(Retention())
    await days.turn(3000)
    with pytest.raises(AuditFailed, match="last run was on 2026-02-09, and the clock says 2034-04-28: is it right"):
        await orders.daily(Retention())
    assert (await incident(days))["incident"] == "retention_failed"
    assert seqs["act"] in days.records()
    assert seqs["refusal"] in days.records()
    await orders.carry_out("retention", {"dry_run": False}, US, Retention())
    assert seqs["refusal"] not in days.records()
    await days.turn()
    await orders.daily(Retention())


async def test_a_full_disk_is_told_of_and_the_next_day_it_is_tried_again(
    days: Days, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await one_of_each(days)
    await days.turn(6)
    with monkeypatch.context() as full:
        full.setattr(removal._Out, "keep", lambda _: _raise(OSError(errno.ENOSPC, "No space left on device")))
        swept = await days.sweep.run(TERMS, US)
    assert swept.failed == {1: "No space left on device"}
    assert not swept.removed.kinds
    assert not list((days.state / "audit").glob("*.new.gz"))
    assert "000000000001: No space left on device" in caplog.text
    assert await incident(days) == {
        "incident": "retention_failed", "count": 1, "segments": [{"segment": 1, "why": "No space left on device"}],
    }  # fmt: skip
    assert days.verdict().genuine
    assert (await days.sweep.run(TERMS, US)).removed.kinds == {"content": 1}


@pytest.mark.parametrize("damage", ["cut", "flipped", "changed", "reordered", "unsigned"])
async def test_what_is_not_as_it_was_signed_is_evidence_and_stays(days: Days, damage: str) -> None:
    seqs = (await one_of_each(days)).values()
    await days.turn()
    also = await days.put(Kind.CONTENT, {"subject": ANNA})
    await days.turn(100)
    file = days.state / "audit" / "000000000001.jsonl.gz"
    content = file.read_bytes()
    lines = gzip.decompress(content).splitlines(keepends=True)
    match damage:
        case "cut":
            file.write_bytes(content[:-20])
        case "flipped":
            file.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
        case "changed":
            file.write_bytes(gzip.compress(b"".join(lines).replace(b"no_key", b"no_kez")))
        case "reordered":
            file.write_bytes(gzip.compress(b"".join([*lines[1::-1], *lines[2:]])))
        case "unsigned":
            signed = days.state / "audit" / "checkpoints.jsonl"
            signed.write_bytes(b"".join(signed.read_bytes().splitlines(keepends=True)[1:]))
    left = file.read_bytes()
    swept = await days.sweep.run(TERMS, US)
    assert swept.failed.keys() == {1}
    assert file.read_bytes() == left
    told = await incident(days)
    assert (told["incident"], told["count"]) == ("retention_failed", 1)
    assert also not in [each["seq"] for each in days.lines(but=file) if "body" in each]
    verdict = days.verdict()
    assert not verdict.genuine
    assert 1 <= verdict.faults[0].record <= max(seqs)


async def test_without_the_newest_checkpoint_nothing_goes(days: Days) -> None:
    await one_of_each(days)
    await days.turn(100)
    signed = days.state / "audit" / "checkpoints.jsonl"
    signed.write_bytes(signed.read_bytes().splitlines(keepends=True)[0])
    before = days.records()
    for dry in (False, True):
        with pytest.raises(AuditFailed, match=r"checkpoints\.jsonl doesn't hold the newest"):
            await days.sweep.run(TERMS, US, dry=dry)
    assert before.keys() <= days.records().keys()


@pytest.mark.parametrize("whole", [False, True])
async def test_nobody_without_the_key_gets_a_removal_signed(days: Days, *, whole: bool) -> None:
    """A record taken out by hand, with a stub and a checkpoint of somebody's own for as long as a run takes."""
    await one_of_each(days)
    await days.turn()
    evil = await days.put(Kind.ACT, {"act": "keys.create", "phase": "done"})
    await one_of_each(days)
    await days.turn(100 if whole else 7)
    log, mine = days.state / "audit", new_key()[0]
    file, stub = log / "000000000008.jsonl.gz", log / "000000000008.stub.json"
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    lines[evil - 8] = in_place_of(read(lines[evil - 8]), hashlib.sha256(lines[evil - 8][:-1]).hexdigest().encode())
    file.write_bytes(gzip.compress(b"".join(lines)))
    genuine = (log / "checkpoints.jsonl").read_bytes()
    checkpoints = [json.loads(line) for line in genuine.splitlines()]
    told = {
        "at": "2026-01-01T00:00:00.000Z", "first": 8, "head": json.loads(lines[-1])["prev"], "kinds": {"act": 1},
        "last": 7 + len(lines), "previous": checkpoints[1]["head"], "reason": "", "key": public(mine),
        "sha256": hashlib.sha256(b"".join(lines)).hexdigest(),
    }  # fmt: skip
    stub.write_bytes(written({**told, "signature": mine.sign(written(told)).hex()}))
    for each in checkpoints:
        if each["first"] == 8:
            each["key"] = public(mine)
            del each["signature"]
            each["signature"] = mine.sign(written(each)).hex()
    (log / "checkpoints.jsonl").write_bytes(b"".join(written(each) + b"\n" for each in checkpoints))
    left = file.read_bytes(), stub.read_bytes()
    swept = await days.sweep.run(TERMS, US)
    (log / "checkpoints.jsonl").write_bytes(genuine)
    assert swept.failed[8] == "its stub is signed with a key that isn't known here"
    assert not swept.removed.kinds
    assert (file.read_bytes(), stub.read_bytes()) == left
    assert (await incident(days))["incident"] == "retention_failed"
    assert days.verdict().faults[0].file == stub.name


async def test_after_the_key_was_lost_what_the_former_one_signed_goes_when_it_is_due(days: Days) -> None:
    seqs = await one_of_each(days)
    await days.turn(6)
    await days.sweep.run(TERMS, US)
    await days.close()
    former = (days.state / "audit" / "key.pub").read_text()
    (days.state / "audit-keys" / "signing.pem").unlink()
    await days.open()
    assert former.split("\n", 1)[1] in (days.state / "audit" / "key.pub").read_text(), "for people"
    await days.turn(30)
    swept = await days.sweep.run(TERMS, US)
    assert not swept.failed
    assert swept.removed.kinds.keys() == {"intent", "outcome", "refusal", "strangers", "incident"}
    assert seqs["intent"] not in days.records()


async def test_a_key_that_was_exchanged_since_the_start_signs_nothing(days: Days) -> None:
    await one_of_each(days)
    await days.turn(6)
    (days.state / "audit-keys" / "signing.pem").write_bytes(new_key()[1])
    with pytest.raises(AuditFailed, match="another key than the one that signs the log"):
        await days.sweep.run(TERMS, US)
    assert days.records().keys() >= set(range(1, 8))


async def test_each_run_tells_what_is_gone_of_each_segment_also_from_before(days: Days) -> None:
    await twice_due(days)
    await days.sweep.run(TERMS, US)
    await days.archive.journal.checkpoint_now()
    bodies = [each["body"] for each in days.records().values() if each["body"].get("act") == "retention"]
    first, second = (body["stubs"] for body in bodies if body["phase"] == "done")
    assert first[0] == {"first": 1, "kinds": {"content": 1}, "last": 7}
    stubs = [json.loads(file.read_bytes()) for file in sorted((days.state / "audit").glob("*.stub.json"))]
    assert second == [{name: stub[name] for name in ("first", "kinds", "last")} for stub in stubs]
    assert second[0]["kinds"]["content"] == 1


async def test_a_run_that_fails_tells_what_it_signed_before(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    await twice_due(days)
    commit = removal.commit

    def failing(prepared: removal.Prepared, key: Any) -> None:
        if prepared.segment.first > 1:
            raise RuntimeError
        commit(prepared, key)

    monkeypatch.setattr(removal, "commit", failing)
    with pytest.raises(RuntimeError):
        await days.sweep.run(TERMS, US)
    await days.archive.journal.checkpoint_now()
    failed = [each["body"] for each in days.records().values() if each["body"].get("phase") == "failed"]
    assert [stub["first"] for stub in failed[0]["stubs"]] == [1]


@pytest.mark.parametrize("link", [os.symlink, os.link])
async def test_drafts_are_never_written_through_a_link(
    days: Days, monkeypatch: pytest.MonkeyPatch, link: Callable[[Path, Path], None]
) -> None:
    days.archive.subjects.of("anna")
    await one_of_each(days)
    await days.turn(6)
    keys, log = days.state / "audit-keys", days.state / "audit"
    before = [(keys / name).read_bytes() for name in ("subjects", "signing.pem")]
    prepare = removal.prepare

    def between(*told: Any, **more: Any) -> removal.Prepared:
        link(keys / "subjects", log / "000000000001.new.gz")
        link(keys / "signing.pem", log / "000000000001.stub.new")
        return prepare(*told, **more)

    monkeypatch.setattr(removal, "prepare", between)
    assert (await days.sweep.run(TERMS, US)).removed.kinds == {"content": 1}
    assert [(keys / name).read_bytes() for name in ("subjects", "signing.pem")] == before
    assert days.verdict().genuine


@pytest.mark.parametrize("what", ["gone", "by another", "one more"])
async def test_what_was_taken_out_by_somebody_else_is_never_signed_for(days: Days, what: str) -> None:
    await one_of_each(days)
    await days.turn(6)
    await days.sweep.run(TERMS, US)
    file = days.state / "audit" / "000000000001.jsonl.gz"
    stub = days.state / "audit" / "000000000001.stub.json"
    match what:
        case "gone":
            stub.unlink()
        case "by another":
            told = json.loads(stub.read_bytes())
            forger, _ = new_key()
            del told["signature"]
            stub.write_bytes(written({**told, "signature": forger.sign(written(told)).hex()}))
        case "one more":
            lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
            lines[0] = in_place_of(read(lines[0]), hashlib.sha256(lines[0][:-1]).hexdigest().encode())
            file.write_bytes(gzip.compress(b"".join(lines)))
    assert not days.verdict().genuine
    await days.turn(10)
    before, left = days.records(), (file.read_bytes(), stub.exists() and stub.read_bytes())
    assert (await days.sweep.run(TERMS, US)).failed.keys() == {1}
    assert (file.read_bytes(), stub.exists() and stub.read_bytes()) == left
    assert before.keys() <= days.records().keys()
    assert not days.verdict().genuine


async def test_without_the_key_that_signs_nothing_goes(days: Days) -> None:
    await one_of_each(days)
    await days.turn(6)
    (days.state / "audit-keys" / "signing.pem").write_text("nonsense")
    with pytest.raises(AuditFailed, match="no key that signs"):
        await days.sweep.run(TERMS, US)
    assert days.records().keys() >= set(range(1, 8))


async def test_what_cannot_be_put_on_record_is_not_done(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    await one_of_each(days)
    await days.turn(6)
    monkeypatch.setattr(days.archive, "begin", lambda *_, **__: _raise(AuditUnavailable("the disk is full")))
    with pytest.raises(AuditUnavailable):
        await days.sweep.run(TERMS, US)
    assert days.records().keys() >= set(range(1, 8))


async def test_a_run_that_is_ended_leaves_everything_whole(days: Days) -> None:
    await one_of_each(days)
    await days.turn(6)
    begun = threading.Event()
    days.sweep._breath = 0.01

    def endless(*_: object) -> Iterator[list[bytes]]:
        while True:
            begun.set()
            yield []

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(closed, "slices", endless)
        patched.setattr(removal, "slices", endless)
        run = asyncio.create_task(days.sweep.run(TERMS, US))
        await asyncio.to_thread(begun.wait, 20)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert (await days.sweep.run(TERMS, US)).removed.kinds == {"content": 1}
    await days.archive.journal.checkpoint_now()
    phases = [told["body"]["phase"] for told in days.records().values() if told["body"].get("act") == "retention"]
    assert phases == ["intent", "failed", "intent", "done"]


async def incident(days: Days) -> dict[str, Any]:
    """The body of the newest incident."""
    await days.archive.journal.checkpoint_now()
    return [told["body"] for told in days.lines(damaged=True) if told.get("kind") == "incident"][-1]


def _raise(cause: Exception) -> Any:
    raise cause
