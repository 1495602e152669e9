"""What the log asks of a disk, and a file of which only what is on disk is believed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

from appliance.durable import sync_folder


class Disk(Protocol):
    """A few operations on files; each raises OSError. For tests there is one that fails on demand."""

    def open(self, file: Path, *, new: bool) -> int:
        """A descriptor to read and write `file`, which may be no link; `new` makes it, private to its owner."""

    def length(self, descriptor: int, file: Path) -> int:
        """How many bytes are in the open file. Raises FileNotFoundError when `file` is the name of another, or none."""

    def write(self, descriptor: int, content: bytes | memoryview, offset: int) -> int:
        """Write `content` at `offset`; of how many bytes that was done. Those are on disk when this returns."""

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut the open file."""

    def close(self, descriptor: int) -> None:
        """Let go of the open file."""

    def replace(self, source: Path, target: Path) -> None:
        """Give `source` the name of `target`, for good."""

    def remove(self, file: Path) -> None:
        """Remove the name `file`, if it is there."""

    def sync_folder(self, folder: Path) -> None:
        """Return once the names in `folder` are on disk."""


class RealDisk:
    """The kernel's."""

    def open(self, file: Path, *, new: bool) -> int:
        """As `Disk` has it."""
        return os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if new else 0), 0o600)

    def length(self, descriptor: int, file: Path) -> int:
        """As `Disk` has it."""
        opened = os.fstat(descriptor)
        if not os.path.samestat(opened, file.lstat()):
            raise FileNotFoundError(errno.ENOENT, "another file stands in its place", str(file))
        return opened.st_size

    def write(self, descriptor: int, content: bytes | memoryview, offset: int) -> int:
        """As `Disk` has it: write and fdatasync in one call, so that the thread asks for the interpreter only once."""
        return os.pwritev(descriptor, [content], offset, os.RWF_DSYNC)

    def truncate(self, descriptor: int, length: int) -> None:
        """As `Disk` has it."""
        os.ftruncate(descriptor, length)

    def close(self, descriptor: int) -> None:
        """As `Disk` has it."""
        os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """As `Disk` has it."""
        source.replace(target)
        sync_folder(target.parent)

    def remove(self, file: Path) -> None:
        """As `Disk` has it."""
        file.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """As `Disk` has it."""
        sync_folder(folder)


class Growing:
    """A file that is only appended to, up to where it is known to be on disk.

    After a failure, nothing that the kernel says of the file is believed: it is opened anew, cut where it was known to
    be good, and written again from there.
    """

    def __init__(self, disk: Disk, file: Path, length: int = 0) -> None:
        self.file = file
        self.length = length
        """Bytes of it that are on disk."""
        self._disk = disk
        self._descriptor: int | None = None

    def append(self, content: bytes) -> None:
        """Return once `content` is on disk, in the file of that name.

        Raises OSError; then it is to be appended again before anything else.
        """
        try:
            descriptor = self._opened()
            write_all(self._disk, descriptor, content, self.length)
            self._require_untouched(descriptor, self.length + len(content))
        except OSError:
            self.close()
            raise
        self.length += len(content)

    def rewrite(self, since: int) -> None:
        """Have what stands from `since` on written again: it was read from memory, and may not be on disk."""
        descriptor = self._opened()
        while since < self.length and (part := os.pread(descriptor, min(1 << 20, self.length - since), since)):
            write_all(self._disk, descriptor, part, since)
            since += len(part)

    def require_there(self) -> None:
        """Raise OSError when somebody else removed, replaced, cut or extended the file since it was opened."""
        if self._descriptor is not None:
            self._require_untouched(self._descriptor, self.length)

    def close(self) -> None:
        """Let go of the file; it is opened when it is needed."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._disk.close(descriptor)

    def _opened(self) -> int:
        if self._descriptor is None:
            descriptor = self._descriptor = self._disk.open(self.file, new=not self.length)
            if self._disk.length(descriptor, self.file) > self.length:
                self._disk.truncate(descriptor, self.length)
            self._require_untouched(descriptor, self.length)
            self._disk.sync_folder(self.file.parent)
        return self._descriptor

    def _require_untouched(self, descriptor: int, length: int) -> None:
        try:
            there = self._disk.length(descriptor, self.file)
        except FileNotFoundError:
            there = -1
        if there != length:
            what = "somebody else changed or removed it; start the appliance anew, which puts on record what it finds"
            raise OSError(errno.EIO, what, str(self.file))


def write_all(disk: Disk, descriptor: int, content: bytes, offset: int) -> None:
    """Return once all of `content` is on disk at `offset`. Raises OSError."""
    rest = memoryview(content)
    while rest:
        written = disk.write(descriptor, rest, offset)
        if not written:
            raise OSError(errno.EIO, "the disk takes nothing")
        offset += written
        rest = rest[written:]
