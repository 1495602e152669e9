"""What lies beside the key that signs tells of the log what nobody can change who can only write to the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.audit.anchor import Anchor
from appliance.audit.checkpoint import Checkpoint, sign
from appliance.signing import new_key, public
from tests.fakes.log import Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "audit").fill(120, checkpoint=10, segment=50)


def checkpoints(log: Log) -> list[Checkpoint]:
    before, found = None, []
    for last in (9, 10, 100_000_000):
        before = sign([b"h" * 32], last=last, at="2026-11-22T12:00:00.000Z", before=before, key=log.key)
        found.append(before)
    return found


def test_keys_that_signed_are_known_from_start_to_start(tmp_path: Path) -> None:
    keys = [public(new_key()[0]) for _ in range(3)]
    assert Anchor(tmp_path, keys[0]).keys == (keys[0],)
    assert Anchor(tmp_path, keys[1]).keys == (keys[1], keys[0])
    assert Anchor(tmp_path, keys[1]).keys == (keys[1], keys[0])
    assert Anchor(tmp_path, keys[2]).keys == (keys[2], keys[1], keys[0])
    assert Anchor(tmp_path, keys[0]).keys == (keys[0], keys[2], keys[1])
    assert (tmp_path / "public-keys").stat().st_mode & 0o777 == 0o600


def test_the_newest_checkpoint_is_known_at_the_next_start(tmp_path: Path, log: Log) -> None:
    anchor = Anchor(tmp_path, log.public)
    assert (anchor.lost, anchor.newest) == (True, None)
    anchor.note(None)
    assert (Anchor(tmp_path, log.public).lost, Anchor(tmp_path, log.public).newest) == (False, None)
    for checkpoint in [*checkpoints(log), *checkpoints(log)]:
        anchor.note(checkpoint)
        assert Anchor(tmp_path, log.public).newest == checkpoint
    assert (tmp_path / "newest-checkpoint").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"nonsense", bytes(1024), b"{}"])
def test_a_note_that_is_damaged_is_a_lost_one(tmp_path: Path, log: Log, content: bytes) -> None:
    (tmp_path / "newest-checkpoint").write_bytes(content)
    anchor = Anchor(tmp_path, log.public)
    assert (anchor.lost, anchor.newest) == (True, None)


def test_a_note_that_cannot_be_written_is_told_of_once_and_follows_no_link(
    tmp_path: Path, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "newest-checkpoint").symlink_to(tmp_path / "precious")
    anchor = Anchor(tmp_path, log.public)
    for checkpoint in checkpoints(log):
        anchor.note(checkpoint)
    assert (tmp_path / "precious").read_text() == "precious"
    (message,) = caplog.messages
    assert "a log that is cut back may not be noticed" in message
