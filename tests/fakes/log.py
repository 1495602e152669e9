"""Audit logs as the appliance leaves them, made in a moment and without one."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.audit.checkpoint import Checkpoint, sign
from appliance.audit.record import Chain, Kind, moment
from appliance.signing import about_key, public, written

NOON = 1_795_000_000.0
"""When the first record is written."""


class Log:
    """A log in `folder`, of which every line and checkpoint can be got at."""

    def __init__(self, folder: Path, key: Ed25519PrivateKey | None = None) -> None:
        self.folder = folder
        self.key = key or Ed25519PrivateKey.generate()
        self.chain = Chain()
        self.checkpoint: Checkpoint | None = None
        self.leaves: list[bytes] = []
        self.segment: Path | None = None
        folder.mkdir(parents=True)
        (folder / "key.pub").write_text(about_key(self.public))

    @property
    def public(self) -> str:
        """The key that signs, as a verification is given it."""
        return public(self.key)

    @property
    def checkpoints(self) -> Path:
        """Where they stand."""
        return self.folder / "checkpoints.jsonl"

    def fill(self, records: int, *, checkpoint: int = 10, segment: int = 50) -> Log:
        """Write so many records; with a checkpoint after so many, and a new segment after so many."""
        for number in range(1, records + 1):
            self.add()
            if number % checkpoint == 0:
                self.sign()
            if number % segment == 0:
                self.close()
        return self

    def add(self) -> bytes:
        """Write the next record."""
        if self.segment is None:
            self.segment = self.folder / f"{self.chain.seq + 1:012}.jsonl"
        seq = self.chain.seq + 1
        kind = Kind.INTENT if seq % 2 else Kind.OUTCOME
        line = self.chain.append(kind, {"model": "chat", "request": f"req_{seq:08x}", "note": "ü€"}, NOON + seq)
        self.leaves.append(hashlib.sha256(line).digest())
        with self.segment.open("ab") as file:
            file.write(line + b"\n")
        return line

    def sign(self) -> Checkpoint | None:
        """Write a checkpoint over what has none."""
        if self.leaves:
            at = moment(NOON + self.chain.seq)
            self.checkpoint = sign(self.leaves, last=self.chain.seq, at=at, before=self.checkpoint, key=self.key)
            self.leaves.clear()
            with self.checkpoints.open("ab") as file:
                file.write(self.checkpoint.line + b"\n")
        return self.checkpoint

    def close(self) -> None:
        """End the open segment."""
        self.sign()
        if self.segment is not None:
            packed = self.segment.with_suffix(".jsonl.gz")
            packed.write_bytes(gzip.compress(self.segment.read_bytes(), mtime=0))
            self.segment.unlink()
            self.segment = None

    def lines(self, first: int) -> list[bytes]:
        """The lines of the segment whose first record has that number, without their ends."""
        return self.read(first).removesuffix(b"\n").split(b"\n")

    def read(self, first: int) -> bytes:
        """The content of that segment, unpacked."""
        file = self.file(first)
        return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()

    def file(self, first: int) -> Path:
        """The file of that segment."""
        plain = self.folder / f"{first:012}.jsonl"
        return plain if plain.exists() else plain.with_suffix(".jsonl.gz")

    def write(self, first: int, content: bytes | Iterable[bytes]) -> None:
        """Put other lines, or another content, in the place of a segment's."""
        whole = content if isinstance(content, bytes) else b"".join(line + b"\n" for line in content)
        file = self.file(first)
        file.write_bytes(gzip.compress(whole, mtime=0) if file.suffix == ".gz" else whole)

    def remove(self, first: int, numbers: Iterable[int]) -> None:
        """Take records out of a closed segment the way retention does, with a signed stub."""
        lines = self.lines(first)
        for number in numbers:
            kind = "intent" if number % 2 else "outcome"
            digest = hashlib.sha256(lines[number - first]).hexdigest()
            lines[number - first] = written({"kind": kind, "seq": number, "sha256": digest})
        gone = [json.loads(line)["kind"] for line in lines if line.startswith(b'{"kind"')]
        self.stub(first, lines, dict(Counter(gone)))
        if len(gone) == len(lines):
            self.file(first).unlink()
        else:
            self.write(first, lines)

    def stub(self, first: int, lines: list[bytes], kinds: dict[str, int]) -> None:
        """Sign a stub that says so much was removed of a segment, and `lines` are left."""
        signed = map(json.loads, self.checkpoints.read_bytes().splitlines())
        heads = {0: "0" * 64} | {each["last"]: each["head"] for each in signed}
        last = first + len(lines) - 1
        whole = sum(kinds.values()) == len(lines)
        fields = {
            "at": moment(NOON), "first": first, "head": heads[last], "key": self.public, "kinds": kinds, "last": last,
            "previous": heads[first - 1], "reason": "kept for as long as the settings say",
            "sha256": None if whole else hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest(),
        }  # fmt: skip
        stub = {**fields, "signature": self.key.sign(written(fields)).hex()}
        (self.folder / f"{first:012}.stub.json").write_bytes(written(stub) + b"\n")

    def copy(self, folder: Path) -> Log:
        """The same log elsewhere, to go on in another way."""
        shutil.copytree(self.folder, folder)
        other = Log.__new__(Log)
        other.__dict__.update(self.__dict__)
        other.folder, other.chain = folder, Chain(self.chain.seq, self.chain.head)
        other.leaves = [*self.leaves]
        other.segment = folder / self.segment.name if self.segment else None
        return other
