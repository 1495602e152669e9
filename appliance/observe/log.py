"""The appliance's own log, and files that rotate."""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import sys
from io import TextIOWrapper
from pathlib import Path


class Rotating(logging.handlers.RotatingFileHandler):
    """Writes through no link, neither as the file nor as its folder: one may have been planted to lead elsewhere."""

    def _open(self) -> TextIOWrapper:
        return os.fdopen(_open_plain(Path(self.baseFilename)), "a", encoding=self.encoding)


def _open_plain(path: Path) -> int:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(path.name, flags, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    if os.fstat(file).st_nlink != 1:
        os.close(file)
        raise OSError(errno.EMLINK, "has more than one name; remove it", str(path))
    return file


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        mark = {"WARNING": "! ", "ERROR": "✗ ", "CRITICAL": "✗ "}.get(record.levelname, "  ")
        return f"{mark}{record.getMessage()}"


def log_to(folder: Path, *, console: bool = True) -> None:
    """Send the appliance's own log to `folder`/appliance.log with times, and to standard error without."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = Rotating(folder / "appliance.log", maxBytes=16 * 2**20, backupCount=4, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger("appliance")
    root.setLevel(logging.INFO)
    root.handlers = [file]
    if console:
        screen = logging.StreamHandler(sys.stderr)
        screen.setLevel(logging.WARNING)
        screen.setFormatter(_Plain())
        root.handlers.append(screen)
    root.propagate = False
    # what the server would say of a request is said by us, without a traceback that could hold a prompt
    server = logging.getLogger("uvicorn")
    server.handlers, server.propagate = [logging.NullHandler()], False
