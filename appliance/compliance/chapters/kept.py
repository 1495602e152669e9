"""Says nothing of a month as if nothing had been, where the log can't know it (any more)."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.compliance.blocks import Block, Paragraph, Strong
from appliance.compliance.collect import Facts
from appliance.compliance.words import Words


def unknown(facts: Facts, words: Words) -> str | None:
    """Why there can't be any records of the whole month; None where there can."""
    covered = facts.coverage
    if not covered.began:
        return words("kept.no_log")
    if covered.began >= facts.month.span[1]:
        return words("kept.before", at=words.moment(covered.began))
    return None


def late(facts: Facts) -> bool:
    """Whether the log begins in the middle of the month."""
    since, until = facts.month.span
    return since < facts.coverage.began < until


def nothing(facts: Facts, words: Words, name: str, *kinds: str) -> Iterator[Block]:
    """The text `name`, which says that there was nothing, as far as records of these kinds can say so."""
    covered = facts.coverage
    if (why := unknown(facts, words)) is not None:
        yield Paragraph(Strong(why))
    elif count := covered.gone(*kinds):
        yield Paragraph(Strong(words("kept.removed", count=count)))
    else:
        parts = [words(name)]
        if covered.over & set(kinds):
            parts.append(words("kept.over"))
        if late(facts):
            parts.append(words("kept.late", at=words.moment(covered.began)))
        yield Paragraph(" ".join(parts))


def partly(facts: Facts, words: Words, *kinds: str) -> Iterator[Block]:
    """What is to be said before figures of which some are gone."""
    covered = facts.coverage
    if count := covered.gone(*kinds):
        yield Paragraph(Strong(words("kept.partly", count=count)), small=True)
    elif covered.over & set(kinds):
        yield Paragraph(words("kept.over"), small=True)
