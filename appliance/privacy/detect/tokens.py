"""A text's words and sentences, with their places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

BLANK = "▯"
"""Stands for each character of a placeholder: no detector has a word for it."""
_BESIDE = re.compile(rf"{BLANK}(?:,? |, ?| (?:und|and|&) )\Z"), re.compile(rf"(?:,? |, ?| (?:und|and|&) ){BLANK}")
_REACH = 6
"""Characters of `_BESIDE`, at most."""
_KEY = re.compile(r"[\"']\s?:")
"""Behind a key of JSON and the like."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SENTENCE = re.compile(r"(?<=[.!?…:])[\"'”“»)\]]*\s+(?=\S)|\n|\t|[•·|] ")
_OPENS = re.compile(r"(?:[\"„“»«:(\[{|;=>•*#\t]\s?|[.!?] |(?:^|\s)[-–—] )\Z")
"""What a word with a capital may follow without being a noun."""
_ABBREVIATED = re.compile(r"(?:\b(?:[A-ZÄÖÜ]|[Dd]r|[Pp]rof|[Hh]r|[Ff]r|St|Mr|Mrs|Ms|[Dd]ipl|[Ii]ng|[Nn]r|[Ss]tr|[Bb]zw|"
                          r"[Cc]a|[Gg]eb|[Vv]gl|Jr|Sr|No|[Tt]el|[Ff]am|[Ee]v|[Vv]on|[Cc]o|[Mm]ed|[Jj]ur|[Pp]hil|[Rr]er|[Nn]at)|"
                          r"\b\d{1,3})\.\s+\Z")  # fmt: skip


@dataclass(slots=True)
class Word:
    """A run of letters; where it begins and ends in the text."""

    text: str
    start: int
    end: int
    first: bool
    """Begins a sentence, a line, a quotation: a capital says nothing here."""
    joined: bool = False
    """Hangs on the word before it by a hyphen."""
    beside: bool = False
    """Stands beside a placeholder, or is listed with it."""
    key: bool = False
    """Is what a value is called, in JSON."""


@dataclass(slots=True)
class Sentence:
    """A sentence, or a line, of a text."""

    start: int
    end: int
    words: list[Word]
    lower: bool = False
    """Written without capitals, as in a chat."""
    shouted: bool = False
    """Written in capitals throughout."""
    titled: bool = False
    """Most of its words have a capital, as in a headline."""


def sentences(text: str) -> list[Sentence]:
    """All that hold a word, in order."""
    found = []
    masked = BLANK in text
    for start, end in _bounds(text):
        words: list[Word] = []
        for match in _WORD.finditer(text, start, end):
            first = not words or _OPENS.search(text, max(start, match.start() - 4), match.start()) is not None
            words.append(
                Word(
                    match[0],
                    match.start(),
                    match.end(),
                    first,
                    joined=text[match.start() - 1 : match.start()] == "-",
                    beside=masked and _beside(text, match.start(), match.end()),
                    key=_KEY.match(text, match.end()) is not None,
                )
            )
        if words:
            found.append(Sentence(start, end, words))
    _cases(found)
    return found


def _beside(text: str, start: int, end: int) -> bool:
    before, after = _BESIDE
    return before.search(text, max(0, start - _REACH), start) is not None or after.match(text, end) is not None


def _bounds(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _SENTENCE.finditer(text):
        if _ABBREVIATED.search(text, max(start, match.end() - 12), match.end()):
            continue
        yield start, match.start()
        start = match.end()
    yield start, len(text)


def _cases(found: list[Sentence]) -> None:
    """Notes of each sentence whether capitals mean something in it."""
    capitals = sum(not word.first and word.text[0].isupper() for each in found for word in each.words)
    words = sum(len(each.words) for each in found)
    sparse = words >= 4 and capitals <= 0.03 * words
    for each in found:
        upper = sum(word.text.isupper() and len(word.text) > 1 for word in each.words)
        each.shouted = upper >= 3 and upper >= 0.7 * len(each.words)
        upper = sum(word.text[0].isupper() for word in each.words)
        each.titled = upper > 3 and upper > 0.6 * len(each.words)
        each.lower = (
            not each.shouted
            and (sparse or each.words[0].text[0].islower())
            and not any(word.text[0].isupper() for word in each.words[1:])
        )
