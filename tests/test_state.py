"""The state folder: only ours is touched, and only what is ours in it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from appliance import state
from appliance.config import Config, Settings
from appliance.errors import ConfigInvalid


def config(folder: Path) -> Config:
    settings = Settings.model_validate({"state": str(folder), "models": {"chat": {"card": "tiny"}}})
    return Config(settings, folder.parent / "appliance.yaml")


def test_a_new_folder_is_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    state.claim(config(folder)).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {entry.name for entry in folder.iterdir()} == {"egress", "lock", "logs", "run"}


def test_what_a_crash_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    state.claim(config(folder)).close()
    (folder / "run" / "e3").mkdir()
    (folder / "run" / "e3" / "engine.sock").touch()
    (folder / "run" / "control.sock").touch()
    (folder / "run" / "outlet").mkdir()
    (folder / "run" / "outlet" / "e1.sock").touch()
    (folder / "run" / "notes").mkdir()
    state.claim(config(folder)).close()
    assert {entry.name for entry in (folder / "run").iterdir()} == {"notes"}


def test_somebody_elses_folder_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "srv"
    (folder / "run" / "precious").mkdir(parents=True)
    folder.chmod(0o755)
    with pytest.raises(ConfigInvalid, match="holds 'run' and no lock"):
        state.claim(config(folder))
    assert (folder / "run" / "precious").exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_mounted_empty_volume_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    (folder / "lost+found").mkdir(parents=True)
    state.claim(config(folder)).close()


def test_two_appliances_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    lock = state.claim(config(folder))
    with pytest.raises(ConfigInvalid, match="in use by another appliance"):
        state.claim(config(folder))
    lock.close()
    state.claim(config(folder)).close()


def test_a_path_too_long_for_a_socket_is_told_before_anything_is_made(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    with pytest.raises(ConfigInvalid, match="107 bytes"):
        state.claim(config(folder))
    assert not folder.exists()
