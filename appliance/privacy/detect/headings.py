"""What the heading of a column, or the key of a record, says of the values that belong to it."""

from __future__ import annotations

import re
from typing import NamedTuple

from appliance.privacy.detect import labels
from appliance.privacy.detect.rule import count_digits, words
from appliance.privacy.detect.tokens import BLANK
from appliance.privacy.kinds import Kind


class Heading(NamedTuple):
    """What the values are."""

    kind: Kind
    alone: bool
    """It says so without another such heading beside it."""


_LONGEST = 48
_SURE: dict[Kind, frozenset[str]] = {  # the first of them that one of a heading's words belongs to is its kind
    Kind.SECRET: words("passwort kennwort password passwd passphrase passwörter"),
    Kind.EMAIL: words("email mail emails mailadresse emailadresse"),
    Kind.DATE_OF_BIRTH: words("geburtsdatum geburtstag geburtstage gebdatum geb geboren dob birth birthdate birthday "
                              "born birthdates"),
    Kind.ADDRESS: words("straße strasse str anschrift adresse wohnanschrift hausanschrift postanschrift meldeadresse "
                        "lieferadresse lieferanschrift rechnungsadresse rechnungsanschrift wohnadresse privatadresse "
                        "postfach street address straßenname"),
    Kind.PLACE: words("wohnort geburtsort wohnsitz birthplace hometown geburtsland"),
    Kind.POSTCODE: words("plz postleitzahl postcode zip zipcode"),
    Kind.ORGANISATION: words("firma firmenname arbeitgeber unternehmen company employer lieferant auftraggeber kanzlei "
                             "unternehmensname companyname supplier vendor"),
    Kind.URL: words("benutzername nutzername benutzer username login userid handle"),
    Kind.PERSON: words("""nachname nachnamen vorname vornamen familienname zuname geburtsname mädchenname rufname
        kundenname mandantenname patientenname mitarbeitername klientenname personenname kontaktname schülername
        kunde kunden mandant mandanten patient patienten klient klienten ansprechpartner kontaktperson sachbearbeiter
        bearbeiter mitarbeiter mitarbeitende mitarbeitender kollege teilnehmer bewerber schüler betreuer ehepartner
        ehegatte ehefrau ehemann mieter vermieter eigentümer käufer verkäufer zeuge fahrer halter inhaber kontoinhaber
        versicherter versicherte versicherungsnehmer schuldner gläubiger erblasser empfänger absender zuständig
        gegner angehörige angehöriger notfallkontakt hausarzt vorgesetzter vorgesetzte auszubildender antragsteller
        surname lastname firstname forename fullname employee customer client tenant applicant insured policyholder
        payee spouse guardian student attendee candidate debtor"""),
}  # fmt: skip
_MAYBE: dict[Kind, frozenset[str]] = {
    Kind.PERSON: words("name namen names person personen contact kontakt member owner manager"),
    Kind.PLACE: words("ort stadt town city place wohngemeinde"),
    Kind.AGE: words("alter age lebensalter"),
}
_NAMING = words("first last family given full middle maiden sur")
_NUMBERED = words("nr nummer no number id kennung zeichen num")
_BARE = _NUMBERED | words("code") - {"id"}
_OTHER = words("""anzahl zahl umsatz seit kosten status typ art gruppe segment preis betrag menge summe quote
    zufriedenheit ip mac web internet count since type group rating total price amount revenue size größe produkt
    artikel datei feld spalte server host product file field column""")
_WITH_NAME = words("der des die und of the and oder or im laut ggf")
"""Words in a heading that leave a word of `_MAYBE` what it is."""

_CAMEL = re.compile(r"(?<=[a-zäöüß])(?=[A-ZÄÖÜ])")
_WORD = re.compile(r"[a-zäöüß]+")


def heading(label: str) -> Heading | None:
    """Of `Nachname`, `first_name`, `Kunden-Nr.`, `Name of company`; None where the values are nobody's."""
    label = label.strip()
    if not 1 < len(label) <= _LONGEST:
        return None
    lower = _CAMEL.sub(" ", label).lower().replace("e-mail", "email").replace("place of birth", "birthplace")
    parts = _WORD.findall(lower)
    if not 0 < len(parts) <= 6 or not _OTHER.isdisjoint(parts):
        return None
    kind = next((kind for kind, of in _SURE.items() if any(_belongs(part, of) for part in parts)), None)
    if kind is not None and (kind is not Kind.PERSON or _NUMBERED.isdisjoint(parts)):
        return Heading(kind, alone=True)
    if _BARE.issuperset(parts):
        return None
    if (number := labels.told(label)) is not None:
        return Heading(number, alone=parts != ["id"])
    for kind, of in _MAYBE.items():
        known = [part for part in parts if part in of]
        if known and all(part in of or part in _WITH_NAME or part in _NAMING for part in parts):
            return Heading(kind, alone=not _NAMING.isdisjoint(parts))
    return None


def personal(headings: list[Heading | None]) -> bool:
    """Whether a table with these is about people: one of them says so alone, or two together."""
    kinds = {each.kind for each in headings if each is not None}
    return len(kinds) > 1 or any(each is not None and each.alone for each in headings)


def _belongs(part: str, of: frozenset[str]) -> bool:
    return part in of or (part.endswith("in") and part[:-2] in of)


_NOTHING = words("""n/a na k.a ka unbekannt unknown none null nil leer empty keine keiner kein ja nein yes no offen tbd
    nan n.n nn siehe oben dito divers sonstige alle gesamt summe total str string int integer bool boolean text varchar
    date true false undefined required optional float number object any self ok x""")  # fmt: skip
_LETTERS = re.compile(r"[^\W\d_]")
_AGE = re.compile(r"(?:1[0-2]\d|\d{1,2})(?: ?(?:J\.?|Jahre?|years?|yrs?))?")
_POSTCODE = re.compile(r"(?:[A-Z]{1,2}-)?\d{4,5}(?:-\d{4})?|[A-Z]{1,2}\d[\dA-Z]? ?\d[A-Z]{2}", re.I)
_ORDINAL_ONLY = re.compile(r"(?!(?:19|20)\d\d\Z)\d{4,}")
_AMOUNT = re.compile(r"[-+]?\d{1,3}(?:[. ]\d{3})*(?:,\d{1,2}|,-+)?(?: ?(?:€|EUR|USD|CHF|%))|[-+]?[\d.]+,\d\d")
_DATE = re.compile(r"\d[\w. /,-]{1,28}|[A-Za-zä]{3,9}\.? [\w. ,]{1,20}")
_NAME = re.compile(r"(?!.*\w\.\w{2})[^\W\d_][\w .,'’()&/+-]*")
_STREET = re.compile(r"(?=.*[^\W\d_]{3})(?!0x)[\w .,'’()/+-]+")
_WITHOUT_DIGITS = re.compile(r"[^\d]*")
_PASSWORD = re.compile(r"(?=\S*[\d!$%&#*?_+-])\S{6,64}")


def told(kind: Kind, value: str) -> Kind | None:
    """What a value under a heading of that kind is: that kind mostly; None for what is no such value."""
    if len(value) > 80 or BLANK in value or value.lower().strip(" .:") in _NOTHING or _AMOUNT.fullmatch(value):
        return None
    count = value.count(" ") + 1
    fits: object
    match kind:
        case Kind.PERSON:
            if _ORDINAL_ONLY.fullmatch(value):
                return Kind.REFERENCE
            fits = _NAME.fullmatch(value) and _WITHOUT_DIGITS.fullmatch(value) and len(value) > 1 and count <= 6
        case Kind.ORGANISATION:
            fits = _LETTERS.search(value) and count <= 8
        case Kind.PLACE:
            fits = _NAME.fullmatch(value.lstrip("0123456789 ")) and count <= 5
        case Kind.ADDRESS:
            fits = _STREET.fullmatch(value) and count <= 10
        case Kind.AGE:
            fits = _AGE.fullmatch(value)
        case Kind.DATE_OF_BIRTH:
            fits = _DATE.fullmatch(value) and count_digits(value)
        case Kind.POSTCODE:
            fits = _POSTCODE.fullmatch(value)
        case Kind.EMAIL:
            fits = "@" in value or (count == 1 and "." in value)
        case Kind.URL:
            fits = count == 1 and len(value) > 2 and _LETTERS.search(value)
        case Kind.SECRET:
            fits = _PASSWORD.fullmatch(value)
        case Kind.BANK_ACCOUNT:
            fits = count_digits(value) >= 6
        case _:
            digits = count_digits(value)
            fits = count <= 8 and (digits > 2 or (digits and count == 1 and _LETTERS.search(value)))
    return kind if fits else None
