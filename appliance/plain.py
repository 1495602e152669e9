"""Reads files that people put there, and nothing that would hold the reader up or fill its memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read(file: Path, most: int, *, linked: bool = True) -> bytes:
    """The first `most` bytes of a plain file; if it may not be `linked`, of none that a link leads to.

    Raises OSError, also for a folder, a pipe or a device: at once, and nothing is taken from it.
    """
    how = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    opened = os.open(file, how if linked else how | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, and no plain file", str(file))
        with os.fdopen(opened, "rb", closefd=False) as content:
            return content.read(most)
    finally:
        os.close(opened)
