"""The second look at masked text: nothing that looks like an identifier may be left, and ordinary text may leave."""

from __future__ import annotations

import pytest

from appliance.privacy.detect.patterns import Patterns
from appliance.privacy.kinds import Kind, Span

LEFT = {
    "Vorgang ▯▯▯▯, 48213, bitte prüfen": "48213",
    "steht unter 12 34 56 7 im Ordner": "12 34 56 7",
    "siehe 4711.08-15": "4711.08-15",
    "am 3 3 1978 dort": "3 3 1978",
    "Ablage K2-1234-B im Keller": "K2-1234-B",
    "das Gerät von mueller1978x hängt": "mueller1978x",
    "▯▯▯▯▯ (94) hat sich beworben": "▯ (94",
    "Meine Tante ▯▯▯▯▯, 76, liegt dort": "▯, 76",
    "Name;Alter;Ort\n▯▯▯▯▯;48;▯▯▯▯▯": "48",
    "▯▯▯▯▯▯▯, Quellgrund 7, ▯▯▯▯▯": "Quellgrund 7",
    "▯▯▯▯▯, Sankt Gallus 7, ▯▯▯▯▯": "Sankt Gallus 7",
    "er war bei anna @ firma": "a @",
    "kopiere es auf srv-7.abt.firma.beispiel bitte": "srv-7.abt.firma.beispiel",
    "Ping an 10.1.2.3 geht": "10.1.2.3",
}
ORDINARY = [
    "19 % auf 1.249,90 EUR sind 237,48 EUR.",
    '=SUMMEWENN(B2:B1048576;">=2024";C2:C1048576)',
    "§ 623 BGB, §§ 305-310 BGB und Art. 6 Abs. 1 DSGVO",
    "for i in range(10000): print(i % 65536)",
    "48 x 365 + 12345 = 29865",
    "ISO 27001, DIN 5008, BSI 200-2, RFC 2119",
    "Python 3.12.4, node 20.11.1, Windows 11 24H2",
    "Der Umsatz stieg 2023/24 um 7,3 Prozent auf 1,25 Mio. Euro, 2019-2024 sogar mehr.",
    "9:00-10:30 Uhr Begrüßung, 9.00 - 16.30 Uhr Messe",
    "1920x1080 Pixel, 144 Hz, UTF-8, utf8mb4, SHA256, Base64",
    "24500 Kunden und 12500 Mitarbeiter",
    "Die Werte 12500, 13750 und 14200 als Diagramm",
    "eine 30-Stunden-Woche, die 80/20-Regel, 520-Euro-Jobs",
    "Fehler 0x80070005, HTTP 404",
    "Kapitel 3\nAufgabe 12\nSchritt 2",
    "@dataclass\nclass A:\n    @property\n    def b(self): ...",
    "npm install bootstrap@5.3.2",
    "Budget-2024, Q3/2024, 03/2024, Jahresabschluss 2023",
    "Klassen mit 25 Kindern, im Alter der Schule",
    "am 12.5. oder 1. März, also in 14 Tagen",
    "os.path.join(a, b) und self.items.append(1)",
    "Zahlen wie 10000, 250000 und 1000000",
]


def strictly(tier: Patterns, text: str) -> list[Span]:
    """What only the strict look finds."""
    return [span for span in tier.find(text, strict=True) if span.source == "strict"]


@pytest.mark.parametrize(("text", "left"), LEFT.items())
def test_whatever_looks_like_an_identifier_is_doubted(tier: Patterns, text: str, left: str) -> None:
    """With so low a score that nobody takes it for a find."""
    spans = tier.find(text, strict=True)
    at = text.index(left)
    assert any(span.start < at + len(left) and at < span.end for span in spans)
    assert all(span.score < 0.5 for span in spans if span.source == "strict")


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_numbers_are_not(tier: Patterns, text: str) -> None:
    """Amounts, formulas, code, laws, versions, times, lists."""
    assert [text[span.start : span.end] for span in strictly(tier, text)] == []


def test_the_first_look_doubts_nothing(tier: Patterns) -> None:
    """What it finds it masks; these would be too much of what is ordinary."""
    assert [span for text in LEFT for span in tier.find(text) if span.source == "strict"] == []


def test_placeholders_are_left_alone_when_blanked_out(tier: Patterns) -> None:
    """However many stand together."""
    assert strictly(tier, "▯▯▯▯▯▯▯▯▯▯, ▯▯▯▯▯▯▯ und ▯▯▯▯▯▯▯▯▯▯▯s (▯▯▯▯▯▯▯▯▯)") == []


def test_a_doubt_keeps_its_place_in_the_text_as_given(tier: Patterns) -> None:
    """With characters in it that nobody sees."""
    text = "u\u0308ber 48\u200b213 reden"
    (span,) = strictly(tier, text)
    assert (text[span.start : span.end], span.kind) == ("48\u200b213", Kind.REFERENCE)
