"""Numbers that are nobody's: amounts, times, paragraphs, norms, versions, quantities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from appliance.privacy.detect.rule import Window, has, word_before, words

_AMOUNT = r"(?:\d{1,3}(?:[. '’]\d{3})+|\d+)(?:[.,]\d{1,2}|,-+)?"
_MONEY = (
    r"(?:€|EUR(?![a-z])|Euro|USD|US-?\$|\$|£|GBP|CHF|Franken|Dollar|Pfund|Mio|Mrd|Tsd|TEUR|T€|k€|Millionen|Milliarden|"
    r"Cent)"
)
UNIT = (
    r"(?:%|‰|Prozent|percent|Uhr|h|Std|min|sek|s|kg|g|mg|t|km|m|cm|mm|m²|m2|qm|m³|l|ml|kWh|MWh|kW|W|V|A|Hz|GHz|MHz|GB|"
    r"MB|KB|TB|GiB|MiB|KiB|Byte|Bytes|px|dpi|Grad|°C|°|ppm|bar|Stück|Stk|Tage?n?|Wochen?|Monate?n?|Jahre?n?(?! (?:alt|"
    r"jung))|Stunden?|Minuten?|Sekunden?|Mitarbeiter\w*|Personen|Mal|mal|Zeichen|Wörter|Wörtern|Seiten|Zeilen|days?|"
    r"weeks?|months?|hours?|minutes?|seconds?|words?|pages?|lines?|people|employees|times|tokens?|Tokens?|x|MBit/s|"
    r"Gbit/s|AM|PM|am|pm)"
)
_NUMBER = re.compile(
    r"(?<![\w.,/:-])(?<!\d )(?<!\))(?<!\) )(?:"
    rf"(?>{_AMOUNT}) ?(?:{_MONEY}|{UNIT}(?!\w))"
    r"|[1-9]\d{0,2}(?:\.\d{3})*,\d{1,4}(?![\d.,/-])"
    r"|[1-9]\d{0,2}(?:\.\d{3}){1,2}(?![\d.,/-]|[ /]\d)"
    r"|(?:[01]?\d|2[0-4])[:.][0-5]\d(?::[0-5]\d(?:[.,]\d{1,6})?)?(?: ?Uhr| ?h(?!\w)| ?[ap]\.?m\.?(?!\w)|(?![\w.:]))"
    r"|(?:19|20)\d\d(?:/(?:19|20)?\d\d)?(?![\w./-]|,\d|:[\w:]| \d{3})"
    r"|[1-9]\d{0,2}(?:00){2,6}(?![\w.,/-])"
    r"|[1-9]\d?0{2,3}(?: [1-9]\d?0{2,3}){2,9}(?![\w.,/-])"
    r"|\d{2,4}/\d{1,4}/(?:EU|EG|EWG)(?!\w))"
)
_MONEY_AFTER = re.compile(_AMOUNT)
_SECTIONS = words(
    "§ §§ s. v. abs art nr ziff rn rz anm kap fn bgbl bd jg absatz artikel artikels satz kapitel seite abschnitt punkt "
    "ziffer version release schritt teil anlage anhang tabelle abbildung abb zeile spalte folie quartal kw "
    "kalenderwoche raum zimmer haus tor gleis level stufe section chapter page step part table figure line article "
    "paragraph rule question frage aufgabe kontenrahmen skr windows office rtx gtx boeing airbus python java excel usb "
    "intel ryzen core"
)
_SECTION = re.compile(r"\d{1,4}(?:\.\d{1,4}){0,4}[a-z]?(?![\w/-]| \d)")
_NORMS = words(
    "din iso iec en vde rfc ieee astm ansi vdi bsi trgs asr ifrs ias idw ps hgb sgb nist iso/iec eg eu (eu) un"
)
_BOOKS = words("isbn issn isbn: issn: isbn-13 isbn-10 isbn-13: isbn-10:")
_BOOK = re.compile(r"[\d -]{7,16}[\dX](?![\w-])")
_NORM = re.compile(r"\d{1,6}(?:[.:/-]\d{1,6}){0,4}[a-z]?(?![\w/-])")
_CALLS = ("nummer", "nr", "kennung", "zeichen", "number", "no", "id", "schein", "iban", "konto", "az")
_CALLED = re.compile(
    r"(?i)(?:nummer|(?<!§ )(?<![a-z] )nr|kennung|zeichen|number|schein|\bno|\bid|iban|konto|\baz)\.?(?!\w)"
    r"[^\d.\n]{0,20}\Z"
)
BLOT = "\x00"  # neither of a word nor a space


def ordinary(text: str, runs: Sequence[Window]) -> list[Window]:
    """Where numbers stand by which nobody can be looked up, as far as the words before them don't say otherwise."""
    result: list[Window] = []
    done = 0
    for start, _ in runs:
        if start < done:
            continue
        match = _NUMBER.match(text, start)
        if match and _is_called(text, start):
            continue
        if match is None:
            before = word_before(text, start).lower()
            if before in _SECTIONS or before.rstrip(".") in _SECTIONS:
                match = _SECTION.match(text, start)
            elif before in _BOOKS:
                match = _BOOK.match(text, start)
            elif before in _NORMS:
                match = _NORM.match(text, start)
            elif before in ("€", "eur", "$", "£", "usd", "chf"):
                match = _MONEY_AFTER.match(text, start)
        if match:
            result.append(match.span())
            done = match.end()
    return result


def _is_called(text: str, at: int) -> bool:
    """Whether the words before there say that somebody's number follows."""
    least = max(at - 32, 0)
    return has(text[least:at].lower(), _CALLS) and _CALLED.search(text, least, at) is not None


def without(text: str, stretches: Iterable[Window]) -> str:
    """The text, as long as before, with those stretches blotted out."""
    pieces: list[str] = []
    done = 0
    for start, end in sorted(stretches):
        if end > done:
            pieces += text[done:start], BLOT * (end - max(start, done))
            done = end
    return "".join((*pieces, text[done:])) if pieces else text
