"""Who is who: which spellings of names mean one person."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from appliance.privacy.spelling import clean, spaced, words, written_out

_TITLE = re.compile(
    r"(?:(?:(?:sehr\s+geehrte[rn]?|liebe[rn]?|hallo|dear)\s+)?(?:herrn?|frau|fr\.|hr\.|familie|fam\.|mr\.?|mrs\.?|ms\.?|miss|sir|"
    r"madam|dr\.|dres\.|prof(?:\.|essor(?:in)?)|doktor|med\.|jur\.|phil\.|rer\.\s*nat\.|dipl\.-\w+\.?|ing\.|mag\.|"
    r"rechtsanw(?:alt|ältin)|(?-i:RA(?:in)?)|notar(?:in)?|steuerberater(?:in)?)(?:\s+|(?<=\.)))+",
    re.IGNORECASE,
)
_HE = re.compile(r"\b(?:herrn?|hr\.|mr\.?|sir)\s+(?:[^\s.]+\.\s*)*\Z", re.IGNORECASE)
_SHE = re.compile(r"\b(?:frau|fr\.|mrs\.?|ms\.?|miss|madam)\s+(?:[^\s.]+\.\s*)*\Z", re.IGNORECASE)
_PARTICLES = frozenset(
    [
        "von",
        "vom",
        "van",
        "der",
        "den",
        "de",
        "del",
        "della",
        "di",
        "da",
        "dos",
        "du",
        "la",
        "le",
        "zu",
        "zur",
        "zum",
        "und",
        "y",
        "bin",
        "ibn",
        "al",
        "el",
        "ten",
        "ter",
    ]
)
_LEGAL_FORMS = frozenset(
    [
        "gmbh",
        "ag",
        "kg",
        "ohg",
        "ug",
        "gbr",
        "eg",
        "ev",
        "se",
        "kgaa",
        "mbh",
        "mbb",
        "ltd",
        "limited",
        "inc",
        "llc",
        "llp",
        "plc",
        "corp",
        "sa",
        "sarl",
        "bv",
        "nv",
        "spa",
        "srl",
        "stiftung",
        "verein",
    ]
)


_PUNCTUATION = ".,:;!?'’\"()[]{}<>|/*-–"
_INITIAL = 2
"""Characters of an initial, with its dot."""


class Name(NamedTuple):
    """A person's name in parts, each spelt in one way."""

    given: str
    """The first of the given names; one letter where it is an initial; may be empty."""
    family: str
    """Where there is only one name, that one."""
    sex: str
    """`m` or `f` where a title in front says so."""


@dataclass(slots=True)
class _Person:
    given: str
    sex: str


def without_title(surface: str) -> int:
    """How many characters of titles a name begins with; all, where it is nothing else."""
    match = _TITLE.match(f"{surface} ")
    return min(match.end(), len(surface)) if match else 0


def is_firm(surface: str) -> bool:
    """Whether a name ends as firms' names do."""
    return _spelt(surface.split()[-1]) in _LEGAL_FORMS


def parse(surface: str, before: str = "") -> Name:
    """`before` is what stands in front of it in the text."""
    sex = "m" if _HE.search(before) else "f" if _SHE.search(before) else ""
    surface = clean(surface)
    family_first = re.match(r"([^,]+),\s*(\S.*)", surface, re.DOTALL)
    if family_first:
        return Name(_spelt(family_first[2].split()[0]), _spelt(family_first[1].split()[-1]), sex)
    names = [spelt for piece in _pieces(surface) if (spelt := _spelt(piece))]
    if len(names) < 2:
        return Name("", "".join(names), sex)
    return Name(names[0] if names[0] not in _PARTICLES else "", names[-1], sex)


def parts(surface: str) -> list[str]:
    """Each name in a person's name, as written, but for initials, particles and titles."""
    pieces = (piece.strip(_PUNCTUATION) for piece in _pieces(surface) if not _TITLE.fullmatch(f"{piece} "))
    return [piece for piece in pieces if len(_spelt(piece)) > _INITIAL and _spelt(piece) not in _PARTICLES]


def _pieces(surface: str) -> list[str]:
    pieces = re.split(r"[\s_]+", surface)
    if len(pieces) == 1 and surface[:1].islower():
        return [piece for _, piece in spaced(surface)]  # annaMueller
    if max(map(len, pieces)) == 1:  # M ü l l e r
        return ["".join(pieces)]
    return pieces


def _spelt(piece: str) -> str:
    """Whatever stands between its letters."""
    return "".join(written_out(piece[word.start : word.end]) for word in words(piece))


class Persons:
    """All people of a conversation, known once every mention was seen."""

    def __init__(self, names: Iterable[Name]) -> None:
        self._by_family: dict[str, list[_Person]] = {}
        # whole names first: an initial alone, or none, can then be told whose it is
        for name in sorted(names, key=lambda name: -min(len(name.given), 2)):
            people = self._by_family.setdefault(name.family, [])
            match = [person for person in people if _same(person, name)]
            if len(match) == 1:
                match[0].sex = match[0].sex or name.sex
            elif not match or name.given:
                people.append(_Person(name.given, name.sex))

    def key(self, name: Name) -> tuple[str, str, str]:
        """The same for names that surely mean the same person, and another for all others."""
        match = [person for person in self._by_family.get(name.family, ()) if _same(person, name)]
        if len(match) == 1:
            return name.family, match[0].given, match[0].sex if not match[0].given else ""
        return name.family, name.given, "?" + name.sex


def _same(person: _Person, name: Name) -> bool:
    if person.sex and name.sex and person.sex != name.sex:
        return False
    if len(name.given) <= 1 or len(person.given) <= 1:
        return not name.given or not person.given or person.given[0] == name.given[0]
    return person.given == name.given
