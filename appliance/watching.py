"""Tells when a file has been changed and is whole: editors write in steps, and swap files and links."""

from __future__ import annotations

import os
from pathlib import Path

Look = tuple[str, int, int, int, int]
"""Where the links lead, device, inode, size and time of the last change (ns) of what lies there."""

_STILL_SECONDS = 1.0


def look(file: Path) -> Look | None:
    """What a file is now; None where there is none, or it can't be reached."""
    try:
        found = file.stat()
        return os.path.realpath(file), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    except OSError:
        return None


class Stillness:
    """Of a file that is looked at again and again: the moment when it has changed and then stayed as it is."""

    def __init__(self) -> None:
        self._seen: Look | None = None
        self._since = 0.0
        self._told: Look | None = None

    def told(self, seen: Look | None) -> None:
        """The file was read as it is now for another reason: it isn't time for that again."""
        self._told = seen

    def comes(self, seen: Look | None, now: float) -> bool:
        """Whether it is time to read the file, which looks like `seen` at `now` (seconds that pass evenly).

        Once for each change, whatever comes of it; at first, too. Not for a file that is gone: something else is to
        come in its place.
        """
        if seen != self._seen:
            self._seen, self._since = seen, now
        if seen is None or seen == self._told or now - self._since < _STILL_SECONDS:
            return False
        self._told = seen
        return True
