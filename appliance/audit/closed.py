"""Reads closed segments, a little at a time, and what was signed of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.audit.checkpoint import Checkpoint, of_line
from appliance.audit.retention import Contents, Line, Terms, read
from appliance.audit.segments import Segment
from appliance.signing import written

_SLICE = 1 << 15
"""Bytes of lines between two pauses: about a millisecond of work, for which the event loop may have to wait."""
_BLOCK = 1 << 16
_LONGEST = 4096
"""Bytes; no line of checkpoints.jsonl is so long."""

Pause = Callable[[], None]
"""Called between two slices of work: lets others have their turn, or raises to end it."""


class Unsound(Exception):
    """A segment isn't what was signed, or can't be read; the text says what is wrong."""


def contents(segment: Segment, pause: Pause) -> Contents:
    """Which records a closed segment has. Raises `Unsound`."""
    found = Contents()
    for lines in slices(segment):
        for text in lines:
            found.add(line_of(text))
        pause()
    return found


def show(terms: Terms, segment: Segment, pause: Pause) -> None:
    """Show `terms` the lines that name a person who is held. Raises `Unsound`."""
    for lines in slices(segment):
        for text in lines:
            if any(person in text for person in terms.persons):
                line = line_of(text)
                terms.held(line, text, line.at)
        pause()


def slices(segment: Segment) -> Iterator[list[bytes]]:
    """The lines of a closed segment, with their ends, some at a time. Raises `Unsound`."""
    try:
        with gzip.open(segment.file) as packed, io.BufferedReader(packed, _BLOCK) as file:
            while lines := file.readlines(_SLICE):
                yield lines
    except (OSError, EOFError, zlib.error) as cause:
        raise Unsound(f"it can't be read: {getattr(cause, 'strerror', None) or 'it is damaged'}") from cause


def line_of(text: bytes) -> Line:
    """What a line says. Raises `Unsound`."""
    try:
        return read(text)
    except ValueError as cause:
        raise Unsound(str(cause)) from None


def checkpoints(segment: Segment) -> Iterator[Checkpoint]:
    """Those over a segment and all after it. Raises `Unsound`."""
    try:
        with (segment.file.parent / "checkpoints.jsonl").open("rb") as file:
            low, high = 0, file.seek(0, os.SEEK_END)  # where lines begin that come before, and behind
            while high - low > _LONGEST:
                file.seek((low + high) // 2)
                file.readline()
                begin, line = file.tell(), file.readline()
                if begin < high and line.endswith(b"\n") and json.loads(line)["first"] <= segment.first:
                    low = begin
                else:
                    high = (low + high) // 2
            file.seek(low)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is just being written
                checkpoint = of_line(line[:-1])
                if checkpoint.last >= segment.first:
                    yield checkpoint
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise Unsound(f"checkpoints.jsonl can't be read: {cause}") from cause


def stub_of(segment: Segment) -> dict[str, Any]:
    """What a segment's stub says. Raises `Unsound` for one that isn't signed by the key of the log."""
    try:
        told: dict[str, Any] = json.loads(segment.stub.read_bytes())
        signed = written({name: value for name, value in told.items() if name != "signature"})
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(next(checkpoints(segment)).key))
        key.verify(bytes.fromhex(told["signature"]), signed)
        told["previous"], told["sha256"]
    except (OSError, ValueError, KeyError, TypeError, StopIteration, InvalidSignature) as cause:
        raise Unsound(f"its stub is damaged, or not signed: {type(cause).__name__}") from cause
    return told


def sha256_of(file: Path, pause: Pause) -> str | None:
    """Of what is packed in `file`; None where it isn't whole."""
    found = hashlib.sha256()
    try:
        with gzip.open(file) as packed:
            while block := packed.read(_SLICE):
                found.update(block)
                pause()
    except (OSError, EOFError, zlib.error):
        return None
    return found.hexdigest()
