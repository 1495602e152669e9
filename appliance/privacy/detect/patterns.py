"""The pattern tier: what can be found by its form, its checksum, or a word that stands before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from appliance.privacy.detect import addresses, contact, dates, identifiers, labels, secrets
from appliance.privacy.detect.normalise import normalise
from appliance.privacy.detect.ordinary import BLOT, ordinary, without
from appliance.privacy.detect.recognizers import Recognizers
from appliance.privacy.detect.rule import around, grams_of, heads, lowered, runs_of_digits
from appliance.privacy.detect.strict import remains
from appliance.privacy.kinds import Kind, Span


class Patterns:
    """Finds by patterns alone; takes time in proportion to the text's length, whatever the text is."""

    def __init__(self) -> None:
        self._recognizers = Recognizers()
        self._secrets = secrets.Secrets()

    def find(self, text: str, *, strict: bool = False) -> list[Span]:
        """What is found, in order of its start; finds may overlap. Indices are those of the text as given.

        `strict`: also whatever looks like an identifier, with a score below 0.5 and `strict` as its source. For text
        that is masked already, where nothing of the sort should be left.
        """
        seen = normalise(text)
        found = self._found(seen.text)
        spans = sorted(_without_parts(chain(found, remains(seen.text)) if strict else found))
        if seen.map is None:
            return spans
        return [Span(*seen.given(span.start, span.end), span.kind, span.score, span.source) for span in spans]

    def _found(self, text: str) -> Iterator[Span]:
        lower = lowered(text)
        grams = grams_of(lower)
        if "@" in text:
            yield from contact.mail(text)
        yield from contact.spelt_mail(text, grams)
        yield from contact.spelt_phones(text, grams)
        yield from contact.web(text, grams)
        yield from self._secrets.find(text, lower, grams)
        yield from dates.spelt_out(text, grams)
        yield from identifiers.without_digits(text, grams)
        runs = runs_of_digits(text)
        firsts = heads(text, runs)
        yield from addresses.streets(text, grams, firsts)
        if not runs:
            return
        windows = around(runs, 48, 32)
        found = list(dates.dates(text, firsts))
        yield from found
        yield from dates.birth(text, grams, windows)
        yield from dates.ages(text, firsts)
        yield from addresses.postcodes(text, runs)
        dated = [(span.start, span.end) for span in found]
        starts = {start for start, _ in dated}
        rest = without(text, dated + ordinary(text, [run for run in firsts if run[0] not in starts]))
        runs = [run for run in runs if rest[run[0]] != BLOT]
        if not runs:
            return
        lower = lowered(rest)
        yield from labels.labelled(rest, lower, runs)
        yield from identifiers.identifiers(rest, lower, grams, runs)
        yield from contact.phones(rest, runs)
        yield from self._recognizers.find(rest, lower, grams, runs)


def _without_parts(spans: Iterable[Span]) -> Iterator[Span]:
    """Those that aren't part of one that is at least as sure. What a secret is part of is a secret as a whole."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end, -span.score)):
        kept = [other for other in kept if other.end > span.start]
        around = next((other for other in kept if span.end <= other.end and span.score <= other.score), None)
        if around is None:
            kept.append(span)
            yield span
        elif span.kind is Kind.SECRET is not around.kind:
            yield Span(around.start, around.end, Kind.SECRET, span.score, span.source)


def patterns() -> Patterns:
    """The pattern tier with everything compiled."""
    return Patterns()
