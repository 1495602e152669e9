"""Dates, dates of birth and ages."""

from __future__ import annotations

import pytest

from appliance.privacy.detect.patterns import Patterns
from tests.privacy.detect.marks import wrong

FOUND = [
    "geb. am [[date_of_birth:3. März 1978]]",
    "*[[date_of_birth:03.03.1978]] in Ulm",
    "(* [[date_of_birth:12. Mai 1960]])",
    "Anna Koch (*[[date_of_birth:1978]])",
    "Geburtsdatum: [[date_of_birth:12.05.1960]]",
    "geboren [[date_of_birth:1978]]",
    "Jahrgang [[date_of_birth:1978]]",
    "am [[date_of_birth:3.3.1978]] geboren",
    "born on [[date_of_birth:March 3rd, 1978]]",
    "DOB: [[date_of_birth:1978-03-03]]",
    "date of birth [[date_of_birth:03/04/1978]]",
    "Geburtstag: [[date_of_birth:1.1.80]]",
    "Schreiben vom [[date:12.03.2024]]",
    "x,37,[[date:17.11.1989]],[[date:1947-01-04]],y",
    "am [[date:dritten vierten neunzehnhundertachtzig]]",
    "am [[date:12.5.]] um 10 Uhr",
    "am [[date:1. März]]",
    "am [[date:dritten Oktober]]",
    "seit dem [[date:dritten März neunzehnhundertachtzig]]",
    "on [[date:15 May 2020]] and [[date:May 16, 2020]]",
    "on [[date:12/31/2020]], [[date:2020-12-31]]",
    "by the [[date:twenty-first of May]]",
    "Sie ist [[age:34]] Jahre alt.",
    "die [[age:34]]-jährige Kundin",
    "ein [[age:58]]jähriger Mann",
    "aged [[age:34]]",
    "she is [[age:88]] and lives alone",
    "a [[age:62]]-year-old man",
    "[[age:34]] y/o",
    "opa heinz wird [[age:80]]",
    "Alter: [[age:41]]",
    "ihren [[age:60]]. Geburtstag",
    "Anna Müller ([[age:34]])",
    "Elfriede Winter, [[age:91]] Jahre, wohnt allein",
    "ca. [[age:30]] J., nennt sich so",
    "Er ist [[age:vierunddreißig]] Jahre alt.",
]
NONE = [
    "Version 1.2.3 und Kapitel 4.2.",
    "Ziffer 3.2. des Vertrags",
    "um 12.30 Uhr",
    "1.250,00 EUR",
    "Im März war viel los, May be.",
    "Das dauert 3 Jahre.",
    "im Jahr 2024",
    "Das Alter der Anlage ist hoch.",
    "Die Zahl wird 80 Prozent größer.",
    "Faktor 3*4 = 12",
    "* 1999: Erinnerungen",
    "die Geburtenregister bis 1898",
    "Die Firma besteht seit 34 Jahren.",
]


@pytest.mark.parametrize("marked", FOUND)
def test_dates_and_ages_are_found_and_nothing_else_is(tier: Patterns, marked: str) -> None:
    """A date of birth as one; of an age just the number."""
    assert wrong(tier, marked) == []


@pytest.mark.parametrize("text", NONE)
def test_ordinary_text_holds_no_date(tier: Patterns, text: str) -> None:
    """Versions, sections, times, years."""
    assert wrong(tier, text) == []
