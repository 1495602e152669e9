"""How placeholders are written: `Klient_001` here, and in a few more ways by models.

A letter behind the number says in which form a value stood there: `Klient_001` is Anna Müller, and where only Müller
was written, `Klient_001b`. So a model knows who is who, and yet each comes back as it was.

Both ends go by the same grammar. What a caller's own text holds in any of these spellings has to be masked like a name:
left as it is, it would come back as somebody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from appliance.privacy.kinds import STEMS

PADDED = 3
"""Digits of a number at least."""
FORMS = ("", *"bcdefghijklmnopqr")
"""Letters for the forms of one value. Not s, which is a genitive's."""


class Spelling(NamedTuple):
    """A placeholder as it stands in a text."""

    start: int
    end: int
    """Behind its number and its form; an ending comes after that."""
    stem: str
    digits: str
    form: str
    """One of `FORMS`."""
    ending: str
    """A genitive's: `s`, `'s`, `’s`; or nothing."""


def _until(*atoms: str) -> str:
    """A pattern for the atoms one after another, or for as many of them as the text has before it ends."""
    pattern = atoms[-1]
    for atom in reversed(atoms[:-1]):
        pattern = rf"{atom}(?:\Z|{pattern})"
    return pattern


def _any_case(letter: str) -> str:
    return f"[{letter.upper()}{letter.lower()}]"


# The first letter stands alone in front, so that a search runs on it. Before it is no letter and no digit, or the end
# of an escape such as `\n`; or it is a capital, and `spelt` looks closer.
_FIRST = "".join(sorted({letter for stem in STEMS for letter in (stem[0], stem[0].lower())}))
_BEGINS = rf"[{_FIRST}](?:(?<![^\W_].)|(?<=\\[nrt].)|(?<=[A-Z]))"
_REST = "|".join(f"(?<={_any_case(stem[0])}){_until(*map(_any_case, stem[1:]))}" for stem in STEMS)
_UNDERSCORE = r"(?:_|\\(?:\Z|_|\\(?:\Z|_)))"  # Markdown escapes it, and JSON that escape
# Without it, only a number with a zero in front is ours: "Ort 12" and "Datum 2024" are what people write.
_LOOSE = rf"[ \u00a0\u202f\u2011-]?(?:\Z|(?P<loose>{_until('0', '[0-9]', '[0-9](?![0-9])')}))"
FORM = re.compile(r"(?P<form>[b-rB-R](?=(?:['’]|\\u2019)?[sS]?(?![^\W_])))")
"""The letter behind a number, and what has to come after it."""
_ENDING = "|".join([r"(?P<ending>(?:['’]|\\u2019)?[sS](?!\w))", r"['’]\Z", _until(r"\\", "u", "2", "0", "1", r"9\Z")])
SPELLING = re.compile(
    rf"{_BEGINS}(?:\Z|(?P<rest>{_REST})(?:\Z|(?:{_UNDERSCORE}(?:\Z|(?P<digits>[0-9]+))|{_LOOSE}){FORM.pattern}?(?:{_ENDING})?))"
)
"""Matches whole placeholders, and at the end of a text whatever can become one."""


def spelt(match: re.Match[str]) -> Spelling | None:
    """What a match of `SPELLING` says; None where it is only the beginning of a placeholder, or none at all."""
    digits = match["digits"] or match["loose"] or ""
    if not digits or (match["digits"] is None and len(digits) < PADDED):
        return None
    stem = match.string[match.start() : match.end("rest")]
    before = match.string[max(0, match.start() - 2) : match.start()]
    in_a_word = before[-1:].isalnum() and not (before[0] == "\\" and before[1:] in ("n", "r", "t"))
    ours = stem in STEMS and match.string[match.end("rest")] == "_" and len(digits) >= PADDED
    if in_a_word and not ours:  # STANDORT_001
        return None
    end = match.end("form" if match["form"] else "digits" if match["digits"] else "loose")
    return Spelling(match.start(), end, stem, digits, (match["form"] or "").lower(), match["ending"] or "")


def find(text: str) -> Iterator[Spelling]:
    """Whatever in a text would be taken for a placeholder, in order."""
    at = 0
    while (match := SPELLING.search(text, at)) is not None:
        spelling = spelt(match)
        at = match.start() + 1 if spelling is None else spelling.end
        if spelling is not None:
            yield spelling
