"""The report on paper: a tagged PDF/A-2a, made offline with the fonts that typst brings along.

Nothing of a report is ever taken for typst's own language: the template is fixed, and all texts come as data.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import typst

from appliance.compliance.blocks import (
    Blank,
    Block,
    Bullets,
    Code,
    Heading,
    Inline,
    Listing,
    Mark,
    Pairs,
    Paragraph,
    Strong,
    Table,
    Text,
    Verdict,
    inlines,
)
from appliance.compliance.template import TEMPLATE
from appliance.egress.report import printable

_DRAWABLE = (
    range(0x20, 0x250), range(0x370, 0x500), range(0x1E00, 0x1F00), range(0x2010, 0x2041), range(0x20A0, 0x20C0),
    range(0x2190, 0x2300),
)  # fmt: skip
"""What the fonts have: Latin, Greek, Cyrillic, punctuation, currencies, arrows, operators."""
_MARKS = "✓✗"
_LED = (Table, Pairs, Bullets, Listing)
"""What a paragraph before it stays together with."""
_LONG_CELL = 900
"""Characters; so many lie on no more than half a page even in a narrow column."""
_MANY, _LONG_TABLE = 14, 1500
"""A table of fewer rows, and of fewer characters in the longest cell of each, stays on one page."""


def paper(
    title: str, blocks: Iterable[Block], *, language: str, host: str, header: str, bottom: str, made: datetime
) -> bytes:
    """The PDF. `header` and `host` stand above each page, `bottom` below it, beside its number."""
    every = list(blocks)
    around = zip([None, *every], every, [*every[1:], None], strict=False)
    leads = [
        isinstance(block, Paragraph) and (isinstance(after, _LED) or isinstance(before, Heading))
        for before, block, after in around
    ]
    data = {
        "title": _plain(title), "host": _plain(host), "header": _plain(header), "bottom": _plain(bottom),
        "lang": language, "date": {"year": made.year, "month": made.month, "day": made.day},
        "blocks": [
            _FORM[type(block)](block) | {"kind": type(block).__name__, "leads": leading}
            for block, leading in zip(every, leads, strict=True)
        ],
    }  # fmt: skip
    return typst.compile(
        TEMPLATE.encode(),
        format="pdf",
        ignore_system_fonts=True,
        sys_inputs={"data": json.dumps(data)},
        pdf_standards=["a-2a", "ua-1"],  # for archives (ISO 19005-2), and for readers who can't see
        timestamp=int(made.timestamp()),
    )


def _plain(text: str) -> str:
    """`text` in characters that the fonts have; others are told by their numbers, as those that command are."""
    shown = unicodedata.normalize("NFC", printable(text))
    return "".join(
        each if any(ord(each) in known for known in _DRAWABLE) or each in _MARKS
        else each.encode("unicode_escape").decode()
        for each in shown
    )  # fmt: skip


def _text(text: Text) -> list[dict[str, str]]:
    return [_inline(part) for part in inlines(text)]


def _inline(part: Inline) -> dict[str, str]:
    match part:
        case Mark(holds):
            return {"as": "strong", "text": "✓" if holds else "✗"}
        case Code(text) | Strong(text) | Blank(text):
            return {"as": type(part).__name__.lower(), "text": _plain(text)}
        case _:
            return {"as": "text", "text": _plain(part)}


def _table(table: Table) -> dict[str, Any]:
    rows = [_row([_text(cell) for cell in row]) for row in table.rows]
    return {
        "head": [_plain(word) for word in table.head],
        "widths": list(table.widths),
        "right": sorted(table.right),
        "rows": rows,
        "breaks": len(rows) > _MANY or sum(row["longest"] for row in rows) > _LONG_TABLE,
    }


def _row(cells: list[list[dict[str, str]]]) -> dict[str, Any]:
    """One that is sure to fit on a page stays `whole` on one."""
    longest = max(sum(len(part["text"]) for part in cell) for cell in cells)
    return {"cells": cells, "longest": longest, "whole": longest < _LONG_CELL}


_FORM: dict[type[Any], Callable[[Any], dict[str, Any]]] = {
    Heading: lambda block: {"text": _plain(block.text).strip() or "–", "level": block.level},  # none may be empty
    Paragraph: lambda block: {"text": _text(block.text), "small": block.small},
    Bullets: lambda block: {"items": [_text(item) for item in block.items]},
    Table: _table,
    Pairs: lambda block: {"rows": [[_plain(word), _text(text)] for word, text in block.rows]},
    Verdict: lambda block: {
        "sentences": [[good, _plain(text)] for good, text in block.sentences],
        "holds": block.holds,
    },
    Listing: lambda block: {"lines": [_plain(line) for line in block.lines]},
}
