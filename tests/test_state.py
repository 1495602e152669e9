"""The state folder: only ours is touched, and only what is ours in it."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest

from appliance import observe, state
from appliance.config import Config, Settings
from appliance.errors import ConfigInvalid


def config(folder: Path) -> Config:
    settings = Settings.model_validate({"state": str(folder), "models": {"chat": {"card": "tiny"}}})
    return Config(settings, folder.parent / "appliance.yaml")


def test_a_new_folder_is_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    state.claim(config(folder)).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {entry.name for entry in folder.iterdir()} == {"cache", "egress", "logs", "run"}


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


def test_a_folder_of_an_earlier_version_is_ours(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    for name in ("lock", "keys.json"):
        (folder / name).touch()
    state.claim(config(folder)).close()
    assert (folder / "keys.json").exists()


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


PLANTED = (
    "run",
    "logs",
    "egress",
    "cache",
    "egress/appliance.lock",
    "logs/appliance.log",
    "logs/requests.log",
    "run/e1",
)


@pytest.mark.parametrize("where", PLANTED)
def test_a_link_that_a_gateway_planted_is_not_followed(tmp_path: Path, where: str) -> None:
    """It was sealed and could write to the folder; whoever claims it next isn't sealed yet."""
    folder, victim = tmp_path / "state", tmp_path / "victim"
    state.claim(config(folder)).close()
    (folder / "pepper").touch()
    planted = folder / where
    if planted.is_dir():
        victim.mkdir()
        (victim / "e1").mkdir()
        planted.rename(tmp_path / "old")
    else:
        victim.write_text("precious")
        planted.unlink(missing_ok=True)
    planted.symlink_to(victim)
    with pytest.raises(ConfigInvalid, match=f"{where} is a symbolic link.* Remove it; to use another disk, mount it"):
        state.claim(config(folder))
    assert planted.is_symlink()
    assert (victim / "e1").exists() if victim.is_dir() else victim.read_text() == "precious"
    planted.unlink()
    state.claim(config(folder)).close()


def test_a_second_name_for_somebodys_file_is_refused(tmp_path: Path) -> None:
    folder, victim = tmp_path / "state", tmp_path / "victim"
    state.claim(config(folder)).close()
    victim.write_text("precious")
    (folder / "logs" / "appliance.log").hardlink_to(victim)
    with pytest.raises(ConfigInvalid, match=r"appliance\.log has more than one name"):
        state.claim(config(folder))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
@pytest.mark.parametrize("where", ["run", "logs", "egress", "cache", "egress/appliance.lock", "run/control.sock"])
def test_what_another_user_made_is_refused(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "state"
    state.claim(config(folder)).close()
    (folder / where).exists() or (folder / where).touch()
    os.chown(folder / where, 1000, 1000)
    with pytest.raises(ConfigInvalid, match=f"{where} belongs to user 1000. Start the appliance as that user"):
        state.claim(config(folder))


def test_the_lock_leaves_a_gateway_nothing_to_write_to(tmp_path: Path) -> None:
    lock = tmp_path / "state" / "egress" / "appliance.lock"
    with contextlib.closing(state.claim(config(tmp_path / "state"))):
        (held,) = (each for each in Path("/proc/self/fd").iterdir() if each.exists() and each.samefile(lock))
        assert int(Path("/proc/self/fdinfo", held.name).read_text().split()[3], 8) & os.O_ACCMODE == os.O_RDONLY
    state.claim(config(tmp_path / "state")).close()


def test_what_a_link_below_a_leftover_leads_to_stays(tmp_path: Path) -> None:
    folder, precious = tmp_path / "state", tmp_path / "precious"
    precious.mkdir()
    state.claim(config(folder)).close()
    (folder / "run" / "e1").mkdir()
    (folder / "run" / "e1" / "link").symlink_to(precious)
    state.claim(config(folder)).close()
    assert list((folder / "run").iterdir()) == []
    assert precious.exists()


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    log = logging.getLogger("appliance")
    before = list(log.handlers), log.propagate, log.level
    yield
    for handler in set(log.handlers) - set(before[0]):
        handler.close()
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("where", ["logs", "logs/appliance.log"])
def test_no_log_is_written_through_a_link(tmp_path: Path, where: str) -> None:
    """Also one that is planted just after the folder was claimed, by what a gateway left running."""
    (tmp_path / "elsewhere").mkdir()
    if where == "logs":
        (tmp_path / "logs").symlink_to("elsewhere")
    else:
        (tmp_path / "logs").mkdir()
        (tmp_path / where).symlink_to(tmp_path / "elsewhere" / "appliance.log")
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        observe.log_to(tmp_path / "logs", console=False)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.usefixtures("logging_as_before")
def test_nor_is_the_one_that_follows_a_full_one(tmp_path: Path) -> None:
    observe.log_to(tmp_path, console=False)
    (handler,) = logging.getLogger("appliance").handlers
    assert isinstance(handler, RotatingFileHandler)
    logging.getLogger("appliance").error("first")
    handler.rotate = lambda source, _: (Path(source).unlink(), Path(source).symlink_to("elsewhere"))  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(OSError, match="symbolic links"):
        handler.doRollover()
    assert not (tmp_path / "elsewhere").exists()
