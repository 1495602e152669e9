"""What a verification says of logs that are good, and of logs that somebody had a hand in."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.__main__ import main
from appliance.audit import verifier
from appliance.audit.archive import Actor
from appliance.audit.checkpoint import sign
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.audit.verifier import Unusable, Verdict, verify
from appliance.config.audit import Audit
from appliance.signing import about_key, fingerprint, public
from tests.audit.days import TERMS, Days, one_of_each
from tests.fakes.log import Log

PROGRAM = Path(verifier.__file__)
Lines = list[bytes]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Four closed segments of 50 records, and an open one with 30 records under checkpoints and 4 behind."""
    return Log(tmp_path / "audit").fill(234)


def said(log: Log, **how: object) -> str:
    """What is said of a log that isn't genuine, in one line."""
    verdict = verify(log.folder, **{"keys": [log.public], **how})  # type: ignore[arg-type]
    assert not verdict.genuine
    return verdict.lines()[0]


def changed(line: bytes) -> bytes:
    return line.replace(b'"chat"', b'"chit"')


# --- good logs


def test_a_good_log_is_genuine_and_says_how_far(log: Log) -> None:
    verdict = verify(log.folder, keys=[log.public])
    assert verdict.genuine
    assert (verdict.records, verdict.unsigned, verdict.segments, verdict.checkpoints) == (234, 4, 5, 23)
    assert log.checkpoint is not None
    assert (verdict.last, verdict.newest) == (230, f"23:{log.checkpoint.sha256}")
    assert verdict.lines()[0] == f"GENUINE up to record 230, signed {log.checkpoint.at}."


@pytest.mark.parametrize("how", [{"strict": True}, {"processes": 2}, {"processes": None}])
def test_every_way_to_look_sees_the_same(log: Log, how: dict[str, int]) -> None:
    plain = verify(log.folder)
    assert verify(log.folder, **how).document() == plain.document()  # type: ignore[arg-type]
    log.write(51, log.lines(51)[1:])
    assert not verify(log.folder).genuine
    assert verify(log.folder, **how).document() == verify(log.folder).document()  # type: ignore[arg-type]


def test_where_the_key_came_from_is_said(log: Log) -> None:
    assert not verify(log.folder).trusted
    assert "came with the log" in "\n".join(verify(log.folder).lines())
    assert verify(log.folder, fingerprints=[fingerprint(log.public).upper()]).trusted
    assert verify(log.folder, keys=[log.public]).trusted


def test_an_unfinished_line_at_the_end_is_told_and_counts_for_nothing(log: Log) -> None:
    assert log.segment is not None
    log.segment.write_bytes(log.segment.read_bytes()[:-7])
    verdict = verify(log.folder)
    assert verdict.genuine
    assert verdict.unsigned == 3
    assert "unfinished line" in verdict.notes[0]


def test_a_segment_that_is_being_compressed_is_there_twice_and_both_are_looked_at(log: Log) -> None:
    plain = log.folder / "000000000051.jsonl"
    plain.write_bytes(content := log.read(51))
    assert verify(log.folder).genuine
    assert verify(log.folder).records == 234
    plain.write_bytes(content.replace(b'"chat"', b'"chit"', 1))
    assert "record 51 (000000000051.jsonl, line 1): was changed" in said(log)


# --- changed records

ALTERED: dict[str, tuple[Callable[[Lines], object], str]] = {
    "flipped": (lambda lines: lines.__setitem__(5, changed(lines[5])), "record 106 (F, line 6): was changed"),
    "the first flipped": (lambda lines: lines.__setitem__(0, changed(lines[0])), "record 101 (F, line 1): was changed"),
    "the last flipped": (
        lambda lines: lines.__setitem__(9, changed(lines[9])),
        "record 110 (F): was changed: checkpoint 11 signs another",
    ),
    "its hash flipped": (
        lambda lines: lines.__setitem__(5, re.sub(rb'"prev":"..', b'"prev":"zz', lines[5])),
        "record 106 (F, line 6): isn't a record any more",
    ),
    "dropped": (lambda lines: lines.pop(5), "record 106 (F, line 6): is missing"),
    "many dropped": (
        lambda lines: lines.__delitem__(slice(5, 25)),
        "record 106 (F, line 6): is missing, with all up to 125",
    ),
    "the last dropped": (lambda lines: lines.pop(), "record 150 (F): is missing: the file ends before it"),
    "swapped": (lambda lines: lines.insert(5, lines.pop(6)), "record 106 (F, line 6): record 107 stands in its place"),
    "duplicated": (lambda lines: lines.insert(6, lines[5]), "record 106 (F, line 7): is there twice"),
    "copied elsewhere": (lambda lines: lines.insert(20, lines[5]), "record 121 (F, line 21): record 106 stands in its"),
    "inserted": (
        lambda lines: lines.insert(5, changed(lines[5])),
        "record 106 (F, line 7): is there twice, and not the same",
    ),
    "garbage": (lambda lines: lines.insert(5, b"\xff\xfe\0{"), "record 106 (F, line 6): isn't a record any more"),
    "an empty line": (lambda lines: lines.insert(5, b""), "record 106 (F, line 6): isn't a record any more"),
    "one more at the end": (lambda lines: lines.append(b"{}"), "record 151 (F): stands under no checkpoint"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_the_first_bad_record_is_named(log: Log, name: str) -> None:
    alter, expected = ALTERED[name]
    lines = log.lines(101)
    alter(lines)
    log.write(101, lines)
    assert expected.replace("F", "000000000101.jsonl.gz") in said(log)


def test_a_history_that_is_rewritten_from_a_record_on_is_narrowed_to_its_checkpoint(log: Log) -> None:
    lines = log.lines(101)
    forged = Log(log.folder.parent / "forged", log.key)
    forged.chain.seq, forged.chain.head = 104, re.findall(rb'"prev":"(\w+)"', lines[4])[0].decode()
    lines[4:] = [forged.chain.append(Kind.INTENT, {"model": "other"}, 0) for _ in lines[4:]]
    log.write(101, lines)
    assert "record 101 (000000000101.jsonl.gz, line 10): or one of those up to the next checkpoint" in said(log)


def test_all_that_is_bad_is_told_and_what_lies_between_still_counts(log: Log) -> None:
    lines = log.lines(101)
    log.write(101, [*lines[:4], changed(lines[4]), *lines[5:24], *lines[25:]])
    verdict = verify(log.folder)
    assert [(fault.record, fault.since, fault.until) for fault in verdict.faults] == [(105, 101, 110), (125, 121, 130)]
    assert verdict.records == 234 - 20
    assert "No signature vouches for the records 101 to 110 any more." in verdict.lines()[0]


def test_a_record_behind_the_last_checkpoint_still_has_to_follow(log: Log) -> None:
    lines = log.lines(201)
    log.write(201, [*lines[:31], changed(lines[31]), *lines[32:]])
    assert "record 232 (000000000201.jsonl, line 32): was changed" in said(log)


def test_what_only_looks_like_a_record_is_found_by_reading_it(log: Log) -> None:
    """The key's owner could sign anything; --strict tells what the appliance itself never writes."""
    other = Log(log.folder.parent / "other")
    other.add()
    line = other.chain.append(Kind.INTENT, {"model": "chat"}, 0).replace(b'{"at"', b'{ "at"')
    assert other.segment is not None
    other.segment.write_bytes(other.segment.read_bytes() + line + b"\n")
    other.leaves.append(__import__("hashlib").sha256(line).digest())
    other.sign()
    assert verify(other.folder).genuine
    assert "record 2 (000000000001.jsonl, line 2): isn't written as the appliance writes" in said(other, strict=True)


# --- segments


def test_a_removed_segment_is_missed(log: Log) -> None:
    log.file(101).unlink()
    assert "record 101 (000000000051.jsonl.gz): is missing, with all up to 150" in said(log)
    assert "no segment begins with it" in said(log)


@pytest.mark.parametrize(("first", "until"), [(1, 50), (201, 230)])
def test_so_are_the_first_and_the_last(log: Log, first: int, until: int) -> None:
    log.file(first).unlink()
    assert f"record {first} " in said(log)
    assert f"is missing, with all up to {until}" in said(log)


def test_a_segment_that_was_put_in_is_told(log: Log) -> None:
    (log.folder / "000000000120.jsonl").write_bytes(log.read(101))
    assert "record 120 (000000000120.jsonl): the segment begins with a record of the segment before" in said(log)


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_compressed_file_that_was_cut_off_is_told(log: Log, cut: int) -> None:
    file = log.file(101)
    file.write_bytes(file.read_bytes()[:-cut])
    assert "000000000101.jsonl.gz" in said(log)
    assert "the file ends too early" in said(log)


def test_something_behind_a_compressed_file_is_told(log: Log) -> None:
    file = log.file(101)
    file.write_bytes(file.read_bytes() + b"\0")
    assert "the file has something behind its end" in said(log)


def test_records_of_a_closed_segment_without_a_checkpoint_are_told(log: Log) -> None:
    log.fill(20)
    log.checkpoints.write_bytes(b"".join(log.checkpoints.read_bytes().splitlines(keepends=True)[:18]))
    assert "stands under no checkpoint, though another segment follows" in said(log)


# --- checkpoints


def checkpoints(log: Log, alter: Callable[[Lines], object]) -> None:
    lines = log.checkpoints.read_bytes().splitlines()
    alter(lines)
    log.checkpoints.write_bytes(b"".join(line + b"\n" for line in lines))


CHECKPOINTS: dict[str, tuple[Callable[[Lines], object], str]] = {
    "changed": (
        lambda lines: lines.__setitem__(4, lines[4].replace(b'"last":50', b'"last":49')),
        "record 41 (F, line 5): the checkpoint isn't what was signed",
    ),
    "its signature written otherwise": (
        lambda lines: lines.__setitem__(4, lines[4][:-130] + lines[4][-130:].upper()),
        "record 41 (F, line 5): the checkpoint holds something that isn't a hash",
    ),
    "removed": (lambda lines: lines.pop(4), "record 41 (F, line 5): checkpoints are missing: 6 follows 4"),
    "the first removed": (lambda lines: lines.pop(0), "record 1 (F, line 1): checkpoints are missing: 2 follows 0"),
    "reordered": (lambda lines: lines.insert(4, lines.pop(5)), "record 41 (F, line 5): checkpoints are missing"),
    "moved to the end": (lambda lines: lines.append(lines.pop(4)), "record 41 (F, line 5): checkpoints are missing"),
    "duplicated": (lambda lines: lines.insert(4, lines[4]), "record 51 (F, line 6): checkpoint 5 is there twice"),
    "copied back": (lambda lines: lines.insert(9, lines[4]), "record 91 (F, line 10): checkpoint 5 stands behind"),
    "all removed": (lambda lines: lines.clear(), "record 1 (F): there is no genuine checkpoint"),
    "garbage": (lambda lines: lines.insert(4, b"[" * 3000), "record 41 (F, line 5): the checkpoint can't be read"),
    "much too long": (lambda lines: lines.insert(4, b"x" * (3 << 20)), "line 1): holds a line that is much too long"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_was_done_to_checkpoints_is_told(log: Log, name: str) -> None:
    alter, expected = CHECKPOINTS[name]
    checkpoints(log, alter)
    assert expected.replace("F", "checkpoints.jsonl") in said(log)


def test_what_follows_a_bad_checkpoint_still_counts(log: Log) -> None:
    checkpoints(log, lambda lines: lines.__setitem__(4, changed(lines[4][:-9] + b"00000000}")))
    verdict = verify(log.folder)
    assert (verdict.bad, verdict.records, verdict.last) == (1, 234, 230)


def test_checkpoints_that_are_cut_off_in_a_line_are_told(log: Log) -> None:
    log.checkpoints.write_bytes(log.checkpoints.read_bytes()[:-1])
    assert "record 221 (checkpoints.jsonl, line 23): the last line is unfinished" in said(log)


def test_another_key_than_the_one_named_is_told(log: Log) -> None:
    other = public(Ed25519PrivateKey.generate())
    assert fingerprint(log.public) in said(log, keys=[other])
    told = said(log, keys=(), fingerprints=[fingerprint(other)])
    assert f"the log's own key is another one than those named: {fingerprint(log.public)}" in told


def test_a_log_that_is_signed_anew_with_another_key_is_told(log: Log, tmp_path: Path) -> None:
    forged = Log(tmp_path / "forged").fill(234)
    assert verify(forged.folder).genuine  # nothing in it says whose key it is
    assert "the log's own key is another one than those named" in said(forged, keys=[log.public])
    (forged.folder / "key.pub").write_text(about_key(log.public))
    assert "is signed with another key, whose fingerprint is" in said(forged, keys=())


@pytest.mark.parametrize(
    ("old", "new"), [("fingerprint {}\n", "fingerprint 9f86 d081 884c 7d65 9a2f eaa0 c55a d015\n"), ("{}", "9f86")]
)
def test_a_key_file_that_lies_about_its_fingerprint_is_told(log: Log, old: str, new: str) -> None:
    file = log.folder / "key.pub"
    file.write_text(file.read_text().replace(old.format(fingerprint(log.public)), new, 1))
    assert f"whose fingerprint is {fingerprint(log.public)}" in said(log, keys=())


def test_a_key_file_may_have_other_line_ends(log: Log) -> None:
    file = log.folder / "key.pub"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert verify(log.folder).genuine


# --- another key, after the first was lost


@pytest.fixture
def rekeyed(log: Log) -> tuple[Log, str]:
    """A log whose checkpoints from 24 on, and one of whose stubs, another key signs than before; and the first key."""
    first = log.public
    log.remove(1, [1, 2])
    log.key = Ed25519PrivateKey.generate()
    (log.folder / "key.pub").write_text(about_key(log.public))
    log.fill(30)
    log.remove(51, [51, 52])
    return log, first


def test_a_log_of_two_keys_is_genuine_for_whoever_names_both(rekeyed: tuple[Log, str]) -> None:
    log, first = rekeyed
    named = {"keys": [first, log.public]}, {"keys": [log.public], "fingerprints": [fingerprint(first)]}
    for verdict in (verify(log.folder, **each) for each in named):  # type: ignore[arg-type]
        assert (verdict.genuine, verdict.trusted, verdict.key) == (True, True, log.public)
        (note,) = verdict.notes
        assert note.startswith("from checkpoint 24 on, record 231, another key signs: ")
        assert fingerprint(first) in note
        assert fingerprint(log.public) in note


def test_whoever_names_one_of_two_keys_is_told_what_to_do(rekeyed: tuple[Log, str]) -> None:
    log, first = rekeyed
    signed_with = "is signed with another key, whose fingerprint is"
    for keys, fault in (
        ([], f"record 1 (checkpoints.jsonl, line 1): the checkpoint {signed_with} {fingerprint(first)}"),
        ([log.public], f"record 1 (checkpoints.jsonl, line 1): the checkpoint {signed_with} {fingerprint(first)}"),
        ([first], f"the log (key.pub): the log's own key is another one than those named: {fingerprint(log.public)}"),
    ):
        verdict = verify(log.folder, keys=keys)
        assert not verdict.genuine
        assert fault in verdict.lines()[0]
        assert any("audit_key_changed" in note and "--fingerprint OLD --finger" in note for note in verdict.notes)
    told = [str(fault) for fault in verify(log.folder, keys=[first]).faults]
    assert any(f"000000000051.stub.json): the stub {signed_with} {fingerprint(log.public)}" in each for each in told)


def test_a_third_key_is_told_where_two_are_named(rekeyed: tuple[Log, str]) -> None:
    log, first = rekeyed
    second, log.key = log.public, Ed25519PrivateKey.generate()
    log.fill(30)
    what = f"is signed with another key, whose fingerprint is {fingerprint(log.public)}"
    assert what in said(log, keys=[first, second])


def test_a_fingerprint_that_is_none_is_refused(log: Log) -> None:
    with pytest.raises(Unusable, match="is no fingerprint"):
        verify(log.folder, fingerprints=[fingerprint(log.public), "9f86"])


def test_a_fork_is_told_by_another_copy(log: Log, tmp_path: Path) -> None:
    copy = log.copy(tmp_path / "copy")
    log.fill(20)
    assert verify(log.folder, against=copy.folder).genuine
    assert "the other copy has a checkpoint 24" in said(copy, against=log.folder)
    copy.add()
    copy.fill(30)
    assert verify(copy.folder).genuine
    assert "checkpoint 24 isn't that of the other copy: the history forks" in said(log, against=copy.folder)
    assert "this one is genuine, the other copy's is genuine" in said(log, against=copy.folder)


def test_two_checkpoints_with_one_number_are_told(log: Log, tmp_path: Path) -> None:
    copy = log.copy(tmp_path / "copy")
    copy.add()
    copy.sign()
    log.fill(20)
    forked = copy.checkpoints.read_bytes().splitlines(keepends=True)[-1]
    log.checkpoints.write_bytes(log.checkpoints.read_bytes() + forked)
    assert "stands behind checkpoint 25: they were reordered" in said(log)
    lines = log.checkpoints.read_bytes().splitlines(keepends=True)
    log.checkpoints.write_bytes(b"".join([*lines[:24], forked]))
    assert "there are two genuine checkpoints 24: the history forks before it" in said(log)


def test_what_was_noted_earlier_is_held_against_the_log(log: Log, tmp_path: Path) -> None:
    earlier = log.copy(tmp_path / "earlier")
    log.fill(20)
    assert log.checkpoint is not None
    noted = [(log.checkpoint.number, log.checkpoint.sha256)]
    assert verify(log.folder, known=noted).genuine
    assert verify(earlier.folder).genuine  # put back to an earlier state: alone it looks whole
    assert "checkpoint 25, which was noted, isn't here" in said(earlier, known=noted)
    assert "checkpoint 25 isn't the one that was noted" in said(log, known=[(25, "0" * 64)])
    assert "checkpoint 25 isn't the one that was noted" in said(log, known=[(25, "0" * 64), *noted])
    assert verify(log.folder, known=[(25, noted[0][1].upper()), *noted]).genuine


def test_another_copy_without_a_whole_checkpoint_says_nothing_so_it_is_refused(log: Log, tmp_path: Path) -> None:
    copy = log.copy(tmp_path / "copy")
    whole = copy.checkpoints.read_bytes()
    for content, why in ((b"", "is no checkpoint"), (whole[:100], "within a line"), (whole[:-1], "within a line")):
        copy.checkpoints.write_bytes(content)
        with pytest.raises(Unusable, match=why):
            verify(log.folder, against=copy.folder)
    with pytest.raises(Unusable, match="can't be read: No such"):
        verify(log.folder, against=tmp_path / "nowhere")


def test_timestamps_are_of_checkpoints_that_are_there(log: Log) -> None:
    folder = log.folder / "timestamps"
    folder.mkdir()
    assert log.checkpoint is not None
    (folder / "000000000023.tsr").write_bytes(b"token " + bytes.fromhex(log.checkpoint.sha256))
    verdict = verify(log.folder)
    assert (verdict.genuine, verdict.timestamps) == (True, 1)
    (folder / "000000000022.tsr").write_bytes(b"token of something else")
    assert "record 211 (timestamps/000000000022.tsr): the timestamp isn't one of checkpoint 22" in said(log)
    (folder / "000000000022.tsr").unlink()
    (folder / "000000000024.tsr").write_bytes(b"token")
    assert "there is a timestamp of checkpoint 24, which isn't here: the log was cut off" in said(log)


# --- what retention removed


def test_what_retention_removed_is_vouched_for_by_a_stub(log: Log) -> None:
    log.remove(51, [51, 52, 60, 100])
    log.remove(1, range(1, 51))
    verdict = verify(log.folder, strict=True)
    assert verdict.genuine
    assert (verdict.records, verdict.removed) == (234 - 54, 54)


def test_a_log_whose_closed_segments_are_all_gone_still_verifies(log: Log) -> None:
    for first in range(1, 200, 50):
        log.remove(first, range(first, first + 50))
    verdict = verify(log.folder)
    assert (verdict.genuine, verdict.records, verdict.removed) == (True, 34, 200)


def test_a_removal_that_a_power_cut_broke_off_is_told(log: Log) -> None:
    whole = log.file(51).read_bytes()
    log.remove(51, [51, 52])
    log.file(51).write_bytes(whole)
    verdict = verify(log.folder)
    assert verdict.genuine
    assert "isn't done yet" in verdict.notes[0]


def test_a_later_removal_that_was_broken_off_is_told_by_the_draft_beside_the_file(log: Log) -> None:
    log.remove(51, [51, 52])
    earlier = log.file(51).read_bytes()
    log.remove(51, [60])
    draft = log.folder / "000000000051.new.gz"
    log.file(51).rename(draft)
    log.file(51).write_bytes(earlier)
    verdict = verify(log.folder)
    assert (verdict.genuine, verdict.removed) == (True, 3)
    assert "isn't done yet" in verdict.notes[0]


def test_a_draft_that_was_put_there_hides_nothing(log: Log) -> None:
    log.remove(51, [51, 52])
    draft = log.folder / "000000000051.new.gz"
    draft.write_bytes(log.file(51).read_bytes())
    lines = log.lines(51)
    log.write(51, [*lines[:20], changed(lines[20]), *lines[21:]])
    assert "record 71 (000000000051.jsonl.gz, line 21): was changed" in said(log)
    log.write(51, lines)
    stub = _stub(log).read_bytes()
    log.remove(51, [70])
    _stub(log).write_bytes(stub)
    assert "record 51 (000000000051.jsonl.gz): or a later one of its segment was taken out" in said(log)


@pytest.mark.parametrize("earlier", [(51, 52), ()])
def test_a_segment_that_was_put_back_is_told_by_the_record_of_its_removal(log: Log, earlier: tuple[int, ...]) -> None:
    if earlier:
        log.remove(51, earlier)
    file, stub = log.file(51).read_bytes(), _stub(log).read_bytes() if earlier else None
    log.remove(51, [60, 61])
    told = {"first": 51, "kinds": json.loads(_stub(log).read_bytes())["kinds"], "last": 100}
    lies = [3, {"first": "x"}, {"first": 1, "kinds": {"act": "many"}}]  # nobody's, and nothing comes of them
    line = log.chain.append(Kind.ACT, {"act": "retention", "phase": "done", "stubs": [told, *lies]}, 0)
    log.write(201, [*log.lines(201), line])
    assert verify(log.folder, strict=True).genuine
    log.file(51).write_bytes(file)
    if stub is None:
        _stub(log).unlink()
    else:
        _stub(log).write_bytes(stub)
    assert verify(log.folder).genuine  # nothing is forged
    what = f"was put back: {len(earlier) + 2} were removed, its stub tells of {len(earlier)}"
    assert what in said(log, strict=True)


async def test_so_it_is_with_what_retention_itself_puts_on_record(tmp_path: Path) -> None:
    async with Days(tmp_path) as days:
        await one_of_each(days)
        await days.turn()
        file = days.state / "audit" / "000000000001.jsonl.gz"
        whole = file.read_bytes()
        await days.turn(11)
        assert (await days.sweep.run(TERMS, Actor.appliance())).segments == 1
        await days.turn()
        assert days.verdict().genuine
        file.write_bytes(whole)
        (days.state / "audit" / "000000000001.stub.json").unlink()
        assert "its segment was put back: 2 were removed, its stub tells of 0" in days.verdict().lines()[0]


def _stub(log: Log) -> Path:
    return log.folder / "000000000051.stub.json"


def _without_a_stub(log: Log) -> None:
    _stub(log).unlink()


def _one_more_is_taken_out(log: Log) -> None:
    stub = _stub(log).read_bytes()
    log.remove(51, [70])
    _stub(log).write_bytes(stub)


def _the_stub_is_changed(log: Log) -> None:
    _stub(log).write_bytes(_stub(log).read_bytes().replace(b'"intent":1', b'"intent":2'))


def _the_stub_is_by_another_key(log: Log) -> None:
    told = _stub(log).read_bytes().replace(log.public.encode(), public(Ed25519PrivateKey.generate()).encode())
    _stub(log).write_bytes(told)


def _the_stub_is_of_another_segment(log: Log) -> None:
    log.remove(101, [101, 102])
    _stub(log).write_bytes((log.folder / "000000000101.stub.json").read_bytes())


def _the_file_is_gone(log: Log) -> None:
    log.file(51).unlink()


def _the_next_is_gone(log: Log) -> None:
    log.file(101).unlink()


def _what_is_left_is_changed(log: Log) -> None:
    lines = log.lines(51)
    log.write(51, [*lines[:20], changed(lines[20]), *lines[21:]])


def _what_was_removed_is_changed(log: Log) -> None:
    lines = log.lines(51)
    log.write(51, [re.sub(rb'"sha256":"\w\w', b'"sha256":"00', lines[0]), *lines[1:]])


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (_without_a_stub, "record 51 (000000000051.jsonl.gz, line 1): was taken out, and no signed stub says so"),
        (_one_more_is_taken_out, "record 51 (000000000051.jsonl.gz): or a later one of its segment was taken out"),
        (_the_stub_is_changed, "record 51 (000000000051.stub.json): the stub isn't what was signed"),
        (_the_stub_is_by_another_key, "record 51 (000000000051.stub.json): the stub is signed with another key"),
        (_the_stub_is_of_another_segment, "record 51 (000000000051.stub.json): the stub doesn't fit"),
        (_the_file_is_gone, "record 51 (000000000051.jsonl): is missing, with all up to 100: the segment is gone"),
        (_the_next_is_gone, "record 101 (000000000101.jsonl): is missing, with all up to 150: the segment is gone"),
        (_what_is_left_is_changed, "record 71 (000000000051.jsonl.gz, line 21): was changed"),
        (_what_was_removed_is_changed, "record 51 (000000000051.jsonl.gz, line 10): or one of those up to the next"),
    ],
)
def test_what_retention_did_not_remove_is_missed(log: Log, alter: Callable[[Log], None], expected: str) -> None:
    log.remove(51, [51, 52])
    alter(log)
    assert expected in said(log)


# --- while the appliance writes, and after it found its log damaged


async def test_a_log_verifies_at_any_moment_while_it_is_written(tmp_path: Path) -> None:
    settings = Audit(checkpoint_records=50, checkpoint_seconds=0.05, segment_mib=1)
    journal = await Journal.open(tmp_path / "audit", tmp_path / "keys", settings)
    await journal.write(Kind.ACT, {"act": "start"}).kept()
    await journal.checkpoint_now()
    seen: list[Verdict] = []

    async def look() -> None:
        while not done.is_set():
            seen.append(await asyncio.to_thread(verify, journal.folder))

    done = asyncio.Event()
    looking = asyncio.create_task(look())
    try:
        while len(seen) < 30 or journal.head[0] < 12_000:
            tickets = [journal.write(Kind.INTENT, {"request": "x" * 400}) for _ in range(200)]
            await asyncio.gather(*(ticket.kept() for ticket in tickets))
    finally:
        done.set()
        await looking
        await journal.close(10)
    assert [verdict.lines() for verdict in seen if not verdict.genuine] == []
    last = verify(tmp_path / "audit", strict=True)
    assert (last.genuine, last.unsigned, last.last) == (True, 0, journal.head[0])
    assert last.segments > 3


async def test_what_an_appliance_found_damaged_is_named_for_ever(tmp_path: Path) -> None:
    async def run(records: int) -> None:
        journal = await Journal.open(tmp_path / "audit", tmp_path / "keys", Audit())
        for number in range(records):
            await journal.write(Kind.INTENT, {"number": number}).kept()
        await journal.checkpoint_now()
        await journal.close(10)

    await run(20)
    segment = tmp_path / "audit" / "000000000001.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:9], lines[9].replace(b'"number":9', b'"number":8'), *lines[10:]]))
    await run(20)
    verdict = verify(tmp_path / "audit")
    assert verdict.bad == 1
    assert "record 10 (" in verdict.lines()[0]
    assert verdict.last > 40
    assert verdict.records == verdict.last - 20


# --- hostile files


def test_a_link_in_the_place_of_a_segment_is_not_followed(log: Log, tmp_path: Path) -> None:
    file = log.file(101)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert "record 101 (000000000101.jsonl.gz): the file is a link to another file" in said(log)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_something_else_in_the_place_of_a_segment_is_told(log: Log, make: Callable[[Path], None]) -> None:
    file = log.file(101)
    file.unlink()
    make(file)
    assert "isn't a plain file" in said(log)


def test_however_much_is_packed_into_a_segment_little_memory_is_used(log: Log) -> None:
    with gzip.open(log.file(101), "wb", compresslevel=1) as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        assert "holds a line that is much too long" in said(log)
        assert tracemalloc.get_traced_memory()[1] < 260 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("line", [b"", b"x" * 100_000], ids=["empty", "long"])
def test_lines_that_lead_nowhere_are_not_followed_for_ever(
    log: Log, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 million empty lines take 65 KB; no more of them is read than the records of a segment could be."""
    monkeypatch.setattr(verifier, "_LARGEST", 50 << 20)
    pieces = 128
    with gzip.open(log.file(101), "wb", compresslevel=1) as file:
        for _ in range(pieces):
            file.write((line + b"\n") * ((1 << 20) // (len(line) + 1)))
    read = 0

    def counted(packed: BinaryIO) -> Iterator[bytes]:
        nonlocal read
        for block in unpacked(packed):
            read += len(block)
            yield block

    unpacked = verifier._unpacked
    monkeypatch.setattr(verifier, "_unpacked", counted)
    assert "record 101 (000000000101.jsonl.gz, line 1): isn't a record any more" in said(log)
    assert 0 < read < pieces << 20, "though it is looked at twice"


def test_files_that_are_not_of_the_log_are_named_and_not_looked_at(log: Log) -> None:
    (log.folder / "\x1b[2Jclear").write_text("")
    Path(os.fsdecode(os.fsencode(log.folder) + b"/\xff")).write_text("")
    (log.folder / "000000000051.new.gz").write_text("a draft of retention's")
    verdict = verify(log.folder)
    assert verdict.genuine
    assert "'\\udcff', '\\x1b[2Jclear'" in "\n".join(verdict.lines())
    assert "000000000051.new.gz" not in "\n".join(verdict.lines())


def test_what_is_no_log_or_has_no_key_is_refused(log: Log, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="there is no audit log here"):
        verify(tmp_path)
    (log.folder / "key.pub").unlink()
    assert verify(log.folder).genuine
    (log.folder / "key.pub").write_text("no key")
    assert "there is no public key in it" in said(log, keys=())
    with pytest.raises(Unusable, match="there is no checkpoint to hold this log against"):
        verify(log.folder, against=tmp_path)


# --- the command lines


def alone(tmp_path: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the verifier as an auditor does: one file in an empty folder, without the appliance."""
    program = tmp_path / "auditor" / "verifier.py"
    program.parent.mkdir(exist_ok=True)
    shutil.copy(PROGRAM, program)
    command = [sys.executable, "-I", program.name, *map(str, words)]
    return subprocess.run(command, cwd=program.parent, capture_output=True, text=True, check=False, timeout=60)


def test_the_verifier_stands_alone(log: Log, tmp_path: Path) -> None:
    key = log.folder / "key.pub"
    assert log.checkpoint is not None
    known = f"23:{log.checkpoint.sha256}"
    done = alone(tmp_path, log.folder, "--key", key, "--known", known, "--processes", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("GENUINE up to record 230")
    assert done.stdout.rstrip().endswith(known)
    other = fingerprint(public(Ed25519PrivateKey.generate()))
    both = ("--fingerprint", other, "--fingerprint", fingerprint(log.public))
    assert alone(tmp_path, log.folder, *both).returncode == 0
    assert alone(tmp_path, log.folder, "--known", f"23:{'0' * 64}", "--known", known).returncode == 1
    assert alone(tmp_path, log.folder, "--against", tmp_path).returncode == 2
    log.write(51, log.lines(51)[1:])
    done = alone(tmp_path, log.folder, "--json", "--fingerprint", fingerprint(log.public))
    told = json.loads(done.stdout)
    assert (done.returncode, told["genuine"], told["faults"][0]["record"]) == (1, False, 51)
    assert alone(tmp_path, tmp_path).returncode == 2
    assert "appliance" not in re.findall(r"^(?:from|import) (\w+)", PROGRAM.read_text(), re.MULTILINE)


def test_its_help_teaches_an_auditor(tmp_path: Path) -> None:
    told = alone(tmp_path, "--help").stdout
    for word in ("checkpoints.jsonl", "stub.json", "key.pub", "put back to an earlier state", "--known", "exit status"):
        assert word in told


def test_the_command_verifies_and_hands_out_the_verifier(
    log: Log, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = fingerprint(public(Ed25519PrivateKey.generate()))
    words = ["--fingerprint", other, "--fingerprint", fingerprint(log.public), "--key", str(log.folder / "key.pub")]
    assert main(["audit", "verify", str(log.folder), *words]) == 0
    assert capfd.readouterr().out.startswith("GENUINE up to record 230")
    log.file(1).unlink()
    assert main(["audit", "verify", str(log.folder), "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["faults"][0]["record"] == 1
    assert main(["audit", "verify", str(tmp_path)]) == 2
    assert "there is no audit log here" in capfd.readouterr().err
    assert main(["audit", "verifier", "--output", str(tmp_path / "verifier.py")]) == 0
    assert (tmp_path / "verifier.py").read_bytes() == PROGRAM.read_bytes()
    capfd.readouterr()
    assert main(["audit", "verifier"]) == 0
    assert capfd.readouterr().out == PROGRAM.read_text()


def test_its_merkle_root_is_that_of_rfc_6962() -> None:
    """Of leaves of all counts, held against the one that signs."""
    key, leaves = Ed25519PrivateKey.generate(), [bytes([number]) * 32 for number in range(20)]
    for count in range(1, 20):
        signed = sign(leaves[:count], last=count, at="", before=None, key=key)
        assert verifier._root(leaves[:count]).hex() == signed.root
