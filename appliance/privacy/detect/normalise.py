"""Text as a reader sees it: without what was put in to hide a name from a program, or got in by accident."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Characters without width: soft hyphen, joiners, directions, byte order mark, variation selectors, tags.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
                        "\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]+")  # fmt: skip
_OTHER = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")  # what isn't ASCII, with the letter that a mark may stand on
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,10});")
_MARKUP = re.compile(r"(?<=\w)(?:</?(?!(?:t[dhr]|br|li|p|div)[/>])[A-Za-z][A-Za-z0-9]{0,9}/?>|\*\*\*?)+(?=\w)")
_MAYBE_SPACED = re.compile(r" \w \w \w ")
_SPACED = re.compile(r"(?<!\S)\w(?: \w){4,}(?!\S)")
_ALIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеѕіјорсухԁԛԝ" "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαινορυ" "‐‑‒–−⁃ˑ’‘ʼ",
    "ABESIJKMHOPCTYXaesijopcyxdqw" "ABEZHIKMNOPTYXaivopu" "------'" "'''",
)  # fmt: skip
_UNUSUAL = re.compile("[^\x00-\x7fäöüÄÖÜßéèêàáâóôíçñ§€°«»„“”‚•—]")

Part = tuple[int, int, str]  # characters of the text so far, and what stands there in their place


@dataclass(frozen=True, slots=True)
class Normalised:
    """A text and the way back from its characters to those of the text as given."""

    text: str
    map: tuple[list[int], list[int]] | None
    """For each character, where what it came from starts and ends in the text as given; None: they are the same."""

    def given(self, start: int, end: int) -> tuple[int, int]:
        """Where `text[start:end]`, which is not empty, stands in the text as given."""
        if self.map is None:
            return start, end
        return self.map[0][start], self.map[1][end - 1]


def normalise(text: str) -> Normalised:
    """NFKC, without characters that nobody sees; look-alikes of Latin letters, dashes and apostrophes as the plain
    ones, HTML entities resolved, markup inside words and spaces between single characters taken out.

    For detectors only. A text is nearly always the same before and after, and then costs next to nothing.
    """
    result = Normalised(text, None)
    if "&" in text:
        result = _replaced(result, _entities)
    if not text.isascii() and _UNUSUAL.search(text):
        result = _replaced(result, _invisible)
        result = _replaced(result, _composed)
        result = Normalised(result.text.translate(_ALIKE), result.map)
    if "**" in text or "<" in text:
        result = _replaced(result, _markup)
    if _MAYBE_SPACED.search(result.text):
        result = _replaced(result, _spaced)
    return result


def _replaced(old: Normalised, parts: Callable[[str], Iterator[Part]]) -> Normalised:
    starts: list[int] = []
    ends: list[int] = []
    pieces: list[str] = []
    done = 0

    def keep(until: int) -> None:
        pieces.append(old.text[done:until])
        if old.map is None:
            starts.extend(range(done, until))
            ends.extend(range(done + 1, until + 1))
        else:
            starts.extend(old.map[0][done:until])
            ends.extend(old.map[1][done:until])

    for start, end, new in parts(old.text):
        keep(start)
        given = old.given(start, end)
        pieces.append(new)
        starts.extend([given[0]] * len(new))
        ends.extend([given[1]] * len(new))
        done = end
    if not pieces:
        return old
    keep(len(old.text))
    return Normalised("".join(pieces), (starts, ends))


def _entities(text: str) -> Iterator[Part]:
    for match in _ENTITY.finditer(text):
        new = html.unescape(match[0])
        if new != match[0]:
            yield *match.span(), new


def _invisible(text: str) -> Iterator[Part]:
    for match in _INVISIBLE.finditer(text):
        yield *match.span(), ""


def _composed(text: str) -> Iterator[Part]:
    if unicodedata.is_normalized("NFKC", text):
        return
    for match in _OTHER.finditer(text):
        if unicodedata.is_normalized("NFKC", match[0]):
            continue
        start, end = match.start(), match.end()
        while start < end:  # a character and the marks on it at a time
            after = start + 1
            while after < end and unicodedata.combining(text[after]):
                after += 1
            old = text[start:after]
            new = unicodedata.normalize("NFKC", old)
            if new != old:
                yield start, after, new
            start = after


def _markup(text: str) -> Iterator[Part]:
    for match in _MARKUP.finditer(text):
        yield *match.span(), ""


def _spaced(text: str) -> Iterator[Part]:
    for match in _SPACED.finditer(text):
        for space in range(match.start() + 1, match.end(), 2):
            yield space, space + 1, ""
