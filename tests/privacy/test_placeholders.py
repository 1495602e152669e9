"""What would be taken for a placeholder is found, so that a caller's own text can't come back as somebody."""

from __future__ import annotations

import pytest
from hypothesis import given

from appliance.privacy.placeholders import find
from appliance.privacy.restore import Restorer
from tests.privacy.test_restore import TEXTS


def spellings(text: str) -> list[str]:
    return [text[found.start : found.end] for found in find(text)]


def test_all_spellings_are_found() -> None:
    text = "Klient_001s KLIENT\\_002, Ort 003 und Firma-0045, Wort_6, Datum001 Alter\u00a0030; StandOrt_001"
    assert spellings(text) == [
        "Klient_001", "KLIENT\\_002", "Ort 003", "Wort_6", "Datum001", "Alter\u00a0030", "Ort_001",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["Ort 1", "Datum 2024", "im Alter 30", "Antwort_001", "STANDORT_001", "Klient_", "Klient 0"]
)
def test_ordinary_text_is_not(text: str) -> None:
    assert spellings(text) == []


@given(TEXTS)
def test_what_is_not_found_is_not_replaced(text: str) -> None:
    restorer = Restorer({f"{found.stem}_{found.digits}": "somebody" for found in find(text)})
    restorer.feed("0", text)
    restorer.finish("0")
    assert restorer.restored + restorer.unknown == len(spellings(text))
