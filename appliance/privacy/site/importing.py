"""Names out of a file of the site's own: a text with one in each line, or a table as spreadsheets write it."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from appliance.errors import BadRequest
from appliance.privacy.kinds import Kind
from appliance.privacy.site.entry import SiteEntry
from appliance.privacy.site.forms import TOKEN

_LONGEST = 200
_MOST = 500_000
_SEPARATORS = ";\t,|"


def text_of(content: bytes) -> str:
    """The text of a file as Unicode, or as older Windows programs write it. Raises `BadRequest`."""
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise BadRequest("the file is no text: save it as CSV or text in UTF-8")


def lines(text: str, kind: Kind) -> list[SiteEntry]:
    """One entry to a line; other names of the same one behind it, after semicolons. `#` begins a comment.

    Raises `BadRequest` that names the line, and never what stands there.
    """
    rows = ((number, line.split(";")) for number, line in enumerate(text.splitlines(), 1)
            if not line.lstrip().startswith("#"))  # fmt: skip
    return _entries(rows, kind)


def table(text: str, kind: Kind, columns: Sequence[str]) -> list[SiteEntry]:
    """One entry to a row; `columns` together are the name: by the names in the first row, or by numbers from 1 on.

    Raises `BadRequest`, also where the table has several columns and none is named.
    """
    first = text.splitlines()[0] if text.strip() else ""
    separator = max(_SEPARATORS, key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as cause:
        raise BadRequest(f"the file is no table: {cause}") from None
    head = [cell.strip() for cell in rows[0]] if rows else []
    if not columns:
        if len(head) > 1:
            raise BadRequest(f"say which column has the name with --column: {', '.join(head)}")
        return _entries(enumerate(rows, 1), kind)
    if all(column.isdecimal() for column in columns):
        chosen, begin = [int(column) - 1 for column in columns], 0
    else:
        if missing := [column for column in columns if column not in head]:
            raise BadRequest(f"--column {missing[0]}: the first row has {', '.join(head)}")
        chosen, begin = [head.index(column) for column in columns], 1
    if not all(0 <= at < len(head) for at in chosen):
        raise BadRequest(f"--column: the table has columns 1 to {len(head)}")
    named = ([" ".join(row[at] for at in chosen if at < len(row))] for row in rows[begin:])
    return _entries(enumerate(named, begin + 1), kind)


def _entries(rows: Iterable[tuple[int, Sequence[str]]], kind: Kind) -> list[SiteEntry]:
    found: dict[str, SiteEntry] = {}
    for number, row in rows:
        name, *aliases = list(_names(number, row)) or [""]
        if name:
            found[name] = SiteEntry(name, kind, tuple(aliases))
        if len(found) > _MOST:
            raise BadRequest(f"there are more than {_MOST} names; a list holds no more")
    return list(found.values())


def _names(number: int, cells: Iterable[str]) -> Iterator[str]:
    for cell in cells:
        name = " ".join(unicodedata.normalize("NFC", cell).split())
        if not name:
            continue
        if len(name) > _LONGEST or not name.isprintable() or len("".join(TOKEN.findall(name))) < 2:
            raise BadRequest(f"line {number} is no name: one has 2 to {_LONGEST} characters, all of which can be seen")
        yield name
