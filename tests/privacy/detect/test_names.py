"""Names of people, as offices, clinics and chats write them."""

from __future__ import annotations

import pytest

from appliance.privacy.detect.detector import Detector
from appliance.privacy.kinds import Kind
from tests.privacy.detect.marks import unmarked

WRITTEN = [
    "Sehr geehrte Frau [[person:Vogelsang]], anbei die Unterlagen.",
    "Hallo [[person:Torben]], kannst du das [[person:Maike]] weitergeben?",
    "Laut [[person:Krottenthaler]] ist die Rechnung bezahlt.",
    "Der Patient [[person:Weidlich]] wurde gestern entlassen.",
    "Mein Name ist [[person:Ingeborg]] [[person:Saßmannshausen]].",
    "Viele Grüße\n[[person:Swantje]] [[person:Ohm]]",
    "Das ist [[person:Annegrets]] Vertrag.",
    "[[person:Karl-Heinz]] [[person:Müller-Lüdenscheid]] hat angerufen.",
    "Wir warten auf [[person:Gesine]] [[person:von]] [[person:der]] [[person:Heyde]].",
    "Bitte [[person:A]]. [[person:Brinkschulte]] fragen.",
    "[[person:Nguyen]] [[person:Thi]] [[person:Bich]] und [[person:Oluwaseun]] [[person:Adeyemi]] kommen.",
    "Teilnehmer: [[person:Yıldırım]], [[person:Szymański]]",
    "Dear Ms [[person:Thistlethwaite]], see attached.",
    "Please ask [[person:Siobhan]] [[person:Featherstonehaugh]] about it.",
    "I spoke with [[person:Okonkwo]] yesterday.",
    "The contract of [[person:Isabella]] [[person:van]] [[person:der]] [[person:Merwe]] ends soon.",
]
CHAT = [
    "frau [[person:vogelsang]] möchte einen rückruf",
    "[[person:torben]] hat sich heute krank gemeldet",
    "hab mit [[person:maike]] [[person:krottenthaler]] gesprochen wegen der rechnung",
    "ask [[person:siobhan]] if she can cover for [[person:okonkwo]] tomorrow",
    "mr [[person:grant]] wants a callback",
    "FRAU [[person:VOGELSANG]] BITTE UM RÜCKRUF",
]
AMBIGUOUS = [
    "Frau [[person:Lange]] und Herr [[person:Weiß]] kommen später.",
    "Herr [[person:Koch]] hat den Vertrag unterschrieben.",
    "Im Fall [[person:Richter]] gegen [[person:Bauer]] wurde ein Vergleich geschlossen.",
    "Bitte leite das an [[person:Kaiser]] weiter.",
    "Mr [[person:Young]] and Mrs [[person:Rose]] agreed.",
    "We asked [[person:Grant]] and [[person:Will]] for a quote.",
]
HIDDEN = [
    "Frau [[person:M ü l l e r]] kommt.",
    "**[[person:Vogel**sang]] hat angerufen.",
    "Herr [[person:Vo\u200bgel\u00adsang]] kommt.",
    "Herr [[person:К\u043eсh]] kommt.",
]
PLAIN = [
    "Wie berechne ich in Excel die Summe einer Spalte?",
    "Formuliere die E-Mail freundlicher und kürzer.",
    "Der Koch hat gekündigt, und die Bauern protestieren seit Montag.",
    "Die Richter haben lange beraten.",
    "Erstelle eine Tabelle mit Vor- und Nachteilen von Homeoffice.",
    "was bedeutet abschreibung auf geringwertige wirtschaftsgüter",
    "Write a polite reminder for an unpaid invoice.",
    "He will mark the exams in May.",
    "give me ten ideas for team building activities",
]
HELD = [
    "Das Gutachten von [[person:Geist]] liegt noch nicht vor.",
    "Die Klage gegen [[person:Zwerg]] wurde abgewiesen.",
    "[[person:Topf]] ruft morgen zurück.",
    "Gestern hat [[person:Ritter]] angerufen.",
    "Das geht so nicht, sagt [[person:Onkel]].",
    "Klient_001 und [[person:Hammer]] stimmen zu.",
    "[[person:Rasch]] hat den Vertrag unterschrieben.",
    "frag mal [[person:weiß]] ob das passt",
    "[[person:will]] can you send me the file",
    "[[person:hope]] is sick today",
    "[[person:May]] told me about the results.",
    "I gave the letter to [[person:June]].",
    "wer ist eigentlich [[person:will]]",
]
"""Ordinary words that stand where names do."""
KEPT = [
    "Ordne die Aufgaben nach Wichtigkeit.",
    '{"strasse": "", "bemerkung": "keine", "kennzeichen": ""}',
    "Can you give me a stronger opening for this page?",
    "what is the difference between a grant and a loan",
    "wie lange dauert ein antrag auf elternzeit",
    "das weiß ich nicht, ich will nur eine liste",
    "We will move the meeting from May to June.",
    "please call back on monday",
    "Groesse und Laenge der Strasse angeben.",
]
MASKED = [
    "Sehr geehrte Frau Klient_001, anbei die Rechnung der Firma_002 vom Datum_001.",
    "Klient_001s Vertrag mit Firma_002 läuft in Ort_001 aus; Kennung_003 liegt bei.",
    "Hallo Klient\\_001, Wort_004 hat Klient_002 angerufen.",
    "Dear Klient_001, the invoice of Firma_001 in Ort_002 is overdue.",
    "klient_001 hat sich heute krank gemeldet",
]


@pytest.mark.parametrize("marked", [*WRITTEN, *CHAT, *AMBIGUOUS, *HIDDEN])
def test_every_letter_of_a_name_is_found(detector: Detector, marked: str) -> None:
    text, marks = unmarked(marked)
    found = {at for span in detector.find(text) for at in range(span.start, span.end)}
    missed = [text[start:end] for start, end, _ in marks if not all(at in found for at in range(start, end))]
    assert not missed


@pytest.mark.parametrize("text", PLAIN)
def test_ordinary_words_are_left(detector: Detector, text: str) -> None:
    assert [text[span.start : span.end] for span in detector.find(text)] == []


@pytest.mark.parametrize("text", MASKED)
def test_the_second_look_finds_nothing_in_masked_text(detector: Detector, text: str) -> None:
    assert [text[span.start : span.end] for span in detector.find(text, strict=True)] == []


def test_the_second_look_doubts_what_the_first_let_pass(detector: Detector) -> None:
    text = "frag mal koch ob es geht und sag es auch den richtern"
    assert len(detector.find("die krüger war da, sagt der winter", strict=True)) > len(
        detector.find("die krüger war da, sagt der winter")
    )
    assert detector.find(text, strict=True)


def test_a_word_that_nobody_knows_is_found(detector: Detector) -> None:
    text = "Der Vertrag mit Quaxelbrumm liegt bei."
    assert [text[span.start : span.end] for span in detector.find(text)] == ["Quaxelbrumm"]


def test_compounds_of_known_words_are_known(detector: Detector) -> None:
    assert detector.find("Die Abschlagsrechnungsprüfung dauert lange.") == []


def test_german_in_plain_letters_is_german(detector: Detector) -> None:
    assert detector.find("Bitte pruefen Sie die Aenderung fuer die naechste Woche.") == []


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("Die Schrauben Vogelsang GmbH & Co. KG liefert.", "Schrauben Vogelsang GmbH & Co. KG", Kind.ORGANISATION),
        ("Wir liefern für Kanzlei Vogelsang und Partner.", "Vogelsang und Partner", Kind.ORGANISATION),
        ("Die Filiale in Ludwigsburg schließt.", "Ludwigsburg", Kind.PLACE),
    ],
)
def test_what_isnt_a_person_has_its_kind(detector: Detector, text: str, name: str, kind: Kind) -> None:
    start = text.index(name)
    around = [each.kind for each in detector.find(text) if each.start <= start and start + len(name) <= each.end]
    assert around == [kind]


def test_a_name_of_several_words_is_one_find(detector: Detector) -> None:
    text = "Bitte Annegret von der Heyde und Karl-Heinz Müller-Lüdenscheid einladen."
    found = [text[span.start : span.end] for span in detector.find(text)]
    assert found == ["Annegret von der Heyde", "Karl-Heinz Müller-Lüdenscheid"]


@pytest.mark.parametrize("marked", HELD)
def test_an_ordinary_word_in_a_names_place_is_doubted(detector: Detector, marked: str) -> None:
    text, marks = unmarked(marked)
    found = {at for span in detector.find(text, strict=True) for at in range(span.start, span.end)}
    assert not [text[start:end] for start, end, _ in marks if not all(at in found for at in range(start, end))]


@pytest.mark.parametrize("text", KEPT)
def test_ordinary_words_are_not_doubted(detector: Detector, text: str) -> None:
    assert detector.find(text, strict=True) == []
