"""What a single word may be, before its neighbours are asked."""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

from appliance.privacy.detect.lexicon import Lexicon, read
from appliance.privacy.detect.nouns import CODES, Language, Nouns

_SURE, _FAIR = 10.0, 4.0
"""How much likelier (natural logarithm) a word must be ordinary to pass for it: by itself, with other evidence."""
_LINKS = ("", "s", "es", "n", "en", "er", "e", "ns", "ens")
_UMLAUTS = {"ae": "ä", "oe": "ö", "ue": "ü", "ss": "ß"}
_SPELT_OUT = re.compile("ae|oe|ue|ss")
_LONGEST = 50
_LONG = 11
_DERIVED = (
    "ung",
    "ungen",
    "heit",
    "keit",
    "ion",
    "tät",
    "nis",
    "tum",
    "schaft",
    "ment",
    "ismus",
    "ik",
    "tur",
    "ie",
    "age",
    "ei",
    "ge",
    "nge",
)
"""Endings of ordinary nouns."""
_LEAST = 3
_SHORT = 7
"""Letters of a word that, if it is rare, is somebody's name as likely as itself."""


class Standing(Enum):
    """What a word may be."""

    COMMON = 0
    """A word that sentences are built with: the, und, will."""
    ORDINARY = 1
    EITHER = 2
    """A name for some, an ordinary word for others: Koch, Lange, Mark, Rose."""
    NAME = 3
    UNKNOWN = 4
    """In no dictionary and on no list."""


COMMON, ORDINARY, EITHER, NAME, UNKNOWN = Standing


class Standings:
    """Judges words; what was judged is kept, up to a limit."""

    def __init__(self, lexicon: Lexicon, nouns: Nouns) -> None:
        self._lexicon = lexicon
        self._nouns = nouns
        self._common = read("common_de") | read("common_en") | read("ordinary")
        self._nobody = read("no_names")
        self.everyday_words = read("everyday")
        """Taken for ordinary, whatever lists of names say."""
        self.of = lru_cache(maxsize=50_000)(self._of)

    def _of(self, word: str, language: Language) -> Standing:
        """Of a word with the case it is written in, in a text of that language."""
        if len(word) > _LONGEST:
            return UNKNOWN
        lower = word.lower().replace("’", "'").removesuffix("'s")
        if lower != word.lower():
            word = word[: len(lower)]
        if lower in self._common or len(word) < 2:
            return COMMON
        if lower in self.everyday_words or (word.islower() and self._spelt_out(lower)):
            return ORDINARY
        if not word.isupper() and not word[1:].islower():
            word = word[0] + word[1:].lower()
        if word.islower():
            if self._small(lower):
                if not self.name(lower):
                    return ORDINARY
                return EITHER if self.usual(lower) else NAME
            word = lower.capitalize()
        elif word.isupper():
            word = lower.capitalize()
        standing = self._german(word, lower) if language == "de" else self._english(word, lower)
        if standing is UNKNOWN and _SPELT_OUT.search(lower):
            return self._with_umlauts(word)
        return standing

    def _with_umlauts(self, word: str) -> Standing:
        """Of a German word in letters of ASCII: fuer, Strasse, Groesse."""
        for lower in _umlauts(word.lower()):
            if lower in self._common or lower in self._lexicon.lower["de"]:
                return ORDINARY
            if lower.capitalize() in self._lexicon.nouns and not self.name(lower):
                return ORDINARY
        return UNKNOWN

    def _spelt_out(self, lower: str) -> bool:
        """Whether it is an everyday word in letters of ASCII: strasse."""
        if not _SPELT_OUT.search(lower):
            return False
        return any(spelt in self.everyday_words for spelt in _umlauts(lower))

    def nobody(self, lower: str) -> bool:
        """Whether it is what people are called in general, or what a name is called in a form: patient, name."""
        return lower in self._nobody

    def everyday(self, lower: str) -> bool:
        """Whether a word in small letters is an ordinary one, also if it is a name as well."""
        return any(self.of(lower, code) in (COMMON, ORDINARY, EITHER) for code in CODES)

    def name(self, lower: str) -> bool:
        """Whether some list of names holds it, or it is the genitive of a name on one."""
        lists = self._lexicon.first, self._lexicon.last
        return any(lower in each or (lower.endswith("s") and len(lower) > 3 and lower[:-1] in each) for each in lists)

    def base(self, word: str) -> bool:
        """Whether German has it for a noun, and this is how its dictionary entry reads: a singular, as a rule."""
        return word in self._lexicon.base

    def small_only(self, word: str) -> bool:
        """Whether German knows the word, but not with the capital that it has here: Ehrlich, Gut, Will."""
        lower = word.lower()
        if word in self._lexicon.nouns or word in self._lexicon.undeclined or lower in self.everyday_words:
            return False
        return lower in self._lexicon.lower["de"] and word[1:].islower()

    def _small(self, lower: str) -> bool:
        """Whether it is written with a small letter in one of the languages."""
        return lower in self._lexicon.lower["de"] or lower in self._lexicon.lower["en"]

    def usual(self, lower: str) -> bool:
        """Whether people use it as an ordinary word, not just dictionaries."""
        return any(self._nouns.seen(lower, code) and self._nouns.ordinary(lower, code) > 0 for code in CODES)

    def _german(self, word: str, lower: str) -> Standing:
        name = self.name(lower)
        declined = word in self._lexicon.nouns
        if declined and not name and len(word) > _LONG:
            return ORDINARY
        ordinary = self._nouns.ordinary(lower, "de")
        if declined:
            if ordinary < -_FAIR:
                return NAME if name else EITHER
            seen = self._nouns.seen(lower, "de")
            if name and not seen and lower in self._lexicon.german:
                return NAME
            return EITHER if name or ordinary < 0 or self._rare(lower) else ORDINARY
        if word in self._lexicon.undeclined:
            if ordinary > _FAIR:
                return EITHER if name or self._rare(lower) else ORDINARY
            return NAME if name and ordinary < 0 else EITHER if lower in self._lexicon.lower["en"] else UNKNOWN
        if self._small(lower):
            foreign = lower not in self._lexicon.lower["de"] and (ordinary < 0 or not self.usual(lower))
            return EITHER if name or (foreign and len(lower) <= _SHORT) else ORDINARY
        if name:
            return NAME
        if self._nouns.seen(lower, "de") and ordinary > _SURE:
            return ORDINARY
        if not self._compound(lower):
            return UNKNOWN
        return ORDINARY if len(lower) > _LONG else EITHER

    def _rare(self, lower: str) -> bool:
        """Whether it is short, and hardly ever used as what dictionaries say that it means: Rink, Button."""
        if len(lower) > _SHORT or self._nouns.seen(lower, "de") or lower.endswith(_DERIVED):
            return False
        return not self._compound(lower)

    def _english(self, word: str, lower: str) -> Standing:
        name = self.name(lower)
        if lower in self._lexicon.lower["en"]:
            ordinary = self._nouns.ordinary(lower, "en")
            return EITHER if name or ordinary < 0 else ORDINARY
        if name:
            return NAME
        if lower.endswith("s") and lower[:-1].rstrip("'’") in self._lexicon.lower["en"]:
            return ORDINARY
        return ORDINARY if lower in self._lexicon.lower["de"] and not self._nouns.ordinary(lower, "en") < 0 else UNKNOWN

    def _compound(self, lower: str) -> bool:
        """Whether it is put together of German words, the last of them an ordinary noun."""
        for cut in range(len(lower) - 4, _LEAST - 1, -1):
            head = lower[cut:]
            if head.capitalize() not in self._lexicon.nouns or self.name(head):
                continue
            if self._modifier(lower[:cut]):
                return True
        return False

    def _modifier(self, part: str) -> bool:
        """Whether it may stand before the last word of a compound."""
        for link in _LINKS:
            if not part.endswith(link):
                continue
            stem = part[: len(part) - len(link)]
            if len(stem) < _LEAST:
                continue
            if stem in self._lexicon.lower["de"] or stem.capitalize() in self._lexicon.nouns or stem in self._common:
                return True
            if stem.capitalize() in self._lexicon.undeclined and not self.name(stem):
                return True
        return len(part) > 7 and self._compound(part)


def _umlauts(lower: str) -> tuple[str, ...]:
    """How German may write a word that is in letters of ASCII."""
    spelt = _SPELT_OUT.sub(lambda match: _UMLAUTS[match[0]], lower)
    return spelt, spelt.replace("ß", "ss"), lower.replace("ss", "ß")
