"""Reading a log in order, from a record on, while it is written, compressed and thinned out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from appliance.audit import retention, segments
from appliance.errors import AuditFailed


class Record(NamedTuple):
    """A record, or the place of one that retention removed."""

    seq: int
    kind: str
    at: str
    """Empty where only the place is left, as is `line`."""
    line: bytes
    sha256: str
    """Of the line as it was written."""


class Tail:
    """What of a log hasn't been taken yet. For one thread at a time."""

    def __init__(self, folder: Path, after: int) -> None:
        """Begin behind the record with the number `after`."""
        self._folder = folder
        self._after = after
        self._records = self._read()
        self._ahead: Record | None = None

    def take(self, upto: int, most: int, size: int) -> list[Record]:
        """The next ones up to the number `upto`: at most `most`, and `size` bytes, unless the first has more.

        Numbers that are missing among them are lost. Fewer where fewer are to be had. Raises `AuditFailed` for a
        segment that can't be read; the next call tries again, unless `skip` is called before.
        """
        taken: list[Record] = []
        while len(taken) < most and (record := self._peek()) is not None and record.seq <= upto:
            size -= len(record.line)
            if taken and size < 0:
                break
            taken.append(record)
            self._after, self._ahead = record.seq, None
        return taken

    def skip(self) -> bool:
        """Go on behind a segment that can't be read; False where nothing is behind it yet."""
        behind = [each.first for each in segments.listed(self._folder) if each.first > self._after + 1]
        if behind:
            self._after = behind[0] - 1
        return bool(behind)

    def _peek(self) -> Record | None:
        if self._ahead is None:
            try:
                self._ahead = next(self._records)
            except AuditFailed:
                self._records = self._read()
                raise
        return self._ahead

    def _read(self) -> Iterator[Record | None]:
        """All that comes, without an end; None whenever there is no more for now."""
        first = offset = 0
        while True:
            there = segments.listed(self._folder)
            begun = [each for each in there if each.first <= self._after + 1]
            if not there:
                yield None
                continue
            segment, behind = (begun or there[:1])[-1], there[max(len(begun), 1) :]
            # what was read of the newest is passed over; one that is closed may be another file by now
            offset = offset if segment.first == first and not behind else 0
            first, found = segment.first, False
            for line in segments.lines(segment, offset):
                offset += len(line) + 1
                record = _record(line)
                if record is not None and record.seq > self._after:
                    found = True
                    yield record
            if behind:
                self._after = max(self._after, behind[0].first - 1)
            elif not found:  # else there may be another one by now
                yield None


def _record(line: bytes) -> Record | None:
    """What a line holds; None for what is no line of a log, of which a verification tells."""
    try:
        read = retention.read(line + b"\n")
    except ValueError:
        return None
    if read.sha256:
        return Record(read.seq, read.kind.decode(), "", b"", read.sha256.decode())
    return Record(read.seq, read.kind.decode(), read.at.decode(), line, hashlib.sha256(line).hexdigest())
