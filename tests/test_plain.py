"""What isn't a plain file is refused at once, and of a long one no more is read than is wanted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from appliance import plain


def test_as_much_is_read_as_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    with file.open("r+b") as opened:
        opened.truncate(10 << 30)  # sparse
    assert plain.read(file, 3) == b"abc"
    (tmp_path / "link").symlink_to("a")
    assert plain.read(tmp_path / "link", 2) == b"ab"
    with pytest.raises(OSError, match="symbolic links"):
        plain.read(tmp_path / "link", 2, linked=False)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "terminal", "socket"])
def test_nothing_else_is_read_or_waited_for(tmp_path: Path, kind: str) -> None:
    """A pipe that nobody writes into would be waited for without end."""
    file, held = tmp_path / "a", []
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "socket":
        held.append(socket.socket(socket.AF_UNIX))
        held[0].bind(str(file))
    elif kind == "terminal":
        _, terminal = os.openpty()
        file.symlink_to(os.ttyname(terminal))
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=r"no plain file|No such device"):
        plain.read(file, 10)
    for each in held:
        each.close()
