"""Records: `"nachname": "hoppe"`, `Arbeitgeber = Rich und Söhne`, `Vorname ...... Wanja`.

Only names; numbers, dates and streets behind a label are what the patterns find.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from appliance.privacy.detect.headings import heading, told
from appliance.privacy.kinds import Kind, Span

_VALUE = re.compile(
    r"[\"'*]{0,2} ?(?::|=|[.…_]{3,40}:?)(?:\*{2})?[ \t]{0,8}(?P<quote>[\"'„]?)(?P<value>[^\n\"„“;|{}\[\]*<>]{2,80})"
)
_KEY = re.compile(r"[^\W\d_][\w .,/-]{0,39}\Z")
_OPENS = re.compile(r"[\n\"'{;|*\t]")
_KINDS = frozenset({Kind.PERSON, Kind.ORGANISATION, Kind.PLACE})


def find(text: str) -> Iterator[Span]:
    """Names of people, firms and places behind a key that says so alone."""
    for match in _VALUE.finditer(text):
        key = _KEY.search(_OPENS.split(text[max(match.start() - 40, 0) : match.start()])[-1])
        what = heading(key[0]) if key else None
        if what is None or not what.alone or what.kind not in _KINDS:
            continue
        value = match["value"] if match["quote"] else match["value"].partition(",")[0]
        value = value.rstrip(" \t,'")
        if not match["quote"] and not _is_name(key[0] if key else "", value):
            continue
        if (kind := told(what.kind, value)) is not None:
            yield Span(match.start("value"), match.start("value") + len(value), kind, 0.75, "record")


def _is_name(key: str, value: str) -> bool:
    """Whether it is one also where no quotation marks say so. Behind `Kunde:` may come what he says."""
    return (
        key.lower().endswith(("name", "arbeitgeber", "employer", "ort"))
        and value.count(" ") < 5
        and (value[:1].isupper() or " " not in value)
        and value[-1:] not in ".!?:"
    )
