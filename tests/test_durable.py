"""Files of people's own are put in place as a whole, private, and nothing but a plain file is replaced."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.durable import beside, change, replace, replacing


def test_a_file_that_others_could_read_is_private_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "november.jsonl"
    file.write_text("before")
    file.chmod(0o644)
    with replacing(file) as opened:
        opened.write(b"after")
        assert file.read_text() == "before", "until it is whole"
    assert file.read_text() == "after"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_what_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "november.jsonl"
    file.write_text("before")
    with contextlib.suppress(ZeroDivisionError), replacing(file) as opened:
        opened.write(b"half")
        opened.write(bytes(1 // 0))
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_no_link_is_followed_and_no_pipe_or_device_replaced(tmp_path: Path) -> None:
    target, link, dangling, pipe = (tmp_path / name for name in ("target", "link", "dangling", "pipe"))
    target.write_text("precious")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "nowhere")
    os.mkfifo(pipe)
    before = sorted(tmp_path.iterdir())
    for file in (link, dangling, pipe, tmp_path):
        with pytest.raises(OSError, match="no plain file"), replacing(file):
            pytest.fail("it may not be opened")
    assert target.read_text() == "precious"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_draft_is_written_through_a_link(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    precious, file = tmp_path / "precious", tmp_path / "note.json"
    precious.write_text("precious")
    link(precious, tmp_path / "note.new")
    replace(file, b"{}")
    assert (precious.read_text(), file.read_bytes()) == ("precious", b"{}")
    assert not file.is_symlink()
    assert file.stat().st_nlink == 1


def test_a_file_of_peoples_own_keeps_its_owner_and_mode(tmp_path: Path) -> None:
    file, link = tmp_path / "appliance.yaml", tmp_path / "link.yaml"
    file.write_text("before")
    file.chmod(0o640)
    os.chown(file, 12345, 12346) if os.geteuid() == 0 else None
    link.symlink_to(file)
    owner = file.stat().st_uid, file.stat().st_gid
    change(link, b"after")
    found = file.stat()
    assert (file.read_text(), found.st_mode & 0o777, (found.st_uid, found.st_gid)) == ("after", 0o640, owner)
    assert link.is_symlink()
    beside(file, tmp_path / "appliance.yaml.old", b"before")
    saved = (tmp_path / "appliance.yaml.old").stat()
    assert (saved.st_mode & 0o777, (saved.st_uid, saved.st_gid)) == (0o640, owner)
    assert len(list(tmp_path.iterdir())) == 3
