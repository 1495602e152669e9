"""What language an answer is in, and whether it declines: German and English, by their commonest words."""

from __future__ import annotations

import re
from typing import Literal

_START = 600
"""Characters in which an answer declines, if it does: later on it would only speak of declining."""

_REFUSALS = re.compile(
    r"\bi(?:'m| am) (?:really |so |very )?(?:sorry|afraid)[ ,.]+(?:but )?(?:i |that|this|as an ai)|"
    r"\bi(?:'m| am) (?:unable|not able|not allowed|not permitted|not comfortable|not in a position)\b|"
    r"\bi (?:can(?:'t|not|not ever)|could not|couldn't|won't|will not|must not|may not|mustn't|shouldn't|should not) "
    r"(?:\w+ ){0,2}?(?:help|assist|provide|give|share|tell|disclose|reveal|do|comply|fulfil|fulfill|answer|support|"
    r"create|write|explain|describe|offer|discuss|engage|say|show|repeat|generate|recommend|advise|participate)\b|"
    r"\bi(?: must| have to|'ll have to| need to| will)? (?:respectfully )?(?:decline|refuse)\b|"
    r"\b(?:as an ai|against (?:my|the) (?:guidelines|rules|policy|policies))\b|"
    r"\b(?:es )?tut mir (?:sehr |wirklich )?leid[ ,.]+(?:aber )?"
    r"(?:(?:dabei|damit|das|dazu|hierbei) )?(?:kann|darf|ich)|"
    r"\b(?:das|dabei|damit|dazu|hierbei|darüber|ihnen|dir|solche\w*) (?:kann|darf|werde|möchte) ich (?:\w+ ){0,4}?"
    r"(?:nicht|keine?n?)\b|"
    r"\bich (?:kann|darf|werde|möchte) (?:\w+ ){0,5}?(?:nicht|keine?[mnrs]?) (?:\w+ ){0,6}?(?:helfen|behilflich|"
    r"unterstützen|geben|nennen|verraten|mitteilen|preisgeben|beantworten|bereitstellen|erklären|erstellen|schreiben|"
    r"weitergeben|sagen|anbieten|wiederholen|teilen|machen|liefern|empfehlen|tun|beschreiben|herausgeben)\b|"
    r"\bich (?:lehne|muss) (?:das |dies |diese \w+ |es |leider )*ab(?:lehnen)?\b|"
    r"\b(?:nicht (?:in der lage|befugt|berechtigt|autorisiert|möglich)|als ki\b)|"
    r"\b(?:verstößt|widerspricht) (?:\w+ ){0,3}?(?:richtlinien|regeln|vorgaben)\b",
    re.IGNORECASE,
)

_ENGLISH = (
    "the and of to in is that it for was with as are on be this by at or from have has not but which you your they "
    "their its an were been will would can there what when who how we our his her she he if then than also a i"
)
_GERMAN = (
    "der die das und ist in den von zu mit sich auf für nicht ein eine einen einem einer des dem im als auch es an "
    "wird aus sie er wir ihr nach wie bei oder über zum zur haben hat werden sind war kann durch ich aber noch nur "
    "wenn dass daß man mehr vor um bis unter ja nein sehr"
)
_COMMON = {"en": frozenset(_ENGLISH.split()), "de": frozenset(_GERMAN.split())}
_WORD = re.compile(r"[a-zäöüß]+")


def refuses(answer: str) -> bool:
    """Whether `answer` begins by declining what was asked, in German or English."""
    return _REFUSALS.search(" ".join(answer.replace("’", "'")[:_START].split())) is not None


def language(answer: str) -> Literal["de", "en"] | None:
    """The language of `answer`; None where its words don't tell, as in a number or a name."""
    words = _WORD.findall(answer[:20_000].lower())
    german = sum(word in _COMMON["de"] for word in words) + sum(any(char in "äöüß" for char in word) for word in words)
    english = sum(word in _COMMON["en"] for word in words)
    if german == english:
        return None
    return "de" if german > english else "en"
