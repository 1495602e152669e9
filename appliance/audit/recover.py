"""Where the log goes on when it is opened: what a run before left is looked at, kept, put aside, or told of.

What was acknowledged is never given up: lines that follow on each other stay. What a power cut tore was acknowledged to
nobody; it is put aside, and an incident tells of it. So does one where the log isn't what its checkpoints signed.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from appliance import durable
from appliance.audit import segments
from appliance.audit.anchor import Anchor
from appliance.audit.checkpoint import Checkpoint, of_line
from appliance.audit.disk import Disk, Growing
from appliance.audit.segments import Segment
from appliance.errors import AuditFailed
from appliance.signing import BEFORE_THE_FIRST

_PREVIOUS = re.compile(rb',"prev":"([0-9a-f]{64})","seq":[0-9]{1,16}}\n\Z')
_TAIL = 120
"""Bytes at the end of a line in which that is found."""
_LONGEST = 4096
"""Bytes; no checkpoint is so long."""
_WINDOW = 1 << 16
"""Bytes at the end of checkpoints.jsonl in which the newest one is looked for first; one takes about 600."""


@dataclass(slots=True)
class Found:
    """Where the chain goes on, and what is to be told of how it was found."""

    seq: int
    head: str
    """Number and hash of the last record."""
    checkpoints: Growing
    checkpoint: Checkpoint | None
    """The newest."""
    segment: Growing
    """Where the next record goes."""
    first: int = 1
    """The number of the first record in it, be it the next one."""
    day: int = 0
    """When the day of that record began, seconds since 1970; 0 for one that isn't there yet."""
    unsigned: list[str] = field(default_factory=list)
    """The hashes of the last records, which no checkpoint covers yet."""
    incidents: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of records about what was wrong."""


@dataclass(slots=True)
class _Run:
    """Lines that follow on each other."""

    seq: int
    head: str
    """Number and hash of the last."""
    end: int
    """Where it ends in its file."""
    signed: int = 0
    """Where the last one ends that a checkpoint covers."""
    heads: list[str] = field(default_factory=list)
    """The hashes of those behind."""


def recover(folder: Path, work: Path, disk: Disk, anchor: Anchor) -> Found:
    """Look at the log in `folder`, and make it fit to be written to. What is torn goes to the folder `work`.

    Where it lacks the checkpoint that `anchor` knows of, it goes on behind that one.

    Raises OSError, and `AuditFailed` when neither segments nor checkpoints tell where the chain ends.
    """
    found = _checkpoints(folder / "checkpoints.jsonl", work, disk)
    _hold_against(anchor, found)
    present = segments.listed(folder)
    if present and not present[-1].compressed:
        _open(present[-1], found, work, disk)
        return found
    stub = _newest_stub(folder)
    if present and present[-1].first > stub:
        _closed(present[-1], found)
    elif found.seq and not stub:
        _tell_broken(found)
    _begin(found, folder, disk)
    return found


# ---- checkpoints


def _checkpoints(file: Path, work: Path, disk: Disk) -> Found:
    """The newest checkpoint, and the end of the chain as it has it."""
    length = file.stat().st_size if file.exists() else 0
    end, newest = 0, None
    for window in (_WINDOW, length):
        if newest is None and length:
            with file.open("rb") as opened:
                start = opened.seek(max(0, length - window))
                end, newest = _newest(opened.read(), start)
    growing = Growing(disk, file, end)
    seq, head = (newest.last, newest.head) if newest else (0, BEFORE_THE_FIRST)
    found = Found(seq, head, growing, newest, growing)
    if end < length:
        _put_aside(file, end, work / f"torn-checkpoint-{newest.number + 1 if newest else 1}", found)
    if newest:
        growing.rewrite(end - len(newest.line) - 1)
    return found


def _newest(window: bytes, start: int) -> tuple[int, Checkpoint | None]:
    """The last checkpoint in the end of a file, which begins at `start`; and where its line ends."""
    end = window.rfind(b"\n") + 1
    while end:
        begin = window.rfind(b"\n", 0, end - 1) + 1
        try:
            return start + end, of_line(window[begin : end - 1])
        except ValueError:
            end = begin
    return 0, None


def _hold_against(anchor: Anchor, found: Found) -> None:
    """Go on behind the checkpoint that was noted, unless the log holds it, and maybe later ones."""
    newest, noted = found.checkpoint, anchor.newest
    if newest is not None and anchor.lost:
        found.incidents.append({"incident": "audit_note_lost", "checkpoint": newest.number})
    if noted is None or (newest is not None and _holds(found.checkpoints, noted.line, newest.number - noted.number)):
        return
    found.seq, found.head, found.checkpoint = noted.last, noted.head, noted
    _tell_broken(found)
    found.incidents[-1]["found"] = newest.number if newest else 0


def _holds(checkpoints: Growing, line: bytes, behind: int) -> bool:
    """Whether `line` is one of the checkpoints, with so many behind it."""
    if behind < 0:
        return False
    end = checkpoints.length
    with checkpoints.file.open("rb") as file:
        if end > (behind + 1) * _LONGEST:
            file.seek(end - (behind + 1) * _LONGEST)
        while file.tell() < end and (found := file.readline(_LONGEST)):
            if found == line + b"\n":
                return True
    return False


# ---- records


def _open(segment: Segment, found: Found, work: Path, disk: Disk) -> None:
    """Go on in the open segment; or in a new one, if this one isn't what was signed."""
    signed = found.seq, found.head
    known = found.head if segment.first == found.seq + 1 else None
    run = _run(_raw(segment.file), 0, segment.first - 1, known, signed)
    if run is None:
        _tell_broken(found)
        _leave(segment, found, work, disk)
        return
    if segment.first > found.seq + 1:
        _tell_broken(found)
    found.seq, found.head, found.unsigned = run.seq, run.head, run.heads
    found.first, found.day = segment.first, _day(segment.file)
    if run.end < segment.file.stat().st_size:
        _put_aside(segment.file, run.end, work / f"torn-{run.seq + 1}", found)
    found.segment = Growing(disk, segment.file, run.end)
    found.segment.rewrite(run.signed)


def _leave(segment: Segment, found: Found, work: Path, disk: Disk) -> None:
    """Leave a segment that isn't what was signed as it is; but for what follows on the checkpoint, which moves on."""
    begins = _behind(segment.file, found)
    _begin(found, segment.file.parent, disk)
    if begins is None:
        return
    run = _run(_raw(segment.file, begins), begins, found.seq, found.head, (found.seq, found.head))
    if run is None:
        return
    if run.end < segment.file.stat().st_size:
        _put_aside(segment.file, run.end, work / f"torn-{run.seq + 1}", found)
    with segment.file.open("rb") as opened:
        opened.seek(begins)
        found.segment.append(opened.read(run.end - begins))
    Growing(disk, segment.file, begins).rewrite(begins)
    found.seq, found.head, found.unsigned = run.seq, run.head, run.heads
    found.day = _day(found.segment.file)


def _closed(segment: Segment, found: Found) -> None:
    """Hold the last segment, which is closed, against the newest checkpoint."""
    signed = found.seq, found.head
    try:
        run = _run((line + b"\n" for line in segments.lines(segment)), 0, segment.first - 1, None, signed)
    except AuditFailed:
        run = None
    if run is None or run.seq > found.seq:
        _tell_broken(found)
    if run is not None:
        found.seq, found.head, found.unsigned = run.seq, run.head, run.heads


def _newest_stub(folder: Path) -> int:
    """The first record of the last segment of which retention removed records; 0 if there is none."""
    return max((int(file.name[:12]) for file in folder.glob("????????????.stub.json")), default=0)


def _begin(found: Found, folder: Path, disk: Disk) -> None:
    """Go on in a new segment."""
    newest = max([_newest_stub(folder), *(segment.first for segment in segments.listed(folder))])
    if newest > found.seq:
        raise AuditFailed(
            f"{folder}: nothing tells where the log ends, since checkpoints.jsonl ends before the segment "
            f"{newest:012d}, which can't be read. Restore this folder from a backup; or keep it elsewhere, and "
            "newest-checkpoint in audit-keys with it, and start without both: then a new log begins"
        )
    found.first = found.seq + 1
    found.segment = Growing(disk, segments.plain(folder, found.first))


def _run(raw: Iterable[bytes], end: int, seq: int, head: str | None, signed: tuple[int, str]) -> _Run | None:
    """The lines of `raw`, the first of which begins at `end`, as far as they follow on the record `seq`.

    `head` is that record's hash; None: as the first line has it. None when they aren't what was signed: the number and
    the hash of the last record that is under a checkpoint.
    """
    run = _Run(seq, head or "", end, end)
    for line in raw:
        if not run.head:
            run.head = _previous(line)
        link = b',"prev":"%s","seq":%d}\n' % (run.head.encode(), run.seq + 1)
        if not line.endswith(link) or (run.seq >= signed[0] and not _parses(line)):
            break
        run.seq += 1
        run.head = hashlib.sha256(line[:-1]).hexdigest()
        run.end += len(line)
        if run.seq > signed[0]:
            run.heads.append(run.head)
        else:
            run.signed = run.end
            if run.seq == signed[0] and run.head != signed[1]:
                return None
    return run if run.seq >= signed[0] and run.head else None


def _behind(file: Path, found: Found) -> int | None:
    """Where in `file` the record stands that follows on the newest checkpoint."""
    link = b',"prev":"%s","seq":%d}\n' % (found.head.encode(), found.seq + 1)
    begins = 0
    for line in _raw(file):
        if line.endswith(link):
            return begins
        begins += len(line)
    return None


def _previous(line: bytes) -> str:
    match = _PREVIOUS.search(line[-_TAIL:])
    return match[1].decode() if match else ""


def _parses(line: bytes) -> bool:
    """Whether a line is whole: a power cut may have left a hole in it, and nothing that follows shows that."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _raw(file: Path, offset: int = 0) -> Iterator[bytes]:
    with file.open("rb") as opened:
        opened.seek(offset)
        yield from opened


def _day(file: Path) -> int:
    """When the day began on which the first record of `file` was written."""
    with file.open("rb") as opened:
        begin = opened.read(17)  # {"at":"2026-11-22
    try:
        return calendar.timegm(date.fromisoformat(begin[7:].decode()).timetuple())
    except ValueError:
        return 0


# ---- what is told


def _put_aside(file: Path, offset: int, aside: Path, found: Found) -> None:
    """Keep what stands in `file` from `offset` on elsewhere; it is cut off by whoever opens the file next."""
    with file.open("rb") as opened:
        opened.seek(offset)
        torn = opened.read()
    durable.replace(aside, torn)
    found.incidents.append(
        {
            "incident": "audit_torn", "after": found.seq, "bytes": len(torn), "lines": torn.count(b"\n"),
            "file": os.fspath(aside.name),
        }
    )  # fmt: skip


def _tell_broken(found: Found) -> None:
    if any(told["incident"] == "audit_broken" for told in found.incidents):
        return
    number = found.checkpoint.number if found.checkpoint else 0
    found.incidents.append({"incident": "audit_broken", "checkpoint": number, "signed": found.seq})
