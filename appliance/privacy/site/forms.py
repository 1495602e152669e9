"""In which forms a word of a name may stand in a text. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

TOKEN = re.compile(r"[^\W\d_]+|\d+")
"""A word or a number of a name: what stands between them (space, hyphen, dot, ampersand) may be written in any way."""
_SPELT = str.maketrans({
    "ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "œ": "oe", "ø": "oe", "ł": "l", "đ": "d", "ð": "d",
    "þ": "th", "ı": "i",
})  # fmt: skip
_HUMP = re.compile(r"(?<=[^\W\d_A-ZÄÖÜ])(?=[A-ZÄÖÜ])")
_ADJECTIVE = re.compile(r"e[rsnm]?$")
_SCHE = re.compile(r"(?<=..)(?:i?sche[rsnm]?)$")
_LEAST = 4
"""Letters of a word whose last ones may be an ending."""
HEAD = 5
"""Letters by which to tell quickly that a word is none of those that are looked for."""


def lowered(text: str) -> str:
    """`text` in small letters, and as long as it was."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(low if len(low := each.lower()) == 1 else each for each in text)


def folded(word: str) -> str:
    """A lower-case word with umlauts spelt out and without accents."""
    if word.isascii():
        return word
    return _bare(unicodedata.normalize("NFC", word).translate(_SPELT))


def undotted(word: str) -> str:
    """The same with umlauts as the bare vowels, as they are written where a keyboard has none."""
    return _bare(word.replace("ß", "ss"))


def _bare(word: str) -> str:
    if word.isascii():
        return word
    return "".join(each for each in unicodedata.normalize("NFKD", word) if not unicodedata.combining(each))


def tokens(text: str) -> list[str]:
    """The words of a name, folded."""
    return [folded(word) for word in TOKEN.findall(lowered(text))]


def spellings(words: Sequence[str]) -> set[tuple[str, ...]]:
    """The words of a name, folded: as they are, without dots, apart where a hump is, declined as adjectives are."""
    apart = [part for word in words for part in _HUMP.split(word)]
    found = set()
    for each in (words, apart):
        low = [lowered(word) for word in each]
        found |= {tuple(map(folded, low)), tuple(map(undotted, low))}
    return found | {tuple(map(adjective, each)) for each in found if len(each) > 1}


def adjective(word: str) -> str:
    """The word as all forms of an adjective have it here: `deutsche` for `deutscher`, `deutschen`."""
    return _ADJECTIVE.sub("e", word) if len(word) > _LEAST else word


def stems(word: str) -> Iterator[tuple[str, int]]:
    """What a folded word may be a form of: first itself, each with the letters of the word that are no part of it.

    A genitive's ending is none; the endings of adjectives and plurals can't be told from the word, and are.
    """
    yield word, 0
    if len(word) < _LEAST:
        return
    last = word[-1]
    if last == "s":
        yield word[:-1], 1
        if word[-2] == "e":
            yield word[:-2], 2
        elif word.endswith("ens"):
            yield word[:-3], 3
    elif last == "n":
        yield word[:-1], 0
        if word[-2] == "e":
            yield word[:-2], 0
    if "sch" in word and (stem := _SCHE.sub("", word)) != word:
        yield stem, 0
    if last in "ersnm" and (stem := adjective(word)) != word:
        yield stem, 0


def heads(word: str) -> Iterator[str]:
    """How all words begin, in their first letters, of which `word` is a stem."""
    yield word[:HEAD]
    if len(word) < HEAD:
        yield from (f"{word}{ending}"[:HEAD] for ending in ("s", "es", "ens", "n", "en", "r", "m", "sche", "ische"))
