"""Words and their forms, as the lists are searched by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.privacy.site.forms import HEAD, folded, heads, lowered, spellings, stems


@given(st.text(max_size=50))
def test_small_letters_leave_every_character_in_its_place(text: str) -> None:
    assert len(lowered(text)) == len(text)


@pytest.mark.parametrize("words", [
    ["größe", "groesse"], ["müller", "mueller"], ["josé", "jose"], ["łukasz", "lukasz"], ["søren", "soeren"],
])  # fmt: skip
def test_two_spellings_of_a_word_are_one(words: list[str]) -> None:
    assert len(set(map(folded, words))) == 1


def test_a_name_is_spelt_with_dots_without_and_in_its_parts() -> None:
    assert spellings(["MüllerBau"]) >= {("muellerbau",), ("mullerbau",), ("mueller", "bau"), ("muller", "bau")}
    assert spellings(["Deutsche", "Bank"]) == {("deutsche", "bank")}
    assert spellings(["Neuer", "Markt"]) == {("neuer", "markt"), ("neue", "markt")}


@pytest.mark.parametrize(("word", "stem", "ending"), [
    ("muellers", "mueller", 1), ("schmidtes", "schmidt", 2), ("grassens", "grass", 3), ("werken", "werke", 0),
    ("muellersche", "mueller", 0), ("muellerschen", "mueller", 0), ("deutschen", "deutsche", 0),
    ("deutscher", "deutsche", 0), ("deutsches", "deutsche", 1),
])  # fmt: skip
def test_a_word_is_a_form_of_its_stem(word: str, stem: str, ending: int) -> None:
    assert (stem, ending) in list(stems(word))
    assert next(stems(word)) == (word, 0)


@given(st.text("abcdens", min_size=1, max_size=9))
def test_a_word_begins_as_its_stems_say(word: str) -> None:
    """The quick look at the first letters passes over no form of a name."""
    for stem, _ in stems(word):
        assert word[:HEAD] in set(heads(stem)), stem
