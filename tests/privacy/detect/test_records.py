"""Names behind a key."""

from __future__ import annotations

import pytest

from appliance.privacy.detect import records
from tests.privacy.detect.marks import unmarked

FOUND = [
    'Hier: {"nachname": "[[person:ziegenbein]]", "arbeitgeber": "[[organisation:Rich und Söhne]]", "alter": 81}',
    "Arbeitgeber: [[organisation:Sommer und Söhne]]\nVorname ...... [[person:wanja]]",
    "last_name=[[person:will]]",
    "- **Wohnort:** [[place:Bad Soden]]",
    '{"customer": "[[person:price, ann]]", "firstName": null}',
]
NONE = [
    "Kunde: Ich bin unzufrieden.\nMitarbeiter: Das tut mir leid.",
    "Vorname: bitte noch nachtragen",
    'def create(first_name: str, last_name: str = "") -> Person:\n    surname = person.surname',
    '{"name": "create_contact", "type": "string", "first_name": {"type": "string"}}',
    "Nachname: ▯▯▯▯▯▯▯▯▯▯",
    "Dateiname: bericht.pdf, Anzahl Kunden: viele",
]


@pytest.mark.parametrize("marked", FOUND)
def test_a_value_is_what_its_key_says(marked: str) -> None:
    text, marks = unmarked(marked)
    assert [(span.start, span.end, span.kind) for span in records.find(text)] == marks


@pytest.mark.parametrize("text", NONE)
def test_talk_and_code_hold_no_records(text: str) -> None:
    assert list(records.find(text)) == []
