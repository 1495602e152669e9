"""What a caller chose goes on record as it is only where it can't be a name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.audit.hidden import Hidden
from appliance.audit.subjects import Subjects, hidden

HIDDEN = Hidden(b"k" * 32)


@pytest.mark.parametrize(
    "id_",
    [
        "req_0123456789abcdef01234567",
        "0af7651916cd43dd8448eb211c80319c",
        "00f067aa0ba902b7",
        "F" * 64,
        "9b2e4c1a-5d1f-4f0e-8d3b-1a2b3c4d5e6f",
        str(UUID(int=0)),
    ],
)
def test_ids_that_machines_make_stand_as_they_are(id_: str) -> None:
    assert HIDDEN.request(id_) == HIDDEN.asked(id_) == id_


@pytest.mark.parametrize(
    "id_",
    [
        "anna",
        "quirxanna-00000000000000000000",
        "quirxanna_00000000000000000000",
        "req_anna567890abcdef01234567",
        "req_0123456789ABCDEF01234567",
        "abe-0000-0000-0000-000000000000",
        "f" * 15,
        "f" * 65,
        "0af7651916cd43dd8448eb211c80319c\n",
        "id_0123456789abcdef01234567",
    ],
)
def test_others_stand_under_a_key(id_: str) -> None:
    shown = HIDDEN.request(id_)
    assert re.fullmatch(r"id_[0-9a-f]{24}", shown)
    assert shown == HIDDEN.request(id_)
    assert shown[3:] not in hashlib.sha256(id_.encode()).hexdigest()
    assert shown != Hidden(b"j" * 32).request(id_)


@given(st.text())
def test_who_has_the_id_finds_it_and_so_does_who_has_the_log(id_: str) -> None:
    recorded = HIDDEN.request(id_)
    assert HIDDEN.asked(recorded) == recorded
    assert HIDDEN.asked(id_) in (recorded, id_)
    assert re.fullmatch(r"hidden-[0-9a-f]{8}", HIDDEN.word(id_))


def test_nothing_shows_the_key() -> None:
    assert repr(HIDDEN) == "<Hidden>"


def test_the_key_is_the_stores_and_lasts(tmp_path: Path) -> None:
    before = hidden(tmp_path / "keys").word("anna")
    for _ in range(2):
        store = Subjects.open(tmp_path / "keys")
        shown = store.hidden.word("anna")
        assert hidden(tmp_path / "keys").word("anna") == shown, "also while it is open elsewhere"
        store.close()
    other = Subjects.open(tmp_path / "others")
    assert len({before, shown, other.hidden.word("anna")}) == 3
    other.close()
