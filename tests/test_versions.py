"""Every config that was in effect is kept as it was, and can be had again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from appliance.errors import NotFound
from appliance.versions import Versions

FIRST = b"# by hand\r\nmodels: {chat: {card: one}}"
SECOND = "models: {chat: {card: two}}  # größer\n".encode()
NAMING = b"""\
state: 007   # anna's choice
accounts:
  users:
    anna: {tokens_per_day: 0o5}
    ben: {tokens_per_day: 1_000}
models: {chat: {card: "one"}}
"""


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path / "configs")


def test_what_was_in_effect_comes_back_byte_by_byte(versions: Versions, tmp_path: Path) -> None:
    assert versions.all() == []
    versions.keep(FIRST, "start", [])
    versions.keep(SECOND, "host:ops", ["chat: now answered by two"])
    one, two = Versions(tmp_path / "configs").all()
    assert (one.number, one.by, two.number, two.by, two.changes) == (1, "start", 2, "host:ops", two.changes)
    assert [versions.text(each) for each in (one, two)] == [FIRST, SECOND]
    assert (two.changes, two.rollback) == (("chat: now answered by two",), None)
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "configs").iterdir()}
    assert (modes, (tmp_path / "configs").stat().st_mode & 0o777) == ({0o600}, 0o700)


def test_the_same_again_is_no_new_version_and_one_of_before_is_told_as_that(versions: Versions) -> None:
    versions.keep(FIRST, "start", [])
    assert versions.keep(FIRST, "start", []).number == 1
    versions.keep(SECOND, "watch", [])
    again = versions.keep(FIRST, "host:ops", [])
    assert (again.number, again.rollback) == (3, 1)
    assert versions.keep(SECOND, "host:ops", []).rollback == 2
    assert versions.named().number == 3, "the one before the one in effect"


def test_what_a_crash_left_half_done_is_no_version(versions: Versions, tmp_path: Path) -> None:
    versions.keep(FIRST, "start", [])
    folder = tmp_path / "configs"
    (folder / "000002.yaml").write_bytes(b"half")
    (folder / "000002.new").write_bytes(b"{")
    assert [version.number for version in versions.all()] == [1]
    (folder / "000002.json").write_bytes(b"{")
    assert [version.number for version in versions.all()] == [1]
    second = versions.keep(SECOND, "host:ops", [])
    assert (second.number, versions.text(second)) == (2, SECOND)


@pytest.mark.parametrize("field", ["at", "by", "changes", "sha256"])
def test_what_is_told_of_a_version_is_of_its_kind_or_it_is_none(versions: Versions, tmp_path: Path, field: str) -> None:
    versions.keep(FIRST, "start", ["a"])
    file = tmp_path / "configs" / "000001.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {field: [7]}))
    assert versions.all() == []


def test_an_unknown_version_names_those_that_there_are(versions: Versions) -> None:
    with pytest.raises(NotFound, match="no earlier config was applied"):
        versions.named()
    with pytest.raises(NotFound, match="there is no version 7 of the config; none is kept in "):
        versions.named(7)
    versions.keep(FIRST, "start", [])
    with pytest.raises(NotFound, match="no earlier config was applied"):
        versions.named()
    versions.keep(SECOND, "start", [])
    with pytest.raises(NotFound, match="there is no version 7 of the config; there are 1 to 2"):
        versions.named(7)


def test_nothing_comes_back_that_was_put_in_the_place_of_a_version(versions: Versions, tmp_path: Path) -> None:
    version = versions.keep(FIRST, "start", [])
    file, secret = tmp_path / "configs" / "000001.yaml", tmp_path / "secret"
    file.write_bytes(SECOND)
    with pytest.raises(NotFound, match="was changed since it was kept"):
        versions.text(version)
    secret.write_bytes(FIRST)
    for plant in (lambda: file.symlink_to(secret), lambda: os.mkfifo(file), file.mkdir):
        file.unlink()
        plant()
        with pytest.raises(NotFound, match="the text of version 1 is gone"):
            versions.text(version)
        if file.is_dir():
            file.rmdir()
            file.touch()


def test_a_person_who_is_erased_is_in_no_version_any_more(versions: Versions, tmp_path: Path) -> None:
    versions.keep(FIRST, "start", [])
    versions.keep(NAMING, "start", [])
    other = versions.keep(SECOND, "start", [])
    (tmp_path / "configs" / "000004.yaml").write_bytes(NAMING)
    held = (tmp_path / "configs" / "000002.yaml").open("rb")
    assert versions.forget("anna") == 1
    assert b"anna" not in b"".join(file.read_bytes() for file in (tmp_path / "configs").iterdir())
    assert not any(held.read()), "nor in the blocks where it lay"
    first, naming, last = versions.all()
    assert (versions.text(first), versions.text(last), last) == (FIRST, SECOND, other)
    text = versions.text(naming).decode()
    assert "007" in text, "what is left stands there as it did"
    assert "1_000" in text
    assert "ben" in text
    assert naming.rewritten is not None
    assert versions.forget("anna") == 0


def test_a_version_that_lost_a_person_is_the_same_version_still(versions: Versions) -> None:
    versions.keep(NAMING, "start", [])
    versions.forget("anna")
    assert versions.keep(NAMING, "start", []).number == 1
    (version,) = versions.all()
    versions.keep(SECOND, "host:ops", [])
    assert versions.keep(versions.text(version), "host:ops", []).rollback == 1
