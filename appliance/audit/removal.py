"""Takes records out of closed segments, so that the rest still proves itself.

In the place of a removed record its hash stays, and the segment's signed stub says how many of each kind went. Where no
record is left, the file goes and the stub stays. Three steps, each on disk before the next begins:

    000000000001.new.gz        what is left, written beside the segment
    000000000001.stub.json     says what went, and the hash of what is left
    000000000001.jsonl.gz      is replaced by what is left, or removed

What a power cut leaves is finished by `finish`: with the second step done a removal is valid, and before it never was.
Nothing is removed of a segment that isn't what the checkpoints over it signed: that is evidence.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import durable
from appliance.audit.checkpoint import Checkpoint, root
from appliance.audit.closed import Pause, Unsound, line_of, sha256_of, slices
from appliance.audit.record import moment
from appliance.audit.retention import Line, Removed, Terms, in_place_of
from appliance.audit.segments import Segment
from appliance.audit.signed import Signed
from appliance.signing import public, written

REASON = "kept for as long as the settings say"
_GZIP = 31
"""What zlib calls a stream in the form of gzip; without a name or a time in it."""


@dataclass(slots=True)
class Prepared:
    """A removal that has yet to be done."""

    segment: Segment
    removed: Removed
    stub: dict[str, Any]
    """Unsigned."""


def prepare(
    segment: Segment, terms: Terms, before: bytes, now: float, signed: Signed, pause: Pause, *, dry: bool = False
) -> Prepared:
    """Write what is left of a closed segment beside it, unless nothing goes. `dry`: write nothing.

    `before` is what `terms.latest` has to be in front of it; `signed` has been followed to the end of the log.

    Raises OSError, and `Unsound`: then nothing goes, and nothing was written.
    """
    terms.latest = before
    walk = _Walk(segment, terms, signed)
    out = _Out(None if dry else _draft(segment))
    try:
        for lines in slices(segment):
            out.write(b"".join(map(walk.passed, lines)))
            pause()
        walk.end()
        if walk.removed.kinds and walk.left:
            out.keep()
        else:
            out.discard()
    except BaseException:
        out.discard()
        raise
    return walk.prepared(moment(now), out.sha256.hexdigest())


def commit(prepared: Prepared, key: Ed25519PrivateKey) -> None:
    """Do what was prepared. Raises OSError; what is half done then, `finish` finishes or takes back."""
    segment = prepared.segment
    told = {**prepared.stub, "key": public(key)}
    told["signature"] = key.sign(written(told)).hex()
    try:
        durable.replace(segment.stub, written(told) + b"\n")
    except OSError:
        _draft(segment).unlink(missing_ok=True)
        raise
    _replace(segment, whole=told["sha256"] is None)


def finish(folder: Path, signed: Signed, pause: Pause) -> Iterator[Callable[[], None]]:
    """What is left to do of removals that a power cut or an error broke off: short steps, to be done in turn.

    Leaves alone what belongs to a stub that isn't right. Raises OSError.
    """
    for draft in [*folder.glob("*.stub.new"), *folder.glob("*.new.gz")]:
        segment = _segment(draft)
        try:
            waits = draft.suffix == ".gz" and segment.stub.exists() and (
                signed.stub_of(segment)["sha256"] == sha256_of(draft, pause)
            )  # fmt: skip
        except Unsound:
            continue
        yield partial(_replace, segment, whole=False) if waits else partial(draft.unlink, missing_ok=True)
    for file in folder.glob("*.stub.json"):
        segment = _segment(file)
        pause()
        with contextlib.suppress(Unsound):
            if segment.file.exists() and signed.stub_of(segment)["sha256"] is None:
                yield partial(_replace, segment, whole=True)


def _replace(segment: Segment, *, whole: bool) -> None:
    if whole:
        segment.file.unlink(missing_ok=True)
        _draft(segment).unlink(missing_ok=True)
    else:
        _draft(segment).replace(segment.file)
    durable.sync_folder(segment.file.parent)


class _Walk:
    """Goes through a segment once: decides, counts, and holds it against its checkpoints."""

    def __init__(self, segment: Segment, terms: Terms, signed: Signed) -> None:
        self.removed = Removed()
        self.left = 0
        self._segment = segment
        self._terms = terms
        self._kinds: dict[str, int] = {}
        self._taken = False
        """Whether records are gone from it already."""
        self._seq = segment.first - 1
        self._before = signed.stub_of(segment) if segment.stub.exists() else None
        self._found = hashlib.sha256()
        self._previous = self._head = self._before["previous"].encode() if self._before else b""
        self._leaves: list[bytes] = []
        self._checkpoints = signed.over(segment)
        self._checkpoint: Checkpoint | None = None

    def passed(self, text: bytes) -> bytes:
        """What stands in the place of a line; both with their ends. Raises `Unsound`."""
        line = line_of(text)
        self._found.update(text)
        self._seq += 1
        if line.at:
            self._head = self._head or line.prev
            self._previous = self._previous or line.prev
            if line.prev != self._head:
                raise Unsound(f"record {self._seq} doesn't follow on the one before")
            digest = hashlib.sha256(text[:-1])
            self._head = digest.hexdigest().encode()
            self._leaf(digest.digest(), line.seq)
        else:
            self._taken = True
            self._head = line.sha256
            self._leaf(bytes.fromhex(line.sha256.decode()), line.seq)
        if line.at and not self._goes(line, text):
            self.left += 1
            return text
        kind = line.kind.decode()
        self._kinds[kind] = self._kinds.get(kind, 0) + 1
        if not line.at:
            return text
        self.removed.add(line)
        return in_place_of(line, self._head)

    def _goes(self, line: Line, text: bytes) -> bool:
        at = self._terms.written(line)
        if not self._terms.old(line.kind, at):
            return False
        if self._terms.held(line, text, at):
            self.removed.held += 1
            return False
        return True

    def _leaf(self, leaf: bytes, seq: int) -> None:
        if seq != self._seq:
            raise Unsound(f"record {self._seq} isn't where it belongs")
        if not self._leaves:
            self._checkpoint = next(self._checkpoints, None)
        self._leaves.append(leaf)
        checkpoint = self._checkpoint
        if checkpoint is not None and seq == checkpoint.last:
            first = seq - len(self._leaves) + 1
            if (first, leaf.hex(), root(self._leaves).hex()) != (checkpoint.first, checkpoint.head, checkpoint.root):
                raise Unsound(f"the records {first} to {seq} aren't what checkpoint {checkpoint.number} signs")
            self._leaves.clear()

    def end(self) -> None:
        """Nothing more comes. Raises `Unsound`."""
        if self._leaves or self._seq < self._segment.first:
            raise Unsound(f"no checkpoint covers the records up to {self._seq}")
        if self._taken and (self._before is None or self._before["sha256"] != self._found.hexdigest()):
            raise Unsound("records were taken out of it, and no signed stub says so")

    def prepared(self, at: str, sha256: str) -> Prepared:
        """What all that was passed comes to."""
        stub = {
            "at": at, "first": self._segment.first, "head": self._head.decode(), "kinds": self._kinds,
            "last": self._seq, "previous": self._previous.decode(), "reason": REASON,
            "sha256": sha256 if self.left else None,
        }  # fmt: skip
        return Prepared(self._segment, self.removed, stub)


class _Out:
    """Where lines go: into a file, or, without one, nowhere."""

    def __init__(self, file: Path | None) -> None:
        self.sha256 = hashlib.sha256()
        """Of all that was written."""
        self._name = file
        self._file: BinaryIO | None = None
        self._pack = zlib.compressobj(wbits=_GZIP)
        if file is not None:
            self._file = durable.anew(file)

    def write(self, content: bytes) -> None:
        """Add to it. Raises OSError."""
        self.sha256.update(content)
        if self._file is not None:
            self._file.write(self._pack.compress(content))

    def keep(self) -> None:
        """Return once all is on disk. Raises OSError."""
        if self._file is not None and self._name is not None:
            with self._file:
                self._file.write(self._pack.flush())
                self._file.flush()
                os.fsync(self._file.fileno())
            durable.sync_folder(self._name.parent)

    def discard(self) -> None:
        """Have nothing of it left. Raises OSError."""
        if self._file is not None and self._name is not None:
            with contextlib.suppress(OSError):  # what isn't wanted needn't be written
                self._file.close()
            self._name.unlink(missing_ok=True)


def _segment(beside: Path) -> Segment:
    """That to which a file beside it belongs."""
    return Segment(int(beside.name[:12]), beside.with_name(f"{beside.name[:12]}.jsonl.gz"))


def _draft(segment: Segment) -> Path:
    return segment.file.with_name(f"{segment.first:012d}.new.gz")
