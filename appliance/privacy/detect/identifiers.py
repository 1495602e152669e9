"""Identifiers whose form can't be mistaken, beside those that Presidio knows."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence

from appliance.privacy.detect.rule import Parts, Rule, Set, Window, all_of, around, beside_letters, count_digits
from appliance.privacy.kinds import Kind, Span

_COUNTRY = (
    r"(?:A[DELTZ]|B[AEGRHY]|C[HRYZ]|D[EKO]|E[EGS]|F[IOR]|G[BEILRT]|H[RU]|I[ELQST]|JO|K[WZ]|L[BCITUV]|M[CDEKRTU]|N[LO]|"
    r"P[KLST]|QA|R[OS]|S[ACEIKMTV]|T[LNR]|UA|V[AG]|XK)"
)
_COURTS = (
    r"(?:O|C|S|T|U|W|F|M|K|L|N|E|B|P|R|V|X|Z|Ls|Ds|Cs|Js|Gs|Ks|Ns|Qs|Ws|Ss|OWi|IN|IK|IE|AR|BvR|BvL|BvF|BvE|StR|ARs|KLs|"
    r"ZR|ZB|AZR|ABR|AZB|Ca|Sa|Ta|BV|Ga|SLa|TaBV|RE|AS|KR|AL|SO|KA|RJ|VG|OVG|HK ?O|KfH ?O|HKO|OH|UF|WF|FH|VII|XVII|UR|"
    r"UJs|VRs|BRs|StVK|Ws|Kls|BJs|AGH|EnVR|KZR|SB|BT|VA|AK|XR|BR|ER|UFH|DK|JD)"
)


def _mostly_digits(match: re.Match[str]) -> bool:
    found = match["find"]
    return count_digits(found) * 2 >= len(found.replace(" ", ""))


_NO_CODE = re.compile(
    r"(?i)(?:AES|SHA|UTF|RSA|GPT|MD|HTTPS?|TLS|SSL|ISO|DIN|EN|IEC|IEEE|RFC|VDE|RTX|GTX|USB|AMD|CVE|BSI|IDW|TRGS|Covid|"
    r"SARS|Windows|Python|Llama|CO|Web|PM|KW|SKR|IFRS|IAS|EU|EG|UN|QM|DSGVO|BGB|HGB|CP|UCS|ASCII|H|Formular|Typ|"
    r"Type|Modell|Model|Version|Release)[-_/]?\d|(?:DE?|A|CH|FL)-\d{4,5}\Z"
)


def _is_code(match: re.Match[str]) -> bool:
    found = match["find"]
    return not _NO_CODE.match(found) and not re.fullmatch(
        r"(?i)[a-z]{1,4}[-/]?(?:19|"
        r"20)\d\d(?:[-/](?:19|20)?\d\d)?",
        found,
    )


_GROUPED = [  # nine digits at least
    Rule("iban", Kind.BANK_ACCOUNT, 0.95, re.compile(
        r"(?i)(?<![^\W_])(?P<find>D ?E(?:[ .:/-]{0,2}[0-9oOlI]){2}(?:[ .:/-]{0,2}\d){8,20})(?!\d)")),
    Rule("iban", Kind.BANK_ACCOUNT, 0.7, re.compile(
        rf"(?<![^\W_])(?P<find>(?:{_COUNTRY}|"
        rf"(?-i:{_COUNTRY.lower()}(?=\d\d[ -]?\w\w\w\w)))\d\d(?:[ .-]?[A-Za-z0-9]{{4}}){{2,7}}(?:[ .-]?"
        r"[A-Za-z0-9]{1,4})?)(?![^\W_])"), _mostly_digits),
    Rule("social security", Kind.SOCIAL_SECURITY, 0.9, re.compile(
        r"(?<![\w/])(?P<find>\d{2}[ -]?(?:[0-3]\d|5[1-9]|[67]\d|"
        r"8[01])[ -]?[01]\d[ -]?\d{2}[ -]?[A-Za-z][ -]?\d{3})(?!\w)")),
    Rule("tax number", Kind.TAX_ID, 0.85, re.compile(
        r"(?<![\w/.,])(?P<find>\d{2,3} ?[/ ] ?\d{3,4} ?[/ ] ?\d{4,5}(?:/\d)?|0\d{2} ?/? ?\d{3} ?/? ?\d{5}|"
        r"\d{3} \d{3} \d{5})(?![\w/])"),
        lambda m: "/" in m["find"]),
    Rule("tax number", Kind.TAX_ID, 0.9, re.compile(  # spaced tax id
        r"(?<![\w/.,])(?P<find>[1-9]\d(?: \d{3}){3})(?![\w/]| \d)")),
]  # fmt: skip
_FILES = [  # with a stroke, a hyphen or a point
    Rule("file number", Kind.REFERENCE, 0.9, re.compile(
        rf"(?<![\w.])(?P<find>(?:(?:[IVX]{{1,5}}|[Gg]rS|"
        rf"\d{{1,4}}[a-z]?) )?(?:\([a-z]{{1,4}}\) )?{_COURTS} (?:\([A-Za-z]{{1,5}}\) )?"
        r"\d{1,6}[/-]\d{2}(?:\d{2})?(?: ?[A-Z]{1,3}(?!\w))?)(?![\w/-]\d)"), lambda m: count_digits(m["find"]) >= 3),
    Rule("file number", Kind.REFERENCE, 0.9, re.compile(
        rf"(?<![\w.])(?P<find>(?:[IVX]{{1,5}}|"
        rf"\d{{1,4}}[a-z]?)[- ]{_COURTS}[- ]?\d{{1,6}}[/.]\d{{2,4}}(?:-\d+)?)(?!\w)")),
]  # fmt: skip
_FILE_SIGN = re.compile(r"[0-9][/.-][0-9]{2}")
_FILE_PARTS = Parts(
    "Az", "AZ", "Gz", "GZ", "Aktenz", "aktenz", "Geschäftsz", "Kassenz", "Gesch.", "our ref", "Our ref", "your ref",
    "case n", "Case n",
)  # fmt: skip
_CALLED_FILE = Rule("file number", Kind.REFERENCE, 0.85, re.compile(
        r"(?<!\w)(?:[AG]z|AZ|GZ|Aktenzeichen|Geschäftszeichen|Gesch\.-?Z|Geschäfts-?Nr|Kassenzeichen|case (?:no|"
        r"number)|our ref|your ref)\.?:?"
        r"\s{0,2}(?:lautet |ist |"
        r"is )?(?P<find>(?:[A-Z0-9][A-Za-z0-9]{0,7}[ ./-]{1,2}){0,6}[A-Za-z]{0,4}\d\w*(?:[/-]\w{1,8}){0,4})"
))  # fmt: skip
_RULES = [
    Rule("plate", Kind.PLATE, 0.85, re.compile(
        r"(?<![\w-])(?!DIN|ISO|US-|EU-|UN-|"
        r"A-Z)(?P<find>[A-ZÄÖÜ]{1,3}[-–•] ?[A-Z]{1,2}[ -]?[1-9]\d{0,3}[EH]?)(?![\w-]|[.,:/]\d)")),
    Rule("register", Kind.REGISTER, 0.95, re.compile(
        r"(?i)(?<!\w)(?P<find>(?:HR ?[AB]|GnR|PR|VR|GüR)(?:[- ]?Nr\.?|:|"
        r"\.)?[ -]?\d{2,6}(?: (?-i:[A-Z]{1,3})(?!\w))?)(?!\w)"),
        lambda m: m["find"][:2].isupper() or m["find"][:2] in ("Gn", "Gü") or m["find"].lower().startswith("hr")),
    Rule("vat", Kind.REGISTER, 0.8, re.compile(
        r"(?<!\w)(?P<find>(?:ATU\d{8}|BE ?[01]\d{9}|CHE[- ]?\d{3}\.?\d{3}\.?\d{3}(?: ?(?:MWST|TVA|IVA))?|"
        r"FR[A-Z0-9]{2} ?\d{9}|NL\d{9}B\d{2}|PL\d{10}|IT\d{11}|ES[A-Z]\d{7}[A-Z0-9]|GB\d{9}|LU\d{8}|CZ\d{8,10}|DK\d{8}|"
        r"DE ?\d{3} ?\d{3} ?\d{3}|"
        r"DE\d{8,10}))(?!\w)", re.I)),
    Rule("id document", Kind.ID_DOCUMENT, 0.8, re.compile(
        r"(?<!\w)(?P<find>[CFGHJKLMNPRTVWXYZ][CFGHJKLMNPRTVWXYZ0-9]{8}(?:\d?D?|<<\d))"
        r"(?!\w)"), lambda m: count_digits(m["find"]) >= 4),
    Rule("code", Kind.REFERENCE, 0.5, re.compile(
        r"(?<![\w.@/-])(?P<find>[A-Za-zÄÖÜ]{1,6}[-/_](?:[A-Z0-9]{1,8}[-/_]){0,4}\d{3,}(?:[-/_.][A-Za-z0-9]{1,8}){0,3})"
        r"(?![\w-])"),
        _is_code),
    Rule("code", Kind.REFERENCE, 0.5, re.compile(
        r"(?<![\w.@/-])(?!(?<=\()[A-Z]\d{5,7}[:;<>=+*/])(?<![A-Z]\d:)(?P<find>(?:[A-Z]{1,5}\d{5,}[A-Z0-9]*|"
        r"\d{4,}[-/][A-Z]{1,4}(?:[-/]\d+)?|"
        r"\d{2,4}[-/]\d{3,}[-/][A-Z]{1,3}))(?![\w-])"),
        _is_code),
    Rule("code", Kind.REFERENCE, 0.5, re.compile(
        r"(?<!\w)(?!(?<=\()[A-Z]\d{5,7}[:;<>=+*/])(?<![A-Z]\d:)(?P<find>(?=\d{0,12}[A-Z])(?=(?:[A-Z]{0,6}\d){5})[A-Z0-9]{7,40})(?!\w)")),
    Rule("plate", Kind.PLATE, 0.8, re.compile(r"(?<!\w)(?P<find>[A-Z]{2}\d\d ?[A-Z]{3})(?!\w)")),
    Rule("code", Kind.REFERENCE, 0.5, re.compile(r"(?<!\w)#(?P<find>\d{4,})(?!\w)")),
    Rule("hex", Kind.REFERENCE, 0.5, re.compile(r"(?i)(?<![^\W_])(?P<find>(?=[a-f]{0,24}\d)[0-9a-f]{16,})(?![^\W_])")),
    Rule("vin", Kind.REFERENCE, 0.7, re.compile(r"(?<!\w)(?P<find>(?=[A-Z]*\d)[A-HJ-NPR-Z0-9]{13}\d{4})(?!\w)")),
]  # fmt: skip
_LONG = [  # seven digits at least
    Rule("number", Kind.REFERENCE, 0.5, re.compile(r"(?<!\w)(?<!\d\.)(?:(?<!\d,)|"
        r"(?=\d+[,;\n]\S))(?P<find>\d{7,})(?![\w%])")),
    Rule("number", Kind.REFERENCE, 0.5, re.compile(
        r"(?<![\w.,/-])(?P<find>\d{1,6}(?:(?: |"
        r"[ /.-])\d{1,9}){2,10})(?![\w%/-]|,\d)"), lambda m: count_digits(m["find"]) >= 8),
    Rule("number", Kind.REFERENCE, 0.5, re.compile(
        r"(?<![\w./-])(?P<find>\d{4,9}[/-]\d{4,9})(?![\w%/-]|,\d)"),
        lambda m: re.fullmatch(r"(?:1\d|20)\d\d[/-](?:1\d|20)\d\d", m["find"]) is None),
]  # fmt: skip
_PLATE_PARTS = Parts(
    "kennz", "kfz", "pkw", "lkw", "auto", "wagen", "fahrzeug", "schild", "plate", "halter", "transporter", "vw", "bmw",
    "audi", "mercedes", "golf", "passat", "opel", "ford", "skoda", "tesla", "fahrer", "unfall",
)  # fmt: skip
_CALLED_PLATE = Rule("plate", Kind.PLATE, 0.8, re.compile(
    r"(?i)(?:Kennzeichen|Kfz|Pkw|Lkw|Auto|Wagen|Fahrzeug|Nummernschild|Plate|Halter|Transporter|VW|BMW|Audi|Mercedes|"
    r"Golf|Passat|Opel|Ford|Skoda|Tesla|Fahrer|"
    r"Unfall)[^\d\n]{0,30}?(?<![\w-])(?P<find>[A-ZÄÖÜ]{1,3}[- ]{1,3}[A-Z]{1,2}[- ]?[1-9]\d{0,3}[EH]?)(?!\w)"),
    lambda m: not re.match(r"(?i)(?:am|um|im|ab|bis|von|zu|vor|der|"
                           r"die|das|in|es|mit|und|auf) ", m["find"]))  # fmt: skip
_BIC = Rule("bic", Kind.BANK_ACCOUNT, 0.9, re.compile(
    rf"(?i)(?:BIC|SWIFT(?:[ -]?Code)?)(?!\w)\W{{0,4}}(?:(?:ist|lautet|is|"
    rf"der Bank)\W{{1,3}})?(?P<find>[A-Z]{{4}} ?{_COUNTRY} ?[A-Z0-9]{{2}} ?"
    r"(?:[A-Z0-9]{3})?)(?!\w)"))  # fmt: skip
_BARE_BIC = Rule("bic", Kind.BANK_ACCOUNT, 0.7, re.compile(
    rf"(?<!\w)(?P<find>[A-Z]{{4}}{_COUNTRY}(?:[A-Z0-9]{{2}}XXX|[A-Z]?\d[A-Z0-9]{{3}}|"
    rf"[A-Z0-9]?\d(?:[A-Z0-9]{{3}})?))(?!\w)"))  # fmt: skip
_ZONE = Rule("machine readable zone", Kind.ID_DOCUMENT, 1.0, re.compile(r"(?<![A-Z0-9<])[A-Z0-9<]{5,}<<[A-Z0-9<]{3,}"))
_USER_PARTS = Parts(
    "utzername",
    "sername",
    "ser name",
    "loginname",
    "Loginname",
    "ogin:",
    "utzerkennung",
    "ser ID",
    "ser-ID",
)
_USER = Rule("user", Kind.REFERENCE, 0.7, re.compile(
    r"(?i)(?:Benutzer|Nutzer|User|Login)(?:-? ?(?:names?n?|kennung|id))?(?: ?[:=]\s?| (?:ist|lautet|is) | )[\"'„»]?"
    r"(?P<find>(?!(?:und|ist|oder|lautet|wird|für|des|der|die|das|vergessen|ändern|eingeben|nicht|falsch|mit|in|im|"
    r"auf|bei|hat|"
    r"sowie|angeben|fehlt|bitte|war|steht|von|zum|zur|per|an|am|als|aus|kann|muss|soll|darf|gehört|and|or|is|are|not|"
    r"for|"
    r"of|the|from|with|must|should|cannot|can|was|has|field|does|to|in|on|at|already|please|sind|werden|wurde|ein|eine|"
    r"eines|einen|dieser|so|schon|wie|wenn|dass|noch|sich|sein|your|my|her|his)(?!\w))"
    r"(?-i:[a-z])[a-z0-9._-]{2,30})(?![\w(])"))  # fmt: skip
_CAPITALS = re.compile(r"[A-Z]{6}(?<![A-Z]{7})")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}(?![\w+/=])")
_TWELVE = re.compile(r"\S{12}")
_INNER = re.compile(r"[a-z][A-Z]|[0-9+/=]")


def identifiers(text: str, lower: str, grams: Set[str], runs: Sequence[Window]) -> Iterator[Span]:
    """Identifiers in a text without dates and amounts. `lower` is it in lower case, as long as the text."""
    for start, end in around(runs, 12, 40):
        digits = count_digits(text[start:end])
        if digits >= 9:
            yield from all_of(_GROUPED, text, [(start, end)])
        if digits >= 7:
            yield from all_of(_LONG, text, [(start, end)])
        if _FILE_SIGN.search(text, start, end):
            yield from all_of(_FILES, text, [(start, end)])
    yield from all_of(_RULES, text, around(beside_letters(text, runs), 12, 40))
    yield from all_of((_CALLED_FILE,), text, _FILE_PARTS.near(text, grams, 2, 70))
    if _PLATE_PARTS.within(lower, grams):
        yield from all_of((_CALLED_PLATE,), text, around(runs, 60, 4))


def without_digits(text: str, grams: Set[str]) -> Iterator[Span]:
    """Identifiers that may hold no digit: those of banks, and text in base64."""
    if "BIC" in text or "SWIFT" in text or "Swift" in text or "bic" in text:
        yield from all_of((_BIC,), text, [(0, len(text))])
    yield from all_of((_USER,), text, _USER_PARTS.near(text, grams, 5, 60))
    if "<<" in text:
        yield from all_of((_ZONE,), text, [(0, len(text))])
    for match in _CAPITALS.finditer(text):
        yield from all_of((_BARE_BIC,), text, [(match.start(), match.start() + 12)])
    if _TWELVE.search(text) and any(len(token) > 11 and _INNER.search(token) for token in text.split()):
        for match in _ENCODED.finditer(text):
            if _INNER.search(match[0]) and _reads(match[0]):
                yield Span(*match.span(), Kind.REFERENCE, 0.9, "base64")


def _reads(encoded: str) -> bool:
    """Whether somebody can read it once it is decoded."""
    body = encoded.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        plain = base64.b64decode(body[: len(body) // 4 * 4][:400], validate=True).decode("utf-8", errors="strict")
    except (binascii.Error, UnicodeDecodeError) as error:
        if not (isinstance(error, UnicodeDecodeError) and error.reason == "unexpected end of data"):
            return False
        plain = error.object[: error.start].decode("utf-8")
    return len(plain) >= 6 and plain.isprintable()
