"""The pattern tier as a whole: order, places, nasty texts."""

from __future__ import annotations

import socket
import string
from typing import Never

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.privacy.detect.patterns import Patterns, patterns
from appliance.privacy.kinds import Kind
from tests.privacy.detect.marks import wrong

LETTER = """Sehr geehrter Herr Dr. Koch,
vielen Dank für Ihr Schreiben vom [[date:12.03.2024]]. Für Ihre Steuererklärung 2023 benötigen wir noch die
Lohnsteuerbescheinigung sowie die Nachweise über die Handwerkerkosten in Höhe von 1.250,00 EUR. Bitte senden Sie die
Unterlagen bis zum [[date:30.04.2024]] an unsere Kanzlei in der [[address:Lindenstraße 12]], [[postcode:80331]]
[[place:München]] oder per Mail an [[email:kanzlei@steuer-huber.de]]. Bei Fragen erreichen Sie Frau Müller unter
[[phone:089 / 123 45 67]] von 9:00 bis 16:30 Uhr. Ihre Mandantennummer lautet [[reference:10472]]. Die Frist nach § 149
Abs. 2 AO läuft bis zum [[date:31. Juli.]]
Mit freundlichen Grüßen
Sabine Huber""".replace("[[postcode:80331]]\n", "[[postcode:80331]] ")

PIECES = [
    "a", "1", "1 ", "1.", "1/", "1-", "0", "A1", "DE1", "L01X00T47", "1Z", "@", "a@", "a.", "a.de ", "://",
    "http://", "-", " ", "\n", "Straße ", "straße", "A ", "Am Alten ", "Müller ", "passwort ", "passwort: ", "KEY=",
    "password=", "-----BEGIN PRIVATE KEY-----", "eyJ", "eyJa.", "sk-", "xoxb-1-", "Kundennummer ", "Konto 1 ",
    "geb. ", "* ", " at ", "a(at)", "1. Mai ", "Mai 1 ", "DE12 ", "D E 1 ", "A B C D E F ", "::", "1:", "ff:",
    "-ffff-", "1.1.1.1.", "<", "&amp;", "**a", "a<b>", "\u200b", "u\u0308", "ﬁ", "12 O 1/", "\\a", "c/o A ",
    "PIN: 1", "AKIA", "Abc1", "QUJD", "80331 M", "80331,", "ü", "\x00", "+49 ", "(0", "§ 1", "1 EUR ",
    "Anna Müller (", "wohnt in der a ", "<<", "A<", "Az. A ", "_", "A-1-", "12345-", "Postfach 1 ", "BIC: AAAA",
    "null ", "null eins ", "Benutzername ",
]  # fmt: skip


def test_a_letter_gives_away_what_is_in_it_and_nothing_more(tier: Patterns) -> None:
    """Amounts, times, years and paragraphs are left alone."""
    assert wrong(tier, LETTER) == []


def test_finds_come_in_order_and_none_is_a_part_of_a_surer_one(tier: Patterns) -> None:
    """Each kind at a place once."""
    spans = tier.find("IBAN DE89 3704 0044 0532 0130 00, Tel. 089 1234567, geb. 3.3.1978, HRB 12345 B")
    assert spans == sorted(spans)
    assert [span.kind for span in spans] == [Kind.BANK_ACCOUNT, Kind.PHONE, Kind.DATE_OF_BIRTH, Kind.REGISTER]


def test_places_are_those_of_the_text_as_given(tier: Patterns) -> None:
    """Whatever was put in between."""
    text = "x\u200bx u\u0308 &amp; IBAN\u00ad D\u200bE89 3704 0044 0532 0130 00 ok"
    (span,) = tier.find(text)
    assert text[span.start : span.end] == "D\u200bE89 3704 0044 0532 0130 00"


def test_text_without_anything_in_it_gives_nothing(tier: Patterns) -> None:
    """Nor does the empty one."""
    assert tier.find("") == []
    assert tier.find("Bitte formuliere die Nachricht höflicher und etwas kürzer.") == []


def test_nothing_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presidio's own recognizers of mail addresses and URLs would, for a list of domains."""

    def refuse(*_: object, **__: object) -> Never:
        raise AssertionError("network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert [span.kind for span in patterns().find("anna@example.com")] == [Kind.EMAIL]


@pytest.mark.parametrize("piece", ["A1", "a@", "1/", "eyJ", "12 O 1/", "passwort: ", "DE12 ", "u\u0308"])
def test_time_grows_with_the_text_and_no_faster(tier: Patterns, piece: str) -> None:
    """In quadratic time these would take minutes. See the long one."""
    _ends(tier, piece, 60_000)


@pytest.mark.long
@pytest.mark.parametrize("piece", PIECES)
def test_time_grows_with_any_text_and_no_faster(tier: Patterns, piece: str) -> None:
    """The same with more of everything that a rule looks for."""
    _ends(tier, piece, 200_000)


def _ends(tier: Patterns, piece: str, size: int) -> None:
    for span in tier.find(f"x {piece * (size // len(piece))}! 1", strict=True):
        assert span.start < span.end


_WORDS = st.sampled_from(
    [*PIECES, "DE89 3704 0044 0532 0130 00", "089 1234567", "anna@firma.de", "Nr. ", "geboren am "]
)
_TEXTS = st.one_of(
    st.text(alphabet=string.printable + "äöüß€§–\u200b\u0308İ", max_size=200),
    st.lists(_WORDS, max_size=40).map("".join),
    st.text(max_size=100),
)


@settings(max_examples=300)
@given(_TEXTS)
def test_any_text_has_finds_inside_it_only(text: str) -> None:
    """Never empty, in order, with a score."""
    spans = _TIER.find(text)
    assert all(0 <= span.start < span.end <= len(text) and 0 < span.score <= 1 for span in spans)
    assert [span.start for span in spans] == sorted(span.start for span in spans)


@settings(max_examples=100)
@given(_TEXTS, st.sampled_from(["DE89 3704 0044 0532 0130 00", "anna.b@firma.example", "+49 171 1234567"]))
def test_what_can_not_be_mistaken_is_found_in_any_text(text: str, original: str) -> None:
    """Set off by empty lines, whatever else there is."""
    whole = f"{text}\n\n{original}\n\n{text}"
    start = whole.index(original, len(text))
    found = {at for span in _TIER.find(whole) for at in range(span.start, span.end)}
    assert {at for at in range(start, start + len(original)) if whole[at].isalnum()} <= found


_TIER = patterns()
