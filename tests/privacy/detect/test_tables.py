"""What stands under a heading is what the heading says."""

from __future__ import annotations

import time

import pytest

from appliance.privacy.detect import tables
from appliance.privacy.kinds import Kind
from tests.privacy.detect.marks import unmarked

FOUND = {
    "semicolons": "Anschrift;Alter;Nachname, Vorname;Telefon;Geburtsdatum\n"
    "[[address:Am Bahndamm 44]];[[age:81]];[[person:Kirkpatrick]];[[phone:0733 74 86 46]];[[date_of_birth:15.07.1945]]",
    "commas": "IBAN,Nachname, Vorname,Alter\n[[bank_account:DE02120300000000202051]],[[person:koch]],[[age:25]]",
    "commas and spaces": "Name, Alter, Ort\n[[person:Lange]], [[age:81]], [[place:Uelzen]]",
    "quoted": 'Name,Alter,Ort\n"[[person:Hoppe, Anna]]",[[age:81]],"[[place:Ulm]]"',
    "tabs": "Kundennummer\tAlter\tE-Mail\n[[reference:KD-4711]]\t[[age:32]]\t[[email:a@b.local]]",
    "Markdown": "| Mandant | Alter | Betrag |\n|:--|--:|---|\n| [[person:Weiß]] | [[age:44]] | 120,00 |\n"
    "| [[person:hoppe]] | [[age:45]] | 44 |",
    "Markdown without edges": "Patient | Zimmer\n--- | ---\n[[person:Rose]] | 12",
    "aligned": "  Nachname    Alter   Ort\n  [[person:Hoppe]]       [[age:81]]      [[place:Uelzen]]\n"
    "  [[person:Lange]]               [[place:Bad Soden]]",
    "HTML": "<table><tr><th>Vorname</th><th>Alter</th></tr>\n"
    "<tr><td><b>[[person:wanja]]</b></td><td>[[age:81]]</td></tr>",
    "English": "Surname;Date of birth;Zip;City;Policy no.\n"
    "[[person:Price]];[[date_of_birth:23 March 1966]];[[postcode:90210]];[[place:Reading]];[[reference:PL-889]]",
    "keys": "first_name;dateOfBirth;customer_id\n[[person:will]];[[date_of_birth:1990-01-21]];[[reference:88123]]",
    "empty cells, fewer, a row between": "Nachname;Alter;Telefon\n;[[age:81]];\n[[person:Hoppe]]\n"
    "[[person:Koch]];[[age:12]]\n\n[[person:Lange]];[[age:13]];[[phone:46123]]",
    "headings again": "Name;Alter\n[[person:Hoppe]];[[age:81]]\nName;Alter\n[[person:Koch]];[[age:82]]",
    "other headings": "Name;Alter\n[[person:Hoppe]];[[age:81]]\nAlter;Nachname\n[[age:82]];[[person:Koch]]",
    "indented, quoted": "> Name;Alter\n>   [[person:Hoppe]];[[age:81]]",
    "in a sentence": "Bitte prüfen: Name;Alter\n[[person:Hoppe]];[[age:81]]\n\nDanke, das eilt; bitte bald.",
    "a number for a name": "Mandant;Alter\n[[reference:10234]];[[age:81]]",
    "a password": "Benutzer;Passwort\n[[url:hoppe]];[[secret:Sommer2024!]]",
    "a comma too many": "Nachname,Alter\n[[person:Hoppe]],Anna,[[age:81]]",
}
NONE = {
    "prices": "Artikel;Menge;Preis\nSchrauben;20;1,20\nMuttern;81;2,40",
    "products": "| Name | Preis |\n|---|---|\n| Apfel | 1,20 |",
    "opening hours": "Tag\tVon\tBis\nMontag\t8\t18\nDienstag\t9\t17",
    "multiplication": "1;2;3\n2;4;6\n3;6;9",
    "months": "Monat;Umsatz\nJanuar;81\nMärz;4711",
    "machines": "Maschine;Alter\nPresse;12",
    "amounts": "Kunde;Betrag\n-;4711\nunbekannt;1.200,00",
    "chart of accounts": "Konto;Bezeichnung\n1200;Bank\n8400;Erlöse",
    "counts": "Anzahl Kunden;Anzahl Mitarbeiter\n4711;120",
    "prose": "Bitte nenne mir Name, Alter und Wohnort.\nIch schreibe dann, wie immer, zurück.",
    "code": "def create(name: str, age: int):\n    return name, age",
    "placeholders": "Nachname;Alter\n▯▯▯▯▯▯▯▯▯▯;▯▯▯▯▯▯▯▯▯",
    "nothing below": "Name;Alter;Telefon",
}


@pytest.mark.parametrize("marked", FOUND.values(), ids=FOUND.keys())
def test_cells_are_what_their_heading_says(marked: str) -> None:
    text, marks = unmarked(marked)
    expected = [(text[start:end], kind) for start, end, kind in marks]
    if "Hoppe],Anna" in marked.replace("]]", "]"):
        expected.insert(1, ("Anna", Kind.PERSON))  # it may stand under either
    assert [(text[span.start : span.end], span.kind) for span in tables.find(text)] == expected


@pytest.mark.parametrize("text", NONE.values(), ids=NONE.keys())
def test_tables_about_nobody_hold_nothing(text: str) -> None:
    assert list(tables.find(text)) == []


LONG = [
    "Name;Alter\n",
    "Name;Alter;",
    "Name  Alter  ",
    'Name;"',
    "Ort,Nachname\nUlm,Koch\n",
    "| Name ",
    "<td>Name",
    "\n",
]


@pytest.mark.long
@pytest.mark.parametrize("part", LONG)
def test_time_grows_with_the_length_alone(part: str) -> None:
    """Twenty times as long is not four hundred times as slow."""

    def seconds(characters: int) -> float:
        start = time.process_time()
        list(tables.find(part * (characters // len(part))))
        return time.process_time() - start

    assert seconds(200_000) < 60 * seconds(10_000) + 0.3
