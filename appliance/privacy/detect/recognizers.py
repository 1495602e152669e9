"""Presidio's recognizers of German and other European identifiers: their expressions and checksums, called directly.

Presidio's own engine would need a language model, and looks at context through that model's lemmas. Here a recognizer's
context words are looked for in the text around a find. None that asks the network (mail, URL) is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from presidio_analyzer import PatternRecognizer
from presidio_analyzer import predefined_recognizers as presidio

from appliance.privacy.detect.rule import Parts, Set, Window, around, beside_letters, count_digits, has
from appliance.privacy.kinds import Kind, Span

_REACH = 60  # characters before and after in which words tell what it is
_BANK, _TAX, _ID, _REGISTER, _SOCIAL, _HEALTH = (
    Kind.BANK_ACCOUNT, Kind.TAX_ID, Kind.ID_DOCUMENT, Kind.REGISTER, Kind.SOCIAL_SECURITY, Kind.HEALTH_INSURANCE,
)  # fmt: skip

# Recognizer, kind, digits at least, near what it is looked for ("digits", "letters" beside digits, signs of the
# "internet"), and what tells that a find is one if its checksum doesn't: "shape" (it always does), "form" (one that
# Presidio itself scores at 0.5 or more), "checksum" (nothing else), "context" (words around it must).
_TABLE: tuple[tuple[str, Kind, int, str, str], ...] = (
    ("DeTaxIdRecognizer", _TAX, 11, "digits", "checksum"),
    ("DeTaxNumberRecognizer", _TAX, 9, "digits", "form"),
    ("DeSocialSecurityRecognizer", _SOCIAL, 11, "letters", "form"),
    ("DeHealthInsuranceRecognizer", _HEALTH, 9, "letters", "form"),
    ("DePassportRecognizer", _ID, 1, "letters", "checksum"),
    ("DeIdCardRecognizer", _ID, 1, "letters", "checksum"),
    ("DeFuehrerscheinRecognizer", _ID, 8, "letters", "form"),
    ("DeKfzRecognizer", Kind.PLATE, 1, "letters", "context"),
    ("DePlzRecognizer", Kind.POSTCODE, 5, "digits", "context"),
    ("DeHandelsregisterRecognizer", _REGISTER, 1, "letters", "form"),
    ("DeVatIdRecognizer", _REGISTER, 9, "letters", "form"),
    ("DeLanrRecognizer", _REGISTER, 9, "digits", "context"),
    ("DeBsnrRecognizer", _REGISTER, 9, "digits", "context"),
    ("IbanRecognizer", _BANK, 8, "letters", "checksum"),
    ("CreditCardRecognizer", Kind.CARD, 12, "digits", "checksum"),
    ("CryptoRecognizer", _BANK, 3, "letters", "checksum"),
    ("IpRecognizer", Kind.IP, 0, "internet", "form"),
    ("MacAddressRecognizer", Kind.IP, 0, "internet", "form"),
    ("UuidRecognizer", Kind.REFERENCE, 1, "internet", "form"),
    ("NhsRecognizer", _HEALTH, 10, "digits", "context"),
    ("UkNinoRecognizer", _SOCIAL, 6, "letters", "form"),
    ("UkDrivingLicenceRecognizer", _ID, 6, "letters", "form"),
    ("UkPassportRecognizer", _ID, 7, "letters", "context"),
    ("UkPostcodeRecognizer", Kind.POSTCODE, 2, "letters", "shape"),
    ("UkVehicleRegistrationRecognizer", Kind.PLATE, 1, "letters", "context"),
    ("ItFiscalCodeRecognizer", _TAX, 7, "letters", "form"),
    ("ItVatCodeRecognizer", _REGISTER, 11, "digits", "context"),
    ("ItDriverLicenseRecognizer", _ID, 7, "letters", "context"),
    ("EsNifRecognizer", _TAX, 7, "letters", "checksum"),
    ("EsNieRecognizer", _TAX, 7, "letters", "checksum"),
    ("FiPersonalIdentityCodeRecognizer", _SOCIAL, 9, "letters", "checksum"),
    ("PlPeselRecognizer", _SOCIAL, 11, "digits", "context"),
    ("SePersonnummerRecognizer", _SOCIAL, 10, "digits", "context"),
    ("UsSsnRecognizer", _SOCIAL, 9, "digits", "form"),
    ("UsItinRecognizer", _TAX, 9, "digits", "form"),
    ("UsPassportRecognizer", _ID, 8, "digits", "context"),
    ("AbaRoutingRecognizer", _BANK, 9, "digits", "context"),
    ("UsMbiRecognizer", _HEALTH, 4, "letters", "context"),
)

_INTERNET = tuple(  # what is in every address of a machine, and in every UUID
    re.compile(sign)
    for sign in (
        r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",
        r":[0-9A-Fa-f]{0,4}:",
        r"-[0-9A-Fa-f]{2,4}-",
        r"\.[0-9A-Fa-f]{4}\.",
    )
)


@dataclass(frozen=True, slots=True)
class _Recognizer:
    presidio: PatternRecognizer
    name: str
    kind: Kind
    digits: int
    place: str
    tells: str
    forms: tuple[tuple[re.Pattern[str], float], ...]  # compiled expressions and their scores
    context: Parts

    def find(self, text: str, lower: str, start: int, end: int) -> list[Span]:
        """In that window; `lower` is the text in lower case, whose words may tell that there is one."""
        spans = []
        for form, score in self.forms:
            for match in form.finditer(text, start, end):
                found, (first, last) = match.group(), match.span()
                valid = self.presidio.validate_result(found)
                if self.presidio.invalidate_result(found):
                    valid = False
                if valid is True:
                    spans.append(Span(first, last, self.kind, 1.0 if self.tells != "context" else 0.9, self.name))
                elif self.kind is not Kind.IP and self.is_told(lower, first, last):  # mistyped, perhaps
                    spans.append(Span(first, last, self.kind, max(score, 0.6), self.name))
                elif self.tells == "shape":
                    spans.append(Span(first, last, self.kind, 0.7, self.name))
                elif score >= 0.5 and (valid is None or (self.tells == "form" and self.kind is not Kind.IP)):
                    spans.append(Span(first, last, self.kind, score, self.name))
        return spans

    def is_told(self, lower: str, start: int, end: int) -> bool:
        """Whether the words around there tell."""
        return has(lower[max(start - _REACH, 0) : end + _REACH], self.context.parts)


class Recognizers:
    """Presidio's recognizers, compiled once."""

    def __init__(self) -> None:
        made = [_recognizer(*row) for row in _TABLE]
        self._at = {place: [one for one in made if one.place == place] for place in ("digits", "letters", "internet")}

    def find(self, text: str, lower: str, grams: Set[str], runs: Sequence[Window]) -> Iterator[Span]:
        """`lower` is the text in lower case, as long as the text."""
        yield from self._near(
            text, lower, grams, "digits", (run for run in around(runs, 3, 32) if count_digits(text[slice(*run)]) > 4)
        )
        yield from self._near(text, lower, grams, "letters", around(beside_letters(text, runs), 12, 36))
        for sign in _INTERNET:
            if places := [match.span() for match in sign.finditer(text)]:
                yield from self._near(text, lower, grams, "internet", around(places, 40, 40))

    def _near(self, text: str, lower: str, grams: Set[str], place: str, windows: Iterable[Window]) -> Iterator[Span]:
        likely = [one for one in self._at[place] if one.tells != "context" or one.context.may(lower, grams)]
        for start, end in windows:
            digits = count_digits(text[start:end])
            for one in likely:
                if one.digits <= digits and (one.tells != "context" or one.is_told(lower, start, end)):
                    yield from one.find(text, lower, start, end)


def _recognizer(name: str, kind: Kind, digits: int, place: str, tells: str) -> _Recognizer:
    made = getattr(presidio, name)()
    forms = tuple(
        (re.compile(pattern.regex.replace("(?i)", ""), _flags(made, kind)), pattern.score)
        for pattern in made.patterns
        if pattern.score > 0.02
    )
    context = Parts(*(word.lower().strip() for word in made.context or () if len(word.strip()) > 2))
    return _Recognizer(made, name, kind, digits, place, tells, forms, context)


def _flags(made: PatternRecognizer, kind: Kind) -> int:
    flags = int(made.global_regex_flags or 0)
    if kind in (Kind.PLATE, Kind.POSTCODE):  # `bis zu 30` is none
        flags &= ~int(re.IGNORECASE)
    return flags
