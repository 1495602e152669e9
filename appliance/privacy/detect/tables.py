"""Tables: what stands under a heading is what the heading says, also where it looks like nothing by itself.

CSV, Markdown, HTML, and columns that only spaces part.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from appliance.privacy.detect.headings import Heading, heading, personal, told
from appliance.privacy.detect.tokens import BLANK
from appliance.privacy.kinds import Span

Cell = tuple[int, int]
Headings = list[Heading | None]

_LONGEST = 1000
"""Characters of a line of headings."""
_INDENT = re.compile(r"[\s>]*")
_HTML = re.compile(
    r"<(?:(?P<row>tr)|(?P<end>/table))\b|<t[dh]\b[^<>]{0,200}>\s{0,40}(?:<[a-z][^<>]{0,100}>){0,3}(?P<cell>[^<]{0,200})",
    re.I,
)


@dataclass(frozen=True, slots=True)
class _Mark:
    """What parts the cells of a line."""

    parts: re.Pattern[str]
    quoted: re.Pattern[str]
    """A cell and what ends it, where quotation marks may hold marks."""
    hint: str
    loose: bool = False
    """Stands in any text too: the table ends with the first line that is none of its rows."""
    aligned: bool = False


def _mark(form: str, hint: str, *, loose: bool = False, aligned: bool = False) -> _Mark:
    quoted = rf'\s*(?:"(?P<quoted>(?:[^"]|""){{0,300}}+)"\s*|(?P<plain>.*?))(?:{form}|\Z)'
    return _Mark(re.compile(form), re.compile(quoted), hint, loose, aligned)


_MARKS = (
    _mark(r"(?<!\\)[|│┃]", "|"), _mark("\t", "\t"), _mark(";", ";"), _mark(",(?! )", ",", loose=True),
    _mark(",", ",", loose=True), _mark(r" {2,}|\t", "  ", loose=True, aligned=True),
)  # fmt: skip


def find(text: str) -> Iterator[Span]:
    """Values in columns whose headings tell their kind, in tables about people."""
    yield from _in_html(text)
    lines = _lines(text)
    at = 0
    while at < len(lines):
        table = _table(text, lines, at)
        if table is None:
            at += 1
            continue
        at = yield from _rows(text, lines, at, *table)


def _lines(text: str) -> list[Cell]:
    lines, start = [], 0
    for line in text.split("\n"):
        lines.append((start, start + len(line.rstrip())))
        start += len(line) + 1
    return lines


def _table(text: str, lines: Sequence[Cell], at: int) -> tuple[_Mark, list[Cell], Headings] | None:
    """How the table that starts with that line is parted, if one does."""
    start, end = lines[at]
    if not 5 < end - start <= _LONGEST:
        return None
    first = next((line for line in lines[at + 1 : at + 4] if _says(text, line)), None)
    if first is None:
        return None
    fallback = None
    for mark in _MARKS:
        if mark.parts.search(text, start, end) is None or mark.parts.search(text, *first) is None:
            continue
        cells = _cells(text, start, end, mark)
        headings = _headings(text, cells)
        if len(cells) < 2 or not personal(headings) or (mark.loose and _is_prose(text, cells)):
            continue
        row = _cells(text, *first, mark)
        if len(row) == len(cells):
            return mark, cells, headings
        if fallback is None and 1 < len(row) < 2 * len(cells):
            fallback = mark, cells, headings
    return fallback


def _rows(
    text: str, lines: Sequence[Cell], at: int, mark: _Mark, top: list[Cell], headings: Headings
) -> Generator[Span, None, int]:
    """What is found in the rows below; gives the number of the line behind the table."""
    indent = _indent(text, *lines[at])
    first = text[slice(*lines[at])]
    others = 0
    for number in range(at + 1, len(lines)):
        start, end = lines[number]
        if start < end and not _says(text, lines[number]):
            continue  # a ruled line
        if not _is_row(text, start, end, mark, after_gap=start > 1 and text[start - 2] == "\n"):
            others += 1
            if mark.loose or others > 1:
                return number
            continue
        cells = _cells(text, start, end, mark, indent)
        if mark.loose and (len(cells) < 2 or len(cells) > len(top) + 3):
            return number
        others = 0
        again = _headings(text, cells) if end - start <= _LONGEST else []
        if sum(each is not None for each in again) > 1 and not any(map(str.isdigit, text[start:end])):
            top, headings = cells, again
        elif text[start:end] != first:
            yield from _under(text, headings, _places(top, cells, aligned=mark.aligned), cells)
    return len(lines)


def _is_row(text: str, start: int, end: int, mark: _Mark, *, after_gap: bool) -> bool:
    if mark.parts.search(text, start, end) is None:
        return not mark.loose and not after_gap and start < end and text.count(" ", start, end) < 2
    return not (after_gap and text[end - 1] in ".!?:")


def _says(text: str, line: Cell) -> bool:
    return any(map(str.isalnum, text[slice(*line)])) or BLANK in text[slice(*line)]


def _places(top: Sequence[Cell], cells: Sequence[Cell], *, aligned: bool) -> list[range]:
    """Under which headings each cell may stand: with more cells than headings, a mark stood inside some cell."""
    if aligned and len(top) != len(cells):
        shift = cells[0][0] - top[0][0]
        return [range(near, near + 1) for near in (_nearest(top, cell, shift) for cell in cells)]
    more = max(len(cells) - len(top), 0)
    return [range(max(at - more, 0), min(at + 1, len(top))) for at in range(len(cells))]


def _nearest(top: Sequence[Cell], cell: Cell, shift: int) -> int:
    start, end = cell[0] - shift, cell[1] - shift
    return min(range(len(top)), key=lambda at: (max(top[at][0] - end, start - top[at][1], 0), abs(top[at][0] - start)))


def _under(text: str, headings: Headings, places: Sequence[range], cells: Sequence[Cell]) -> Iterator[Span]:
    for (start, end), under in zip(cells, places, strict=True):
        for at in under:
            what = headings[at] if at < len(headings) else None
            kind = told(what.kind, text[start:end]) if what is not None and start < end else None
            if kind is not None:
                yield Span(start, end, kind, 0.75, "table")
                break


def _headings(text: str, cells: Sequence[Cell]) -> Headings:
    """Of a row of cells; ahead of the first there may be a word to the reader: `Die Liste: Name;Alter`."""
    return [
        heading(text[start:end].rpartition(": ")[2].strip(" *_`#\"'„“") if not at else text[start:end].strip(" *_`\"'"))
        for at, (start, end) in enumerate(cells)
    ]


def _is_prose(text: str, cells: Sequence[Cell]) -> bool:
    """Whether commas, or spaces, part words of a sentence rather than headings."""
    return text[cells[-1][1] - 1 : cells[-1][1]] in tuple(".!?:") or any(
        text.count(" ", start, end) > 4 for start, end in cells[1:]
    )


def _indent(text: str, start: int, end: int) -> int:
    indent = _INDENT.match(text, start, end)
    return indent.end() - start if indent else 0


def _cells(text: str, start: int, end: int, mark: _Mark, indent: int = _LONGEST) -> list[Cell]:
    """Where the cells of a line stand, without quotation marks and spaces around them."""
    start += min(_indent(text, start, end), indent)
    if mark.aligned:
        start += _indent(text, start, end)
    if mark.hint == "|":
        start += text[start:end][:1] in ("|", "│", "┃")
        end -= end > start and text[end - 1] in "|│┃"
    if '"' in text[start:end]:
        return _quoted(text, start, end, mark)
    cells = []
    for part in mark.parts.finditer(text, start, end):
        cells.append(_stripped(text, start, part.start()))
        start = part.end()
    return [*cells, _stripped(text, start, end)]


def _quoted(text: str, start: int, end: int, mark: _Mark) -> list[Cell]:
    cells = []
    while start <= end and (cell := mark.quoted.match(text, start, end)):
        cells.append(_stripped(text, *cell.span("quoted" if cell["quoted"] is not None else "plain")))
        if cell.end() == end and (cell.end() == start or mark.parts.search(text, cell.end("plain"), end) is None):
            break
        start = cell.end()
    return cells


def _stripped(text: str, start: int, end: int) -> Cell:
    cell = text[start:end]
    start += len(cell) - len(cell.lstrip())
    return start, max(start, start + len(cell.strip()))


def _in_html(text: str) -> Iterator[Span]:
    if "<t" not in text and "<T" not in text:
        return
    rows: list[list[Cell]] = [[]]
    headings: Headings = []
    for part in (*_HTML.finditer(text), None):
        if part is not None and part["cell"] is not None:
            rows[-1].append(_stripped(text, *part.span("cell")))
            continue
        if row := rows.pop():
            again = _headings(text, row)
            if sum(each is not None for each in again) > 1 or (not headings and personal(again)):
                headings = again if personal(again) else []
            else:
                yield from _under(text, headings, [range(at, at + 1) for at in range(len(row))], row)
        rows.append([])
        if part is not None and part["end"]:
            headings = []
