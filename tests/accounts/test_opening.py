"""The store and its pepper: private, made once, and never silently replaced."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance import config, state
from appliance.__main__ import main
from appliance.accounts.keys import Keyring
from appliance.accounts.opening import open_registry, open_store
from appliance.accounts.registry import KeyOrder, Registry
from appliance.errors import ConfigInvalid, Invalid, Unauthenticated
from tests.fakes.house import House
from tests.fakes.postgres import PASSWORD, Postgres


@contextmanager
def opened(house: House) -> Iterator[tuple[Registry, bytes]]:
    loaded = config.load(house.config)
    store = open_store(loaded)
    try:
        yield open_registry(loaded, store)
    finally:
        store.close()


@pytest.fixture
def ready(house: House) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.write()
    return house


def opens(house: House, key: str) -> bool:
    with opened(house) as (registry, pepper):
        ring = Keyring(pepper, monotonic=lambda: 0.0)
        ring.renew(registry.select())
        ring.confirm(0.0)
        return bool(ring.authenticate(key))


def test_a_key_opens_after_a_restart_too_and_all_that_is_kept_is_private(ready: House) -> None:
    with opened(ready) as (registry, pepper):
        _, key = registry.create(KeyOrder())
        assert len(pepper) == 32
        found = {file.name for file in ready.state.iterdir()}
        assert {"pepper", "accounts.db"} <= found
        for name in found:
            assert stat.S_IMODE((ready.state / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(ready.state.stat().st_mode) == 0o700
    assert opens(ready, key)
    assert (ready.state / "pepper").read_bytes() == pepper
    state.claim(config.load(ready.config)).close()  # a folder in which keys were made first is ours to serve from


@pytest.mark.parametrize("left", [None, b"", b"x" * 31])
def test_keys_whose_pepper_is_lost_are_not_silently_dead(ready: House, left: bytes | None) -> None:
    with opened(ready) as (registry, _):
        registry.create(KeyOrder())
    (ready.state / "pepper").unlink()
    if left is not None:
        (ready.state / "pepper").write_bytes(left)
    with pytest.raises(Invalid, match="restore it from a backup"), opened(ready):
        pass
    assert left is not None or not (ready.state / "pepper").exists()


def test_a_pepper_that_another_process_has_just_made_is_taken(ready: House, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = config.Path.exists

    def late(path: Path) -> bool:  # it isn't there, and a moment later it is
        found = plain(path)
        if path.name == "pepper" and not found:
            path.write_bytes(b"p" * 32)
        return found

    monkeypatch.setattr(Path, "exists", late)
    with opened(ready) as (_, pepper):
        assert pepper == b"p" * 32
    assert [file.name for file in ready.state.iterdir() if "pepper" in file.name] == ["pepper"]


def test_a_link_in_the_place_of_the_pepper_is_not_written_through(ready: House) -> None:
    victim = ready.folder / "victim"
    ready.state.mkdir(mode=0o700)
    (ready.state / "pepper").symlink_to(victim)
    with pytest.raises(Invalid, match="it has to be a file"), opened(ready):
        pass
    assert not victim.exists()


@pytest.mark.parametrize("made", [lambda path: path.symlink_to("/dev/zero"), os.mkfifo, os.mkdir])
def test_what_was_planted_in_the_place_of_the_pepper_is_not_read(ready: House, made: Callable[[Path], None]) -> None:
    ready.state.mkdir(mode=0o700)
    made(ready.state / "pepper")
    assert main(["keys", "list", "--config", str(ready.config)]) != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_root_looks_after_keys_for_the_appliances_own_user(ready: House) -> None:
    made = ready.keys("create")
    ready.folder.chmod(0o755)
    for path in (ready.state, *ready.state.rglob("*")):
        shutil.chown(path, "nobody")
    assert ready.keys("create")["id"] != made["id"]
    assert ready.keys("revoke", made["id"])["state"] == "revoked"
    assert main(["usage", "--config", str(ready.config)]) == 0
    assert {path.owner() for path in ready.state.rglob("*")} == {"nobody"}, "what is put on record, too"


@pytest.mark.parametrize("command", [["keys", "create"], ["keys", "list"], ["usage"]])
def test_nothing_is_made_in_a_folder_that_holds_something_else(ready: House, command: list[str]) -> None:
    ready.state.mkdir()
    (ready.state / "letter.txt").write_text("Dear Anna")
    assert main([*command, "--config", str(ready.config)]) == 2
    assert [file.name for file in ready.state.iterdir()] == ["letter.txt"]


def test_appliances_on_one_postgresql_know_each_others_keys(
    ready: House, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEPPER", secrets.token_hex(32))
    monkeypatch.setenv("PASSWORD", PASSWORD)
    shared = {
        "postgresql": postgres.database().model_dump(mode="json") | {"password": "env.PASSWORD"},
        "pepper": "env.PEPPER",
    }
    ready.write(accounts={"store": shared})
    made = ready.keys("create", "--user", "anna")
    assert not (ready.state / "pepper").exists()
    ready.write(state="elsewhere")
    assert opens(ready, made["key"])
    ready.keys("revoke", made["id"])
    assert [each["state"] for each in ready.keys("list")] == ["revoked"]
    with pytest.raises(Unauthenticated):
        opens(ready, made["key"])


def test_a_postgresql_that_is_gone_is_told_on_the_command_line_without_its_password(
    ready: House, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PEPPER", "ab" * 32)
    monkeypatch.setenv("PASSWORD", "wrong-canary")
    shared = postgres.database().model_dump(mode="json") | {"password": "env.PASSWORD"}
    for changed in ({}, {"port": 1}, {"host": "/nowhere"}):
        ready.write(accounts={"store": {"postgresql": shared | changed, "pepper": "env.PEPPER"}})
        assert main(["keys", "list", "--config", str(ready.config)]) == 1
        said = capsys.readouterr()
        assert said.err.startswith("appliance: ")
        for secret in ("wrong-canary", "abab", "Traceback"):
            assert secret not in said.err + said.out


@pytest.mark.parametrize("text", ["00" * 31, "zz" * 32, "ab" * 33])
def test_a_shared_pepper_has_to_be_64_digits_and_is_not_repeated(
    ready: House, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEPPER", text)
    ready.write(accounts={"store": {"postgresql": {"host": "/nowhere", "database": "x", "user": "x"},
                                    "pepper": "env.PEPPER"}})  # fmt: skip
    loaded = config.load(ready.config)
    plain = config.load(ready.write(accounts={}))
    store = open_store(plain)
    with pytest.raises(ConfigInvalid, match="64 hexadecimal digits") as caught:
        open_registry(loaded, store)
    store.close()
    assert text not in str(caught.value)
    assert "accounts.store.pepper" in str(caught.value)
