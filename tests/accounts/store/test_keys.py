"""Keys as they are kept."""

from __future__ import annotations

import pytest

from appliance.accounts.keys import KeyRecord, Rotated
from appliance.accounts.store import Store
from appliance.errors import BadRequest, Conflict
from tests.accounts.conftest import Opener
from tests.accounts.store.entries import NAMES, key

ROTATED = Rotated(b"new", 1.0, None, 1.0)


def test_a_key_comes_back_as_it_was_kept_also_by_another_process(opener: Opener) -> None:
    plain = KeyRecord(id="key_0", digest=b"0", name="", created=1.5, created_by="x")
    store = opener()
    store.add_key(key(2))
    store.add_key(plain)
    assert store.keys() == opener().keys() == [plain, key(2)]  # oldest first


@pytest.mark.parametrize("name", NAMES)
def test_names_are_kept_to_the_letter(store: Store, name: str) -> None:
    strange = key(name=name, user=name, team=name, created_by=name, use_cases=frozenset({name}))
    store.add_key(strange)
    assert store.keys() == [strange]


@pytest.mark.parametrize("field", ["id", "name", "user", "team", "created_by", "use_cases"])
@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_what_is_no_text_is_refused_by_the_name_of_its_field(store: Store, field: str, text: str) -> None:
    with pytest.raises(BadRequest, match=field):
        store.add_key(key(**{field: frozenset({text}) if field == "use_cases" else text}))
    assert store.keys() == []


@pytest.mark.parametrize("again", [key(1, digest=b"other"), key(2, digest=key(1).digest)], ids=["id", "digest"])
def test_the_same_key_twice_is_a_conflict_that_shows_nothing_of_it(store: Store, again: KeyRecord) -> None:
    store.add_key(key(1))
    before = store.keys_version()
    with pytest.raises(Conflict) as refused:
        store.add_key(again)
    assert "key_" not in str(refused.value)
    assert (store.keys(), store.keys_version()) == ([key(1)], before)


def test_a_rotated_key_is_opened_by_the_old_one_too_until_the_overlap_ends(store: Store) -> None:
    store.add_key(key(1))
    assert store.rotate_key("key_1", Rotated(b"new", 1795300099.5, None, 1795300098.5, ("key_2", "key_3")))
    assert store.keys() == [
        key(
            1, digest=b"new", previous=key(1).digest, previous_until=1795300099.5, expires=None, issued=1795300098.5,
            issuers=("key_2", "key_3"),
        )
    ]  # fmt: skip


def test_what_is_unknown_or_revoked_is_not_rotated(store: Store) -> None:
    store.add_key(key(1))
    assert not store.rotate_key("key_9", ROTATED)
    assert store.revoke_key("key_1", 5.0)
    assert not store.rotate_key("key_1", ROTATED)
    assert store.keys() == [key(1, revoked=5.0)]


def test_a_key_is_revoked_once(store: Store) -> None:
    store.add_key(key(1))
    store.add_key(key(2))
    assert store.revoke_key("key_1", 5.0)
    assert store.revoke_key("key_1", 6.0)
    assert not store.revoke_key("key_9", 6.0)
    assert store.keys() == [key(1, revoked=5.0), key(2)]


def test_every_change_is_seen_by_others_in_the_version(opener: Opener) -> None:
    gateway, console = opener(), opener()
    seen = [gateway.keys_version()]
    for change in (
        lambda: console.add_key(key(1)),
        lambda: console.rotate_key("key_1", ROTATED),
        lambda: console.revoke_key("key_1", 1.0),
    ):
        change()
        seen.append(gateway.keys_version())
    assert len(set(seen)) == 4
    console.revoke_key("key_9", 1.0)
    assert gateway.keys_version() == seen[-1]


def test_a_record_shows_no_digest() -> None:
    shown = repr(key(1))
    assert "number 1" in shown
    assert repr(key(1).digest) not in shown
    assert repr(key(1).previous) not in shown
