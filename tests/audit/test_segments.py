"""Segments are listed in order and read line by line, whatever form they have at the moment."""

from __future__ import annotations

import errno
import gzip
from pathlib import Path

import pytest

from appliance.audit import segments
from appliance.audit.disk import RealDisk
from appliance.audit.segments import Segment
from appliance.errors import AuditFailed
from tests.fakes.disk import FakeDisk

LINES = [b"one", b"", b"three"]


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    file = segments.plain(tmp_path, 7)
    file.write_bytes(b"".join(line + b"\n" for line in LINES))
    return Segment(7, file)


def test_segments_are_listed_by_number_and_nothing_else_is(tmp_path: Path) -> None:
    for name in (
        "000000000009.jsonl", "000000000001.jsonl.gz", "000000000123.jsonl.gz", "000000000123.jsonl",
        "checkpoints.jsonl", "000000000001.stub.json", "000000000001.new", "key.pub", "lock", "1.jsonl",
        "000000000009.jsonl.gz.bak",
    ):  # fmt: skip
        (tmp_path / name).touch()
    assert [(each.first, each.file.name, each.compressed) for each in segments.listed(tmp_path)] == [
        (1, "000000000001.jsonl.gz", True), (9, "000000000009.jsonl", False), (123, "000000000123.jsonl.gz", True),
    ]  # fmt: skip
    assert segments.listed(tmp_path)[0].stub == tmp_path / "000000000001.stub.json"


def test_a_segment_reads_the_same_once_it_is_compressed(segment: Segment, tmp_path: Path) -> None:
    assert list(segments.lines(segment)) == LINES
    segments.compress(segment, RealDisk())
    assert list(segments.lines(segment)) == LINES  # listed before, read after
    (compressed,) = segments.listed(tmp_path)
    assert list(segments.lines(compressed)) == LINES
    assert gzip.decompress(compressed.file.read_bytes()) == b"one\n\nthree\n"
    assert [file.name for file in tmp_path.iterdir()] == ["000000000007.jsonl.gz"]


def test_reading_goes_on_where_it_ended(segment: Segment, tmp_path: Path) -> None:
    assert list(segments.lines(segment, 4)) == LINES[1:]
    with segment.file.open("ab") as file:
        file.write(b"four\nfi")
    assert list(segments.lines(segment, 11)) == [b"four"]
    segments.compress(segment, RealDisk())
    assert list(segments.lines(segments.listed(tmp_path)[0], 5)) == [b"three", b"four"]


def test_what_was_half_compressed_is_compressed_anew(segment: Segment, tmp_path: Path) -> None:
    segment.file.with_suffix(".new").write_bytes(b"x" * 1000)
    segments.compress(segment, RealDisk())
    assert list(segments.lines(segments.listed(tmp_path)[0])) == LINES


def test_what_retention_removed_does_not_come_back(segment: Segment, tmp_path: Path) -> None:
    segment.stub.touch()  # the compressed segment was removed as a whole, and the plain one outlived it
    segments.compress(segment, RealDisk())
    assert segments.listed(tmp_path) == []


@pytest.mark.parametrize("operation", ["open", "write", "sync", "truncate", "replace"])
def test_where_compressing_fails_the_plain_file_stays(segment: Segment, tmp_path: Path, operation: str) -> None:
    disk = FakeDisk()
    disk.fail(operation, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        segments.compress(segment, disk)
    assert segments.listed(tmp_path) == [segment]
    assert list(segments.lines(segment)) == LINES
    assert [file.name for file in tmp_path.iterdir()] == [segment.file.name]


def test_after_a_power_cut_there_is_one_whole_form(segment: Segment, tmp_path: Path) -> None:
    disk = FakeDisk()
    disk.most = 3
    segments.compress(segment, disk)
    disk.cut_power()
    assert list(segments.lines(segments.listed(tmp_path)[0])) == LINES


@pytest.mark.parametrize(
    "content", [b"nonsense", gzip.compress(b"one\n" * 1000, mtime=0)[:-12], b"\x1f\x8b\x08" + bytes(50)]
)
def test_a_damaged_segment_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "000000000001.jsonl.gz"
    file.write_bytes(content)
    with pytest.raises(AuditFailed, match=r"000000000001\.jsonl\.gz can't be read: it is damaged; `appliance audit"):
        list(segments.lines(Segment(1, file)))


def test_a_missing_segment_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuditFailed, match="No such file"):
        list(segments.lines(Segment(1, segments.plain(tmp_path, 1))))
