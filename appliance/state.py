"""The private state folder: made, checked to be ours, cleared of what a crash left, and locked.

A gateway that was taken over can write to it, and what starts next isn't sealed yet: so nothing here is opened through
a link that it could have planted, and the lock lies where the gateway sees an empty folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from appliance.config import Config
from appliance.errors import ConfigInvalid, Problem

_LONGEST_SOCKET_PATH = 107
_OURS = re.compile(r"e\d+|outlet|gate|control\.sock|v\d+-\w+\.sock")
_FOLDERS = ("run", "logs", "cache")
_LOCK = Path("egress", "appliance.lock")
_MARKS = (
    _LOCK, Path("lock"), Path("pepper"), Path("accounts.db"), Path("audit-keys", "signing.pem"),
    Path("audit", "checkpoints.jsonl"), Path("lists", "key"),
)  # fmt: skip
"""Any of them shows that a folder is ours: the lock, that of earlier versions, what keys are hashed with and in, what
the audit log is signed with, the log itself and the site's own lists, which may be all that a backup brought back."""


class Lock:
    """Held until it is closed, or the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Let another appliance have the folder."""
        os.close(self._descriptor)


def claim(config: Config) -> Lock:
    """Make the folder (mode 0700) and hold its lock until the returned one is closed.

    Raises `ConfigInvalid` when it is in use, can't be written, or is somebody else's: a folder that holds
    something but no lock of ours is left as it is. So is one that holds a link, or a file of another user's, where
    the appliance has its own.
    """
    state = config.state
    with _explained(config):
        _check(state)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        with contextlib.ExitStack() as held, contextlib.ExitStack() as undone:
            lock = _locked(state, _folder(state, _LOCK.parent.name, held))
            undone.callback(lock.close)
            folders = {name: _folder(state, name, held) for name in _FOLDERS}
            _clear(state / "run", folders["run"])
            _require_plain(state / "logs", folders["logs"])
            undone.pop_all()
    return lock


def is_served(folder: Path) -> bool:
    """Whether an appliance runs on the folder."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(folder / "run" / "control.sock"))
        except OSError:
            return False
    return True


def require_fit(config: Config) -> None:
    """Raise `ConfigInvalid` for a folder that holds something but no mark of ours, or whose path is too long.

    For commands that are first to make something there: it marks the folder as ours, and the next start clears it.
    """
    with _explained(config):
        _check(config.state)


@contextlib.contextmanager
def _explained(config: Config) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        where = cause.filename or config.state
        what = f"{where}: {cause.strerror}; the user that runs the appliance has to own this folder"
        raise ConfigInvalid(str(config.file), [Problem("state", what)]) from cause
    except ValueError as cause:
        raise ConfigInvalid(str(config.file), [Problem("state", str(cause))]) from cause


def _check(state: Path) -> None:
    longest = state / "run" / "e9999" / "engine.sock"
    if len(os.fsencode(longest)) > _LONGEST_SOCKET_PATH:
        raise ValueError(
            f"{state} is too long: the path of a Unix socket below it would be over {_LONGEST_SOCKET_PATH} bytes"
        )
    if state.exists() and not any(os.path.lexists(state / mark) for mark in _MARKS):
        strange = sorted(entry.name for entry in state.iterdir() if entry.name not in ("lost+found", "cache", "logs"))
        if strange:
            raise ValueError(f"{state} holds {strange[0]!r} and no lock of an appliance; name a new or an empty folder")


def _locked(state: Path, folder: int) -> Lock:
    path = state / _LOCK
    if (found := _look(path.name, folder)) is not None:
        require_own(path, found)
    # To read only: the gateway, which doesn't see it once it is sealed, is left with nothing that it could write to.
    descriptor = os.open(path.name, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"{state} is in use by another appliance; stop it, or name another folder") from None
    return Lock(descriptor)


def _folder(state: Path, name: str, held: contextlib.ExitStack) -> int:
    """A folder of ours, made where it is missing, and open until `held` closes it."""
    path = state / name
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    require_own(path, path.lstat())
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    held.callback(os.close, opened)
    return opened


def _clear(path: Path, folder: int) -> None:
    """Remove what a crash left in the open folder `run`."""
    for name in filter(_OURS.fullmatch, os.listdir(folder)):
        found = _look(name, folder)
        if found is None:
            continue
        require_own(path / name, found)
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(name, dir_fd=folder)  # which follows no link
        else:
            os.unlink(name, dir_fd=folder)


def _require_plain(path: Path, folder: int) -> None:
    """Refuse a log that would be written somewhere else."""
    for name in os.listdir(folder):
        if ".log" in name and (found := _look(name, folder)) is not None:
            require_own(path / name, found)


def _look(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def require_own(path: Path, found: os.stat_result, owner: int | None = None) -> None:
    """Raise ValueError for what isn't the appliance's own work. It runs as the user `owner`; None: as we do."""
    if stat.S_ISLNK(found.st_mode):
        what = "is a symbolic link, and the appliance makes none. Remove it; to use another disk, mount it there"
    elif found.st_uid != (os.geteuid() if owner is None else owner):
        what = f"belongs to user {found.st_uid}. Start the appliance as that user, or `chown -R` the state folder"
    elif found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
        what = "has more than one name (hard links), and the appliance makes no second one. Remove it"
    else:
        return
    raise ValueError(f"{path} {what}. If nobody of yours made it so, find out who could write to the state folder")
