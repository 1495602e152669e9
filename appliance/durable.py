"""Files that are on disk when a call returns."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def replace(file: Path, content: bytes) -> None:
    """Put `content` in the place of `file` as a whole, private to its owner. Raises OSError; then nothing changed."""
    with _written(file, file.with_suffix(".new")) as draft:
        draft.write(content)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """What is written to, private to its owner, takes the place of `file` in the end; unless something is raised.

    For files of people's own: raises OSError, also where `file` is a link, a device or a pipe, which are left alone.
    """
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise OSError(errno.EINVAL, "it is no plain file; name another one", str(file))
    draft = file.with_name(f".{secrets.token_hex(8)}.new")
    try:
        with _written(file, draft) as opened:
            yield opened
    finally:
        draft.unlink(missing_ok=True)


def change(file: Path, content: bytes) -> None:
    """Put `content` in the place of a file of people's own, under the same owner and mode. Raises OSError.

    A link stays, and what it leads to is replaced.
    """
    beside(file, file.resolve(), content)


def beside(file: Path, other: Path, content: bytes) -> None:
    """Put `content` into `other`, for whoever may read and write `file`. Raises OSError."""
    model = file.stat()
    with replacing(other) as opened:
        opened.write(content)
        os.fchown(opened.fileno(), model.st_uid, model.st_gid)
        os.fchmod(opened.fileno(), model.st_mode & 0o7777)


@contextlib.contextmanager
def _written(file: Path, draft: Path) -> Iterator[BinaryIO]:
    with anew(draft) as opened:
        yield opened
        opened.flush()
        os.fsync(opened.fileno())
    draft.replace(file)
    sync_folder(file.parent)


def anew(file: Path) -> BinaryIO:
    """A new, empty file, private to its owner, in the place of whatever has that name. Raises OSError.

    What others left there is neither written to nor, if it is a link, followed.
    """
    file.unlink(missing_ok=True)
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def sync_folder(folder: Path) -> None:
    """Return once the names in `folder` are on disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
