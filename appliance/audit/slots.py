"""What the file of the key store is made of: a header, and slots of 512 bytes. Pure."""

from __future__ import annotations

import hashlib
import hmac
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.audit.subject import FILL, Subject, sealed
from appliance.errors import AuditFailed

FILE = "subjects"
SLOT = 512
"""Bytes. Disks write so many at once or not at all; what is torn all the same is seen by its checksum."""
FIRST = 8
"""Slots of a new file: a smaller one would lie in its inode on some file systems, and be copied out of it later."""
EMPTY = bytes(SLOT)
_MAGIC = b"appliance subjects 1"
_CHECKED = SLOT - 32
_NAME_BYTES = 300
_KEPT = struct.Struct(">32s32sQH")
"""Tag, key, seconds since 1970, and the length of what follows: the name, sealed."""


def header(index: bytes) -> bytes:
    """The first slot of a store whose tags are made with `index` (32 bytes)."""
    return _checked(_MAGIC + index)


def index_of(content: bytes, file: Path) -> bytes | None:
    """The key that tags are made with; None for a file of nothing. Raises `AuditFailed`."""
    if not any(content):
        return None
    header = content[:SLOT]
    if not _whole(header) or not header.startswith(_MAGIC):
        raise AuditFailed(
            f"the key store {file} is damaged. Restore it from a backup of it, if there is one. Else move it away and "
            "start again: the log still verifies, but no name in it can be read any more, and everybody gets a new "
            "pseudonym; docs/audit.md has more under `When the key store is lost`"
        )
    return header[len(_MAGIC) : len(_MAGIC) + 32]


def new(tag: bytes, name: str) -> tuple[bytes, Subject]:
    """A slot for somebody new, with a key of their own, and the subject in it."""
    key = AESGCM.generate_key(256)
    whose = sealed(AESGCM(key), _beginning(name).ljust(_NAME_BYTES, FILL))
    return _checked(_KEPT.pack(tag, key, int(time.time()), len(whose)) + whose), Subject(key, tag, whose)


def entry(kept: bytes) -> tuple[bytes, Subject] | None:
    """The subject of a slot, with its tag; None where there is none."""
    if kept == EMPTY or not _whole(kept):
        return None
    tag, key, _, length = _KEPT.unpack_from(kept)
    return tag, Subject(key, tag, kept[_KEPT.size : _KEPT.size + length])


def entries(content: bytes) -> Iterator[tuple[bytes, Subject]]:
    """All subjects of a store, each with its tag."""
    for at in range(SLOT, len(content), SLOT):
        if (found := entry(content[at : at + SLOT])) is not None:
            yield found


def tag_of(index: bytes, name: str) -> bytes:
    """What a name is found by; it stands for all of it, however long."""
    return hmac.digest(index, name.encode("utf-8", "surrogatepass"), "sha256")


def _checked(content: bytes) -> bytes:
    padded = content.ljust(_CHECKED, b"\0")
    return padded + hashlib.sha256(padded).digest()


def _whole(kept: bytes) -> bool:
    return hmac.compare_digest(hashlib.sha256(kept[:_CHECKED]).digest(), kept[_CHECKED:])


def _beginning(name: str) -> bytes:
    """As much of a name as a slot holds, in whole characters."""
    whole = name[:_NAME_BYTES].encode("utf-8", "surrogatepass")
    end = min(len(whole), _NAME_BYTES)
    while end < len(whole) and whole[end] & 0xC0 == 0x80:
        end -= 1
    return whole[:end]
