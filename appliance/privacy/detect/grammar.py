"""What German and English grammar say of a word that may be a name: parts of speech as HanTa calls them (STTS, C5)."""

from __future__ import annotations

import re

from appliance.privacy.detect.neighbours import Weighed
from appliance.privacy.detect.nouns import PROPER, Language
from appliance.privacy.detect.standing import EITHER


def _tags(*names: str) -> frozenset[str]:
    return frozenset(names)


NOUNS = _tags("NN", "NNA", "NN0", "NN1", "NN2")
ADJECTIVES = _tags("ADJ(D)", "ADJ(A)", "ADV", "AJ0")
_FINITE = _tags("VV(FIN)", "VA(FIN)", "VM(FIN)", "VVD", "VVZ", "VBZ", "VBD", "VHZ", "VHD", "VM0", "VDD", "VDZ")
_SUBJECTS = _tags(PROPER, "NN0", "NN1", "AJ0", "VVB", "VVI")
_BEFORE_NOUNS = _tags(
    "ART", "APPRART", "PPOSAT", "PDAT", "PIAT", "PWAT", "ADJ(A)", "CARD", "TRUNC",
    "AT0", "DPS", "DT0", "DTQ", "AJ0", "AJC", "AJS", "CRD", "ORD", "NN1", "NN2", "NN0", "POS",
)  # fmt: skip
_OBJECTS = _tags("ART", "PPOSAT", "PDAT", "PDS", "PIAT", "CARD", "PPER", "PRF", "APPR", "APPRART")
_NOMINAL = re.compile(
    r"etwas|nichts|viele?|wenig|alles?|mehr|genug|allerlei|manches|so|zu|zu[mr]|[iavb]m|vom|beim|ins|bis|auf|und|oder"
)
"""After these German writes adjectives and verbs with a capital: nichts Neues."""
_POLITE = re.compile(r"Sie|Ihr(?:e[mnrs]?)?|Ihnen|Ihrerseits|Du|Dir|Dich|Dein(?:e[mnrs]?)?|Euch|Euer|Eure[mnrs]?")
_DEGREES = re.compile(r"wie|so|zu|sehr|nicht|how|too|very|so|more|most|not|an?|the|no|some|any|each|every|one")
_DEFINITE = re.compile(r"der|die|den|dem|vo[nm]|beim|zu[mr]")
_DATED = re.compile(r"in|on|of|since|until|till|by|from|to|last|next|this|early|late|mid|end|and|or|the")


def without_article(before: Weighed | None) -> bool:
    """Whether nothing stands before a noun that ordinary nouns need and names don't."""
    return before is None or (before.tag not in _BEFORE_NOUNS and not _NOMINAL.fullmatch(before.word.text.lower()))


def described(each: Weighed, before: Weighed | None) -> bool:
    """Whether what stands before a word in small letters makes it an ordinary one: a page, this rose, how long.

    German says `der` and `die` before names, too.
    """
    if before is None:
        return False
    text = before.word.text.lower()
    return (
        each.word.joined
        or _DEGREES.fullmatch(text) is not None
        or (before.tag in _BEFORE_NOUNS and before.tag not in NOUNS and not _DEFINITE.fullmatch(text))
    )


def finite(after: Weighed | None) -> bool:
    """Whether it is a verb that says something of what stands before it."""
    return after is not None and after.tag in _FINITE


def instruction(each: Weighed, after: Weighed | None) -> bool:
    """Whether a German verb begins the sentence and has its object next: Ordne die Liste."""
    return each.tag.startswith("VV") and (after is None or after.tag in _OBJECTS)


def subject(each: Weighed, after: Weighed | None, language: Language) -> bool:
    """Whether a word that begins a sentence is what the next one, a verb, speaks of, without an article: Cotton was."""
    if not each.word.first:
        return False
    if language == "de":
        return each.standing is EITHER and each.tag in NOUNS and finite(after)
    return each.word.text.endswith(("'s", "’s")) or (each.tag in _SUBJECTS and finite(after))


def genitive(each: Weighed, before: Weighed | None) -> bool:
    """Whether it says whose the noun before it is, without an article, as only names do: nach Ansicht Fähnrichs."""
    return (
        before is not None
        and before.tag == "NN"
        and each.word.start - before.word.end == 1
        and each.word.text.endswith("s")
    )


def polite(text: str) -> bool:
    """Whether it is a German pronoun that has a capital out of politeness."""
    return _POLITE.fullmatch(text) is not None


def dated(*beside: Weighed | None) -> bool:
    """Whether the words beside that of a month speak of a date: in May."""
    return any(each is not None and _DATED.fullmatch(each.word.text.lower()) for each in beside)
