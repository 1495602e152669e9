"""Numbers whose kind a word before them tells: `Kundennummer: 4711`, `my account number is 12 34 56`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from appliance.privacy.detect.rule import Window, around, count_digits, lowered, words
from appliance.privacy.kinds import Kind, Span

_VALUE = (
    r"(?P<find>(?<![A-Za-z0-9])(?:[A-Za-zÄÖÜ]{1,6}[-/_.]{1,2}|[A-ZÄÖÜ]{1,3} )?[A-Za-z]{0,4}\d\w*+"
    r"(?:(?: ?[-/._:–] ?| )(?:[A-Z]{1,3}[-/ ]?)?\d\w*+)*+(?:(?:[-/][A-Z]{1,4}| [A-Z])(?!\w))?)"
)
_WORD = re.compile(r"[a-zäöüß]+")
# In lower case. What ends like one of these, or is one of the words, tells that an identifier follows: Kundennummer.
_ENDS = (
    "nummer", "nummern", "number", "numbers", "nr", "kennung", "kennziffer", "zeichen", "iban", "bankleitzahl",
    "telefon", "telefax", "handy", "phone", "ausweis", "reisepass", "passport", "führerschein", "aufenthaltstitel",
    "kreditkarte", "versicherungsschein", "bankverbindung", "bankkonto",
)  # fmt: skip
_STRONG = words(
    "no num id idnr ibans kto blz az gz rvnr kvnr svnr lanr bsnr eori lei ssn nhs nino ni itin ein tin utr pesel vin "
    "fin imei imsi iccid mrn guid uuid duns swift routing tel fax mobil mobile cell durchwahl dw hotline whatsapp "
    "licence license visa mastercard amex vat hra hrb pcn pnr"
)
_AFTER_WORDS = {"code": ("sort ", "swift ", "swift-"), "card": ("credit ", "debit ")}
_WEAK = words(
    "kunde kunden kundin konto kontos vertrag vertrags fall falls vorgang vorgangs rechnung auftrag auftrags "
    "bestellung ticket police versicherungsschein akte patient patientin mitglied darlehen kredit angebot schaden "
    "schadenfall schadensfall lieferschein sendung mandant mandantin mandat beleg buchung mahnung gutschrift einsatz "
    "depot antrag bescheid zähler inventar case invoice order policy member customer claim booking contract client "
    "employee reference ref account acct loan shipment tracking incident badge po meter quote"
)
_ABBREVIATED = words(
    "az gz lei ni ein tin utr vin fin mrn dw po ref cell no id"
)  # ordinary words or parts of them in lower case
_STRONG_REST = re.compile(r"\.?(?P<fill>[^\d\n.;!?|)\x00]{0,40}?(?:[|\n]\s{0,8}[-*]?\s?)?)" + _VALUE)
_WEAK_REST = re.compile(r"\.? ?(?P<fill>(?:Nr|No|Number|Nummer|ID|nr|no)\.?|#|:)?[ :#]{0,3}" + _VALUE)
_BEFORE = re.compile(r"[a-zäöüß]{0,30}(?:\.?[ /-]{0,3}[a-zäöüß]{0,30})?\Z")
_KINDS: tuple[tuple[re.Pattern[str], Kind | None], ...] = tuple(
    (re.compile(form), kind)
    for form, kind in (
        (r"artikel|\bseiten|haus|zimmer|raum|kapitel|version|absatz|modell|typ|teile|\bport|zeile|spalte|ausgabe|"
         r"\bheft|band\b|lfd|laufende|fehler|error|status|model|page|chapter|\broom|\bpart\b|\bstep|\bitem|schritt|"
         r"frage|aufgabe|vorzeichen|\bsatz|leerzeichen|schriftzeichen|satzzeichen|anzahl|\bphone model|norm|größe|"
         r"stück|steuerzeichen|anzeichen|sonderzeichen|\bthe number|\ba number|\bof numbers|die nummer|eine nummer|"
         r"random|prim|ordnungs|glieder|kenn?zahl", None),
        (r"akten|geschäftszeichen|kassenzeichen|\b[ag]z\b|zeichen(?<!kennzeichen)", Kind.REFERENCE),
        (r"iban|bic|swift|blz|bankleit|konto|kto|bankver|account|acct|sort.?code|routing|depot|\baba\b",
         Kind.BANK_ACCOUNT),
        (r"kredit ?kart|karten|credit|\bcard|visa|mastercard|amex", Kind.CARD),
        (r"\bust|umsatzst|\bvat\b|handelsreg|\bhr[ab]\b|lanr|bsnr|arzt|betriebsst|mwst|company|register|eori|\blei\b|"
         r"duns", Kind.REGISTER),
        (r"steuer|tax|idnr|\be?tin\b|itin|\bst\b|\bein\b|utr|identifikationsn|st\.?-?nr", Kind.TAX_ID),
        (r"kranken|versicherten|kvnr|\bnhs\b|gesundheits|medicare|\bmbi\b|\bmrn\b", Kind.HEALTH_INSURANCE),
        (r"sozialvers|renten|rvnr|svnr|\bsv\b|\bssn\b|social|nino|\bni\b|national ins|\binsurance num|"
            r"pesel", Kind.SOCIAL_SECURITY),
        (r"ausweis|\w*pass(?:es)?\b|pass-?(?:nr|nummer)|passport|führersch|fahrerl|licen[cs]e|"
         r"aufenthalt|visum", Kind.ID_DOCUMENT),
        (r"plz|postleit|postcode|\bzip", Kind.POSTCODE),
        (r"tel|fon|phone|handy|mobil|cell|fax|durchwahl|\bdw\b|ruf|whatsapp|hotline", Kind.PHONE),
        (r"kfz|nummernschild|plate|kennzeichen", Kind.PLATE),
    )
)  # fmt: skip
_AFTER = re.compile(
    r"(?: ?(?:€|EUR|Euro|%|Prozent|USD|\$|£|GBP|CHF|Uhr|Tage|Wochen|Monate|Jahre|Stück|Mio|Mrd|kg|km|Mal|mal|years|"
    r"days|weeks|months|percent|times)|,\d\d(?!\d))"
)
_YEAR = re.compile(r"(?:19|20)\d\d(?:/(?:19|20)?\d\d)?")
_AMOUNT = re.compile(r"\d{1,3}(?:\.\d{3})+|\d+\.\d\d?")
_DATED = re.compile(r"\d{1,2}\.\d{1,2}\.(?:\d{2}|\d{4})?|\d{4}-\d\d-\d\d")


def labelled(text: str, lower: str, runs: Sequence[Window]) -> Iterator[Span]:
    """Whatever the words before a number say what it is, with or without a valid checksum.

    `lower` is the text in lower case, as long as the text.
    """
    for start, end in around(_long(runs), 64, 0):
        for word in _WORD.finditer(lower, start, end):
            strong = _is_strong(text, lower, word)
            if not strong and word[0] not in _WEAK:
                continue
            match = (_STRONG_REST if strong else _WEAK_REST).match(text, word.end())
            if match is None:
                continue
            kind = _kind(_label(lower, word))
            if kind is None and not strong:
                kind = Kind.REFERENCE
            if kind is not None and _is_value(match, strong=strong, kind=kind):
                yield Span(*match.span("find"), kind, 0.8 if strong else 0.7, "label")


def told(label: str) -> Kind | None:
    """What a label says of the numbers that belong to it: `Kundennr.`, that they are references; None: nothing."""
    lower = lowered(label)
    for word in _WORD.finditer(lower):
        if word[0] in _WEAK or _is_strong(label, lower, word):
            return _kind(lower)
    return None


def _is_strong(text: str, lower: str, match: re.Match[str]) -> bool:
    word = match[0]
    if word in _STRONG:
        after = text[match.end() : match.end() + 2]
        if word not in _ABBREVIATED or text[match.start() : match.end()].isupper() or after[:1] in (".", ":"):
            return True
        return word in ("no", "id") and after[1:].isdigit()
    if word in _AFTER_WORDS:
        return lower.endswith(_AFTER_WORDS[word], max(match.start() - 8, 0), match.start())
    return word.endswith(_ENDS) or (word.endswith("id") and text.endswith("ID", match.start(), match.end()))


def _label(lower: str, core: re.Match[str]) -> str:
    before = _BEFORE.search(lower, max(core.start() - 40, 0), core.start())
    return (before[0] if before else "") + core[0]


def _long(runs: Sequence[Window]) -> Iterator[Window]:
    """Runs of three digits at least, and shorter ones that another follows closely."""
    for at, (start, end) in enumerate(runs):
        if end - start > 2 or (at + 1 < len(runs) and runs[at + 1][0] - end < 4):
            yield start, end


def _kind(label: str) -> Kind | None:
    for form, kind in _KINDS:
        if form.search(label):
            return kind
    return Kind.REFERENCE


def _is_value(match: re.Match[str], *, strong: bool, kind: Kind) -> bool:
    value, fill = match["find"], match["fill"] or ""
    digits = count_digits(value)
    if not strong and kind is Kind.BANK_ACCOUNT and digits < 6:
        return False  # of a chart of accounts
    told = (strong and not re.search(r"\w", fill)) or bool(fill)
    if digits < (3 if told or kind is Kind.PHONE else 4):
        return False
    if _DATED.fullmatch(value) or _AFTER.match(match.string, match.end("find")):
        return False
    if _AMOUNT.fullmatch(value) and not (strong and told):
        return False
    return not _YEAR.fullmatch(value) or (told and not strong) or (strong and not re.search(r"\w", fill))
