"""Keys: seen once, stored hashed, gone when their time is over."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from appliance.accounts import keys
from appliance.accounts.keys import Keys
from appliance.errors import Invalid, Unauthenticated


def test_a_key_that_was_made_opens_and_names_its_caller(tmp_path: Path) -> None:
    store = Keys(tmp_path)
    assert store.empty
    key = store.create()
    assert not store.empty
    assert store.authenticate(key).key_id.startswith("key_")
    assert store.authenticate(key).key_id not in key


def test_a_key_opens_after_a_restart_too(tmp_path: Path) -> None:
    key = Keys(tmp_path).create()
    again = Keys(tmp_path)
    assert not again.empty
    assert again.authenticate(key) == Keys(tmp_path).authenticate(key)


def test_a_key_is_not_on_disk_and_the_files_are_private(tmp_path: Path) -> None:
    key = Keys(tmp_path).create()
    secret = key.removeprefix(keys.PREFIX)
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"keys.json", "pepper"}


def test_the_same_key_under_another_pepper_is_unknown(tmp_path: Path) -> None:
    key = Keys(tmp_path).create()
    (tmp_path / "pepper").write_bytes(bytes(32))
    with pytest.raises(Unauthenticated):
        Keys(tmp_path).authenticate(key)


@pytest.mark.parametrize("presented", [None, "", "sk-appliance-", "x", "x" * 100_000, "ä\udcff", " "])
def test_anything_else_is_refused(tmp_path: Path, presented: str | None) -> None:
    store = Keys(tmp_path)
    store.create()
    with pytest.raises(Unauthenticated) as caught:
        store.authenticate(presented)
    assert caught.value.code == ("invalid_api_key" if presented else "missing_api_key")
    assert not presented or len(presented) < 2 or presented not in caught.value.message


def test_a_part_of_a_key_and_a_key_with_more_behind_it_are_refused(tmp_path: Path) -> None:
    store = Keys(tmp_path)
    key = store.create()
    for near in (key[:-1], key + "x", key.upper(), f" {key}"):
        with pytest.raises(Unauthenticated):
            store.authenticate(near)


def test_two_keys_are_two_callers(tmp_path: Path) -> None:
    store = Keys(tmp_path)
    first, second = store.create(), store.create()
    assert store.authenticate(first) != store.authenticate(second)


def test_a_lent_key_ends_with_its_time_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("appliance.accounts.keys.time.monotonic", lambda: now)
    store = Keys(tmp_path)
    key = store.lend(60)
    assert store.empty
    now += 59.9
    assert store.authenticate(key).key_id == "key_local"
    now += 0.2
    with pytest.raises(Unauthenticated):
        store.authenticate(key)
    with pytest.raises(Unauthenticated):
        Keys(tmp_path).authenticate(key)
    assert {file.name for file in tmp_path.iterdir()} == {"pepper"}


@pytest.mark.parametrize("draft", ["pepper.new", "keys.new"])
def test_a_link_in_the_place_of_a_draft_leads_nowhere(tmp_path: Path, draft: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / draft).symlink_to(victim)
    Keys(tmp_path).create()
    assert victim.read_text() == "precious"


def test_a_crash_while_writing_leaves_the_old_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Keys(tmp_path)
    key = store.create()

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("appliance.accounts.keys.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        store.create()
    monkeypatch.undo()
    assert Keys(tmp_path).authenticate(key)


@pytest.mark.parametrize("content", ["", "{", "[1]", "[{}]", "7", '[{"id":"a","digest":"zz"}]'])
def test_a_broken_key_file_says_what_to_do(tmp_path: Path, content: str) -> None:
    Keys(tmp_path).create()
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(Invalid, match="delete pepper and keys"):
        Keys(tmp_path)


@pytest.mark.parametrize("left", [None, b""])
def test_keys_whose_pepper_is_lost_are_not_silently_dead(tmp_path: Path, left: bytes | None) -> None:
    Keys(tmp_path).create()
    (tmp_path / "pepper").unlink()
    if left is not None:
        (tmp_path / "pepper").write_bytes(left)
    with pytest.raises(Invalid, match="restore it from a backup"):
        Keys(tmp_path)
    assert left is not None or not (tmp_path / "pepper").exists()
