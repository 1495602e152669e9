"""Reads a whole log and holds it against its checkpoints, in the plainest way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from appliance.audit import segments
from appliance.audit.checkpoint import Checkpoint, of_line, root
from appliance.signing import BEFORE_THE_FIRST, written

Record = dict[str, Any]


def records(folder: Path) -> list[Record]:
    """All records of the log, each of which must follow on the one before, and stand there in its only form."""
    found: list[Record] = []
    head = BEFORE_THE_FIRST
    for segment in segments.listed(folder):
        assert segment.first == len(found) + 1
        for line in segments.lines(segment):
            record = json.loads(line)
            assert written(record) == line
            assert (record["seq"], record["prev"]) == (len(found) + 1, head)
            head = hashlib.sha256(line).hexdigest()
            found.append(record)
    return found


def checkpoints(folder: Path) -> list[Checkpoint]:
    """All checkpoints of a good log: one after the other, over all records but the newest, none over two segments."""
    file = folder / "checkpoints.jsonl"
    found = [of_line(line) for line in file.read_bytes().splitlines()] if file.exists() else []
    leaves = [hashlib.sha256(line).digest() for segment in segments.listed(folder) for line in segments.lines(segment)]
    begins = {segment.first for segment in segments.listed(folder)}
    previous, last = BEFORE_THE_FIRST, 0
    for number, checkpoint in enumerate(found, 1):
        assert (checkpoint.number, checkpoint.previous, checkpoint.first) == (number, previous, last + 1)
        assert not begins & set(range(checkpoint.first + 1, checkpoint.last + 1))
        under = leaves[checkpoint.first - 1 : checkpoint.last]
        assert (checkpoint.head, checkpoint.root) == (under[-1].hex(), root(under).hex())
        previous, last = checkpoint.sha256, checkpoint.last
    return found


def bodies(folder: Path) -> list[Any]:
    """What the records of a good log tell."""
    checkpoints(folder)
    return [record["body"] for record in records(folder)]
