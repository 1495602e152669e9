"""A log is opened whatever became of it: what was acknowledged stays, what was torn or changed is told of."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance import signing
from appliance.audit import segments, verifier
from appliance.audit.journal import Journal
from appliance.audit.record import Chain, Kind
from appliance.config.audit import Audit
from appliance.errors import AuditFailed
from tests.audit import chain

FIRST = "000000000001.jsonl"
DAY = 86_400


class Folder:
    """The log's folder in a state folder, and ways to come by a log in it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.log = state / "audit"
        self.first = self.log / FIRST
        self.compressed = self.log / f"{FIRST}.gz"
        self.checkpoints = self.log / "checkpoints.jsonl"
        self.note = state / "audit-keys" / "newest-checkpoint"

    def open(self, wall: Callable[[], float] = lambda: 1.8e9, **settings: Any) -> Any:
        return Journal.open(self.log, self.state / "audit-keys", Audit(**settings), wall=wall)

    async def records(self, signed: int, unsigned: int = 0, wall: float = 1.8e9) -> None:
        """A log with so many more records, as one has it whose process was killed before it signed the last ones."""
        journal = await self.open(wall=lambda: wall)
        for _ in range(signed):
            journal.note(Kind.ACT, {"text": "ü" * 10})
        await journal.checkpoint_now()
        before = [(file, file.read_bytes() if file.exists() else None) for file in (self.checkpoints, self.note)]
        for _ in range(unsigned):
            journal.note(Kind.ACT, {"text": "ü" * 10})
        await journal.close(5)
        for file, content in before:
            if content is not None:
                file.write_bytes(content)
            elif unsigned:
                file.unlink()

    async def reopened(self, **settings: Any) -> list[Any]:
        """The incidents that a start puts on record; after it, another start has nothing to say."""
        journal = await self.open(**settings)
        before = journal.head[0]
        await journal.write(Kind.ACT, {"act": "start"}).kept()
        await journal.close(5)
        again = await self.open(**settings)
        assert again.head == journal.head
        await again.close(5)
        last = [json.loads(line) for segment in segments.listed(self.log) for line in segments.lines(segment)]
        return [record["body"] for record in last if record["kind"] == "incident" and record["seq"] <= before]

    def aside(self, name: str) -> bytes:
        return (self.state / "audit-work" / name).read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# ---- torn


async def test_a_good_log_goes_on_without_a_word(folder: Folder) -> None:
    await folder.records(5, 3)
    assert await folder.reopened() == []
    assert len(chain.bodies(folder.log)) == 9


async def test_a_log_of_which_nothing_is_signed_goes_on_without_a_word(folder: Folder) -> None:
    await folder.records(0, 3)
    assert await folder.reopened() == []
    assert len(chain.bodies(folder.log)) == 4


async def test_wherever_the_end_is_torn_whole_records_stay_and_the_rest_is_put_aside(folder: Folder) -> None:
    await folder.records(1, 2)
    whole, signed, noted = folder.first.read_bytes(), folder.checkpoints.read_bytes(), folder.note.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(ends[0], len(whole)):
        folder.first.write_bytes(whole[:cut])
        folder.checkpoints.write_bytes(signed)
        folder.note.write_bytes(noted)
        journal = await folder.open()
        await journal.close(5)
        intact = sum(end <= cut for end in ends)
        told = chain.bodies(folder.log)[intact:]
        torn = cut - ends[intact - 1]
        name = f"torn-{intact + 1}"
        assert told == (
            [{"incident": "audit_torn", "after": intact, "bytes": torn, "lines": 0, "file": name}] if torn else []
        )
        assert not torn or folder.aside(name) == whole[ends[intact - 1] : cut]


async def test_a_hole_in_the_last_line_is_no_record(folder: Folder) -> None:
    await folder.records(3, 1)
    content = bytearray(folder.first.read_bytes())
    place = content.rindex(b"text")
    content[place : place + 20] = bytes(20)
    folder.first.write_bytes(content)
    (incident,) = await folder.reopened()
    assert (incident["incident"], incident["after"], incident["lines"]) == ("audit_torn", 3, 1)
    assert len(chain.bodies(folder.log)) == 5


async def test_a_hole_that_takes_the_first_line_leaves_an_empty_log(folder: Folder) -> None:
    await folder.records(0, 1)
    folder.first.write_bytes(bytes(500))
    (incident,) = await folder.reopened()
    assert (incident["incident"], incident["after"], incident["bytes"]) == ("audit_torn", 0, 500)
    assert len(chain.bodies(folder.log)) == 2


async def test_half_a_checkpoint_is_put_aside(folder: Folder) -> None:
    await folder.records(3)
    noted = folder.note.read_bytes()
    await folder.records(2)
    folder.note.write_bytes(noted)
    lines = folder.checkpoints.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    folder.checkpoints.write_bytes(lines[0] + lines[1][:-20])
    (incident,) = await folder.reopened()
    assert (incident["incident"], incident["file"]) == ("audit_torn", "torn-checkpoint-2")
    assert folder.aside("torn-checkpoint-2") == lines[1][:-20]
    assert chain.checkpoints(folder.log)[-1].last == len(chain.records(folder.log)) == 7


async def test_a_first_checkpoint_that_is_torn_is_signed_again(folder: Folder) -> None:
    await folder.records(3)
    folder.checkpoints.write_bytes(folder.checkpoints.read_bytes()[:100])
    folder.note.write_bytes(b"\n")
    (incident,) = await folder.reopened()
    assert incident["file"] == "torn-checkpoint-1"
    assert chain.checkpoints(folder.log)[-1].last == len(chain.records(folder.log)) == 5


async def test_the_newest_checkpoint_is_found_behind_many(folder: Folder) -> None:
    journal = await folder.open(checkpoint_records=1)
    for _ in range(400):
        journal.note(Kind.ACT, {})
    await journal.close(5)
    assert folder.checkpoints.stat().st_size > 1 << 17
    assert await folder.reopened() == []
    assert chain.checkpoints(folder.log)[-1].last == 401


async def test_a_checkpoint_is_found_before_a_long_stretch_of_nothing(folder: Folder) -> None:
    await folder.records(3)
    folder.checkpoints.write_bytes(folder.checkpoints.read_bytes() + bytes(1 << 17))
    (incident,) = await folder.reopened()
    assert (incident["incident"], incident["bytes"]) == ("audit_torn", 1 << 17)
    assert chain.checkpoints(folder.log)[-1].last == 5


# ---- between two steps


async def test_a_segment_that_was_being_compressed_is_compressed_once_more(folder: Folder) -> None:
    await folder.records(3)
    whole = folder.first.read_bytes()
    await folder.records(2, wall=1.8e9 + DAY)
    folder.compressed.unlink()
    folder.first.write_bytes(whole)
    (folder.log / "000000000001.new").write_bytes(b"half of it")
    assert await folder.reopened(wall=lambda: 1.8e9 + DAY) == []
    assert sorted(file.name for file in folder.log.iterdir()) == [
        f"{FIRST}.gz", "000000000004.jsonl", "checkpoints.jsonl", "key.pub", "lock",
    ]  # fmt: skip
    assert len(chain.bodies(folder.log)) == 6


async def test_a_segment_that_is_there_plain_and_compressed_is_compressed(folder: Folder) -> None:
    await folder.records(3)
    whole = folder.first.read_bytes()
    await folder.records(2, wall=1.8e9 + DAY)
    folder.first.write_bytes(whole)
    assert await folder.reopened(wall=lambda: 1.8e9 + DAY) == []
    assert not folder.first.exists()
    assert len(chain.bodies(folder.log)) == 6


async def test_a_log_whose_last_segment_was_just_closed_goes_on_in_a_new_one(folder: Folder) -> None:
    await folder.records(3)
    folder.compressed.write_bytes(gzip.compress(folder.first.read_bytes()))
    folder.first.unlink()
    assert await folder.reopened() == []
    assert [segment.first for segment in segments.listed(folder.log)] == [1, 4]
    assert len(chain.bodies(folder.log)) == 4


async def test_a_new_segment_that_is_still_empty_is_the_open_one(folder: Folder) -> None:
    await folder.records(3)
    await folder.records(0, wall=1.8e9)
    (folder.log / "000000000004.jsonl").touch()
    assert await folder.reopened() == []
    assert len(chain.bodies(folder.log)) == 4


async def test_where_only_stubs_are_left_the_log_goes_on(folder: Folder) -> None:
    await folder.records(3)
    folder.first.unlink()
    (folder.log / "000000000001.stub.json").touch()
    assert await folder.reopened() == []
    assert [segment.first for segment in segments.listed(folder.log)] == [4]


async def test_where_the_newest_segments_are_stubs_the_log_goes_on(folder: Folder) -> None:
    await folder.records(3)
    await folder.records(2, wall=1.8e9 + DAY)
    (folder.log / "000000000004.jsonl").unlink()
    (folder.log / "000000000004.stub.json").touch()
    assert await folder.reopened() == []
    assert [segment.first for segment in segments.listed(folder.log)] == [1, 6]


# ---- changed


def broken(signed: int, checkpoint: int = 1) -> dict[str, Any]:
    return {"incident": "audit_broken", "checkpoint": checkpoint, "signed": signed}


@pytest.mark.parametrize("changed", [0, 2, 4])
async def test_where_what_is_signed_was_changed_a_new_segment_goes_on_and_nothing_kept_is_lost(
    folder: Folder, changed: int
) -> None:
    await folder.records(5, 3)
    lines = folder.first.read_bytes().splitlines(keepends=True)
    lines[changed] = lines[changed].replace(b"text", b"texT")
    folder.first.write_bytes(b"".join(lines) + b"torn")
    told = await folder.reopened()
    assert told[0] == broken(5)
    assert told[1]["incident"] == "audit_torn"
    first, second = segments.listed(folder.log)
    assert list(segments.lines(first)) == [line[:-1] for line in lines[:5]]
    assert list(segments.lines(second))[:3] == [line[:-1] for line in lines[5:]]
    assert (second.first, len(list(segments.lines(second)))) == (6, 3 + 2 + 1)


@pytest.mark.parametrize("kept", [0, 1, 4])
async def test_where_what_is_signed_is_missing_the_log_goes_on_from_the_checkpoint(folder: Folder, kept: int) -> None:
    await folder.records(5)
    lines = folder.first.read_bytes().splitlines(keepends=True)
    folder.first.write_bytes(b"".join(lines[:kept]))
    assert await folder.reopened() == [broken(5)]
    last = segments.listed(folder.log)[-1]
    assert last.first == 6
    going_on = [json.loads(line) for line in segments.lines(last)]
    assert going_on[0]["prev"] == json.loads(folder.checkpoints.read_bytes().splitlines()[0])["head"]
    assert [record["seq"] for record in going_on] == [6, 7]


async def test_where_the_last_record_that_is_signed_was_changed_the_log_goes_on_from_the_checkpoint(
    folder: Folder,
) -> None:
    await folder.records(5)
    content = folder.first.read_bytes()
    folder.first.write_bytes(content[: content.rindex(b"text")] + b"texT" + content[content.rindex(b"text") + 4 :])
    assert await folder.reopened() == [broken(5)]
    assert json.loads(next(segments.lines(segments.listed(folder.log)[-1])))["seq"] == 6


async def test_where_the_open_segment_is_gone_the_log_goes_on_from_the_checkpoint(folder: Folder) -> None:
    await folder.records(5)
    folder.first.unlink()
    assert await folder.reopened() == [broken(5)]
    assert [segment.first for segment in segments.listed(folder.log)] == [6]


async def test_where_the_open_segment_is_gone_behind_a_closed_one_it_is_told_too(folder: Folder) -> None:
    await folder.records(3)
    await folder.records(2, wall=1.8e9 + DAY)
    (folder.log / "000000000004.jsonl").unlink()
    assert await folder.reopened() == [broken(5, checkpoint=2)]
    assert [segment.first for segment in segments.listed(folder.log)] == [1, 6]


async def test_where_the_checkpoints_are_gone_the_records_stay_and_it_is_told(folder: Folder) -> None:
    await folder.records(3)
    await folder.records(2, wall=1.8e9 + DAY)
    folder.checkpoints.unlink()
    folder.note.unlink()
    assert await folder.reopened(wall=lambda: 1.8e9 + DAY) == [broken(0, checkpoint=0)]
    assert [record["seq"] for record in chain.records(folder.log)] == list(range(1, 8))


async def test_where_the_checkpoints_of_a_closed_segment_are_gone_its_records_are_signed_apart(folder: Folder) -> None:
    await folder.records(3)
    folder.compressed.write_bytes(gzip.compress(folder.first.read_bytes()))
    folder.first.unlink()
    folder.checkpoints.unlink()
    folder.note.unlink()
    assert await folder.reopened() == [broken(0, checkpoint=0)]
    assert chain.checkpoints(folder.log)[0].last == 3
    assert [record["seq"] for record in chain.records(folder.log)] == [1, 2, 3, 4, 5]


async def test_where_neither_records_nor_checkpoints_tell_the_end_nothing_is_guessed(folder: Folder) -> None:
    await folder.records(3)
    await folder.records(2, wall=1.8e9 + DAY)
    folder.checkpoints.unlink()
    folder.note.unlink()
    (folder.log / "000000000004.jsonl").write_bytes(b"nothing\n")
    with pytest.raises(AuditFailed, match=r"the segment 000000000004, .* Restore this folder"):
        await folder.open()
    (folder.log / "000000000004.jsonl").unlink()
    folder.compressed.write_bytes(b"nothing")
    with pytest.raises(AuditFailed, match=r"the segment 000000000001, .* Restore this folder"):
        await folder.open()


# ---- cut back


def cut_back(signed: int, checkpoint: int, found: int) -> dict[str, Any]:
    return {**broken(signed, checkpoint), "found": found}


def faults(folder: Folder) -> list[str]:
    return [fault.what for fault in verifier.verify(folder.log).faults]


async def test_a_signed_end_that_was_cut_off_and_written_anew_is_never_signed_for(folder: Folder) -> None:
    await folder.records(3)
    kept, signed = folder.first.read_bytes(), folder.checkpoints.read_bytes()
    await folder.records(5)
    chained = Chain(3, hashlib.sha256(kept.splitlines()[-1]).hexdigest())
    forged = b"".join(chained.append(Kind.ACT, {"act": "harmless"}, 1.8e9) + b"\n" for _ in range(5))
    folder.first.write_bytes(kept + forged)
    folder.checkpoints.write_bytes(signed)
    assert await folder.reopened() == [cut_back(8, 2, found=1)]
    assert [segment.first for segment in segments.listed(folder.log)] == [1, 9]
    assert gzip.decompress(folder.compressed.read_bytes()) == kept + forged, "evidence stays"
    for _ in range(2):
        assert "checkpoints are missing: 3 follows 1" in faults(folder)
        await folder.records(2)


@pytest.mark.parametrize("signed_by", ["the appliance", "somebody else"])
async def test_checkpoints_of_another_history_are_not_gone_on_from(folder: Folder, signed_by: str) -> None:
    """Also where there are more of them than were noted."""
    await folder.records(3)
    noted = folder.note.read_bytes()
    before = folder.first.read_bytes(), folder.checkpoints.read_bytes()
    other = Folder(folder.state / "other")
    key = folder.state / "audit-keys" / "signing.pem"
    other.note.parent.mkdir(parents=True)
    if signed_by == "the appliance":
        (other.note.parent / key.name).write_bytes(key.read_bytes())
    for _ in range(3):
        await other.records(1, wall=1.7e9)
    for mine, its in ((folder.first, other.first), (folder.checkpoints, other.checkpoints)):
        mine.write_bytes(its.read_bytes())
    assert before != (folder.first.read_bytes(), folder.checkpoints.read_bytes())
    assert folder.note.read_bytes() == noted
    assert cut_back(3, 1, found=3) in await folder.reopened()
    assert faults(folder)


async def test_checkpoints_that_were_cut_off_with_all_records_there_are_told_too(folder: Folder) -> None:
    await folder.records(3)
    signed = folder.checkpoints.read_bytes()
    await folder.records(5)
    folder.checkpoints.write_bytes(signed)
    assert await folder.reopened() == [cut_back(8, 2, found=1)]
    assert "checkpoints are missing: 3 follows 1" in faults(folder)


async def test_an_empty_folder_in_the_place_of_a_log_is_told_and_the_numbers_go_on(folder: Folder) -> None:
    await folder.records(3)
    shutil.rmtree(folder.log)
    assert await folder.reopened() == [cut_back(3, 1, found=0)]
    assert [segment.first for segment in segments.listed(folder.log)] == [4]
    assert faults(folder)


async def test_a_log_from_a_backup_is_told_for_ever(folder: Folder) -> None:
    await folder.records(3)
    shutil.copytree(folder.log, folder.state / "backup")
    await folder.records(2, wall=1.8e9 + DAY)
    shutil.rmtree(folder.log)
    (folder.state / "backup").rename(folder.log)
    for _ in range(2):
        assert await folder.reopened(wall=lambda: 1.8e9 + 2 * DAY) == [cut_back(5, 2, found=1)]
    assert "checkpoints are missing: 3 follows 1" in faults(folder)


async def test_a_log_that_begins_anew_without_the_note_is_a_good_one(folder: Folder) -> None:
    await folder.records(3)
    folder.log.rename(folder.state / "kept")
    folder.note.unlink()
    assert await folder.reopened() == []
    assert not faults(folder)


@pytest.mark.parametrize("note", [None, b"nonsense"])
async def test_a_note_that_is_lost_is_told_and_breaks_nothing(folder: Folder, note: bytes | None) -> None:
    await folder.records(3)
    folder.note.unlink()
    if note is not None:
        folder.note.write_bytes(note)
    assert await folder.reopened() == [{"incident": "audit_note_lost", "checkpoint": 1}]
    assert not faults(folder)


async def test_a_note_that_is_older_than_the_log_is_good(folder: Folder) -> None:
    await folder.records(3)
    noted = folder.note.read_bytes()
    for _ in range(30):
        await folder.records(1)
    folder.note.write_bytes(noted)
    assert await folder.reopened() == []
    assert folder.note.read_bytes() != noted
    assert not faults(folder)


# ---- the key, and who may


async def test_a_log_whose_key_is_lost_goes_on_with_a_new_one_and_tells(folder: Folder) -> None:
    await folder.records(3)
    was = (folder.log / "key.pub").read_text().splitlines()[0]
    (folder.state / "audit-keys" / "signing.pem").unlink()
    journal = await folder.open()
    assert journal.fingerprint in (folder.log / "key.pub").read_text()
    await journal.close(5)
    told = chain.bodies(folder.log)[-1]
    assert told == {"incident": "audit_key_changed", "was": was.removeprefix("fingerprint "), "is": journal.fingerprint}
    assert signing.fingerprint(chain.checkpoints(folder.log)[-1].key) == journal.fingerprint


async def test_a_damaged_key_stops_the_start_and_is_named(folder: Folder) -> None:
    await folder.records(3)
    (folder.state / "audit-keys" / "signing.pem").write_text("nonsense")
    for _ in range(2):  # the lock was let go of
        with pytest.raises(AuditFailed, match=r"signing\.pem holds no Ed25519 key"):
            await folder.open()


async def test_no_file_is_opened_through_a_link(folder: Folder) -> None:
    await folder.records(3)
    folder.first.rename(folder.state / "elsewhere")
    folder.first.symlink_to(folder.state / "elsewhere")
    with pytest.raises(AuditFailed, match=FIRST):
        await folder.open()


async def test_many_starts_leave_one_good_chain(folder: Folder) -> None:
    for _ in range(20):
        await folder.records(1, 1)
    assert len(chain.bodies(folder.log)) == 40
