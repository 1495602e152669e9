"""The private state folder: made, checked to be ours, cleared of what a crash left, and locked."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from io import TextIOWrapper
from pathlib import Path

from appliance.config import Config
from appliance.errors import ConfigInvalid, Problem

_LONGEST_SOCKET_PATH = 107
_OURS = re.compile(r"e\d+|outlet|control\.sock|v\d+-\w\.sock")


def claim(config: Config) -> TextIOWrapper:
    """Make the folder (mode 0700) and hold its lock until the returned file is closed.

    Raises `ConfigInvalid` when it is in use, can't be written, or is somebody else's: a folder that holds
    something but no lock of ours is left as it is.
    """
    state = config.state
    try:
        _check(state)
        for folder in (state, state / "run", state / "logs", state / "egress"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        lock = (state / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{state} is in use by another appliance; stop it, or name another folder") from None
        for leftover in (state / "run").iterdir():
            if _OURS.fullmatch(leftover.name):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    except OSError as cause:
        what = f"{cause.filename or state}: {cause.strerror}; the user that runs the appliance has to own this folder"
        raise ConfigInvalid(str(config.file), [Problem("state", what)]) from cause
    except ValueError as cause:
        raise ConfigInvalid(str(config.file), [Problem("state", str(cause))]) from cause
    return lock


def _check(state: Path) -> None:
    longest = state / "run" / "e9999" / "engine.sock"
    if len(os.fsencode(longest)) > _LONGEST_SOCKET_PATH:
        raise ValueError(
            f"{state} is too long: the path of a Unix socket below it would be over {_LONGEST_SOCKET_PATH} bytes"
        )
    if state.exists() and not (state / "lock").exists():
        strange = sorted(entry.name for entry in state.iterdir() if entry.name not in ("lost+found", "cache", "logs"))
        if strange:
            raise ValueError(f"{state} holds {strange[0]!r} and no lock of an appliance; name a new or an empty folder")
