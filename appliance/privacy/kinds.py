"""What kinds of personal and confidential data there are, and what follows from each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from appliance.core import DataClass


class Kind(StrEnum):
    """What a stretch of text is. These words stand in the audit log and in response headers."""

    PERSON = "person"
    ORGANISATION = "organisation"
    PLACE = "place"
    ADDRESS = "address"
    """A street with or without its number; a postal box."""
    POSTCODE = "postcode"
    EMAIL = "email"
    PHONE = "phone"
    URL = "url"
    """Also names of hosts, and handles such as @anna."""
    IP = "ip"
    BANK_ACCOUNT = "bank_account"
    CARD = "card"
    TAX_ID = "tax_id"
    SOCIAL_SECURITY = "social_security"
    HEALTH_INSURANCE = "health_insurance"
    ID_DOCUMENT = "id_document"
    """Passport, identity card, driving licence, residence permit."""
    PLATE = "plate"
    REGISTER = "register"
    """Commercial register, VAT and physicians' numbers: of whoever trades under a name."""
    REFERENCE = "reference"
    """Customer, contract, file, patient and other numbers by which somebody can be looked up."""
    DATE_OF_BIRTH = "date_of_birth"
    DATE = "date"
    AGE = "age"
    CLIENT = "client"
    EMPLOYEE = "employee"
    PROJECT = "project"
    """The last three: from the site's own lists."""
    WORD = "word"
    """A word that nobody knows: it might be a name."""
    SECRET = "secret"  # noqa: S105 - no secret
    """Password, key, token. Whatever holds one stays in the house."""


class Treatment(NamedTuple):
    """What follows from a find."""

    stem: str
    """Of the placeholder: `Klient` gives `Klient_001`."""
    raises: DataClass
    """The least class of a request in which it is found."""


_P, _C, _I = DataClass.PERSONAL, DataClass.CONFIDENTIAL, DataClass.INTERNAL

TREATMENTS: dict[Kind, Treatment] = {
    Kind.PERSON: Treatment("Klient", _P),
    Kind.CLIENT: Treatment("Klient", _P),
    Kind.EMPLOYEE: Treatment("Klient", _P),
    Kind.ORGANISATION: Treatment("Firma", _C),
    Kind.PLACE: Treatment("Ort", _I),
    Kind.ADDRESS: Treatment("Adresse", _P),
    Kind.POSTCODE: Treatment("Ort", _I),
    Kind.PROJECT: Treatment("Projekt", _C),
    Kind.DATE: Treatment("Datum", _I),
    Kind.DATE_OF_BIRTH: Treatment("Datum", _P),
    Kind.AGE: Treatment("Alter", _I),
    Kind.WORD: Treatment("Wort", _I),
    Kind.URL: Treatment("Kennung", _I),
    Kind.IP: Treatment("Kennung", _I),
    Kind.REGISTER: Treatment("Kennung", _C),
    **{
        kind: Treatment("Kennung", _P)
        for kind in (
            Kind.EMAIL, Kind.PHONE, Kind.BANK_ACCOUNT, Kind.CARD, Kind.TAX_ID, Kind.SOCIAL_SECURITY,
            Kind.HEALTH_INSURANCE, Kind.ID_DOCUMENT, Kind.PLATE, Kind.REFERENCE,
        )
    },
    Kind.SECRET: Treatment("Kennung", _C),
}  # fmt: skip
STEMS = tuple(sorted({treatment.stem for treatment in TREATMENTS.values()}))


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A find: characters `start` to `end` of a text (Python's indices), and how sure the detector is, 0 to 1."""

    start: int
    end: int
    kind: Kind
    score: float = 1.0
    source: str = ""
    """The detector's name, for explanations and measurements."""
