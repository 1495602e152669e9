"""A checkpoint is signed over the Merkle root of its records, and reads as one only in the form that was signed."""

from __future__ import annotations

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.audit.checkpoint import of_line, root, sign
from appliance.signing import BEFORE_THE_FIRST, public

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LEAVES = [hashlib.sha256(bytes([number])).digest() for number in range(70)]


def by_the_book(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + by_the_book(leaves[:half]) + by_the_book(leaves[half:])).digest()


def test_the_root_is_that_of_rfc_6962() -> None:
    for count in range(1, len(LEAVES) + 1):
        assert root(LEAVES[:count]) == by_the_book(LEAVES[:count])


def test_checkpoints_are_a_chain() -> None:
    first = sign(LEAVES[:3], last=3, at="2026-11-22T12:00:00.000Z", before=None, key=KEY)
    second = sign(LEAVES[3:5], last=5, at="2026-11-22T12:00:10.000Z", before=first, key=KEY)
    assert (first.number, first.first, first.last, first.previous) == (1, 1, 3, BEFORE_THE_FIRST)
    assert (second.number, second.first, second.last, second.previous) == (2, 4, 5, first.sha256)
    assert (second.head, second.key) == (LEAVES[4].hex(), public(KEY))
    assert of_line(second.line) == second


def test_a_line_reads_only_as_it_was_signed() -> None:
    line = sign(LEAVES, last=70, at="2026-11-22T12:00:00.000Z", before=None, key=KEY).line
    for place in range(len(line)):
        with pytest.raises(ValueError, match=r"."):
            of_line(line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :])
        with pytest.raises(ValueError, match=r"."):
            of_line(line[:place])
    fields = json.loads(line)
    for other in (
        line + b" ", b"[]", b"null", b"7", b"", b"{}", json.dumps(fields).encode(),
        json.dumps({**fields, "more": 1}, sort_keys=True, separators=(",", ":")).encode(),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            of_line(other)
