"""Finds to placeholders, the same ones over a whole conversation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from appliance.privacy import placeholders
from appliance.privacy.finder import Finder
from appliance.privacy.generalise import coarser
from appliance.privacy.kinds import TREATMENTS, Kind, Span
from appliance.privacy.ordinary import ORDINARY
from appliance.privacy.persons import Name, Persons, is_firm, parse, parts, without_title
from appliance.privacy.spelling import clean, words, written_out

_EDGES = frozenset(",;:!?\"'„“”»«()[]{}<>|`*")
_LOOK_BACK = 40
"""Characters in which a name's title stands."""
_PEOPLE = frozenset({Kind.PERSON, Kind.CLIENT, Kind.EMPLOYEE})
_NAMES = _PEOPLE | {Kind.ORGANISATION, Kind.PLACE, Kind.PROJECT}
_NUMBERS = frozenset({
    Kind.PHONE, Kind.BANK_ACCOUNT, Kind.CARD, Kind.TAX_ID, Kind.SOCIAL_SECURITY, Kind.HEALTH_INSURANCE,
})  # fmt: skip
"""In which spaces and hyphens mean nothing."""
_GENITIVE = re.compile(r"['’]?[sS](?!\w)")
_SYLLABLE = re.compile(r"(?:-[^\W\d_A-ZÄÖÜ]{1,5})+(?!\w)")
"""Of a given name, as in Min-jun."""
_INITIALS = re.compile(r"(?<!z\.)(?<!z\. )(?<!\w)(?:[A-ZÄÖÜ]\.[ -]?)+\Z")

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Mention:
    start: int
    end: int
    kind: Kind
    surface: str
    name: Name | None = None
    """Of a person."""
    literal: bool = False
    """It looks like a placeholder, and is none."""


class Mask:
    """One request's. What `apply` gives out holds no find, in any field, and no text that looks like a placeholder
    without being one. Putting `originals` back gives the texts as they were, but for what was generalised: spellings
    of one value have the same number, and a letter each.
    """

    def __init__(self, generalise: Collection[str]) -> None:
        """`generalise`: kinds that are made coarser, as in the config."""
        self._generalise = frozenset(generalise)
        self._numbers: Counter[str] = Counter()
        self._placeholders: dict[tuple[Key, str], str] = {}
        """By value, and by how it is written."""
        self.originals: dict[str, str] = {}
        """Placeholder to what it stands for."""
        self.found: dict[str, int] = {}
        """How many different values there are of each kind."""
        self.coarse: set[str] = set()
        """What stands in place of what was generalised."""
        self.traces: list[str] = []
        """All that may not stand in what is sent: every find as it was written, and each name of a person."""
        self.names: list[str] = []
        """Those names, which may not be part of a longer word either."""

    def apply(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[str]:
        """The texts of a whole conversation, masked. Once for each mask."""
        alike: dict[str, list[Span]] = {}
        for text, finds in zip(texts, spans, strict=True):  # a name in a schema is the same in arguments
            alike.setdefault(text, []).extend(_untitled(text, find) for find in finds)
        known = _genitives({text: _mentions(text, finds) for text, finds in alike.items()})
        finder, kinds = self._look_for(mention for found in known.values() for mention in found)
        mentions = {
            text: _apart(text, _with_digits(text, _with_literals(text, _with_others(text, found, finder, kinds))))
            for text, found in known.items()
        }
        persons = Persons(
            mention.name for found in mentions.values() for mention in found if mention.name is not None
        )  # fmt: skip
        self._number(mentions, persons)
        masked = {text: self._written(text, found, persons) for text, found in mentions.items()}
        return [masked[text] for text in texts]

    def _look_for(self, mentions: Iterable[_Mention]) -> tuple[Finder, Mapping[str, Kind]]:
        kinds: dict[str, Kind] = {}
        names: dict[str, Kind] = {}
        for mention in mentions:
            kinds.setdefault(mention.surface, mention.kind)
            if mention.name is not None:
                for part in parts(mention.surface):
                    names.setdefault(part, mention.kind)
        self.names = list(names)
        self.traces = [*kinds, *(name for name in names if name not in kinds and written_out(name) not in ORDINARY)]
        return Finder(self.traces, self.names), names | kinds

    def _number(self, mentions: Mapping[str, Sequence[_Mention]], persons: Persons) -> None:
        """Give each value its number, in order of appearance, and each of its spellings a letter, the fullest none."""
        spellings: dict[Key, list[_Mention]] = {}
        for found in mentions.values():
            for mention in found:
                spellings.setdefault(_key(mention, persons), []).append(mention)
        values: Counter[Kind] = Counter()
        for key, alike in spellings.items():
            values[alike[0].kind] += not alike[0].literal
            stem = TREATMENTS[alike[0].kind].stem
            fine = {mention.surface: None for mention in alike if self._coarser(mention) is None}
            surfaces = sorted(fine, key=_fullness, reverse=True)
            for at, surface in enumerate(surfaces):
                form = placeholders.FORMS[at % len(placeholders.FORMS)]
                self._numbers[stem] += not form
                placeholder = f"{stem}_{self._numbers[stem]:03}{form}"
                self._placeholders[key, surface] = placeholder
                self.originals[placeholder] = surface
        self.found = {str(kind): count for kind, count in values.items() if count}

    def _written(self, text: str, mentions: Sequence[_Mention], persons: Persons) -> str:
        pieces, done = [], 0
        for mention in mentions:
            new = self._coarser(mention)
            if new is None:
                new = self._placeholders[_key(mention, persons), mention.surface]
            pieces += [text[done : mention.start], new]
            done = mention.end
        return "".join([*pieces, text[done:]])

    def _coarser(self, mention: _Mention) -> str | None:
        if mention.kind not in self._generalise or mention.literal:
            return None
        new = coarser(mention.kind, mention.surface)
        self.coarse.update(filter(None, [new]))
        return new


def _key(mention: _Mention, persons: Persons) -> Key:
    """The same for mentions of the same value."""
    if mention.literal:
        return "literal", mention.surface
    stem = TREATMENTS[mention.kind].stem
    if mention.name is not None:
        return stem, *persons.key(mention.name)
    if mention.kind in _NAMES:
        surface = clean(mention.surface)
        return stem, " ".join(written_out(surface[word.start : word.end]) for word in words(surface))
    if mention.kind in _NUMBERS:
        return stem, "".join(word.plain for word in words(mention.surface))
    return stem, mention.surface.casefold()


def _fullness(surface: str) -> tuple[int, bool, int]:
    """Of spellings of a name, the one to put in an answer has all its words, and isn't shouted."""
    return len(surface.split()), surface != surface.upper(), sum(map(str.isupper, surface[:1]))


def _mention(text: str, start: int, end: int, kind: Kind) -> _Mention:
    surface = text[start:end]
    if kind in _PEOPLE and not is_firm(surface):
        return _Mention(start, end, kind, surface, parse(surface, text[max(0, start - _LOOK_BACK) : start]))
    return _Mention(start, end, kind, surface)


def _mentions(text: str, spans: Iterable[Span]) -> list[_Mention]:
    """Finds without overlaps, each of whole words and without what doesn't belong to it."""
    whole: list[Span] = []
    for found in sorted(spans):
        if found.start == found.end or (whole and found.end <= whole[-1].end):
            continue
        span = _whole(text, found)
        if span.start == span.end:
            continue
        if not whole or (span.start >= whole[-1].end and not _one_name(text, whole[-1], span)):
            whole.append(span)
            continue
        last = whole.pop()
        kind = max(last, span, key=lambda each: (each.end - each.start, each.score)).kind
        whole.append(replace(last, start=min(last.start, span.start), end=max(last.end, span.end), kind=kind))
    return [_mention(text, span.start, span.end, span.kind) for span in whole]


def _one_name(text: str, first: Span, then: Span) -> bool:
    """Whether two finds are a person's given name and another."""
    if not {first.kind, then.kind} <= _PEOPLE or text[first.end : then.start] not in (" ", "\u00a0", "_"):
        return False
    return not all(re.search(r"[\s_]", text[span.start : span.end]) for span in (first, then))


def _untitled(text: str, span: Span) -> Span:
    """A find as a detector made it, without the title that a name begins with."""
    if span.kind not in _PEOPLE:
        return span
    whole = _whole(text, span)
    return replace(whole, start=whole.start + without_title(text[whole.start : whole.end]))


def _whole(text: str, span: Span) -> Span:
    start, end = span.start, span.end
    while start < end and _is_edge(text[start]):
        start += 1
    while start < end and _is_edge(text[end - 1]):
        end -= 1
    if start == end:
        return replace(span, start=start, end=start)
    while start and text[start].isalnum() and text[start - 1].isalnum():
        start -= 1
    if not (span.kind in _NAMES and _GENITIVE.match(text, end)):
        while end < len(text) and text[end].isalnum():  # also behind a sign: a placeholder's letter needs an end
            end += 1
    if span.kind in _PEOPLE:
        syllable = _SYLLABLE.match(text, end)
        end = syllable.end() if syllable else end
        initials = _INITIALS.search(text, max(0, start - _LOOK_BACK), start)
        start = initials.start() if initials else start
    return replace(span, start=start, end=end)


def _is_edge(character: str) -> bool:
    return character in _EDGES or character.isspace()


def _genitives(mentions: Mapping[str, Sequence[_Mention]]) -> dict[str, list[_Mention]]:
    """Names without the s of a genitive, where the name stands somewhere without it."""
    known = {
        written_out(part)
        for found in mentions.values()
        for mention in found
        if mention.kind in _NAMES
        for part in (mention.surface, *mention.surface.split())
    }

    def base(text: str, mention: _Mention) -> _Mention:
        ending = re.search(r"(?<=\w)['’]?[sS]\Z", mention.surface)
        if mention.kind not in _NAMES or ending is None:
            return mention
        last = mention.surface[: ending.start()].split()[-1]
        if len(last) < 3 or written_out(last) not in known:
            return mention
        return _mention(text, mention.start, mention.start + ending.start(), mention.kind)

    return {text: [base(text, mention) for mention in found] for text, found in mentions.items()}


def _with_others(
    text: str, mentions: Sequence[_Mention], finder: Finder, kinds: Mapping[str, Kind]
) -> list[_Mention]:  # fmt: skip
    """With what was found in another place, too."""
    known = [Span(mention.start, mention.end, mention.kind) for mention in mentions]
    return _mentions(text, known + [Span(start, end, kinds[value]) for start, end, value in finder.find(text)])


def _with_literals(text: str, mentions: Sequence[_Mention]) -> list[_Mention]:
    stems = {treatment.stem: kind for kind, treatment in reversed(TREATMENTS.items())}
    found = [
        _Mention(each.start, each.end, stems.get(each.stem.capitalize(), Kind.WORD), text[each.start : each.end],
                 literal=True)
        for each in placeholders.find(text)
    ]  # fmt: skip
    return _merged(mentions, found)


def _with_digits(text: str, mentions: Sequence[_Mention]) -> list[_Mention]:
    """With the digits, or the letter, right behind each: they would make another placeholder of its own."""
    limits = [*(mention.start for mention in mentions[1:]), len(text)]
    whole = []
    for mention, limit in zip(mentions, limits, strict=False):
        end = mention.end
        while end < limit and "0" <= text[end] <= "9":
            end += 1
        if end < limit and (letter := placeholders.FORM.match(text, end)):
            end = letter.end()
        longer = end > mention.end
        whole.append(_mention(text, mention.start, end, mention.kind) if longer else mention)
    return whole


def _apart(text: str, mentions: Iterable[_Mention]) -> list[_Mention]:
    """Those that touch as one: behind a placeholder's letter no other may begin."""
    apart: list[_Mention] = []
    for mention in mentions:
        if apart and apart[-1].end == mention.start and not (apart[-1].literal or mention.literal):
            mention = _mention(text, apart[-1].start, mention.end, apart.pop().kind)  # noqa: PLW2901
        apart.append(mention)
    return apart


def _merged(first: Sequence[_Mention], then: Iterable[_Mention]) -> list[_Mention]:
    """Both in order; of `then` only what overlaps none of the first."""
    taken = sorted(first, key=lambda mention: mention.start)
    ends = [mention.end for mention in taken]
    free: list[_Mention] = []
    at = 0
    for mention in then:
        while at < len(taken) and ends[at] <= mention.start:
            at += 1
        if (at == len(taken) or mention.end <= taken[at].start) and not (free and mention.start < free[-1].end):
            free.append(mention)
    return sorted([*taken, *free], key=lambda mention: mention.start)
