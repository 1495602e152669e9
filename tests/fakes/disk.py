"""A disk with faults: files that are real, and beside them what of them would be left after a power cut.

It fails the way a kernel may: what a failed sync should have brought to the disk is readable from memory, is held for
clean, and is gone after a power cut. So is what is written through the same descriptor afterwards.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from appliance.audit.disk import RealDisk


class FakeDisk(RealDisk):
    """Works until `fail`; works again after `mend`. For any thread."""

    def __init__(self) -> None:
        self.writes = 0
        """How many have come to the disk."""
        self.failed = 0
        """How many operations have failed."""
        self.most = 1 << 30
        """Bytes that one write takes at most."""
        self.works = threading.Event()
        """While it isn't set, writes hang."""
        self.works.set()
        self._faults: dict[str, tuple[int, str]] = {}
        self._files: dict[int, Path] = {}
        self._dirty: dict[Path, list[tuple[int, bytes]]] = {}
        self._platter: dict[Path, bytearray] = {}
        self._lying: set[int] = set()
        """Descriptors through which nothing comes to the disk any more, without an error."""
        self._named: set[Path] = set()
        """Files whose names are on disk."""

    def fail(self, operation: str, error: int, only: str = "") -> None:
        """Have `open`, `write`, `sync`, `truncate`, `replace` or `remove` fail, on files whose path holds `only`."""
        self._faults[operation] = error, only

    def fill(self, room: int) -> None:
        """Let one more write take so many bytes; then the disk is full."""
        self.most = room
        self._faults["full"] = errno.ENOSPC, ""

    def mend(self) -> None:
        """Have everything work again."""
        self._faults.clear()
        self.most = 1 << 30

    def cut_power(self) -> None:
        """Leave of all files only what came to the disk."""
        for file, content in self._platter.items():
            if file in self._named:
                file.write_bytes(content)
            else:
                file.unlink(missing_ok=True)

    def open(self, file: Path, *, new: bool) -> int:
        self._check("open", file)
        descriptor = super().open(file, new=new)
        self._files[descriptor] = file
        self._lying.discard(descriptor)
        if file not in self._platter:
            self._platter[file] = bytearray(file.read_bytes())
        return descriptor

    def write(self, descriptor: int, content: bytes | memoryview, offset: int) -> int:
        self.works.wait()
        file = self._files[descriptor]
        self._check("write", file)
        if not self.most:
            self._check("full", file)
        written = os.pwrite(descriptor, content[: self.most], offset)
        if "full" in self._faults:
            self.most = 0
        dirty = self._dirty.setdefault(file, [])
        dirty.append((offset, bytes(content[:written])))
        try:
            self._check("sync", file)
        except OSError:
            dirty.clear()
            self._lying.add(descriptor)
            raise
        if descriptor in self._lying:
            dirty.clear()
        for start, part in dirty:
            platter = self._platter[file]
            platter.extend(bytes(max(0, start - len(platter))))
            platter[start : start + len(part)] = part
        dirty.clear()
        self.writes += 1
        return written

    def truncate(self, descriptor: int, length: int) -> None:
        file = self._files[descriptor]
        self._check("truncate", file)
        super().truncate(descriptor, length)
        del self._platter[file][length:]

    def replace(self, source: Path, target: Path) -> None:
        self._check("replace", source)
        super().replace(source, target)
        self._platter[target] = self._platter.pop(source)
        self._named.add(target)

    def remove(self, file: Path) -> None:
        self._check("remove", file)
        super().remove(file)
        self._platter.pop(file, None)

    def sync_folder(self, folder: Path) -> None:
        self._check("open", folder)
        super().sync_folder(folder)
        self._named |= {file for file in self._platter if file.parent == folder}

    def _check(self, operation: str, file: Path) -> None:
        error, only = self._faults.get(operation, (0, ""))
        if error and only in str(file):
            self.failed += 1
            raise OSError(error, os.strerror(error), str(file))
