"""A checkpoint: a signature over a stretch of the chain, with the Merkle root of its records.

Checkpoints form a chain of their own, one line of canonical JSON each. Whoever has the newest, or has noted its
number with its hash, can tell whether any record before it was changed, removed or put in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.signing import BEFORE_THE_FIRST, public, written


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Over the records `first` to `last`; each record lies in exactly one, and none spans two segments."""

    at: str
    """UTC, ISO 8601, of the appliance's clock."""
    first: int
    head: str
    """SHA-256 of the line of the record `last`."""
    key: str
    """The public key that signs, 64 hexadecimal digits."""
    last: int
    number: int
    """1 for the first; each one more than the one before."""
    previous: str
    """SHA-256 of the whole line of the checkpoint before; zeros for the first."""
    root: str
    """Merkle root of the SHA-256s of the lines `first` to `last`."""
    signature: str
    """Ed25519, of the canonical bytes of all other fields."""

    @property
    def line(self) -> bytes:
        """Its line in checkpoints.jsonl, without the end."""
        return written(asdict(self))

    @property
    def sha256(self) -> str:
        """What the next one holds as `previous`, and what is to be noted elsewhere beside its number."""
        return hashlib.sha256(self.line).hexdigest()


def sign(
    leaves: Sequence[bytes], *, last: int, at: str, before: Checkpoint | None, key: Ed25519PrivateKey
) -> Checkpoint:
    """The checkpoint after `before` over the records up to `last`, whose SHA-256s (32 bytes each) are `leaves`."""
    fields = {
        "at": at,
        "first": last - len(leaves) + 1,
        "head": leaves[-1].hex(),
        "key": public(key),
        "last": last,
        "number": before.number + 1 if before else 1,
        "previous": before.sha256 if before else BEFORE_THE_FIRST,
        "root": root(leaves).hex(),
    }
    return Checkpoint(**fields, signature=key.sign(written(fields)).hex())  # type: ignore[arg-type]


def of_line(line: bytes) -> Checkpoint:
    """The checkpoint in a line of checkpoints.jsonl. Raises ValueError unless its own key signs just this line."""
    try:
        fields = json.loads(line)
        checkpoint = Checkpoint(**fields)
        signed = written({name: value for name, value in fields.items() if name != "signature"})
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(checkpoint.key)).verify(
            bytes.fromhex(checkpoint.signature), signed
        )
        exact = checkpoint.line == line and 0 < checkpoint.first <= checkpoint.last and checkpoint.number > 0
    except (TypeError, InvalidSignature) as cause:
        raise ValueError("no checkpoint, or not signed by the key in it") from cause
    if not exact:
        raise ValueError("not in the one form that is signed")
    return checkpoint


def root(leaves: Sequence[bytes]) -> bytes:
    """The Merkle root of SHA-256 hashes, as RFC 6962 has it: a tree as even as can be, with leaves told from nodes."""
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        odd = [level[-1]] if len(level) % 2 else []
        level = [hashlib.sha256(b"\1" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0]
