"""Organisations by their legal form, or by a word that says what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator

from appliance.privacy.kinds import Kind, Span

_FORM = re.compile(
    r"(?<![^\W_])(?:(?:g?GmbH|AG|UG|SE|mbH|Ltd\.?|S\.?A\.?|B\.V\.)(?: ?\(haftungsbeschränkt\))? "
    r"?(?:& ?Co\.? ?(?:KGaA|KG|OHG))?|"
    r"KGaA|KG|OHG|oHG|"
    r"GbR|PartG(?: ?mbB)?|e\. ?V\.|e\. ?G\.|eG|e\. ?K\.|e\. ?U\.|Inc\.?|LLC|LLP|PLC|plc|Corp\.?|Limited|S\.à r\.l\.|"
    r"S\.p\.A\.|S\.r\.l\.|N\.V\.|Stiftung|Genossenschaft)(?![^\W_])"
)
_PART = r"(?:[A-ZÄÖÜ0-9][\w.'’&+-]*|&|\+|und|and|für|of|der|des|von|im|am|in|Co\.)"
_BEFORE = re.compile(rf"(?:{_PART}[ \t]+){{1,6}}\Z")
_AND = re.compile(
    r"\A(?:(?:&|\+|und|and|für|of|der|des|von|im|am|in|Die|Der|Das|Wir|The|Bei|Für|An|Von|Mit|Firma|Fa\.)[ \t]+)+"
)
_NAMED = re.compile(
    r"(?<![^\W_])(?:Firma|Fa\.|Kanzlei|Praxis|Apotheke|Gasthof|Hotel|Autohaus|Bäckerei|Metzgerei|Gärtnerei|Spedition|"
    r"Steuerkanzlei|Anwaltskanzlei|Verlag|Klinikum|Brauerei)"
    r"[ \t]+((?=[A-ZÄÖÜ])[\w.'’&-]+(?:[ \t]+(?:&|und|\+)[ \t]+(?=[A-ZÄÖÜ])[\w.'’-]+|[ \t]+(?=[A-ZÄÖÜ])[\w'’-]+){0,3})"
)
_REACH = 80
"""Characters before a legal form that may belong to the name."""


def find(text: str) -> Iterator[Span]:
    """Names with their legal form (Huber GmbH & Co. KG) or behind a word for what they are (Kanzlei Vogt)."""
    for form in _FORM.finditer(text):
        window = text[max(0, form.start() - _REACH) : form.start()]
        before = _BEFORE.search(window)
        if before is None:
            continue
        name = before[0][len(skipped[0]) :] if (skipped := _AND.match(before[0])) else before[0]
        if name and _FORM.match(name) is None:
            yield Span(form.start() - len(name), form.end(), Kind.ORGANISATION, 0.8, "organisation")
    for named in _NAMED.finditer(text):
        yield Span(named.start(1), named.end(1) - named[1].endswith("."), Kind.ORGANISATION, 0.6, "organisation")
