"""Presidio's recognizers, called without its engine."""

from __future__ import annotations

import pytest

from appliance.privacy.detect.recognizers import Recognizers
from appliance.privacy.detect.rule import grams_of, lowered, runs_of_digits

RECOGNIZERS = Recognizers()
GERMAN = {
    "DeTaxIdRecognizer": "65929970489",
    "DeTaxNumberRecognizer": "Steuernummer 181/815/08155",
    "DeSocialSecurityRecognizer": "15070649C103",
    "DeHealthInsuranceRecognizer": "A123456780",
    "DePassportRecognizer": "C01X00T41",
    "DeIdCardRecognizer": "L01X00T44",
    "DeFuehrerscheinRecognizer": "Führerschein BO12345678X",
    "DeKfzRecognizer": "Kennzeichen KA PA 777",
    "DePlzRecognizer": "Postleitzahl 80331",
    "DeHandelsregisterRecognizer": "HRB 12345",
    "DeVatIdRecognizer": "DE136695976",
    "DeLanrRecognizer": "LANR 123456601",
    "DeBsnrRecognizer": "BSNR 170048800",
}
OTHERS = {
    "IbanRecognizer": "GB29NWBK60161331926819",
    "CreditCardRecognizer": "4111 1111 1111 1111",
    "IpRecognizer": "192.168.178.23",
    "MacAddressRecognizer": "3c:52:82:aa:10:f7",
    "UuidRecognizer": "123e4567-e89b-12d3-a456-426614174000",
    "NhsRecognizer": "NHS 943 476 5919",
    "UkNinoRecognizer": "AB123456C",
    "UkPostcodeRecognizer": "SW1A 1AA",
    "ItFiscalCodeRecognizer": "RSSMRA85T10A562S",
    "EsNifRecognizer": "12345678Z",
    "FiPersonalIdentityCodeRecognizer": "131052-308T",
    "PlPeselRecognizer": "PESEL 44051401359",
    "UsSsnRecognizer": "SSN 078-05-1121",
}


def sources(text: str) -> set[str]:
    """Who finds something in it."""
    lower = lowered(text)
    return {span.source for span in RECOGNIZERS.find(text, lower, grams_of(lower), runs_of_digits(text))}


@pytest.mark.parametrize(("name", "text"), [*GERMAN.items(), *OTHERS.items()])
def test_each_recognizer_finds_its_own(name: str, text: str) -> None:
    """All thirteen German ones, and others of Europe and America."""
    assert len(GERMAN) == 13
    assert name in sources(f"x {text} y")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("65929970489", "65929970488"), ("GB29NWBK60161331926819", "GB28NWBK60161331926819"), ("12345678Z", "12345678A")],
)
def test_a_wrong_checksum_is_no_find_unless_the_words_around_it_tell(right: str, wrong: str) -> None:
    """Whoever says what it is may have mistyped it."""
    words = {"6": "Steuer-IdNr", "G": "IBAN", "1": "DNI"}[right[0]]
    assert sources(right)
    assert not sources(wrong)
    assert sources(f"{words} {wrong}")


def test_words_that_tell_are_those_near_by() -> None:
    """Not those of another paragraph."""
    assert "DeLanrRecognizer" not in sources(f"LANR {'und so weiter ' * 10} 123456601")
