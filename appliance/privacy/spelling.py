"""Words as they are compared: in one spelling, whatever their case, accents, umlauts and look-alikes."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import NamedTuple

# Marks on letters, and characters that nobody sees: soft hyphen, joiners, directions, variation selectors, tags.
_MARKS = re.compile("[\u00ad\u0300-\u036f\u0483-\u0487\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u1ab0-\u1aff"
                    "\u1dc0-\u1dff\u200b-\u200f\u202a-\u202e\u2060-\u206f\u20d0-\u20ff\u3164\ufe00-\ufe0f\ufe20-\ufe2f"
                    "\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]+")  # fmt: skip
_ALIKE = str.maketrans({
    # letters of other scripts that look like Latin ones, in lower case, and Latin ones that don't decompose
    **dict(zip("авекмнорстухіјѕԁԛԝһӏгпԍ", "abekmhopctyxijsdqwhlrng", strict=True)),
    **dict(zip("αβεζηικμνορτυχϲ", "abezhikmnoptuxc", strict=True)),
    **dict(zip("łøđıħŧɑɡ", "lodihtag", strict=True)),
    "æ": "ae", "œ": "oe", "þ": "th", "ð": "d",
})  # fmt: skip
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})
_WORD = re.compile(r"[^\W\d_]+|\d+")
_HUMP = re.compile(r"(?<=[a-zäöüß])(?=[A-ZÄÖÜ])")
_BREAK = re.compile(r"_+|(?<=[a-zäöüß])(?=[A-ZÄÖÜ])")


class Word(NamedTuple):
    """A run of letters or of digits; `annaMueller2` has three."""

    start: int
    end: int
    plain: str
    """As `plain` spells it."""


def clean(text: str) -> str:
    """Composed, and without what nobody sees."""
    return text if text.isascii() else _MARKS.sub("", unicodedata.normalize("NFC", text))


def plain(text: str) -> str:
    """In lower case, with no mark on any letter: `Müller` and `MULLER` are `muller`, in letters of any script."""
    if text.isascii():
        return text.lower()
    folded = _MARKS.sub("", unicodedata.normalize("NFKD", text)).casefold()
    return _MARKS.sub("", unicodedata.normalize("NFKD", folded.translate(_ALIKE)))


def written_out(text: str) -> str:
    """`plain`, with umlauts as two letters: `Müller` and `Mueller` are `mueller`."""
    return plain(text) if text.isascii() else plain(clean(text).translate(_UMLAUTS))


def shortened(text: str) -> str:
    """`plain`, with two letters for an umlaut as one: `Mueller` and `Müller` are `muller`, and `Bauer` is `baur`."""
    return plain(text).replace("ae", "a").replace("oe", "o").replace("ue", "u")


def words(text: str) -> list[Word]:
    """All of a text, in order."""
    found = []
    seen: dict[str, list[tuple[int, int, str]]] = {}
    for match in _WORD.finditer(text):
        parts = seen.get(match[0])
        if parts is None:
            parts = seen[match[0]] = _parts(match[0])
        found += [Word(match.start() + start, match.start() + end, spelt) for start, end, spelt in parts]
    return found


def _parts(run: str) -> list[tuple[int, int, str]]:
    if run.islower() or run.istitle() or run.isupper() or not run.isalpha():
        return [(0, len(run), plain(run))]
    cuts = [0, *(hump.start() for hump in _HUMP.finditer(run)), len(run)]
    return [(start, end, plain(run[start:end])) for start, end in pairwise(cuts)]


def spaced(identifier: str) -> list[tuple[int, str]]:
    """An identifier's parts and where they begin: `anna_mueller` and `annaMueller` have two."""
    parts, at = [], 0
    for gap in _BREAK.finditer(identifier):
        if gap.start() > at:
            parts.append((at, identifier[at : gap.start()]))
        at = gap.end()
    if at < len(identifier):
        parts.append((at, identifier[at:]))
    return parts
