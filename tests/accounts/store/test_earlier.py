"""Keys of earlier versions are taken over once, from the file in which those kept them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.accounts.store import Store
from appliance.core import Role
from appliance.errors import Invalid
from tests.accounts.conftest import Opener

KEPT = [
    {"id": "key_0a1b2c3d", "digest": "00ff" * 16, "created": "2026-10-05"},
    {"id": "key_11111111", "digest": "11" * 32, "created": "2026-11-01"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(KEPT))
    return path


def test_keys_are_taken_over_with_their_digests(on_sqlite: Opener, file: Path) -> None:
    store = on_sqlite()
    found = store.keys()
    assert [(each.id, each.digest, each.name, each.role) for each in found] == [
        ("key_0a1b2c3d", bytes.fromhex("00ff" * 16), "from keys.json", Role.USER),
        ("key_11111111", b"\x11" * 32, "from keys.json", Role.USER),
    ]
    assert found[0].created < found[1].created
    assert store.keys_version() > 0
    assert not file.exists()
    assert json.loads(file.with_name("keys.json.imported").read_text()) == KEPT


def test_a_crash_before_the_file_was_renamed_brings_no_key_back(on_sqlite: Opener, file: Path) -> None:
    on_sqlite().revoke_key("key_11111111", 5.0)
    file.with_name("keys.json.imported").rename(file)
    found = on_sqlite().keys()
    assert [each.revoked for each in found] == [None, 5.0]
    assert not file.exists()


@pytest.mark.parametrize("content", ["", "{}x", "[1]", '[{"id": "key_1"}]', json.dumps([KEPT[0] | {"digest": "zz"}])])
def test_a_broken_file_is_refused_and_left_as_it_is(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(Invalid, match="restore it from a backup, or remove it"):
        Store.sqlite(file.parent)
    assert file.read_text() == content


def test_a_link_is_not_followed(file: Path) -> None:
    file.rename(file.with_name("target"))
    file.symlink_to("target")
    with pytest.raises(Invalid, match="symbolic link"):
        Store.sqlite(file.parent)
