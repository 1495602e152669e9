"""People who don't exist, with all that an office knows of them. Nothing here is anybody's: it is drawn by chance."""

from __future__ import annotations

import random
import re
import string
import unicodedata
from calendar import month_name
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from appliance.privacy.kinds import Kind

_NAMES = Path(__file__).parent / "names"
_UMLAUTS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ø": "o", "ı": "i"}
)
_WRONG = 0.15
"""Share of identifiers whose checksum is wrong, as somebody mistyped them."""

_STREETS = {
    "de": """Ahornweg Albrechtstraße Alte_Landstraße Am_Bahndamm Am_Mühlenteich Amselstieg An_der_Kirche Auf_dem_Brink
        Bachstraße Beethovenring Bergmannsweg Birkenhain Bleicherstraße Bremer_Straße Brunnengasse Buchenweg Deichkamp
        Dorfstraße Drosselweg Eichenallee Erlengrund Fabrikstraße Feldstr. Fliederweg Friedhofstr. Goethestr. Hafenstr.
        Hafenpromenade Hauptstr. Heideweg Hinter_den_Höfen Hohe_Straße Im_Winkel Industriestr. Jahnstraße Kaiserdamm
        Kastanienallee Kiefernweg Klosterplatz Lerchenfeld Lessingstraße Lindenstr. Marktstraße
        Mittelweg Mozartstr. Mühlendamm Neue_Straße Neuer_Weg Obere_Gasse Ostring Parkallee Pappelweg Quellenhof
        Rathausplatz Ringstr. Rosenweg Sandkuhle Schillerstraße Schlossallee Schulweg Südring Talstraße Tannenweg
        Uferweg Veilchenweg Waldstr. Weidendamm Wiesengrund Ziegeleistraße Zum_Alten_Forsthaus""",
    "en": """Acacia_Avenue Albert_Road Beech_Close Bridge_Street Broadway Canal_Street Castle_Hill Chapel_Row
        Church_Lane Clarence_Square Cross_Street Elm_Road Ferry_Lane Foundry_Street Grange_Road Harbour_View
        High_Street Highfield_Road Kingsway Lime_Walk Main_Street Manor_Way Maple_Drive Market_Place Meadow_Rise
        Mill_Lane Northgate Oak_Crescent Orchard_Road Pine_Court Priory_Gardens Quay_Street Queens_Road
        Regent_Street School_Lane Spring_Gardens Station_Road The_Green The_Mews Victoria_Terrace Waterside""",
}
_PLACES = {
    "de": """Aurich Bautzen Bielefeld Celle Detmold Eisenach Flensburg Görlitz Hameln Itzehoe Jena Kempten Landshut
        Meppen Northeim Offenburg Passau Quedlinburg Rheine Schwäbisch_Hall Tübingen Uelzen Verden Wismar Zwickau""",
    "en": """Aberystwyth Barnsley Chester Dundee Exeter Galway Harrogate Ipswich Kendal Ludlow Macclesfield Norwich
        Peterborough Ripon Shrewsbury Taunton Whitby Yeovil Albany Boise Duluth Tucson Savannah""",
}
_FIRMS = {
    "de": "{} GmbH;{} & Partner mbB;Autohaus {};Kanzlei {};{} Maschinenbau AG;Praxis {};Spedition {} e.K.;{} und Söhne",
    "en": "{} Ltd;{} & Sons;{} Consulting LLP;The {} Group;{} Dental Practice;{} Logistics Inc.",
}
_HOSTS = ("posteo.example", "firma.local", "mailbox.test", "nordkontor.example", "web-post.example", "kanzlei.intern")


def _listed(file: str) -> tuple[str, ...]:
    return tuple(name.replace("_", " ") for name in dict.fromkeys((_NAMES / file).read_text("utf-8").split()))


class Registry:
    """Names of varied origin, of which many are ordinary words: Lange, Weiß, Koch, Rose, Will."""

    def __init__(self) -> None:
        self.first = _listed("first.txt")
        self.last = _listed("last.txt")
        texts = [*_STREETS.values(), *_PLACES.values(), *_FIRMS.values(), *_HOSTS]
        self.words = frozenset(word.lower() for text in texts for word in re.findall(r"[^\W\d_]+", text))
        """Of streets, places and firms, which bear no name of these but as their owner's."""


@dataclass(frozen=True)
class Person:
    """Somebody. Each attribute is drawn once and stays."""

    first: str
    last: str
    language: str
    seed: int

    @cached_property
    def _chance(self) -> random.Random:
        return random.Random(self.seed)  # noqa: S311 - invented people, no secret

    def _digits(self, count: int) -> str:
        return str(self._chance.randint(1, 9)) + "".join(self._chance.choices(string.digits, k=count - 1))

    def _one(self, listed: str, by: str | None = None) -> str:
        return self._chance.choice(listed.split(by)).replace("_", " ")

    def _checked(self, digit: str) -> str:
        """The check digit, or another now and then."""
        return digit if self._chance.random() > _WRONG else str((int(digit) + 3) % 10)

    @cached_property
    def full(self) -> str:
        """First name and last name."""
        return f"{self.first} {self.last}"

    @cached_property
    def listed(self) -> str:
        """As in a file: the last name first."""
        return f"{self.last}, {self.first}"

    @cached_property
    def capitals(self) -> str:
        """The last name as in a form that wants capitals."""
        return self.last.upper()

    @cached_property
    def email(self) -> str:
        """An address of theirs, at a host that isn't there."""
        first, last = (_plain(name) for name in (self.first, self.last))
        local = self._chance.choice([f"{first}.{last}", f"{first[0]}.{last}", f"{last}{self._digits(2)}"])
        return f"{local}@{self._chance.choice(_HOSTS)}"

    @cached_property
    def phone(self) -> str:
        """A number in one of many ways of writing."""
        area, number = self._digits(3), self._digits(7)
        if self.language == "en":
            forms = [
                f"+44 7{area} {number[:6]}",
                f"0{area}{self._digits(1)} {number[:6]}",
                f"({area}) 555-{number[:4]}",
            ]
        else:
            forms = [
                f"0{area}{self._digits(1)}/{number[:6]}", f"+49 {area} {number}", f"0151 {number[:4]} {number[3:]}",
                f"0049-{area}-{number}", f"0{area} {number[:2]} {number[2:4]} {number[4:6]}",
            ]  # fmt: skip
        return self._chance.choice(forms)

    @cached_property
    def address(self) -> str:
        """Street and number, as the language writes them."""
        street, number = self._one(_STREETS[self.language]), str(self._chance.randint(1, 180))
        return (
            f"{number} {street}" if self.language == "en" else f"{street} {number}{self._chance.choice(['', '', 'a'])}"
        )

    @cached_property
    def postcode(self) -> str:
        """Five digits, or a British one."""
        if self.language == "en":
            return f"{self._one('YO LS EX NR SY TA')}{self._chance.randint(1, 28)} {self._chance.randint(1, 9)}QX"
        return f"{self._chance.randint(1067, 99998):05d}"

    @cached_property
    def place(self) -> str:
        """Where they live."""
        return self._one(_PLACES[self.language])

    @cached_property
    def age(self) -> str:
        """In years."""
        return str(self._chance.randint(19, 94))

    @cached_property
    def born(self) -> str:
        """The date of birth, in one of many ways of writing."""
        day, month, year = self._chance.randint(1, 28), self._chance.randint(1, 12), 2026 - int(self.age)
        if self.language == "en":
            return self._chance.choice([f"{day} {month_name[month]} {year}", f"{day:02d}/{month:02d}/{year}"])
        return self._chance.choice(
            [f"{day:02d}.{month:02d}.{year}", f"{day}.{month}.{year}", f"{year}-{month:02d}-{day:02d}"]
        )

    @cached_property
    def iban(self) -> str:
        """German or British, in groups or in one."""
        account, country = ("NWBK" + self._digits(14), "GB") if self.language == "en" else (self._digits(18), "DE")
        number = int("".join(str(int(letter, 36)) for letter in account + country) + "00")
        check = f"{98 - number % 97:02d}"
        whole = country + check[0] + self._checked(check[1]) + account
        return " ".join(whole[at : at + 4] for at in range(0, 22, 4)) if self._chance.random() < 0.6 else whole

    @cached_property
    def card(self) -> str:
        """A card's number."""
        digits = "4" + self._digits(14)
        total = sum(sum(divmod(int(digit) * (2 - at % 2), 10)) for at, digit in enumerate(digits))
        whole = digits + self._checked(str(-total % 10))
        return " ".join(whole[at : at + 4] for at in range(0, 16, 4))

    @cached_property
    def tax(self) -> str:
        """German tax identification number: ten digits of which one comes twice, and a check digit."""
        digits = self._chance.sample(string.digits, 9)
        digits.append(self._chance.choice(digits))
        while True:
            self._chance.shuffle(digits)
            if digits[0] != "0":
                break
        product = 10
        for digit in digits:
            product = ((int(digit) + product) % 10 or 10) * 2 % 11
        whole = "".join(digits) + self._checked(str((11 - product) % 10))
        return f"{whole[:2]} {whole[2:5]} {whole[5:8]} {whole[8:]}" if self._chance.random() < 0.5 else whole

    @cached_property
    def social(self) -> str:
        """German social security number, or a British National Insurance number."""
        if self.language == "en":
            pairs = " ".join(self._digits(2) for _ in range(3))
            return f"{self._one('AB CE EH GL JG LR NM PX SN TW')} {pairs} {self._one('A B C D')}"
        letter, day, month = _plain(self.last)[0].upper(), self._chance.randint(1, 28), self._chance.randint(1, 12)
        head = f"{self._chance.randint(10, 29)}{day:02d}{month:02d}{(2026 - int(self.age)) % 100:02d}"
        serial = f"{self._chance.randint(0, 99):02d}"
        digits = f"{head}{ord(letter) - 64:02d}{serial}"
        total = sum(
            sum(divmod(int(d) * w, 10)) for d, w in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=True)
        )
        return f"{head} {letter} {serial}{self._checked(str(total % 10))}".replace(" ", self._chance.choice(["", " "]))

    @cached_property
    def health(self) -> str:
        """German health insurance number, or an NHS number."""
        if self.language == "en":
            return f"{self._digits(3)} {self._digits(3)} {self._digits(4)}"
        letter, digits = _plain(self.last)[0].upper(), self._digits(8)
        total = sum(sum(divmod(int(d) * (1 + at % 2), 10)) for at, d in enumerate(f"{ord(letter) - 64:02d}{digits}"))
        return letter + digits + self._checked(str(total % 10))

    @cached_property
    def passport(self) -> str:
        """The number of a passport or an identity card."""
        return (
            self._one("C G L H") + "".join(self._chance.choices("CFGHJKLMNPRTVWXYZ0123456789", k=7)) + self._digits(1)
        )

    @cached_property
    def plate(self) -> str:
        """Of a car."""
        if self.language == "en":
            return f"{self._one('YK LB SX')}{self._chance.randint(51, 73)} {self._one('RTB KLM WVX OPJ')}"
        return f"{self._one('CE HI UE B HH WHV GÖ')}-{self._one('AB KT M XY RS')} {self._chance.randint(10, 9999)}"

    @cached_property
    def reference(self) -> str:
        """A number under which they are kept on file."""
        number = self._digits(6)
        return self._chance.choice(
            [f"KD-{number}", f"2024/{number}", f"V{number}9", f"M-{number[:3]}.{number[3:]}", f"7{number}2"]
        )

    @cached_property
    def handle(self) -> str:
        """Of a chat or a network."""
        return f"@{_plain(self.first)}_{_plain(self.last)}"

    @cached_property
    def firm(self) -> str:
        """A company that bears their name."""
        return self._one(_FIRMS[self.language], ";").format(self.last)


KINDS = {
    "full": Kind.PERSON, "first": Kind.PERSON, "last": Kind.PERSON, "listed": Kind.PERSON, "capitals": Kind.PERSON,
    "email": Kind.EMAIL, "phone": Kind.PHONE, "address": Kind.ADDRESS, "postcode": Kind.POSTCODE, "place": Kind.PLACE,
    "age": Kind.AGE, "born": Kind.DATE_OF_BIRTH, "iban": Kind.BANK_ACCOUNT, "card": Kind.CARD, "tax": Kind.TAX_ID,
    "social": Kind.SOCIAL_SECURITY, "health": Kind.HEALTH_INSURANCE, "passport": Kind.ID_DOCUMENT,
    "plate": Kind.PLATE, "reference": Kind.REFERENCE, "handle": Kind.URL, "firm": Kind.ORGANISATION,
}  # fmt: skip
"""What each attribute of a person is."""


def _plain(name: str) -> str:
    """Lower-case ASCII letters only, as in addresses."""
    folded = unicodedata.normalize("NFKD", name.translate(_UMLAUTS)).encode("ascii", "ignore").decode()
    return "".join(filter(str.isalpha, folded)).lower()
