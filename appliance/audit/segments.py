"""Segments: the files that hold the records, in order, one line each.

The newest may be open. A closed one is compressed, unless there was no room to, which is tried again later.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from appliance.audit.disk import Disk, write_all
from appliance.errors import AuditFailed

_NAME = re.compile(r"(\d{12})\.jsonl(?:\.gz)?")
_GZIP = 31
"""What zlib calls a stream in the form of gzip; without a name or a time in it."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """Records from the number `first` on, up to the next segment."""

    first: int
    file: Path

    @property
    def compressed(self) -> bool:
        """Whether it is closed and compressed; records are only ever added to one that isn't."""
        return self.file.suffix == ".gz"

    @property
    def stub(self) -> Path:
        """Where retention tells what it removed of this segment."""
        return self.file.with_name(f"{self.first:012d}.stub.json")


def plain(folder: Path, first: int) -> Path:
    """The file of an open segment whose first record has the number `first`."""
    return folder / f"{first:012d}.jsonl"


def listed(folder: Path) -> list[Segment]:
    """The segments in the folder of a log, by their numbers. Raises OSError.

    Of one that was being compressed when the process ended, the compressed file counts once it is whole.
    """
    found: dict[int, Segment] = {}
    for file in sorted(folder.iterdir()):  # of two, the compressed one comes last
        if match := _NAME.fullmatch(file.name):
            first = int(match[1])
            found[first] = Segment(first, file)
    return [found[first] for first in sorted(found)]


def lines(segment: Segment, offset: int = 0) -> Iterator[bytes]:
    """The whole lines of a segment, without their ends, from `offset` (in bytes, uncompressed) on.

    The next offset is the one given, with `len(line) + 1` for each line. Of an open segment, the last line may be one
    that is being written. Raises `AuditFailed` for a file that can't be read.
    """
    try:
        with opened(segment) as file:
            file.seek(offset)
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]
    except (OSError, EOFError, zlib.error) as cause:
        why = getattr(cause, "strerror", None) or "it is damaged"
        raise AuditFailed(
            f"{segment.file} can't be read: {why}; `appliance audit verify` tells what it holds"
        ) from cause


def compress(segment: Segment, disk: Disk) -> None:
    """Have a closed segment's compressed file in place of the plain one. Raises OSError; then the plain one stays."""
    whole = segment.file.with_suffix(".jsonl.gz")
    if not whole.exists() and not segment.stub.exists():  # with a stub, it was compressed long ago
        draft = segment.file.with_suffix(".new")
        try:
            _squeeze(segment.file, draft, disk)
            disk.replace(draft, whole)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
    disk.remove(segment.file)


def _squeeze(source: Path, target: Path, disk: Disk) -> None:
    squeeze = zlib.compressobj(wbits=_GZIP)
    descriptor = disk.open(target, new=True)
    try:
        disk.truncate(descriptor, 0)
        offset = 0
        with source.open("rb") as file:
            while part := file.read(_CHUNK):
                offset += _put(disk, descriptor, squeeze.compress(part), offset)
        _put(disk, descriptor, squeeze.flush(), offset)
    finally:
        disk.close(descriptor)


def _put(disk: Disk, descriptor: int, part: bytes, offset: int) -> int:
    write_all(disk, descriptor, part, offset)
    return len(part)


def opened(segment: Segment) -> IO[bytes]:
    """Its bytes, uncompressed. Raises OSError; reading raises EOFError and zlib.error, too, for a damaged one."""
    if not segment.compressed:
        try:
            return segment.file.open("rb")
        except FileNotFoundError:  # it was closed and compressed since it was listed
            return gzip.open(segment.file.with_suffix(".jsonl.gz"))  # type: ignore[return-value]
    return gzip.open(segment.file)  # type: ignore[return-value]
