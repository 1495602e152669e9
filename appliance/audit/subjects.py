"""The key store: one key for each person whom the log speaks of. With it gone, so is the person, and the log stands.

One file of slots of 512 bytes, the first of which is its header. What is in a slot is nowhere else, ever: a slot is
written where it lies and destroyed where it lies, without a draft, a journal or a second name.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import secrets
import struct
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance import state
from appliance.audit.hidden import Hidden
from appliance.durable import sync_folder
from appliance.errors import AuditFailed, AuditUnavailable
from appliance.names import PSEUDONYM, proper

FILE = "subjects"
SLOT = 512
"""Bytes. Disks write so many at once or not at all; what is torn all the same is seen by its checksum."""
_FIRST = 8
"""Slots of a new file: a smaller one would lie in its inode on some file systems, and be copied out of it later."""
_MAGIC = b"appliance subjects 1"
_CHECKED = SLOT - 32
_EMPTY = bytes(SLOT)
_NONCE = 12
_NAME_BYTES = 300
_FILL = b"\xff"
"""Stands in no UTF-8; behind each name, so that its length can't be told, also not where the key is gone."""
_GONE_SECONDS = 3600.0
"""No request is on its way for so long."""
_KEPT = struct.Struct(">32s32sQH")
"""Tag, key, seconds since 1970, and the length of what follows: the name, sealed."""


class Subject:
    """A person, or a key of nobody's, as the log speaks of it."""

    __slots__ = ("_aead", "_name", "pseudonym")

    def __init__(self, key: bytes, tag: bytes, name: bytes) -> None:
        """`tag`: what the store finds it by, and stands for its whole name. `name`: its beginning, sealed."""
        self._aead = AESGCM(key)
        self._name = name
        self.pseudonym = f"p_{hmac.digest(key, tag, 'sha256').hex()[:24]}"

    @property
    def name(self) -> str:
        """The name; of one that is longer than 300 bytes, its beginning."""
        return self._open(self._name).rstrip(_FILL).decode("utf-8", "surrogatepass")

    def seal(self, content: bytes) -> str:
        """`content` under its key (AES-256-GCM): base64 of nonce, ciphertext and tag. Never the same twice."""
        return base64.b64encode(_seal(self._aead, content)).decode()

    def open(self, sealed: str) -> bytes:
        """What `seal` was given. Raises ValueError for what wasn't sealed under this key."""
        return self._open(base64.b64decode(sealed, validate=True))

    def _open(self, sealed: bytes) -> bytes:
        try:
            return self._aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
        except InvalidTag:
            raise ValueError("this wasn't sealed under the key of this subject") from None

    def __repr__(self) -> str:
        return f"<Subject {self.pseudonym}>"


class _Held(NamedTuple):
    slot: int
    subject: Subject


class Subjects:
    """The key store, open in one process. For one thread."""

    def __init__(self, file: Path, opened: FileIO, index: bytes, clock: Callable[[], float]) -> None:
        self.anew = False
        """Whether there was none: the names in a log that is older can't be read any more."""
        self.torn = 0
        """Slots that were half written, or are damaged; they were cleared."""
        self.hidden = Hidden(index)
        """Hides what may be names in words of a caller's own choice."""
        self._file = file
        self._opened = opened
        self._index = index
        self._clock = clock
        self._held: dict[bytes, _Held] = {}
        self._by_pseudonym: dict[str, Subject] = {}
        self._gone: dict[bytes, tuple[Subject, float]] = {}
        self._free: list[int] = []
        self._slots = _FIRST

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], float] = time.monotonic) -> Subjects:
        """The store in the private `folder`; both are made where they aren't there. `clock`: seconds that pass evenly.

        Raises `AuditFailed` for one that is damaged, or that another process has open.
        """
        file = folder / FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = _open(file)
        except (OSError, ValueError) as cause:
            raise AuditFailed(f"the key store can't be opened: {cause}") from None
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = opened.read()
            store = cls(file, opened, _index(content, file) or secrets.token_bytes(32), clock)
            if any(content):
                store._take(content)
            else:
                store._make()
        except BlockingIOError:
            opened.close()
            raise AuditFailed(f"another process has the key store {file} open; only one may write to it") from None
        except OSError as cause:
            opened.close()
            raise AuditFailed(f"the key store can't be opened: {cause}") from None
        except BaseException:
            opened.close()
            raise
        return store

    def __len__(self) -> int:
        """How many subjects have a key."""
        return len(self._held)

    def of(self, name: str) -> Subject:
        """The subject of that name, whatever text it is. One that wasn't there is on disk when this returns.

        Only for an hour after it was erased it is one that nobody can ever find again: what requests that were on
        their way have to say is on record, and brings nobody back. Raises `AuditUnavailable` when one can't be
        brought to disk.
        """
        tag = _tag(self._index, name)
        held = self._held.get(tag)
        if held is not None:
            return held.subject
        if self._gone:
            subject, until = self._gone.get(tag, (None, 0.0))
            if subject is not None and until > self._clock():
                return subject
        return self._add(tag, name)

    def known(self, name: str) -> Subject | None:
        """The subject of that name, if it has a key."""
        held = self._held.get(_tag(self._index, name))
        return None if held is None else held.subject

    def find(self, pseudonym: str) -> Subject | None:
        """The subject of that pseudonym, if its key is still there."""
        return self._by_pseudonym.get(pseudonym)

    def meant(self, asked: str) -> Subject | None:
        """Whom somebody means by `asked`: what looks like a pseudonym is one first, else it is a name."""
        return (
            (self.find(asked) if PSEUDONYM.fullmatch(asked) else None) or self.known(asked) or self.known(proper(asked))
        )

    def names(self) -> set[str]:
        """Of all that have a key; of one that is longer than 300 bytes, its beginning."""
        return {held.subject.name for held in self._held.values()}

    def erase(self, name: str) -> str | None:
        """Destroy the key of a subject: on disk and in memory when this returns. Its pseudonym; None for an unknown.

        Raises `AuditUnavailable` when it can't be destroyed; then it is still there, or it is only half there.
        """
        tag = _tag(self._index, name)
        held = self._held.get(tag)
        if held is None:
            return None
        self._change(lambda: self._clear(held.slot))
        del self._held[tag], self._by_pseudonym[held.subject.pseudonym]
        self._free.append(held.slot)
        now = self._clock()
        self._gone = {each: gone for each, gone in self._gone.items() if gone[1] > now}
        key = AESGCM.generate_key(256)
        self._gone[tag] = Subject(key, tag, _seal(AESGCM(key), b"")), now + _GONE_SECONDS
        return held.subject.pseudonym

    def close(self) -> None:
        """Let another process open it."""
        self._opened.close()

    # ---- slots

    def _make(self) -> None:
        self.anew = True
        self._write(0, _checked(_MAGIC + self._index) + _EMPTY * (_FIRST - 1))
        sync_folder(self._file.parent)
        sync_folder(self._file.parent.parent)
        self._free += range(1, _FIRST)

    def _take(self, content: bytes) -> None:
        self._slots = max(-(-len(content) // SLOT), 1)
        for slot in range(1, self._slots):
            kept = content[slot * SLOT : (slot + 1) * SLOT]
            entry = _entry(kept)
            if entry is not None:
                self._hold(slot, *entry)
                continue
            if any(kept):
                self.torn += 1
                self._clear(slot)  # half a key may stand there
            self._free.append(slot)

    def _add(self, tag: bytes, name: str) -> Subject:
        key = AESGCM.generate_key(256)
        sealed = _seal(AESGCM(key), _beginning(name).ljust(_NAME_BYTES, _FILL))
        kept = _checked(_KEPT.pack(tag, key, int(time.time()), len(sealed)) + sealed)
        slot = self._free[-1] if self._free else self._slots
        self._change(lambda: self._write(slot, kept))
        if self._free:
            self._free.pop()
        else:
            self._slots += 1
        return self._hold(slot, tag, Subject(key, tag, sealed))

    def _hold(self, slot: int, tag: bytes, subject: Subject) -> Subject:
        self._held[tag] = _Held(slot, subject)
        self._by_pseudonym[subject.pseudonym] = subject
        return subject

    def _clear(self, slot: int) -> None:
        self._write(slot, secrets.token_bytes(SLOT))
        self._write(slot, _EMPTY)

    def _write(self, slot: int, content: bytes) -> None:
        if os.pwrite(self._opened.fileno(), content, slot * SLOT) != len(content):
            raise OSError("the disk is full")
        os.fdatasync(self._opened.fileno())

    def _change(self, write: Callable[[], None]) -> None:
        """Write to the file that still has its name. Raises `AuditUnavailable`."""
        try:
            if not os.path.samestat(self._file.lstat(), os.fstat(self._opened.fileno())):
                raise FileNotFoundError("it was replaced while it was open; stop the appliance, and start it again")
            write()
        except OSError as cause:
            raise AuditUnavailable(
                "what happens can't be put on record at the moment; try again shortly",
                code="audit_unavailable", retry_after=5, reason=f"{self._file}: {cause.strerror or cause}",
            ) from None  # fmt: skip


def hidden(folder: Path) -> Hidden:
    """What the store there hides words with; only reads, and raises as `pseudonyms` does.

    Where there is no store, nothing was hidden yet: then under a key that nothing else will be.
    """
    index, _ = _read(folder)
    return Hidden(index or secrets.token_bytes(32))


def pseudonyms(folder: Path) -> Callable[[str], str | None]:
    """Tells the pseudonym of a name that has one. Only reads, so that it works while an appliance runs.

    Raises `AuditFailed` for a store that is damaged or can't be read.
    """
    index, content = _read(folder)
    if index is None:
        return lambda name: None
    entries = (_entry(content[at : at + SLOT]) for at in range(SLOT, len(content), SLOT))
    known = {tag: subject.pseudonym for tag, subject in filter(None, entries)}
    return lambda name: known.get(_tag(index, name))


def named(folder: Path) -> Callable[[str], str | None]:
    """Tells the name of a pseudonym whose key is still there: for those whose acts others have to be able to judge.

    Only reads, and raises as `pseudonyms` does.
    """
    _, content = _read(folder)
    entries = filter(None, (_entry(content[at : at + SLOT]) for at in range(SLOT, len(content), SLOT)))
    known = {subject.pseudonym: subject for _, subject in entries}
    return lambda pseudonym: known[pseudonym].name if pseudonym in known else None


def _read(folder: Path) -> tuple[bytes | None, bytes]:
    """The key that tags are made with, None where there is no store, and all that the store holds."""
    file = folder / FILE
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None, b""
    except OSError as cause:
        raise AuditFailed(f"the key store can't be read: {cause}") from None
    return _index(content, file), content


def _open(file: Path) -> FileIO:
    """Through no link, and with no second name: neither is of the appliance's making."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    opened = FileIO(descriptor, "r+")
    try:
        state.require_own(file, os.fstat(descriptor), file.parent.stat().st_uid)
    except BaseException:
        opened.close()
        raise
    return opened


def _index(content: bytes, file: Path) -> bytes | None:
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


def _entry(kept: bytes) -> tuple[bytes, Subject] | None:
    """The subject of a slot, with its tag; None where there is none."""
    if kept == _EMPTY or not _whole(kept):
        return None
    tag, key, _, length = _KEPT.unpack_from(kept)
    return tag, Subject(key, tag, kept[_KEPT.size : _KEPT.size + length])


def _checked(content: bytes) -> bytes:
    padded = content.ljust(_CHECKED, b"\0")
    return padded + hashlib.sha256(padded).digest()


def _whole(kept: bytes) -> bool:
    return hmac.compare_digest(hashlib.sha256(kept[:_CHECKED]).digest(), kept[_CHECKED:])


def _tag(index: bytes, name: str) -> bytes:
    return hmac.digest(index, name.encode("utf-8", "surrogatepass"), "sha256")


def _seal(aead: AESGCM, content: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + aead.encrypt(nonce, content, None)


def _beginning(name: str) -> bytes:
    """As much of a name as a slot holds, in whole characters."""
    whole = name[:_NAME_BYTES].encode("utf-8", "surrogatepass")
    end = min(len(whole), _NAME_BYTES)
    while end < len(whole) and whole[end] & 0xC0 == 0x80:
        end -= 1
    return whole[:end]
