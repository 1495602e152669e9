"""Texts in which somebody has marked what is personal, in the forms in which such sets come."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.privacy.kinds import Kind

OFFICE = Path(__file__).parent / "office"
_MARK = re.compile(r"\[\[([a-z_]+):(.+?)\]\]", re.DOTALL)
_TOKEN_KINDS = {"PER": Kind.PERSON, "LOC": Kind.PLACE, "ORG": Kind.ORGANISATION}
_ALL = frozenset(Kind) - {Kind.DATE, Kind.WORD}


@dataclass(frozen=True, slots=True)
class Label:
    """Characters `start` to `end` of a text are of this kind, or of none that counts (None): neither to be found nor
    wrong to be found, such as `deutsche` or the title of a book."""

    start: int
    end: int
    kind: Kind | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with its labels, in order and without overlaps."""

    id: str
    text: str
    labels: tuple[Label, ...]
    language: str
    slice: str
    """What sort of text it is: `clinical`, `chat`, `ordinary`, ..., or the name of its set."""
    complete: frozenset[Kind] = _ALL
    """Kinds of which every mention is labelled, so that another find of them is a wrong one."""


class WrongMarkup(Exception):
    """A file can't be read; says where and why."""


def read(marked: str) -> tuple[str, tuple[Label, ...]]:
    """The text behind inline marks: `Frau [[person:Lange]] ist da` gives `Frau Lange ist da` and its label.

    Raises `WrongMarkup` for kinds that there aren't.
    """
    text, labels, end = "", [], 0
    for mark in _MARK.finditer(marked):
        try:
            kind = Kind(mark[1])
        except ValueError:
            raise WrongMarkup(f"there is no kind {mark[1]!r}; use one of {', '.join(Kind)}") from None
        text += marked[end : mark.start()]
        labels.append(Label(len(text), len(text) + len(mark[2]), kind))
        text += mark[2]
        end = mark.end()
    text += marked[end:]
    if "[[" in text or "]]" in text:
        raise WrongMarkup("a mark is not closed, or there is one within another")
    return text, tuple(labels)


def office(folder: Path = OFFICE) -> Iterator[Labelled]:
    """The hand-written texts: files `<language>-<slice>.txt` in which lines of `---` stand between texts."""
    for file in sorted(folder.glob("??-*.txt")):
        language, _, slice_ = file.stem.partition("-")
        for number, marked in enumerate(file.read_text("utf-8").split("\n---\n"), 1):
            try:
                text, labels = read(marked.strip("\n"))
            except WrongMarkup as error:
                raise WrongMarkup(f"{file.name}, text {number}: {error}") from None
            yield Labelled(f"{file.stem} {number}", text, labels, language, slice_)


def germeval(file: Path) -> Iterator[Labelled]:
    """GermEval 2014: index, token, outer label, inner label. Persons, places and organisations of the outer labels
    count; derived and partial ones (`LOCderiv`, `ORGpart`), others and inner ones don't."""
    for number, lines in enumerate(_sentences(file), 1):
        rows = [line.split("\t") for line in lines if not line.startswith("#")]
        tokens, outer, inner = ([row[column] for row in rows] for column in (1, 2, 3))
        text, places = detokenised(tokens)
        labels = _spans(outer, places)
        taken = {at for label in labels for at in range(label.start, label.end)}
        free = [each for each in _spans(inner, places) if not taken & {*range(each.start, each.end)}]
        every = sorted([*labels, *(Label(each.start, each.end, None) for each in free)], key=lambda each: each.start)
        yield Labelled(f"germeval {number}", text, tuple(every), "de", "news", frozenset(_TOKEN_KINDS.values()))


def uner(file: Path) -> Iterator[Labelled]:
    """Universal NER: index, token, label, with the sentence as it was in `# text = ...`."""
    for number, lines in enumerate(_sentences(file), 1):
        (text,) = (line.removeprefix("# text = ") for line in lines if line.startswith("# text = "))
        rows = [line.split("\t") for line in lines if not line.startswith("#")]
        places = _found([row[1] for row in rows], text)
        labels = tuple(_spans([row[2] for row in rows], places))
        yield Labelled(f"uner {number}", text, labels, "en", "news", frozenset(_TOKEN_KINDS.values()))


def _sentences(file: Path) -> Iterator[list[str]]:
    lines: list[str] = []
    for line in [*file.read_text("utf-8").split("\n"), ""]:
        if line.strip():
            lines.append(line)
        elif lines:
            yield lines
            lines = []


_TIGHT_AFTER = {"(", "[", "„", "‚"}
_TIGHT_BEFORE = {".", ",", ";", ":", "!", "?", ")", "]", "“", "‘", "...", "…", "°"}
_PAIRED = {'"': '"', "'": "'", "''": "''", "»": "«", "«": "»", "”": "”"}
_CONTINUES = re.compile(r"(?:\.|-)\w|['’](?:\d{3}|[a-zäöüß]\w*)$")
"""A host's or a compound's second half, or a genitive, that was cut off as a token of its own."""


def detokenised(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """German tokens as a writer would have set them, and where each of them lies in that text.

    Straight quotes and guillemets open and close by turns: which of the two begins differs from writer to writer.
    """
    text, places, tight, closing = "", [], True, set[str]()
    lone = tokens.count("'") % 2 == 1  # it is no quotation mark then
    for number, word in enumerate(tokens):
        apostrophe = lone and word == "'"
        following = tokens[number + 1] if number + 1 < len(tokens) else "."
        closes = word in closing or (word in _PAIRED and following in _TIGHT_BEFORE)
        if not (tight or closes or apostrophe or word in _TIGHT_BEFORE or _CONTINUES.match(word)):
            text += " "
        places.append((len(text), len(text) + len(word)))
        text += word
        tight = word in _TIGHT_AFTER or apostrophe
        if closes:
            closing.discard(word)
        elif word in _PAIRED and not apostrophe:
            closing.add(_PAIRED[word])
            tight = True
    return text, places


def _found(tokens: Iterable[str], text: str) -> list[tuple[int, int]]:
    places, at = [], 0
    for token in tokens:
        at = text.index(token, at)
        places.append((at, at := at + len(token)))
    return places


def _spans(labels: Iterable[str], places: Iterable[tuple[int, int]]) -> list[Label]:
    """`B-` and `I-` labels over tokens as spans of characters; an `I-` without its `B-` begins one, too."""
    spans: list[Label] = []
    before = "O"
    for label, (start, end) in zip(labels, places, strict=True):
        name = label[2:]
        if label.startswith("I-") and before[2:] == name:
            spans[-1] = Label(spans[-1].start, end, spans[-1].kind)
        elif label != "O":
            spans.append(Label(start, end, _TOKEN_KINDS.get(name)))
        before = label
    return spans
