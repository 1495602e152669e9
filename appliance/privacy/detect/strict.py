"""What may still identify somebody in masked text: whatever looks like it and isn't clearly ordinary."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from appliance.privacy.detect.addresses import FUNCTION_WORDS, NO_PLACE, STREET_ENDS, is_street
from appliance.privacy.detect.ordinary import UNIT, ordinary, without
from appliance.privacy.detect.rule import count_digits, has, heads, runs_of_digits
from appliance.privacy.detect.tokens import BLANK
from appliance.privacy.kinds import Kind, Span

_SCORE = 0.4
_YEAR = r"(?:1[89]|20)\d\d"

_RUN = re.compile(r"(?<![\w])\d+(?:(?:[ \u00a0./:–-]|\. )\d+)*(?!\w)")
_ORDINARY_RUN = re.compile(
    rf"\d{{1,3}}(?:[.,' ’\u00a0]\d{{3}})+"  # 1.250.000
    rf"|\d{{1,6}}[.,]\d\d?|\d{{1,3}}\.\d{{1,6}}"  # 12500.50, 3.14159
    rf"|[1-9]\d{{0,2}}0{{3,}}|16384|32768|6553[56]|86400"  # 250000, and what computers count in
    rf"|{_YEAR}(?: ?[-–/ ] ?(?:{_YEAR}|\d\d))*"  # 2023-2025, 2023/24
    rf"|(?:0?[1-9]|1[0-2])[./]{_YEAR}|{_YEAR}[-/](?:0?[1-9]|1[0-2])|[1-4]/{_YEAR}"  # months and quarters
    r"|[1-9]\d{0,2}(?:[-–/:]| [-–] )[1-9]\d{0,2}"  # 305-310
    r"|[0-2]?\d[:.][0-5]\d ?[-–] ?[0-2]?\d[:.][0-5]\d"  # 9.00-16.30
    r"|\d{1,2}:\d\d:\d\d|\d{1,2}(?:\.\d{1,2}){2}"  # times and versions
)
_ORDINARY_BEFORE = re.compile(
    r"(?i)(?:§|(?<!\w)(?:art|artikel|abs|absatz|section|kapitel|version|release|windows|build|python|norm|din|iso|en|"
    r"rfc|"
    r"skr|ISBN|zahl|zahlen|\w*primzahl\w*|werte?|werten|values?)\.?)(?!\w)[^\n;!?]{0,24}\Z|[+*×÷<>^=] ?\Z|(?:€|EUR|"
    r"\$|£|USD|CHF) ?\Z"
)
_ORDINARY_AFTER = re.compile(
    rf"(?:,\d+)? ?(?:%|‰|€|EUR|Euro|USD|\$|£|GBP|CHF|TEUR|k€|Mio|Mrd|[+*×÷<>^=](?!\w*@)|{UNIT}(?!\w))|,\d\d(?!\d)|"
    r" (?:[A-ZÄÖÜ][a-zäöüß]+(?:e|en|er|s|n|ste)|[a-z]+s)(?![\w▯-])(?! ▯)"
)
_OPERATORS = frozenset("+*×÷<>^=")

_MIXED = re.compile(
    r"(?<![^\W_])(?<![A-Za-z]['’])(?=[A-Za-zÄÖÜäöüß._/-]{0,60}\d)(?=[0-9._/-]{0,60}[A-Za-zÄÖÜäöüß])"
    r"[A-Za-z0-9ÄÖÜäöüß]+(?:[-_/.]+[A-Za-z0-9ÄÖÜäöüß]+)*"
)
_KNOWN = re.compile(
    r"(?i)(?:AES|SHA|UTF|RSA|GPT|MD|HTTPS?|TLS|SSL|ISO|DIN|EN|IEC|IEEE|RFC|VDE|RTX|GTX|USB|AMD|CVE|BSI|IDW|TRGS|"
    r"Covid|SARS|"
    r"Windows|Win|Python|Py|Llama|Qwen|Gemma|Mistral|Claude|Gemini|Office|Excel|Base|CO|Web|PM|KW|CW|SKR|IFRS|IAS|EU|"
    r"EG|UN|QM|"
    r"DSGVO|BGB|HGB|UCS|ASCII|Formular|Typ|Modell|Model|Version|Release|iPhone|iPad|Galaxy|Pixel|PDF|X|AMD|ARM|U?Int|"
    r"Float|"
    r"Log|Top|MP|Latin|CP|Java|ES|HTML|CSS|Vue|Angular|Sum|Q|H|Level|V|Rev|Nr|No|Art|Abs|Ziff|Kap|Anl|ICD|OAuth|Auth|"
    r"IPv|"
    r"Outlook|Teams|Office|Core|Ryzen|Xeon|DDR|WPA|LTE|Cat|RAID|PCIe|Tabelle|Spalte|Zeile|Seite|Sheet|Blatt|Bild|"
    r"Foto|Test|"
    r"Beispiel|Zelle|Cell|Column|Row|Table|Line|Step|Item|Page|Figure|Chapter|Section|DEKRA|TÜV|Euro|Boeing|Airbus|"
    r"SAP|R|S|"
    r"Postgres|Postgresql|MySQL|Node|Debian|Ubuntu|Server|Exchange|"
    r"Z)[-_/. ]?\d{1,5}(?:[-_./]?\d{1,4}){0,3}[a-z]{0,4}\d?"
)
_ORDINARY_MIX = re.compile(
    rf"\d{{1,6}}(?:[.,/-]\d{{1,6}})?[-]?(?:{UNIT}|er|ers|ern|te[rnsm]?|ten|fache?[rnsm]?|mal|stel|px|pt|em|rem|vh|vw|"
    rf"ms|th|st|nd|rd|jährig\w*|"
    r"tägig\w*|stündig\w*|minütig\w*|wöchig\w*|monatig\w*|seitig\w*|stellig\w*|teilig\w*|köpfig\w*|prozentig\w*|k|K|M|"
    r"bit|Bit|dpi|fps|rpm|Mbit|Gbit|D|G|p|i)"
    rf"|\d{{1,6}}x\d{{1,6}}(?:x\d{{1,6}})?"  # 1920x1080
    r"|\d{1,4}(?:[-/]\d{1,4})?-[A-ZÄÖÜa-zäöüß]{3,}(?:-[A-ZÄÖÜa-zäöüß]{2,})*"  # 1000-Euro-Schein
    rf"|[A-Za-zÄÖÜäöüß]+(?:[-_/.][A-Za-zÄÖÜäöüß]+)*[-_/.]?(?:{_YEAR}(?:[-/_](?:{_YEAR}|\d\d))?|"
    rf"\d)(?:[-_.][A-Za-zÄÖÜäöüß]+)*"
    r"|[A-Za-zÄÖÜäöüß]{3,}(?:[-_][A-Za-zÄÖÜäöüß]+)*[-_./]\d{1,3}"  # Zimmer-104
    rf"|{_YEAR}(?:[-/_](?:{_YEAR}|\d\d))?[-_]?[A-Za-zÄÖÜäöüß]+(?:[-_.][A-Za-zÄÖÜäöüß]+)*"
    r"|v?\d{1,3}(?:\.\d{1,3}){1,3}[a-z]?\d?|[A-Za-z]{1,2}\d{1,3}(?:[-:][A-Za-z]{1,2}\d{1,3})?"
    r"|0x[0-9A-Fa-f]{1,8}"
)
_CELL_BESIDE = frozenset("$:(;,=!")

_AT = re.compile(r"(?:[\w.▯)\]] ?@(?!\d+\.\d)|@ ?[^\W\d])")
_DECORATOR = re.compile(r"[ \t]*@[A-Za-z_][\w.]*(?:\(.{0,200}\))?[ \t]*(?:\n|\Z)")
_HOST = re.compile(
    r"://|(?<!\w)www\.\w|(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]\d)|"
    r"(?<![\w.(])[a-z0-9][a-z0-9-]{1,62}\.(?:[a-z0-9-]{1,63}\.){1,8}"
    r"[a-z]{2,12}(?![\w.(\[=])|(?<!\w)[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){4,}"
)

_AGES = re.compile(
    r"▯ ?\((?P<a>1?\d\d|[1-9])(?=\)|,|;| ?J)|▯, (?P<b>1?\d\d|[1-9])(?=,|\)|;|\.\s|\Z| Jahre| J\.| years)|"
    r"(?i:(?<!\w)(?:Alter|age)\W{1,3}(?:von |ist |is |of )?(?P<c>1?\d\d)(?!\d|[.,]\d| ?(?:%|€)))"
)
_AGE_COLUMN = re.compile(r"(?:^|[\t;,|]) ?\"?(?:Alter|Age|age|alter)\"? ?(?:$|[\t;,|])", re.M)
_AGE_CELL = re.compile(r"(?:^|(?<=[\t;,|])) ?\"?\d{1,3}\"? ?(?=$|[\t;,|])", re.M)
_STREET = re.compile(
    r"(?<![\w▯-])(?P<name>(?:[\wäöüß.'-]{1,30} ){0,2}?[\wäöüß'-]{2,40}?(?:" + "|".join(STREET_ENDS) + r"|str\.)) "
    r"(?P<n>\d{1,3}(?: ?[a-zA-Z])?)(?![\w%]|[.:]\d| ?(?:€|EUR|Euro|Uhr|Prozent))", re.I)  # fmt: skip
_AT_THE = re.compile(
    rf"(?<![\w▯-])(?:{FUNCTION_WORDS}) {NO_PLACE}[A-ZÄÖÜ][\wäöüß-]+(?: [A-ZÄÖÜ][\wäöüß-]+){{0,2}} \d{{1,3}} "
    rf"?[a-zA-Z]?(?=[,;|\t\n\"]|\Z)"
)
_BESIDE_BLANK = re.compile(  # a line or a cell of words and a number, beside one that was masked
    r"(?:(?:(?<=▯)|(?<=▯,)|(?<=▯;)|(?<=▯\t)|(?<=▯\n)|(?<=▯, )|(?<=▯ in ))(?P<left>))?"
    r"(?<![\w▯.-])(?P<find>(?!(?:Seite|Kapitel|Teil|Anlage|Raum|Zimmer|Tag|Woche|Version|Nr|Punkt|Schritt|Stufe|"
    r"Klasse|Gruppe|Platz|"
    r"Rang|Phase|Level|Page|Step|Room|Position|Pos|Zeile|Spalte|Abschnitt|Artikel|Aufgabe|Frage|Option|Block)\b)"
    r"[A-ZÄÖÜ][a-zäöüß'-]{2,}(?:[ -][A-ZÄÖÜ][\wäöüß'-]+){0,3} \d{1,3} ?[a-z]?|"
    r"\d{1,3}[A-Za-z]? [A-Z][a-z'-]+(?: [A-Z][a-z'-]+){0,2})"
    r"(?(left)(?=[,;|\t\n]|\Z)|(?=(?:, ?|;|\t|\|| ?\n)▯))"
)


def remains(text: str) -> Iterator[Span]:
    """Doubts, in a text whose placeholders are blanked out."""
    if "@" in text:
        yield from _with(_AT, text, Kind.EMAIL, _is_address)
    if has(text, ("://", "www.", ".", ":")):
        yield from _with(_HOST, text, Kind.URL)
    runs = runs_of_digits(text)
    if not runs:
        return
    yield from _with(_AGES, text, Kind.AGE)
    if _AGE_COLUMN.search(text):
        yield from _with(_AGE_CELL, text, Kind.AGE)
    rest = without(text, ordinary(text, heads(text, runs)))
    yield from _with(_RUN, rest, Kind.REFERENCE, _is_number)
    yield from _with(_MIXED, rest, Kind.REFERENCE, _is_mixed)
    yield from _with(_STREET, rest, Kind.ADDRESS, lambda match: is_street(match["name"]))
    yield from _with(_AT_THE, rest, Kind.ADDRESS)
    if BLANK in text:
        yield from _with(_BESIDE_BLANK, rest, Kind.ADDRESS)


def _with(
    form: re.Pattern[str], text: str, kind: Kind, accept: Callable[[re.Match[str]], bool] | None = None
) -> Iterator[Span]:
    for match in form.finditer(text):
        if accept is None or accept(match):
            yield Span(*match.span(), kind, _SCORE, "strict")


def _is_address(match: re.Match[str]) -> bool:
    line = match.string.rfind("\n", max(match.start() - 200, 0), match.start() + 1) + 1
    return _DECORATOR.match(match.string, line) is None


def _is_number(match: re.Match[str]) -> bool:
    text, (start, end) = match.string, match.span()
    if count_digits(match[0]) < 5 or _ORDINARY_RUN.fullmatch(match[0]):
        return False
    return not (
        _ORDINARY_BEFORE.search(text, max(start - 32, 0), start)
        or (count_digits(match[0]) < 7 and _ORDINARY_AFTER.match(text, end))
    )


def _is_mixed(match: re.Match[str]) -> bool:
    text, (start, end), found = match.string, match.span(), match[0]
    digits = count_digits(found)
    if len(found) < 6 or digits < 2 or _KNOWN.fullmatch(found) or _ORDINARY_MIX.fullmatch(found):
        return False
    if text[start - 1 : start] == "#" and re.fullmatch(r"[0-9A-Fa-f]{6}", found):  # a colour
        return False
    return not (
        re.fullmatch(r"[A-Z]{1,3}\d{1,7}", found) and {text[start - 1 : start], text[end : end + 1]} & _CELL_BESIDE
    )
