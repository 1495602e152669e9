"""How an entry is read: as somebody with given names and a surname, or as a name of something. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.privacy.kinds import Kind
from appliance.privacy.site.entry import SiteEntry
from appliance.privacy.site.forms import TOKEN, folded, lowered, spellings, tokens, undotted

TITLES = frozenset({
    "herr", "herrn", "herren", "frau", "frauen", "hr", "hrn", "fr", "fraeulein", "dr", "prof", "professor", "dipl",
    "ing", "mag", "familie", "fam", "eheleute", "ehepaar", "mr", "mrs", "ms", "miss", "sir", "madame", "monsieur",
    "mandant", "mandantin", "klient", "klientin", "kunde", "kundin", "patient", "patientin", "kollege", "kollegin",
    "kollegen", "mitarbeiter", "mitarbeiterin", "rechtsanwalt", "rechtsanwaeltin", "steuerberater", "steuerberaterin",
    "notar", "notarin", "firma", "fa", "projekt", "project",
})  # fmt: skip
"""What stands before a name and says that it is one."""
_IN_FRONT = TITLES - {"projekt", "project"} | {"med", "jur", "phil", "rer", "nat", "habil", "hc"}
PARTICLES = frozenset({
    "von", "v", "vom", "van", "zu", "zum", "zur", "de", "del", "d", "della", "der", "den", "di", "da", "dos", "du",
    "la", "le", "ten", "ter", "af", "av", "al", "el", "bin", "ibn", "y",
})  # fmt: skip
ARTICLES = frozenset({"der", "den", "la", "le", "el", "al"})
"""Those of them that stand before other words, too."""
JOINING = frozenset({"und", "u", "and"})
"""What an ampersand is read as."""
_LEGAL = (
    "gmbh", "ggmbh", "mbh", "ag", "kg", "kgaa", "ohg", "gbr", "ug", "haftungsbeschraenkt", "se", "eg", "ev", "ek",
    "ewiv", "partg", "partgmbb", "mbb", "co", "cokg", "compagnie", "cie", "ltd", "limited", "inc", "corp",
    "corporation", "llc", "llp", "lp", "plc", "sa", "sarl", "sas", "spa", "srl", "bv", "nv", "aps", "oy", "oyj", "ab",
    "gesellschaft", "aktiengesellschaft", "kommanditgesellschaft", "stiftung", "e v", "e k", "e kfm", "e kfr", "e g",
    "s a", "s a s", "s p a", "s r l", "s a r l", "b v", "n v", "a s",
)  # fmt: skip
LEGAL_WORDS = frozenset(word for form in _LEGAL for word in form.split())
LEGAL = re.compile(rf"(?: (?:{'|'.join(_LEGAL)}))+$")
"""The legal form at the end of folded words with a space before each."""
_SAYS_NOTHING = TITLES | _IN_FRONT | PARTICLES | JOINING | LEGAL_WORDS
"""Words of which no name consists alone."""
_AND = re.compile(r"(?<!von)\s+(?:und|u\.|&|\+)\s+")
_LIKE_A_NAME = re.compile(r"\s[A-Z][a-z]$")
"""Ek and Se are surnames; as legal forms they are written eK and SE."""
_SIGN = re.compile(r"[&+\d]")
_SHORT = 3
"""A single word of so few letters is found in this very case only."""
_NAMES = 2
"""Words of a client's name beyond which it may be something else than a person, too."""
_LETTERS = 5
"""Capitals alone, up to so many, are an abbreviation."""
_LOGIN = 7
"""Letters of a name run together, at least, for it to be looked for."""


@dataclass(slots=True)
class Phrase:
    """Words that a text may hold, and whose they are."""

    words: str
    """Folded, with a space between them."""
    kind: Kind
    given: frozenset[str] | None = None
    """Of a surname: the given names and their initials, folded. None: a name of something, or a whole one."""
    exact: str = ""
    """The one way in which it must be written, if it is that short."""


def phrases(entry: SiteEntry) -> Iterator[Phrase]:
    """All that is to be looked for."""
    for text in (entry.name, *entry.aliases):
        if _SAYS_NOTHING.issuperset(tokens(text)):
            continue
        people = _people(text, entry.kind)
        for person in people:
            yield from _somebody(person, entry.kind)
        if not people or (entry.kind is Kind.CLIENT and len(text.split()) > _NAMES):
            yield from _something(text, entry.kind)


def _people(text: str, kind: Kind) -> list[str]:
    """Who it may be: of a couple both, each with a surname; nobody, where it is the name of something."""
    if kind not in (Kind.CLIENT, Kind.EMPLOYEE):
        return []
    last, comma, first = text.partition(",")
    parts = _AND.split(first if comma else text)
    parts = [part for part in parts if not _IN_FRONT.issuperset(tokens(part))] or parts
    if comma:
        parts = [f"{last}, {part}" for part in parts]
    elif len(parts) > 1:
        words = _untitled(parts[-1].split())
        if len(words) == 1 and all(len(_untitled(part.split())) == 1 for part in parts):  # Krause & Söhne
            return []
        parts = [part if len(_untitled(part.split())) > 1 else f"{part} {words[-1]}" for part in parts]
    return [] if kind is Kind.CLIENT and any(map(_is_something, parts)) else parts


def _untitled(words: list[str]) -> list[str]:
    while len(words) > 1 and (_IN_FRONT.issuperset(tokens(words[0])) or words[0].lower() == "h.c."):
        words = words[1:]
    return words


def _is_something(text: str) -> bool:
    """Whether it can't be a person: a legal form, a number, an ampersand, a small word that no name has, letters."""
    legal = LEGAL.search(f" {' '.join(tokens(text))}") and not _LIKE_A_NAME.search(text)
    if legal or _SIGN.search(text) or (text.isupper() and len(text) <= _LETTERS):
        return True
    small = {lowered(word) for word in TOKEN.findall(text) if word[0].islower() and len(word) > 1}
    return not text.islower() and not small <= PARTICLES | JOINING | _IN_FRONT


def _something(text: str, kind: Kind) -> Iterator[Phrase]:
    words = TOKEN.findall(text)
    while len(words) > 1 and lowered(words[0]) in ("firma", "fa", "projekt", "project"):
        words = words[1:]
    words = words[: len(LEGAL.sub("", f" {' '.join(map(folded, map(lowered, words)))}").split())] or words
    words = [word for word in words if lowered(word) not in JOINING] or words
    if not words:
        return
    exact = words[0] if len(words) == 1 and len(words[0]) <= _SHORT else ""
    for core in sorted(spellings(words)):
        yield Phrase(" ".join(core), kind, exact=exact)
        if len(core) > 1 and len("".join(core)) >= _LOGIN:
            yield Phrase("".join(core), kind)


def _somebody(text: str, kind: Kind) -> Iterator[Phrase]:
    last, comma, first = text.partition(",")
    words = _untitled(f"{first} {last}".split() if comma else text.split())
    if not words:
        return
    at = len(words) - (len(last.split()) if comma else 1)
    at = next((n for n, word in enumerate(words[:at]) if n and PARTICLES.issuperset(tokens(word))), max(at, 0))
    given = _given(words[:at])
    surname = [word for word in words[at:] if not _SAYS_NOTHING.issuperset(tokens(word))] or words[-1:]
    whole = sorted(spellings(TOKEN.findall(" ".join(surname))))
    for each in whole:
        yield Phrase(" ".join(each), kind, given)
    if len(parts := re.split(r"[\s-]+", " ".join(surname))) > 1:  # of which people use the one or the other
        for part in parts:
            if len(part) > _SHORT:
                for each in sorted(spellings([part])):
                    yield Phrase(" ".join(each), kind, given)
    joined = sorted({"".join(each) for each in whole})
    for name in sorted(given):
        for end in joined:
            if len(name) + len(end) >= _LOGIN:
                yield Phrase(f"{name}{end}", kind)
    if len(whole[0]) > 1:
        yield from (Phrase(end, kind, given) for end in joined)


def _given(words: list[str]) -> frozenset[str]:
    """Given names in all spellings, those with a hyphen also as one and in parts, and the initials of each."""
    found: set[str] = set()
    for word in words:
        parts = tokens(word)
        found |= {*parts, *map(undotted, map(lowered, re.findall(r"[^\W\d_]+", word))), "".join(parts)}
        found |= {part[0] for part in parts} | {"".join(part[0] for part in parts)}
    return frozenset(map(folded, found)) - {""}
