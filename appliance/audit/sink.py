"""What is done with the files of an open log; for one thread."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import durable, signing
from appliance.audit import segments
from appliance.audit.anchor import Anchor
from appliance.audit.checkpoint import Checkpoint, sign
from appliance.audit.disk import Disk, Growing
from appliance.audit.record import moment
from appliance.audit.recover import Found, recover
from appliance.errors import AuditFailed


class Sink:
    """Puts lines and checkpoints on disk; what raises OSError is to be called again before anything else."""

    def __init__(self, folder: Path, opened: Opened, wall: Callable[[], float], disk: Disk) -> None:
        found = opened.found
        self.folder = folder
        self._key = opened.key
        self._anchor = opened.anchor
        self._wall = wall
        self._disk = disk
        self._first = found.first
        self._segment = found.segment
        self._checkpoints = found.checkpoints
        self._newest = found.checkpoint

    def keep(self, segment: int, lines: Sequence[bytes]) -> None:
        """Return once `lines` are on disk, in the segment that begins with the record `segment`."""
        if segment != self._first:
            self._segment.close()
            self._segment = Growing(self._disk, segments.plain(self.folder, segment))
            self._first = segment
        self._segment.append(b"\n".join((*lines, b"")))

    def sign(self, stretches: Sequence[tuple[int, list[str]]]) -> list[Checkpoint]:
        """The checkpoints over `stretches`, once they are on disk. Raises OSError also when the segment was touched."""
        self._segment.require_there()
        signed: list[Checkpoint] = []
        newest = self._newest
        for last, heads in stretches:
            leaves = [bytes.fromhex(head) for head in heads]
            newest = sign(leaves, last=last, at=moment(self._wall()), before=newest, key=self._key)
            signed.append(newest)
        self._checkpoints.append(b"".join(checkpoint.line + b"\n" for checkpoint in signed))
        self._newest = newest
        self._anchor.note(signed[-1])
        return signed

    def close(self) -> None:
        """Let go of the files."""
        self._segment.close()
        self._checkpoints.close()


@dataclass(frozen=True, slots=True)
class Opened:
    """A log that nobody else writes to."""

    lock: int
    """A descriptor; whoever closes it lets others write to the log."""
    key: Ed25519PrivateKey
    anchor: Anchor
    found: Found


def open_log(folder: Path, keys: Path, disk: Disk) -> Opened:
    """Take the log in `folder`, and find out where it goes on. Raises `AuditFailed`."""
    try:
        for each in (folder, keys, work := folder.with_name("audit-work")):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _locked(folder / "lock")
        try:
            key = _signing_key(keys / "signing.pem")
            anchor = Anchor(keys, signing.public(key))
            found = recover(folder, work, disk, anchor)
            if anchor.lost:
                anchor.note(found.checkpoint)
            _tell_key(folder / "key.pub", anchor.keys, found)
        except BaseException:
            os.close(lock)
            raise
    except OSError as cause:
        where = cause.filename or folder
        raise AuditFailed(
            f"{where}: {cause.strerror}; the user that runs the appliance has to own this folder, and there has to be "
            "room on its disk"
        ) from cause
    return Opened(lock, key, anchor, found)


def tidy(folder: Path, before: int, disk: Disk) -> None:
    """Compress the closed segments, which are those that begin before the record `before`. Raises OSError."""
    for file in sorted(folder.glob("*.jsonl")):
        if file.stem.isdigit() and int(file.stem) < before:
            segments.compress(segments.Segment(int(file.stem), file), disk)


def _locked(file: Path) -> int:
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AuditFailed(
            f"another process writes to the log in {file.parent}. If an appliance is just starting or ending, try "
            "again in a moment; else stop that process"
        ) from None
    return lock


def _signing_key(file: Path) -> Ed25519PrivateKey:
    if not file.exists():
        key, pem = signing.new_key()
        durable.replace(file, pem)
        return key
    loaded = signing.load_key(file.read_bytes())
    if loaded is None:
        raise AuditFailed(
            f"{file} holds no Ed25519 key in PEM form. Restore it; or remove it, then a new one is made, which is put "
            "on record"
        )
    return loaded


def _tell_key(file: Path, keys: Sequence[str], found: Found) -> None:
    public, *former = keys
    about = "".join([signing.about_key(public), *(f"former {signing.about_key(key)}" for key in former)]).encode()
    if not file.exists() or file.read_bytes() != about:
        durable.replace(file, about)
    if found.checkpoint and found.checkpoint.key != public:
        was, now = signing.fingerprint(found.checkpoint.key), signing.fingerprint(public)
        found.incidents.append({"incident": "audit_key_changed", "was": was, "is": now})
