"""Reading a log from a record on, while it grows, is closed, compressed, thinned out and damaged."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.audit.record import Chain, Kind
from appliance.audit.retention import in_place_of
from appliance.audit.retention import read as read_line
from appliance.audit.segments import plain
from appliance.audit.tail import Tail
from appliance.errors import AuditFailed

ALL = 10**6


class Log:
    """A log that a test writes by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chain = Chain()
        self.lines: list[bytes] = []
        self.first = 1

    def write(self, number: int = 1) -> None:
        with plain(self.folder, self.first).open("ab") as file:
            for _ in range(number):
                self.lines.append(self.chain.append(Kind.ACT, {"act": "x"}, 1_795_362_611.0))
                file.write(self.lines[-1] + b"\n")

    def close(self, *, compress: bool = True) -> None:
        """Close the open segment; what is written next goes into another."""
        file = plain(self.folder, self.first)
        if compress and file.exists():
            file.with_suffix(".jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        self.first = self.chain.seq + 1

    def thin(self, *gone: int) -> None:
        """Remove records from closed and compressed segments."""
        for file in self.folder.glob("*.gz"):
            lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
            kept = [_thinned(line) if read_line(line).seq in gone else line for line in lines]
            draft = file.with_suffix(".new")  # in the place of the old one, which somebody may be reading
            draft.write_bytes(gzip.compress(b"".join(kept)))
            draft.replace(file)


def _thinned(line: bytes) -> bytes:
    read = read_line(line)
    return line if read.sha256 else in_place_of(read, hashlib.sha256(line[:-1]).hexdigest().encode())


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def numbers(tail: Tail, upto: int = ALL, most: int = ALL, size: int = ALL) -> list[int]:
    return [record.seq for record in tail.take(upto, most, size)]


def test_nothing_is_read_of_an_empty_folder_until_something_is_there(log: Log) -> None:
    tail = Tail(log.folder, 0)
    assert numbers(tail) == []
    log.write(2)
    assert numbers(tail) == [1, 2]
    assert numbers(tail) == []


def test_what_is_read_is_what_was_written(log: Log) -> None:
    log.write(3)
    taken = Tail(log.folder, 0).take(ALL, ALL, ALL)
    assert [record.line for record in taken] == log.lines
    assert taken[-1].sha256 == log.chain.head
    assert {(record.kind, record.at) for record in taken} == {("act", "2026-11-22T15:50:11.000Z")}


def test_no_more_is_taken_than_may_be(log: Log) -> None:
    log.write(10)
    tail = Tail(log.folder, 0)
    length = len(log.lines[0])
    assert numbers(tail, upto=2) == [1, 2]
    assert numbers(tail, upto=2) == []
    assert numbers(tail, most=3) == [3, 4, 5]
    assert numbers(tail, size=2 * length) == [6, 7]
    assert numbers(tail, size=1) == [8]  # one in any case
    assert numbers(tail) == [9, 10]


@pytest.mark.parametrize("change", [lambda log: log.close(), lambda log: log.close(compress=False)])
def test_segments_that_are_closed_in_between_are_read_to_their_ends(log: Log, change: Callable[[Log], None]) -> None:
    log.write(4)
    tail = Tail(log.folder, 0)
    assert numbers(tail, most=2) == [1, 2]
    log.write(2)
    change(log)
    log.write(3)
    assert numbers(tail) == [3, 4, 5, 6, 7, 8, 9]
    log.write(1)
    change(log)
    assert numbers(tail) == [10]
    log.write(1)
    assert numbers(tail) == [11]


def test_it_begins_in_the_middle(log: Log) -> None:
    for _ in range(3):
        log.write(3)
        log.close()
    assert numbers(Tail(log.folder, 4)) == [5, 6, 7, 8, 9]
    assert numbers(Tail(log.folder, 6)) == [7, 8, 9]
    (log.folder / "000000000001.jsonl.gz").unlink()
    assert numbers(Tail(log.folder, 0)) == [4, 5, 6, 7, 8, 9]


def test_places_of_records_that_are_gone_have_their_hash_still(log: Log) -> None:
    log.write(4)
    log.close()
    log.thin(2, 3)
    taken = Tail(log.folder, 0).take(ALL, ALL, ALL)
    assert [(record.seq, bool(record.line)) for record in taken] == [(1, True), (2, False), (3, False), (4, True)]
    assert [record.sha256 for record in taken] == [hashlib.sha256(line).hexdigest() for line in log.lines]


def test_a_torn_line_is_waited_for_and_a_damaged_one_left_out(log: Log) -> None:
    log.write(3)
    file = plain(log.folder, 1)
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    tail = Tail(log.folder, 0)
    assert numbers(tail) == [1, 2]
    file.write_bytes(whole)
    assert numbers(tail) == [3]
    file.write_bytes(whole.replace(b'"seq":2', b'"seq":x'))
    assert numbers(Tail(log.folder, 0)) == [1, 3]


def test_a_segment_that_can_not_be_read_is_tried_again_and_can_be_skipped(log: Log) -> None:
    log.write(3)
    log.close()
    log.write(2)
    file = log.folder / "000000000001.jsonl.gz"
    good = file.read_bytes()
    file.write_bytes(good[:-20])
    tail = Tail(log.folder, 0)
    for _ in range(2):
        with pytest.raises(AuditFailed):
            numbers(tail)
    assert tail.skip()
    assert numbers(tail) == [4, 5]
    assert not tail.skip()


def test_a_segment_that_lost_its_end_is_left_behind(log: Log) -> None:
    log.write(3)
    log.close(compress=False)
    log.write(2)
    plain(log.folder, 1).write_bytes(log.lines[0] + b"\n")
    assert numbers(Tail(log.folder, 0)) == [1, 4, 5]


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(st.sampled_from(["write", "close", "close plain", "take", "take one", "thin"]), max_size=30))
def test_whatever_happens_in_between_every_record_is_taken_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    tail = Tail(log.folder, 0)
    taken: list[int] = []
    for step in [*steps, "take"]:
        match step:
            case "write":
                log.write(2)
            case "close" | "close plain":
                log.close(compress=step == "close")
            case "take" | "take one":
                taken += numbers(tail, most=1 if step == "take one" else ALL)
            case "thin":
                log.thin(*range(1, 100, 3))
    assert taken == list(range(1, log.chain.seq + 1))
