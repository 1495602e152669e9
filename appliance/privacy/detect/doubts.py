"""Ordinary words that stand where names do: the stricter look holds a request back for them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from appliance.privacy.detect.grammar import NOUNS, finite, without_article
from appliance.privacy.detect.neighbours import Weighed
from appliance.privacy.detect.nouns import PROPER, Language
from appliance.privacy.detect.standing import COMMON, Standings

_LONGEST = 10
"""Letters; longer ordinary nouns are compounds or derived, and nobody's name."""
_SHORT = 7
_DERIVED = re.compile(r".*(?:ung|heit|keit|ion|tät|nis|tum|schaft|ment|ismus|ik|ität|enz|anz|ur|ie|ing)\Z")
_TOWARDS = {
    "de": re.compile(r"von|an|bei|gegen|laut|durch|für|mit|ohne|wegen|neben|statt|samt"),
    "en": re.compile(r"with|from|for|by|to|about|against|per"),
}
"""Prepositions that people stand behind."""
_ADDRESSED = re.compile(
    r"(?:be)?frag(?:e|t|te|ten|st|en)?|sag(?:e|st|en)?|ruf(?:e|t|en)?|bitten?|informier(?:e|t|en)|erinner(?:e|t|n)|"
    r"gr(?:ü|ue)(?:ß|ss)(?:e|t|en)?|triff|treff(?:e|t|en)|traf(?:en)?|kontaktier(?:e|t|en)|kenn(?:e|t|en|st)|"
    r"ask(?:s|ed|ing)?|tell(?:s|ing)?|told|call(?:s|ed|ing)?|met|meet(?:s|ing)?|email(?:ed)?|phoned?|text(?:ed)?|"
    r"remind(?:ed)?|ping(?:ed)?|inform(?:ed)?|know|knows|knew|saw|thank|thanked|help(?:ed)?|invite[ds]?|let"
)
"""Verbs before somebody: frag Licht, ask Hope."""
_SAYS = re.compile(
    r"sagte?|meinte?|fragte?|antwortete?|ruft|rief|kommt|kam|schreibt|schrieb|bittet|bat|möchte|braucht|"
    r"wünscht|behauptet|bestätigte?|erzählte?|erklärte?|"
    r"said|says|asked|asks|called|calls|wants?|wanted|told|tells|wrote|writes|needs|needed|thinks|thought|came|comes|"
    r"went|agreed|knows|knew|replied|confirmed|signed|left|met|emailed|phoned"
)
"""Verbs that somebody is the subject of."""
_SAID = re.compile(r"sagte?|meinte?|betonte?|erklärte?|berichtete?")
_NAMING = NOUNS | {PROPER}
_HAS = re.compile(r"ha(?:t|tte)|ist|war|wird|kann|soll|muss|will|has|had|is|was|can|could|should|does|did|are")
_MODAL = re.compile(r"may|might|will|would|can|could|must|should|has|had|is|was")
_DONE = re.compile(
    r"gesagt|angerufen|gefragt|geschrieben|gemeint|unterschrieben|gekündigt|bestätigt|erzählt|bezahlt|[az]\w{1,2}gesagt|"
    r"gebeten|mitgeteilt|gemeldet|krankgemeldet|geantwortet|getroffen|besucht|beschwert|vergessen"
)
_CLAUSE = re.compile(r"dass|weil|ob|wenn|und|aber|denn|falls|nachdem|bevor|while|because|that|if|when|and|but|since")
_TOLD = re.compile(
    r"talk(?:ed|ing)?|spoke|speak(?:ing)?|g[ai]ven?|sen[dt]|forward(?:ed)?|signed|written|call(?:ed)?|email|letter|"
    r"message|heard|invoice|met|lunch|appointment|word|chat(?:ted)?|hand(?:ed)?|got|belongs|according"
)
"""Somewhere in the sentence: what one does with people, so that `to May` is no date."""
_THANKS = re.compile(r"danke|thanks|thx|hi|hey|hallo|hello|sorry|moin|cheers|bye|tschüss|liebe[rs]?|dear|ok")
_ASKED = re.compile(r"kannst|k[öo]nntest|bitte|hast|kommst|bist|can|could|please|are|did|do|have")
_YOU = re.compile(r"you|u|i|we|me|du|mir|uns|ihr|bitte|please|the|das|die|den")
_TOO = frozenset(("will", "gut", "may", "june", "april", "august", "best", "weiß", "hope", "mark"))
"""Names among the commonest words of both languages."""
_MONTHS = frozenset(("will", "may", "june", "april", "august"))
_WEEKDAYS = frozenset(("montag", "freitag", "sonntag"))
"""Surnames among the commonest words."""
_WEAK = frozenset(("mal", "bitte", "doch", "noch", "kurz", "auch", "schnell", "please", "just", "maybe", "eigentlich"))
_PRONOUNS = re.compile(
    r"i|ich|er|sie|es|we|you|they|he|she|it|wer|who|man|that|this|there|what|which|das|niemand|jeder"
)


class Doubts:
    """What holds for one sentence. Asked only of words that nothing else has taken for a name."""

    def __init__(self, standings: Standings, words: Sequence[Weighed], language: Language, *, lower: bool) -> None:
        self._standings = standings
        self._words = words
        self._texts = [each.word.text.lower() for each in words]
        self._language = language
        self._lower = lower

    def of(self, each: Weighed) -> bool:
        """Whether it stands where a person would be named."""
        text = self._texts[each.at]
        if self._lower:
            return self._in_chat(each, text)
        if not each.capital:
            return False
        if each.standing is COMMON:
            return text in _TOO and self._common(each)
        return self._language == "de" and self._german(each)

    def _german(self, each: Weighed) -> bool:
        """Of a noun that names would be used like: alone, in the singular, without an article."""
        before = self._words[each.at - 1] if each.at else None
        if self._standings.small_only(each.word.text):
            return self._acts(each) if each.word.first else self._before(each) in ("und", "oder", "and")
        if _SAID.fullmatch(self._before(each)) and each.tag in _NAMING and len(each.word.text) <= _LONGEST:
            return True
        if not self._bare(each, before):
            return False
        if (
            each.word.beside
            or each.tag == PROPER
            or (before is not None and before.tag == "NN" and each.word.start - before.word.end == 1)
        ):
            return True
        return self._addressed(each) or self._acts(each) or (each.word.first and finite(self._after(each)))

    def _common(self, each: Weighed) -> bool:
        """Of Will, May, June, Gut."""
        after = self._texts[each.at + 1] if each.at + 1 < len(self._words) else ""
        if each.word.first and not each.at:
            return self._acts(each) or (
                self._texts[0] in _MONTHS and (after == "and" or _MODAL.fullmatch(after) is not None)
            )
        if _TOWARDS["en"].fullmatch(self._before(each)):
            return any(_TOLD.fullmatch(text) for text in self._texts) or self._before(each) == "with"
        return self._addressed(each) or (self._language == "de" and self._acts(each))

    def _in_chat(self, each: Weighed, text: str) -> bool:
        """Of a word in a text without capitals."""
        if each.word.beside and (text in _WEEKDAYS or (each.standing is not COMMON and self._standings.name(text))):
            return True
        if each.standing is COMMON and text not in _TOO:
            return False
        before, last = self._person_word(each), each.at + 1 == len(self._words)
        if _PRONOUNS.fullmatch(before):
            return False
        after = "" if last else self._texts[each.at + 1]
        listed = text in _TOO or self._standings.name(text)
        if not listed and not (self._standings.base(text.capitalize()) and each.tag in NOUNS):
            return False
        if text in self._standings.everyday_words:
            return False
        if each.word.beside and each.tag in _NAMING and self._standings.base(text.capitalize()):
            return len(text) <= _SHORT
        if not before and (_SAYS.fullmatch(after) or (listed and self._called(after))):
            return True
        if listed and self._texts[0] in ("wer", "who") and before in ("ist", "is", "s"):
            return True
        if not before and text in _TOO and _HAS.fullmatch(after):
            return each.tag == PROPER or each.tag in NOUNS
        if last and listed and _THANKS.fullmatch(before):
            return True
        if _ADDRESSED.fullmatch(before):
            return True
        return listed and _TOWARDS[self._language].fullmatch(before) is not None and each.tag not in ("ADJ(A)", "AJ0")

    def _called(self, after: str) -> bool:
        """Whether the first word is somebody to whom the sentence turns: will can you."""
        return _ASKED.fullmatch(after) is not None and _YOU.fullmatch("".join(self._texts[2:3])) is not None

    def _addressed(self, each: Weighed) -> bool:
        """Whether it stands behind a preposition or a verb that take people."""
        before = self._before(each)
        if _TOWARDS[self._language].fullmatch(before):
            return True
        if _ADDRESSED.fullmatch(before) or _SAYS.fullmatch(before):
            return True
        return _HAS.fullmatch(before) is not None and any(map(_DONE.fullmatch, self._texts[each.at + 1 :]))

    def _acts(self, each: Weighed) -> bool:
        """Whether it begins a clause, and does what people do."""
        after = self._after(each)
        if after is None or not (each.word.first or _CLAUSE.fullmatch(self._before(each))):
            return False
        text = self._texts[after.at]
        return bool(_SAYS.fullmatch(text)) or (
            _HAS.fullmatch(text) is not None and any(map(_DONE.fullmatch, self._texts[after.at + 1 :]))
        )

    def _bare(self, each: Weighed, before: Weighed | None) -> bool:
        text = each.word.text
        if (
            len(text) > _LONGEST
            or each.tag not in _NAMING
            or _DERIVED.match(text)
            or text.lower() in self._standings.everyday_words
        ):
            return False
        if each.tag == PROPER or each.word.beside:
            return True
        return self._standings.base(text) and (each.word.first or without_article(before))

    def _before(self, each: Weighed) -> str:
        return self._texts[each.at - 1] if each.at else ""

    def _person_word(self, each: Weighed) -> str:
        """The word before it, but for those that soften: frag mal."""
        at = each.at - 1
        while at > 0 and self._texts[at] in _WEAK:
            at -= 1
        return self._texts[at] if at >= 0 else ""

    def _after(self, each: Weighed) -> Weighed | None:
        return self._words[each.at + 1] if each.at + 1 < len(self._words) else None
