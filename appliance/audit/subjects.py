"""The key store: one key for each person whom the log speaks of. With it gone, so is the person, and the log stands.

One file of slots of 512 bytes, the first of which is its header. What is in a slot is nowhere else, ever: a slot is
written where it lies and destroyed where it lies, without a draft, a journal or a second name.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from appliance import state
from appliance.audit import slots
from appliance.audit.hidden import Hidden
from appliance.audit.slots import EMPTY, FILE, FIRST, SLOT
from appliance.audit.subject import Subject
from appliance.durable import sync_folder
from appliance.errors import AuditFailed, AuditUnavailable
from appliance.names import PSEUDONYM, proper

_GONE_SECONDS = 3600.0
"""No request is on its way for so long."""


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
        self._slots = FIRST

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
            store = cls(file, opened, slots.index_of(content, file) or secrets.token_bytes(32), clock)
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
        tag = slots.tag_of(self._index, name)
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
        held = self._held.get(slots.tag_of(self._index, name))
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
        tag = slots.tag_of(self._index, name)
        held = self._held.get(tag)
        if held is None:
            return None
        self._change(lambda: self._clear(held.slot))
        del self._held[tag], self._by_pseudonym[held.subject.pseudonym]
        self._free.append(held.slot)
        now = self._clock()
        self._gone = {each: gone for each, gone in self._gone.items() if gone[1] > now}
        self._gone[tag] = slots.new(tag, "")[1], now + _GONE_SECONDS
        return held.subject.pseudonym

    def close(self) -> None:
        """Let another process open it."""
        self._opened.close()

    # ---- slots

    def _make(self) -> None:
        self.anew = True
        self._write(0, slots.header(self._index) + EMPTY * (FIRST - 1))
        sync_folder(self._file.parent)
        sync_folder(self._file.parent.parent)
        self._free += range(1, FIRST)

    def _take(self, content: bytes) -> None:
        self._slots = max(-(-len(content) // SLOT), 1)
        for slot in range(1, self._slots):
            kept = content[slot * SLOT : (slot + 1) * SLOT]
            entry = slots.entry(kept)
            if entry is not None:
                self._hold(slot, *entry)
                continue
            if any(kept):
                self.torn += 1
                self._clear(slot)  # half a key may stand there
            self._free.append(slot)

    def _add(self, tag: bytes, name: str) -> Subject:
        kept, subject = slots.new(tag, name)
        slot = self._free[-1] if self._free else self._slots
        self._change(lambda: self._write(slot, kept))
        if self._free:
            self._free.pop()
        else:
            self._slots += 1
        return self._hold(slot, tag, subject)

    def _hold(self, slot: int, tag: bytes, subject: Subject) -> Subject:
        self._held[tag] = _Held(slot, subject)
        self._by_pseudonym[subject.pseudonym] = subject
        return subject

    def _clear(self, slot: int) -> None:
        self._write(slot, secrets.token_bytes(SLOT))
        self._write(slot, EMPTY)

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
    known = {tag: subject.pseudonym for tag, subject in slots.entries(content)}
    return lambda name: known.get(slots.tag_of(index, name))


def named(folder: Path) -> Callable[[str], str | None]:
    """Tells the name of a pseudonym whose key is still there: for those whose acts others have to be able to judge.

    Only reads, and raises as `pseudonyms` does.
    """
    _, content = _read(folder)
    known = {subject.pseudonym: subject for _, subject in slots.entries(content)}
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
    return slots.index_of(content, file), content


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
