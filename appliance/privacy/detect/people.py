"""Names of people by what stands around them: titles, greetings, closings, labels, initials.

The rules take time in proportion to the text: every repetition has a limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from appliance.privacy.detect.lexicon import read


def _any(*words: str) -> str:
    return "(?:" + "|".join(" ".join(words).split()) + ")"


_NAME = r"[^\W\d_]{1,40}(?:[-'’][^\W\d_]{1,40}){0,4}"
_CAPITAL = r"(?=[A-ZÄÖÜÀ-ÞŠŽČĆŁŚŻŞİĞ])" + _NAME
_INITIAL = r"[A-ZÄÖÜ]\.(?:[ -]?[A-ZÄÖÜ]\.){0,3}"
_PARTICLE = _any(
    r"von van vom zu zur zum de der den del della di da dos du la le el al bin ibn ben ter ten te af "
    r"av und v\. d\. St\."
)
_ONE = rf"(?:{_INITIAL}|{_CAPITAL})"
_FULL = rf"(?:{_PARTICLE}[ \t]+){{0,2}}{_ONE}(?:[ \t]+(?:{_PARTICLE}[ \t]+){{0,3}}{_ONE}){{0,4}}"
_DEGREE = (
    r"(?:(?:Dr|Prof|Dipl|Ing|Mag|med|jur|phil|rer|nat|pol|h\. ?c|MSc|BSc|LL\.?M)\.?[ \t-]*|"
    r"(?:Professor|Doktor|Doctor)(?:in)?[ \t]+){0,5}"
)
_ADDRESS = r"(?:(?:herrn?|frau|mr|mrs|ms|dr|prof)\.?[ \t]+){0,3}"

_TITLE = _any(
    r"Herrn? Frau Fräulein Familie Hr\.? Hrn\.? Fr\. Fam\. Eheleuten? Mr\.? Mrs\.? Ms\.? Mx\.? Miss Mister Sir Dame",
    r"Madame Monsieur Signora? Señora? Dr\. Prof\. Professor(?:in)? Doktor Doctor Schwester "
    r"Pfarrer(?:in)? Pater RA RAin StB",
    r"Rechtsanw[aä]lt(?:in)? Notar(?:in)?",
)
_ROLE = _any(
    r"Patient(?:in)? Pat\. Pt\.? Mandant(?:in)? Klient(?:in)? Kund(?:e|in) Kolleg(?:e|in) Nachbar(?:in)? Chef(?:in)?",
    r"Mitarbeiter(?:in)? Sachbearbeiter(?:in)? Azubi Praktikant(?:in)? Zeug(?:e|in) (?:Ver)?[Mm]ieter(?:in)?",
    r"Trainer(?:in)? Geschäftsführer(?:in)? Bürgermeister(?:in)? Minister(?:in)? Kanzler(?:in)? "
    r"Präsident(?:in)? Richter(?:in)?",
    r"(?:Ober|Chef|Haus)(?:arzt|ärztin) König(?:in)? Papst Kaiser Bruder Tante Onkel Oma Opa Sohn Tochter",
    r"Freund(?:in)? Ehefrau Ehemann Beklagte Kläger(?:in)? Angeklagter? Beschuldigter? "
    r"Gläubiger(?:in)? Schuldner(?:in)?",
    r"Erblasser(?:in)? [Pp]atient [Cc]lient [Cc]olleague [Tt]enant [Ee]mployee [Nn]urse [Uu]ncle "
    r"[Aa]unt [Bb]rother [Ss]ister",
    r"[Ss]on [Dd]aughter [Ww]ife [Hh]usband [Pp]resident [Mm]inister [Ss]enator [Jj]udge [Kk]ing [Qq]ueen [Pp]ope",
    r"[Cc]oach [Cc]aptain",
)
_ROLES = _any(
    r"Patient(?:inn)?en Mandant(?:inn)?en Klient(?:inn)?en Kund(?:inn)?en Kolleg(?:inn)?en Nachbarn Zeugen Präsidenten",
    r"Mitarbeiters Mann Mutter Vater [Cc]ustomer [Mm]anager [Dd]irector [Cc]hairman [Bb]oss",
)
_HELLO = (
    r"(?:hallo|hi|hey|hej|moin|servus|grüezi|grüß dich|liebe[rsn]?|guten (?:morgen|tag|abend)|dear|hello|"
    r"good (?:morning|afternoon|evening)|sehr geehrte[rs]?)"
)
_BYE = (
    r"\b(?:gr(?:u|ü|ue)(?:ß|ss)e?n?(?: aus \w{1,40})?|mfg|lg|vg|bg|hg|regards|wishes|best|thanks(?: again)?|"
    r"thank you|thx|cheers|sincerely|yours(?: truly| faithfully| sincerely)?|love|deine?|euer|eure|ihre?|danke?|"
    r"hochachtungsvoll|bis (?:dann|bald|morgen))"
)
_CALLED = r"\b(?:ich|er|sie|sohn|tochter|mann|frau|kind)[ \t]+hei(?:ß|ss)(?:e|t)"
_IS = (
    rf"(?:{_CALLED}|\b(?:(?:mein |my )?name (?:ist|is)|my name['’]s|call me|namens|mit (?:vor|"
    rf"nach)?namen|named|genannt|"
    r"hier (?:ist|spricht)|this is|speaking with|i am|i['’]m|ich bin(?: der| die)?))"
)
_IS_SURELY = rf"(?:{_CALLED}|\b(?:(?:mein |my |her |his )?name (?:ist|is)|call me|namens|named))"
_FIELD = (
    r"(?<![^\W_])(?:(?:vor|nach|familien|geburts|mädchen|ruf|sur|last|first|full|given|maiden)?[ "
    r"-]?name|patient(?:in)?|"
    r"mandant(?:in)?|klient(?:in)?|client|kunde|kundin|customer|ansprechpartner(?:in)?|contact|"
    r"kontakt|(?:sach)?bearbeiter(?:in)?|"
    r"verfasser(?:in)?|autor(?:in)?|author|mitarbeiter(?:in)?|employee|teilnehmer|empfänger(?:in)?|"
    r"absender(?:in)?|from|to|cc|bcc|"
    r"von|an|attn|z\. ?hd\.?|c/o|gez\.|i\. ?a\.|i\. ?v\.|geb\.|geborene?|née|"
    r"(?:konto)?inhaber(?:in)?|unterschrift|signed|"
    r"ehepartner|ehegatte|betreuer(?:in)?|arzt|ärztin|zeuge|zeugin)"
)
_OF_FIRST = _any("von van de da di del bin ibn al el ter le la")

_SALUTATION = re.compile(
    rf"(?im)(?:^|(?<=[.!?\"„“]\s)|(?<=[\"„“]))[ \t>*-]{{0,8}}{_HELLO}[ \t]+{_ADDRESS}({_NAME}(?:[ \t]+{_NAME}){{0,2}}?)"
    r"(?=[ \t]*(?:[,!.:;\n–-]|$|(?:und|and|&)[ \t]))"
)
_SURE = (
    re.compile(rf"(?<!\w){_TITLE}[ \t\n]+{_DEGREE}({_FULL})"),
    re.compile(rf"(?<!\w){_ROLE}[ \t]+{_DEGREE}({_FULL})"),
    _SALUTATION,
    re.compile(
        rf"(?im){_BYE}[ \t]{{0,8}}[,!.]{{0,3}}[ \t]{{0,8}}(?:\n[ \t]{{0,8}}){{0,3}}(?:i\. ?[AV]\.[ \t]*|"
        rf"gez\.[ \t]*)?{_DEGREE}"
        rf"({_NAME}\.?(?:[ \t]+{_NAME}\.?){{0,3}})[ \t]{{0,8}}(?=\n|$|[.!,]{{0,3}}\s{{0,8}}$)"
    ),
    re.compile(rf"(?i){_IS_SURELY}[ \t]+({_NAME}(?:[ \t]+{_NAME})?)"),
    re.compile(
        r"(?i)(?<!\w)(?:herrn?|frau|fr\.?|hr\.?|mr\.?|mrs\.?|ms\.?|dr\.?|prof\.?|familie)[ \t]+"
        rf"(?:(?:dr|prof|professor)\.?[ \t]+){{0,3}}({_NAME})"
    ),
    re.compile(rf"(?<![\w.])({_INITIAL}[ \t]?(?:{_PARTICLE}[ \t]+){{0,3}}{_CAPITAL})"),
    re.compile(rf"(?<!\w)({_CAPITAL},[ \t]+{_INITIAL})(?!\w)"),
    re.compile(rf"(?<!\w)(?:sagte?|meinte?|betonte?|fügte)[ \t]+({_CAPITAL})"),
    re.compile(rf"(?<!\w)({_CAPITAL})[ \t]+zufolge\b"),
    re.compile(r"(?:[.!?]|\n)[ \t]{0,8}([A-ZÄÖÜ])\.?\s{0,8}\Z"),
)
_LIKELY = (
    re.compile(rf"(?<!\w){_ROLES}[ \t]+{_DEGREE}({_FULL})"),
    re.compile(rf"(?i){_IS}[ \t]+(?:(?:der|die|the)[ \t]+)?((?-i:{_FULL}))"),
    re.compile(
        rf"(?im){_FIELD}[ \t]{{0,8}}[:=|]?[ \t]{{0,8}}[\"'“„]?{_ADDRESS}((?-i:{_FULL}))(?:,[ "
        rf"\t]{{0,8}}((?-i:{_CAPITAL})))?"
    ),
    re.compile(rf"(?<!\w)({_CAPITAL}[ \t]+{_OF_FIRST}[ \t]+(?:(?:der|den|dem|la|los)[ \t]+)?{_CAPITAL})"),
)
_AND = re.compile(rf"[ \t]+(?:und|and|&)[ \t]+(?:(?:[Ll]iebe[rs]?)[ \t]+)?({_NAME})")
_PART = re.compile(rf"{_NAME}\.?")
_ALONE = re.compile(_PARTICLE.replace("|und", ""))


class People:
    """The rules. Roles, and what people are called in general, are no names."""

    def __init__(self) -> None:
        self._never = read("no_names")

    def find(self, text: str) -> Iterator[tuple[int, bool]]:
        """Where a word of a name begins, and whether it is certain (else: only if the word may be a name)."""
        for rules, certain in ((_SURE, True), (_LIKELY, False)):
            for rule in rules:
                for match in rule.finditer(text):
                    for group in range(1, rule.groups + 1):
                        if match[group]:
                            yield from ((start, certain) for start in self._words(match[group], match.start(group)))
                    if rule is _SALUTATION and (more := _AND.match(text, match.end())):
                        yield from ((start, certain) for start in self._words(more[1], more.start(1)))

    def _words(self, name: str, start: int) -> Iterator[int]:
        """Where each word of a name begins, up to the first that is none."""
        words = list(_PART.finditer(name))
        for at, word in enumerate(words):
            part = word[0].rstrip(".")
            initial = len(part) == 1 and part.isupper()
            particle = at + 1 < len(words) and _ALONE.fullmatch(word[0]) is not None
            if not initial and not particle and part.lower() in self._never:
                if at:
                    return
                continue
            yield start + word.start()
