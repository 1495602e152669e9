"""Which checkpoints and stubs of a log are to be believed: those under a key that is known from elsewhere.

Whoever can write to the log can put anything there, signed with a key of their own, also for a moment.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.audit.checkpoint import Checkpoint, of_line
from appliance.audit.closed import Pause, Unsound
from appliance.audit.segments import Segment
from appliance.signing import BEFORE_THE_FIRST, written

_LONGEST = 4096
"""Bytes; no line of checkpoints.jsonl is so long."""
_SLICE = 100
"""Lines between two pauses: about a millisecond of work."""


@dataclass(slots=True)
class _End:
    """How far the chain of checkpoints was followed."""

    offset: int = 0
    """Where the last line begins."""
    line: bytes = b""
    sha256: str = BEFORE_THE_FIRST
    number: int = 0
    last: int = 0
    since: int = 1
    """From this record on, checkpoints are believed: nothing that doesn't belong there comes behind. 0: from none."""
    places: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    """Where to begin to read: a record, and where the first checkpoint over or behind it begins. In order."""


class Signed:
    """What is signed of the log in `folder` with one of `keys`: public ones, in hex. For one thread at a time."""

    def __init__(self, folder: Path, keys: Collection[str]) -> None:
        self._file = folder / "checkpoints.jsonl"
        self._keys = keys
        self._end = _End()

    def follow(self, newest: Checkpoint | None, pause: Pause) -> None:
        """Go through the chain of checkpoints up to `newest`, from where the call before ended.

        Where the log was damaged and the appliance went on behind that, the chain may leave out some; but nothing is
        believed that lies before something else. Raises `Unsound` when `newest` isn't there.
        """
        if newest is None:
            return
        try:
            with self._file.open("rb") as file:
                self._go(file, newest.line + b"\n", pause)
        except OSError as cause:
            raise Unsound(f"checkpoints.jsonl can't be read: {cause.strerror}") from cause

    def _go(self, file: BinaryIO, newest: bytes, pause: Pause) -> None:
        file.seek(self._end.offset)
        if file.readline(_LONGEST) != self._end.line:
            self._end = _End()
            file.seek(0)
        for number in count(1):
            if self._end.line == newest:
                return
            self._end.offset, line = file.tell(), file.readline(_LONGEST)
            if not line:
                self._end = _End()
                raise Unsound("checkpoints.jsonl doesn't hold the newest checkpoint, or doesn't lead there")
            self._pass(line)
            if number % _SLICE == 0:
                self._end.places.append((self._end.last + 1, file.tell()))
                pause()

    def _pass(self, line: bytes) -> None:
        end = self._end
        try:
            told = json.loads(line)
            place = told["number"], told["previous"], told["first"]
            if place != (end.number + 1, end.sha256, end.last + 1) or told["key"] not in self._keys:
                told = asdict(of_line(line[:-1]))
                if told["key"] not in self._keys or told["number"] <= end.number or told["first"] <= end.last:
                    raise ValueError("this isn't how the appliance goes on after damage")
            if type(told["last"]) is not int or told["last"] < told["first"]:
                raise ValueError("it covers nothing")
            end.number, end.last, end.since = told["number"], told["last"], end.since or told["first"]
            end.line, end.sha256 = line, hashlib.sha256(line[:-1]).hexdigest()
        except (ValueError, KeyError, TypeError, RecursionError):
            end.since = 0

    def over(self, segment: Segment) -> Iterator[Checkpoint]:
        """The checkpoints over a segment and all after it, up to the one followed to. Raises `Unsound`."""
        places = self._end.places
        try:
            with self._file.open("rb") as file:
                file.seek(places[bisect_right(places, (segment.first, 0)) - 1][1])
                before = None
                while line := file.readline(_LONGEST):
                    checkpoint = _read(line)
                    if checkpoint is None or checkpoint.last < segment.first:
                        continue
                    if checkpoint.last > self._end.last:
                        return
                    self._require(checkpoint, before)
                    yield checkpoint
                    before = checkpoint
        except OSError as cause:
            raise Unsound(f"checkpoints.jsonl can't be read: {cause.strerror}") from cause

    def _require(self, checkpoint: Checkpoint, before: Checkpoint | None) -> None:
        if checkpoint.key not in self._keys:
            raise Unsound(f"checkpoint {checkpoint.number} is signed with a key that isn't known here")
        if before is not None and (checkpoint.number, checkpoint.previous) != (before.number + 1, before.sha256):
            raise Unsound(f"checkpoint {checkpoint.number} doesn't follow on the one before")
        if not 0 < self._end.since <= checkpoint.first:
            raise Unsound(f"the chain of checkpoints is broken behind checkpoint {checkpoint.number}")

    def stub_of(self, segment: Segment) -> dict[str, Any]:
        """What a segment's stub says. Raises `Unsound` for one that isn't signed with a key that is known."""
        try:
            told: dict[str, Any] = json.loads(segment.stub.read_bytes())
            if told["key"] not in self._keys:
                raise Unsound("its stub is signed with a key that isn't known here")
            signed = written({name: value for name, value in told.items() if name != "signature"})
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(told["key"]))
            key.verify(bytes.fromhex(told["signature"]), signed)
            if told["first"] != segment.first:
                raise Unsound("its stub is that of another segment")
            told["previous"], told["sha256"], told["kinds"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError, InvalidSignature) as cause:
            raise Unsound(f"its stub is damaged, or not signed: {type(cause).__name__}") from cause
        return told


def _read(line: bytes) -> Checkpoint | None:
    try:
        return of_line(line[:-1])
    except (ValueError, RecursionError):
        return None
