"""Touches the appliance's files as the user that runs it, also where root verifies."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Touch files as the folder's owner would, with no more rights than that.

    So what root makes there doesn't lock the appliance out later, and a link that a taken-over gateway plants there
    leads root nowhere that the gateway couldn't go itself.
    """
    owner, libc = folder.stat(), ctypes.CDLL(None)
    libc.setfsgid(owner.st_gid)  # of this thread only, and without effect for anybody but root
    libc.setfsuid(owner.st_uid)
    try:
        yield
    finally:
        libc.setfsuid(os.geteuid())
        libc.setfsgid(os.getegid())
