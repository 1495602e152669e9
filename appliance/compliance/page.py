"""The report as one page: no script, nothing fetched, legible in black and white on A4."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

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
from appliance.egress.page import Html, markup, tag
from appliance.egress.style import style

_LOOK = """
dl { grid-template-columns: 44mm 1fr; }
dl, pre, table { break-inside: avoid; }
th { vertical-align: bottom; }
td.figure, th.figure { text-align: right; font-variant-numeric: tabular-nums; padding-right: 1mm; }
td.figure + td:not(.figure), th.figure + th:not(.figure) { padding-left: 4mm; }
table { table-layout: fixed; hyphens: auto; }
dd { hyphens: auto; }
code { hyphens: none; }
.blank { display: inline-block; min-width: 90mm; border-bottom: .2mm solid #000; color: #555; font-size: 7.5pt;
  padding: 2.5mm 0 .3mm; text-align: right; }
td .blank { min-width: 60mm; }
pre { font: 7.5pt/1.35 "DejaVu Sans Mono", "Liberation Mono", monospace; white-space: pre-wrap; border-left: .5mm solid
  #999; padding-left: 2.5mm; margin: 0 0 2mm; }
pre.long, table.long { break-inside: auto; }
.wrong { padding: 3mm 4mm; }
.verdict div { display: flex; gap: 2.5mm; }
.verdict div + div { margin-top: 1.5mm; }
h2 + p, h3 + p { break-after: avoid; }
@media screen and (max-width: 680px) {
  body { padding: 0 4mm; }
  h1, h2, h3, .verdict { hyphens: auto; overflow-wrap: break-word; }
  dl { grid-template-columns: 1fr; gap: .3mm; }
  dd { margin: 0 0 1.5mm; }
  .wide { overflow-x: auto; }
  .wide table { min-width: 620px; }
  .blank { min-width: 0; width: 100%; }
}
footer { margin-top: 6mm; border-top: .4mm solid #000; padding-top: 2mm; font-size: 8pt; }
"""
_FEW = 3
"""Columns that fit on a telephone; a table of more is moved sideways there."""
_LONG, _MANY = 25, 14
"""A longer listing, and a table of more rows, may begin on one sheet and end on another."""


def page(title: str, blocks: Iterable[Block], *, language: str, host: str, bottom: str, footer: str) -> bytes:
    """The page, in UTF-8. Its last line ends with the SHA-256 of all bytes before that line.

    `bottom` stands in the margin of each printed page, `footer` before the checksum.
    """
    parts = [tag("h1", title), *map(_block, blocks)]
    widths = sorted({width for block in blocks if isinstance(block, Table) for width in block.widths})
    columns = "\n".join(f"col.w{width} {{ width: {width}%; }}" for width in widths)
    text = (
        f'<!DOCTYPE html>\n<html lang="{markup(language)}"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width">'
        f"<title>{markup(f'{title}, {host}')}</title><style>{style(f'{title} - {host}', '', bottom)}{_LOOK}{columns}"
        f"</style></head>\n<body><main>\n{chr(10).join(parts)}\n</main>\n"
    ).encode()
    last = f"<footer>{markup(footer)} <code>{hashlib.sha256(text).hexdigest()}</code></footer></body></html>\n"
    return text + last.encode()


def _block(block: Block) -> Html:
    return _DRAW[type(block)](block)


def _text(text: Text) -> Html:
    return Html("".join(map(_inline, inlines(text))))


def _inline(part: Inline) -> Html:
    match part:
        case Code(text):
            return tag("code", text)
        case Strong(text):
            return tag("b", text)
        case Blank(text):
            return tag("span", text, css="blank")
        case Mark(holds):
            return tag("b", "✓" if holds else "✗")
        case _:
            return markup(part)


def _paragraph(paragraph: Paragraph) -> Html:
    return tag("p", _text(paragraph.text), css="small" if paragraph.small else "")


def _table(table: Table) -> Html:
    def cells(name: str, row: Iterable[Text]) -> Iterator[Html]:
        for index, cell in enumerate(row):
            yield tag(name, _text(cell), css="figure" if index in table.right else "")

    columns = Html("".join(f'<col class="w{width}">' for width in table.widths))
    drawn = tag(
        "table",
        tag("colgroup", columns),
        tag("thead", tag("tr", *cells("th", table.head))),
        tag("tbody", *(tag("tr", *cells("td", row)) for row in table.rows)),
        css="long" if len(table.rows) > _MANY else "",
    )
    return tag("div", drawn, css="wide" if len(table.widths) > _FEW else "")


def _verdict(verdict: Verdict) -> Html:
    each = (tag("div", tag("span", "✓" if good else "✗"), tag("span", text)) for good, text in verdict.sentences)
    return tag("div", *each, css="verdict" if verdict.holds else "verdict wrong")


def _listing(listing: Listing) -> Html:
    lines = Html("\n".join(map(markup, listing.lines)))
    return tag("pre", lines, css="long" if len(listing.lines) > _LONG else "")


_DRAW: dict[type[Any], Callable[[Any], Html]] = {
    Heading: lambda block: tag(f"h{block.level + 1}", block.text),
    Paragraph: _paragraph,
    Bullets: lambda block: tag("ul", *(tag("li", _text(item)) for item in block.items)),
    Table: _table,
    Pairs: lambda block: tag(
        "dl", *(tag(name, part) for word, text in block.rows for name, part in (("dt", word), ("dd", _text(text))))
    ),
    Verdict: _verdict,
    Listing: _listing,
}
