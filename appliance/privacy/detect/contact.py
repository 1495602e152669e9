"""Mail addresses, telephone numbers, URLs, hosts, handles, paths and files."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator

from appliance.privacy.detect.rule import Parts, Rule, Set, Window, all_of, around, count_digits, left_of
from appliance.privacy.kinds import Kind, Span

_LETTERS = frozenset(string.ascii_letters + string.digits + "äöüÄÖÜßéèêáàâôîçñøåæ")
_LOCAL = _LETTERS | frozenset(".!#$%&'*+/=?^_`{|}~-")
_HOST = _LETTERS | frozenset(".-")
_FILE = _LETTERS | frozenset("._-()~+")
_AT = re.compile(r"@")
_DOMAIN = re.compile(r"\[?[^\W_](?:[\w-]|\.(?=\w)|:(?=[0-9a-fA-F:.]+\]))*\]?")
_AT_WORD = re.compile(r" ?[\[({<] ?(?:at|ät|a|@) ?[\])}>] ?| (?:at|ät|@) |\(@\)", re.I)
_AT_PARTS = Parts(
    "(at", "[at", "{at", "<at", "(AT", "[AT", "{AT", "<AT", "( at", "[ at", "(At", "[At", "(ät", "[ät", "(a)", "[a]",
    "(@", "[@", "{@", " @", "@ ", " at ", " ät ", " AT ",
)  # fmt: skip
_DICTATED = Parts("null ", "Null ", "zero ", "oh ", "sieben ", "seven ", "eins ", "one ")
_DIGIT = (
    r"(?:null|eins|zwei|zwo|drei|vier|fünf|sechs|sieben|acht|neun|zero|oh|one|two|three|four|five|six|seven|eight|nine|"
    r"doppel|double|triple)"
)
_DIGIT_WORDS = re.compile(rf"(?i)(?<!\w){_DIGIT}(?:[ ,-]{{1,2}}{_DIGIT}(?!\w)){{5,}}")
_DOT_WORD = r"(?: ?[\[({<] ?(?:dot|punkt|\.) ?[\])}>] ?| (?:dot|punkt) |\.)"
_SPOKEN = re.compile(rf"[\w-]{{2,63}}(?:{_DOT_WORD}[\w-]{{2,63}}){{0,4}}", re.I)
_SPOKEN_LOCAL = re.compile(rf"[\w+-]{{1,64}}(?:{_DOT_WORD}[\w+-]{{1,64}}){{0,4}}\Z", re.I)
_VERSION = re.compile(r"\d+(?:\.\d+){0,2}")  # as in packages: left-pad@1.3.0
_HANDLE = re.compile(r"(?<![\w@./+%-])@(?!\d+\b)[\w][\w.-]{1,38}\w(?![\w/(@])")
_CODE_LINE = re.compile(r"@[\w.-]+\s*(?:\n|$)")

_TLD = (
    r"de|com|org|net|eu|at|ch|li|lu|fr|it|es|nl|be|pl|cz|dk|se|fi|uk|us|ie|info|biz|io|ai|app|dev|gov|edu|cloud|online|"
    r"shop|berlin|hamburg|koeln|bayern|local|localdomain|lan|intern|internal|intra|corp|home|onion"
)
_DOTTED = re.compile(rf"\.(?=\w)(?:{_TLD})(?![\w@]|\.\w)(?::\d{{1,5}})?(?:[/?#][^\s<>\"'\])|]*)?", re.I)
_SCHEME = re.compile(r"(?<=[a-z])://[^\s<>\"'|]+", re.I)
_WWW = re.compile(r"(?<![\w.-])www\.[^\s<>\"'|]+", re.I)
_FILES = re.compile(
    r"\.(?=\w)(?:pdf|docx?|xlsx?|pptx?|odt|ods|rtf|txt|csv|msg|eml|jpe?g|png|tiff?|heic|zip|7z|vcf|ics|xml|json|mp[34]|"
    r"wav|m4a)"
    r"(?!\w)", re.I)  # fmt: skip
_FOLDER = Rule("path", Kind.URL, 0.9, re.compile(
    r"(?i)[\\/](?:Users|Benutzer|home|Profiles|Dokumente und Einstellungen)[\\/]{1,2}(?P<find>[^\s\\/:\"'<>|]+)"
))  # fmt: skip
_FOLDER_PARTS = Parts("sers", "enutzer", "home", "rofiles", "USERS", "instellungen")
_SHARE = Rule("path", Kind.URL, 0.8, re.compile(r"(?<![\w\\])\\\\(?P<find>[\w.$-]{2,}(?:\\[^\s\\:\"'<>|]+)+)"))

_EXTENSION = r"(?: ?(?:x|ext\.?) ?\d{1,6})?"
_SEPARATED = r"(?:[ \u00a0]?[/.()-]{1,2}[ \u00a0]?|[ \u00a0])?"
_TAIL = r"(?![\w%]|\.\d|-\d|[ \u00a0]?(?:€|EUR|Euro|%))"


def _is_phone(match: re.Match[str]) -> bool:
    return 6 <= count_digits(match["find"]) <= 20


_PHONES = [
    Rule("phone", Kind.PHONE, 0.95, re.compile(
        rf"(?<![\w+])(?P<find>\(?(?:\+ ?|"
        rf"00)[1-9]\d{{0,2}}\)?(?:[ ./-]{{0,2}}\(0\d{{0,4}}\))?(?:{_SEPARATED}\d){{6,13}}{_EXTENSION})(?!\w)"),
        _is_phone),
    Rule("phone", Kind.PHONE, 0.9, re.compile(  # a code in brackets, or followed by a stroke
        r"(?<![\d./+-])(?<!\d )(?P<find>(?:\(0 ?[1-9](?: ?\d){0,4}\) ?(?=\d)|0 ?[1-9](?: ?\d){1,4} ?/ ?(?=[1-9])|"
        r"0[1-9]\d{1,4} ?- ?(?=[1-9]))\d{1,12}"
        rf"(?:[ /.-]{{1,2}}\d{{1,8}}){{0,5}}){_TAIL}"), _is_phone),
    Rule("phone", Kind.PHONE, 0.85, re.compile(
        rf"(?<![\w./+-])(?<!\d )(?P<find>0[1-9]\d{{1,4}}[ .]\d{{2,9}}(?:[ .-]\d{{1,6}}){{0,5}}){_TAIL}"), _is_phone),
    Rule("phone", Kind.PHONE, 0.8, re.compile(rf"(?<![\w./+-])(?P<find>0[1-9]\d{{6,11}}){_TAIL}"), _is_phone),
]  # fmt: skip
_AMERICAN = [
    Rule("phone", Kind.PHONE, 0.85, re.compile(
        r"(?<![\w./+-])(?P<find>(?:1[-. ])?(?:\(\d{3}\) ?|[2-9]\d\d[-. ])\d{3}[-.]\d{4}"
        rf"{_EXTENSION})(?![\w-])")),
]  # fmt: skip


def mail(text: str) -> Iterator[Span]:
    """Mail addresses, also without a public domain and with the @ spelt out; handles."""
    for at in _AT.finditer(text):
        start = left_of(text, at.start(), _LOCAL, 128)
        domain = _DOMAIN.match(text, at.end(), at.end() + 255)
        if domain and start < at.start() and not _VERSION.fullmatch(domain[0]):
            while text[start] in "/.'=`*":
                start += 1
            if start < at.start():
                yield Span(start, domain.end(), Kind.EMAIL, 1.0, "mail")
    for match in _HANDLE.finditer(text):
        line = text.rfind("\n", 0, match.start()) + 1
        if not (
            _CODE_LINE.match(text, match.start()) and text[line : match.start()].isspace() | (line == match.start())
        ):
            yield Span(*match.span(), Kind.URL, 0.7, "handle")


def spelt_phones(text: str, grams: Set[str]) -> Iterator[Span]:
    """Numbers that are dictated digit by digit, eight digits or more."""
    if _DICTATED.within(text, grams):
        for match in _DIGIT_WORDS.finditer(text):
            yield Span(*match.span(), Kind.PHONE, 0.8, "phone")


def spelt_mail(text: str, grams: Set[str]) -> Iterator[Span]:
    """Mail addresses whose @ is written as a word, in brackets or with spaces around it."""
    if not _AT_PARTS.within(text, grams):
        return
    for at in _AT_WORD.finditer(text):
        local = _SPOKEN_LOCAL.search(text, max(at.start() - 64, 0), at.start())
        domain = _SPOKEN.match(text, at.end(), at.end() + 200)
        if local is None or domain is None:
            continue
        bracketed = at[0].strip().lower() not in ("at", "ät")
        dotted = re.search(r"\.\w|dot|punkt", domain[0], re.I)
        if bracketed or (dotted and re.search(rf"(?:\.|dot |punkt ?)(?:{_TLD})\Z", domain[0], re.I)):
            if at[0].strip() == "@" and not dotted and " " in at[0]:
                continue
            yield Span(local.start(), domain.end(), Kind.EMAIL, 0.9, "mail")


def web(text: str, grams: Set[str]) -> Iterator[Span]:
    """URLs, names of hosts with a known last part, users' folders, shares, and files with a number in their names."""
    if "://" in text:
        for match in _SCHEME.finditer(text):
            start = left_of(text, match.start(), _LETTERS | {"+"}, 24)
            yield Span(start, _without_point(text, match.end()), Kind.URL, 1.0, "url")
    if "www" in text or "WWW" in text:
        for match in _WWW.finditer(text):
            yield Span(match.start(), _without_point(text, match.end()), Kind.URL, 1.0, "url")
    if "." in text:
        for match in _DOTTED.finditer(text):
            start = left_of(text, match.start(), _HOST, 253)
            if start < match.start() and not (start and text[start - 1] == "@"):
                yield Span(start, _without_point(text, match.end()), Kind.URL, 0.9, "host")
        for match in _FILES.finditer(text):
            start = left_of(text, match.start(), _FILE, 200)
            if count_digits(re.sub(r"(?<!\d)(?:19|20)\d\d(?!\d)", "", text[start : match.start()])) >= 3:
                yield Span(start, match.end(), Kind.REFERENCE, 0.7, "file")
    yield from all_of((_FOLDER,), text, _FOLDER_PARTS.near(text, grams, 4, 100))
    if "\\\\" in text:
        yield from all_of((_SHARE,), text, [(0, len(text))])


def _without_point(text: str, end: int) -> int:
    while text[end - 1] in ".,;:!?)]}*":
        end -= 1
    return end


def phones(text: str, runs: Iterable[Window]) -> Iterator[Span]:
    """Telephone and fax numbers in the spellings of German, British and American offices."""
    german: list[Window] = []
    american: list[Window] = []
    for start, end in runs:
        if text[start] == "0" or "+" in text[max(start - 2, 0) : start]:
            german.append((start, end))
        if end - start == 3 and text[end : end + 1] in ("-", ".", " ", ")"):
            american.append((start, end))
    yield from all_of(_PHONES, text, around(german, 3, 32))
    yield from all_of(_AMERICAN, text, around(american, 3, 12))
