"""How names are written, and which of them people read as one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from appliance.config.accounts import PersonName
from appliance.names import INVISIBLE, alike, proper

PERSON: TypeAdapter[str] = TypeAdapter(PersonName)
ONE = [
    "Anna Groß", " Anna  Groß ", "anna gross", "ＡＮＮＡ\u3000ＧＲＯＳＳ", "A\u034fnna Gro\u00adß", "Anna Groß\ufe0f",
]  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_what_people_read_as_one_name_is_alike(name: str) -> None:
    assert alike(name) == "anna gross"
    assert alike(name) != alike("Anna Grob")


@given(st.text())
def test_a_name_that_is_proper_stays_and_so_does_what_is_alike(name: str) -> None:
    once = proper(name)
    assert proper(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == once.strip(" ")
    assert "  " not in once
    assert alike(name) == alike(alike(name)) == alike(once)


def test_what_stands_between_a_letter_and_its_accent_parts_no_names() -> None:
    assert alike("mu\u034f\u0308ller") == alike("MÜLLER")


def test_nothing_invisible_is_left() -> None:
    assert [each for each in map(chr, range(0x110000)) if INVISIBLE.search(each) and alike(each)] == []
    for each in "\u00ad\u034f\u115f\u17b4\u180b\u200d\u3164\ufe0f\uffa0\U000e0100":
        assert INVISIBLE.search(each)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Anna ", "must be written 'Anna'"), ("a  b", "must be written 'a b'"),
        ("Mu\u0308ller", "must be written 'Müller'"),
        ("boss\ufe0f", "can't be seen"), ("a\u034fb", "can't be seen"), ("a\u3164b", "can't be seen"),
        ("p_0123456789abcdef01234567", "pseudonym"),
    ],
)  # fmt: skip
def test_a_config_names_everybody_in_one_way_and_nobody_like_a_pseudonym(name: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PERSON.validate_python(name)


@pytest.mark.parametrize("name", ["Anna", "Änne O'Hara", "p_0123", "P_0123456789ABCDEF01234567", "李 雷", "نور"])
def test_ordinary_names_are_taken(name: str) -> None:
    assert PERSON.validate_python(name) == name
