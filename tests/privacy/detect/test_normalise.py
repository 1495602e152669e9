"""Text as a reader sees it, and the way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.privacy.detect.normalise import normalise


@pytest.mark.parametrize(
    ("given_text", "seen"),
    [
        ("Mu\u0308ller", "Müller"),
        ("M\u200bül\u00adler", "Müller"),
        ("M&uuml;ller &amp; Söhne", "Müller & Söhne"),
        ("M&#252;ller", "Müller"),
        ("Аnnа", "Anna"),  # Cyrillic
        ("ＤＥ８９", "DE89"),
        ("ﬁnal", "final"),
        ("D E 8 9 3 7", "DE8937"),
        ("A n n a M.", "A n n a M."),
        ("A n n a s Brief", "Annas Brief"),
        ("089–1234", "089-1234"),
        ("M<b>ül</b>ler", "Müller"),
        ("M**ül**ler", "Müller"),
        ("a < b", "a < b"),
        ("Anna\u00a0Koch", "Anna Koch"),
        ("ordinary text, 3 * 4", "ordinary text, 3 * 4"),
    ],
)
def test_what_hides_a_name_is_taken_out(given_text: str, seen: str) -> None:
    """Characters without width, marks on their own, look-alikes, markup in words, spaced letters."""
    assert normalise(given_text).text == seen


def test_a_stretch_leads_back_to_all_that_it_came_from() -> None:
    """With the characters inside it that nobody sees."""
    text = "Herr M\u200bu\u0308ll&eacute;r kam"
    seen = normalise(text)
    start = seen.text.index("M")
    assert text[slice(*seen.given(start, start + len("Müllér")))] == "M\u200bu\u0308ll&eacute;r"


def test_ordinary_text_needs_no_way_back() -> None:
    """German letters and quotation marks are ordinary."""
    assert normalise("„Grüße“ aus Köln – 3 €").map is None or normalise("Grüße aus Köln").map is None
    assert normalise("Grüße aus Köln, „ja“ für 3 €").map is None


_PIECES = st.sampled_from(
    [
        "a",
        "Ü",
        "u\u0308",
        "\u200b",
        "&amp;",
        "&",
        "ﬁ",
        "<b>",
        "**",
        " ",
        "x y z u v w",
        "А",
        "①",
        "\U0001f600",
        "–",
        "ß",
    ]
)


@given(st.one_of(st.text(), st.lists(_PIECES, max_size=30).map("".join)))
def test_the_way_back_never_leaves_the_text_and_keeps_the_order(text: str) -> None:
    """Each character comes from somewhere, after or at where the one before came from."""
    seen = normalise(text)
    places = [seen.given(at, at + 1) for at in range(len(seen.text))]
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert places == sorted(places)
    if seen.map is None:
        assert len(seen.text) == len(text)


@given(st.text())
def test_what_is_seen_stays_the_same_when_looked_at_again(text: str) -> None:
    """But for markup and entities, which may come to light."""
    once = normalise(text).text
    if not set(once) & set("&<*"):
        assert normalise(once).text.replace(" ", "") == once.replace(" ", "")
