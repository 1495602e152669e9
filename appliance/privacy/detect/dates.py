"""Dates, dates of birth and ages, German and English, in digits and spelt out."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Sequence

from appliance.privacy.detect.rule import Parts, Rule, Set, Window, all_of, word_before, words
from appliance.privacy.kinds import Kind, Span

_MONTH = (
    r"(?:Jan(?:uar|uary)?|Jänner|Feb(?:ruar|ruary|er)?|Mär(?:z|ch)?|Maerz|Mrz|Mar(?:ch)?|Apr(?:il)?|Mai|May|Jun[ie]?|"
    r"Jul[iy]?|Aug(?:ust)?|Sept?(?:ember)?|O[kc]t(?:ober)?|Nov(?:ember)?|De[zc](?:ember)?)(?!\w)\.?"
)
_ORDINAL = (
    r"(?:ein|zwei|drei|vier|fünf|sechs|sieben|acht|neun)und(?:zwanzigste|dreißigste)[nrs]?|(?:erste|zweite|dritte|"
    r"vierte|fünfte|sechste|siebte|achte|neunte|zehnte|elfte|zwölfte|dreizehnte|vierzehnte|fünfzehnte|sechzehnte|"
    r"siebzehnte|achtzehnte|neunzehnte|zwanzigste|dreißigste)[nrs]?|(?:twenty|thirty)[- ](?:first|second|third|fourth|"
    r"fifth|sixth|seventh|eighth|ninth)|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|"
    r"twelfth|(?:thir|four|fif|six|seven|eigh|nine)teenth|twentieth|thirtieth"
)
_YEAR_WORDS = r"(?:neunzehnhundert|zweitausend|nineteen|twenty)[a-zäöüß -]{0,30}?(?![\w-])"
_YEAR = r"(?:1[89]|20)\d\d"
_NUMERIC = (
    r"(?:(?:0?[1-9]|[12]\d|3[01])\. ?(?:0?[1-9]|1[0-2])\.(?: ?(?:\d{4}|\d{2})(?!\d))?"
    r"|\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?:T[0-9:.+Z-]{4,24})?"
    r"|(?:0?[1-9]|[12]\d|3[01])(?P<sep>[/-])(?:0?[1-9]|[12]\d|3[01])(?P=sep)(?:(?:19|20)\d\d|\d\d(?![\d/-])))"
)
_DAY_FIRST = (
    rf"(?:(?:0?[1-9]|[12]\d|3[01])(?:\.|st|nd|rd|th)?(?: of)? ?-?{_MONTH}(?:,? ?-?(?:{_YEAR}|['’]\d\d|{_YEAR_WORDS}))?)"
)
_MONTH_FIRST = rf"(?:{_MONTH} (?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?!\d|\.\d)(?:,? {_YEAR}|,? ['’]\d\d)?)"
_SPELT = rf"(?:{_DAY_FIRST}|{_MONTH_FIRST})"
_BORN = (
    r"(?<!\w)(?:geb(?:oren[ers]*|\.)?|Geburts?(?:datum|tag|jahr)\w?|Geb\.?-?(?:datum|dat|tag)\.?|Geburt|Jahrgang|"
    r"Jg\.|DOB|"
    r"D\.O\.B\.|born|date of birth|birth ?(?:day|date)|year of birth|b\.(?= ))(?![^\W\d])"
)
_TENS = r"(?:zwanzig|dreißig|dreissig|vierzig|fünfzig|sechzig|siebzig|achtzig|neunzig)"
_AGE_WORD = (
    rf"(?:(?:ein|zwei|drei|vier|fünf|sechs|sieben|acht|neun)und{_TENS}|{_TENS}|(?:drei|vier|fünf|sech|sieb|acht|"
    rf"neun)zehn|"
    r"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:[- ](?:one|two|three|four|five|six|seven|eight|"
    r"nine))?"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|zwölf|elf|zehn|neun|acht|sieben|sechs|fünf|vier|drei|zwei)"
)

_LETTERS = string.ascii_letters + "äöüÄÖÜß"

_BIRTH = [
    Rule("birth", Kind.DATE_OF_BIRTH, 1.0, re.compile(
        rf"{_BORN}[^\d\n.;!?]{{0,30}}?\s?(?P<find>{_SPELT}|{_NUMERIC}|(?:{_MONTH} )?{_YEAR})(?!\d)", re.I)),
    Rule("birth", Kind.DATE_OF_BIRTH, 1.0, re.compile(
        rf"(?<![\w*])[*∗†] ?(?:am )?(?P<find>{_SPELT.replace('sep', 'a')}|{_NUMERIC.replace('sep', 'b')})", re.I)),
    Rule("birth", Kind.DATE_OF_BIRTH, 0.9, re.compile(
        rf"(?:(?<=\()|(?<=\w )|(?<=, ))[*∗] ?(?P<find>{_YEAR})(?=[),;.]| in )")),
    Rule("birth", Kind.DATE_OF_BIRTH, 0.95, re.compile(
        rf"(?<![\w.])(?P<find>{_SPELT}|{_NUMERIC}|{_YEAR})(?=,? (?:in [A-ZÄÖÜ]\w+ )?(?:geboren|born|geb\.))")),
]  # fmt: skip
_DATE = re.compile(rf"(?<![\w./:+-])(?:{_DAY_FIRST}|{_NUMERIC})(?!\w|[./:-]\d)", re.I)
_MONTH_DATE = re.compile(rf"(?<![\w.,/:+-]){_MONTH_FIRST}(?![\w]|[/:-]\d)", re.I)
_FULL = re.compile(r"\d{4}|\d[./-]\d\d?[./-]\d\d\Z")  # with its year
_NO_DATE = words("ziffer punkt kapitel abschnitt nr § version schritt section chapter abs art teil ziff kap raum")
_AGED = re.compile(  # what follows an age
    r"[ -]{0,3}jährig|[ -]?Jahre?n? (?:alt|jung)|[ -]years?[ -]old|[ -]?y[/.]?o(?!\w)|\. ?Geburtstag|(?:st|nd|rd|"
    r"th) birthday| ?J\.[ ,;)]",
    re.I,
)
_AGED_STARTS = frozenset("jJyYgGsSnNrRtT")
_OF_AGE = re.compile(  # what stands before one
    r"(?i)(?<!\w)(?:aged?(?: of)?:? ?|Alter(?: von)?:? ?|Lebensalter:? ?)\Z|(?<!\w)(?:wird|werde|wirst|wurde|turns|"
    r"turned|turning|I am|I'm|s?he is|s?he's|who is|ich bin|bin|er ist|sie ist|Ich bin|Er ist|Sie ist) "
    r"(?:am \w+ |bald |heute |morgen |on \w+ )?\Z"
)
_AGE_ENDS = re.compile(r" ?(?:[.,!?;)]\s|[.,!?;)]?\Z|\n|und |and |Jahre)")
_NAMED = re.compile(  # a name or a relation: Anna Müller (34), Chiara, 27, Vater, 91 Jahre
    r"(?<![\w-])(?:[A-ZÄÖÜ][\w-]+ [A-ZÄÖÜ][\w-]+|(?:Mutter|Vater|Oma|Opa|Sohn|Tochter|Bruder|Schwester|Frau|Mann|Kind|"
    r"Tante|Onkel|Enkelin|Enkel|Patientin|Patient|bin \w+|mother|father|son|daughter|wife|husband|mum|mom|dad)|"
    r", [A-ZÄÖÜ][\w-]+)(?P<sign> \(|, )\Z"
)
_WORDS = [
    Rule("date", Kind.DATE, 0.9, re.compile(rf"(?<!\w)(?:{_ORDINAL}) (?:of )?{_MONTH}(?:,? {_YEAR_WORDS}|,? {_YEAR})?",
                                            re.I)),
    Rule("date", Kind.DATE, 0.9, re.compile(  # dritter vierter neunzehnhundertachtzig
        rf"(?<!\w)(?:{_ORDINAL}) (?:{_ORDINAL}) (?:{_YEAR_WORDS}|{_YEAR}|{_AGE_WORD})(?!\w)", re.I)),
    Rule("age", Kind.AGE, 0.9, re.compile(rf"(?<!\w)(?P<find>{_AGE_WORD})(?:[ -]?jährig| Jahre alt|[ -]years?[ -]old)",
                                          re.I)),
]  # fmt: skip
_BIRTH_PARTS = Parts(
    "geb", "Geb", "GEB", "born", "Born", "DOB", "D.O.B", "irth", "Jahrgang", "Jg.", "*", "∗", "†", "b. "
)
_WORD_PARTS = Parts(
    "neunzehnhundert", "zweitausend", "igsten ", "igster ", "igste ", "ter ", "ten ",
    "jährig", "Jährig", "Jahre alt", "years old", "year-old", "year old", " Januar", " Februar", " März", " April",
    " Mai", " Juni", " Juli", " August", " September", " Oktober", " November", " Dezember", " February", " March",
    " May", " June", " July", " October", " December",
)  # fmt: skip
_MAYBE_WORDS = re.compile(
    r"(?:jährig|Jährig|neunzehnhundert|zweitausend|Jahre alt|years old|years-old|year-old|year old|ten |ter |tes |"
    r"te |st |nd |rd |"
    r"th )(?:of )?(?:[JFMASOND][a-zä]{2})?"
)


def birth(text: str, grams: Set[str], windows: Sequence[Window]) -> list[Span]:
    """Dates, or years, which the words around them say somebody was born on."""
    return all_of(_BIRTH if _BIRTH_PARTS.within(text, grams) else (), text, windows)


def dates(text: str, runs: Sequence[Window]) -> Iterator[Span]:
    """A day and a month, with or without a year."""
    done = 0
    for start, end in runs:
        if start < done or end - start > 4:
            continue
        match = _DATE.match(text, start)
        if match is None and end - start < 3 and (before := word_before(text, start))[:1].isalpha():
            match = _MONTH_DATE.match(text, start - len(before) - 1)
        elif match and not match[0][-1].isalnum() and word_before(text, start).lower().rstrip(".") in _NO_DATE:
            continue
        if match and (
            _FULL.search(match[0]) or text[start - 1 : start] != "," or not text[start - 2 : start - 1].isdigit()
        ):
            yield Span(*match.span(), Kind.DATE, 0.9, "date")
            done = match.end()


def ages(text: str, runs: Iterable[Window]) -> Iterator[Span]:
    """Just the number of each age, so that it can be made coarser."""
    for start, end in runs:
        if (
            end - start < 4
            and (end - start < 3 or text[start] == "1")
            and text[start - 1 : start] not in (*"/.,-+:", *_LETTERS)
        ):
            if text[end : end + 4].lstrip(" -.")[:1] in _AGED_STARTS and _AGED.match(text, end):
                yield Span(start, end, Kind.AGE, 0.9, "age")
            elif _AGE_ENDS.match(text, end):
                before = max(start - 48, 0)
                named = _NAMED.search(text, before, start)
                if _OF_AGE.search(text, before, start) or (
                    named and (named["sign"] == " (" or text[end : end + 1] in ", ")
                ):
                    yield Span(start, end, Kind.AGE, 0.7, "age")


def spelt_out(text: str, grams: Set[str]) -> Iterator[Span]:
    """Dates and ages without any digit: `dritter März neunzehnhundertachtzig`, `vierunddreißig Jahre alt`."""
    if not _WORD_PARTS.within(text, grams):
        return
    for hint in _MAYBE_WORDS.finditer(text):
        if hint[0].endswith(" "):
            continue
        yield from all_of(_WORDS, text, [(max(hint.start() - 40, 0), hint.end() + 60)])
