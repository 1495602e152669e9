"""A report, from its title to its appendix, as blocks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from appliance.compliance.blocks import Block, Bullets, Code, Heading, Listing, Pairs, Paragraph, Strong, Verdict
from appliance.compliance.chapters import operation, people, processing, record
from appliance.compliance.chapters.kept import late, unknown
from appliance.compliance.collect import Facts
from appliance.compliance.flows import Where
from appliance.compliance.words import Words

_CHAPTERS = (
    processing.processing, operation.proofs, people.access, processing.models, operation.requests, people.rights,
    people.reveals, record.incidents, record.administration, record.verification, record.limits,
)  # fmt: skip


def compose(facts: Facts, words: Words, page_sum: str = "") -> list[Block]:
    """All of it. `page_sum` is the checksum of the page, which can't stand in the page itself."""
    return [
        *_opening(facts, words),
        *(block for chapter in _CHAPTERS for block in chapter(facts, words)),
        *_itself(words, page_sum),
        *record.appendix(facts, words),
    ]


def title(facts: Facts, words: Words) -> str:
    """What it is called."""
    return words("title", month=words.month(facts.month.since))


def _opening(facts: Facts, words: Words) -> Iterator[Block]:
    month = facts.month
    if month.over:
        last = words.day(month.until - timedelta(hours=1))
        span = words("about.span.over", since=words.day(month.since), until=last)
    else:
        until = words.moment(month.until)
        span = words("about.span.today", since=words.day(month.since), until=until)
    yield Pairs([
        (words("about.host"), facts.host),
        (words("about.span"), span),
        (words("about.zone"), month.zone.key),
        (words("about.made"), words("about.made.at", at=words.moment(facts.made), version=facts.version)),
        (words("about.config"), Code(str(facts.config))),
    ])  # fmt: skip
    wrong = list(_wrong(facts, words))
    sentences = [_left(facts, words), _log(facts, words)]
    if wrong and all(good for good, _ in sentences):
        sentences.append((False, words("verdict.besides")))
    yield Verdict(sentences)
    if wrong:
        yield Paragraph(Strong(words("wrong.title")))
        yield Bullets(wrong)


def _left(facts: Facts, words: Words) -> tuple[bool, str]:
    found = facts.proofs
    if not found.count:
        return False, words("verdict.left.none")
    if found.held < found.count or found.faults or facts.unproven or facts.unknowable:
        return False, words("verdict.left.wrong")
    elsewhere = any(flow.where is not Where.HERE and flow.kind != "metrics" for flow in facts.flows)
    return True, words(f"verdict.left.{'destinations' if elsewhere else 'deny'}", count=found.count)


def _log(facts: Facts, words: Words) -> tuple[bool, str]:
    found, covered = facts.verification, facts.coverage
    if found.fresh:
        return False, words("verdict.log.unsigned")
    if found.holds is None:
        return False, words("verdict.log.unchecked")
    if not found.holds or facts.log.trouble or facts.log.unreadable:
        return False, words("verdict.log.broken")
    if (why := unknown(facts, words)) is not None:
        return False, why
    number = found.newest.number if found.newest else 0
    if gone := sum(covered.removed.values()):
        return True, words("verdict.log.removed", count=found.records, number=number, gone=gone)
    if late(facts):
        at = words.moment(covered.began)
        return True, words("verdict.log.late", count=found.records, number=number, at=at)
    return True, words("verdict.log.whole", count=found.records, number=number)


def _wrong(facts: Facts, words: Words) -> Iterator[str]:
    found, log = facts.proofs, facts.log
    if not found.count:
        yield words("wrong.no_proof")
    if found.held < found.count:
        yield words("wrong.failed", count=found.count - found.held, all=found.count)
    if found.faults:
        yield words("wrong.faults")
    if facts.unproven:
        count = sum(asked for _, asked in facts.unproven)
        yield words("wrong.unproven", count=count, gaps=len(facts.unproven))
    if facts.unknowable:
        yield words("wrong.unknowable", count=facts.coverage.gone("intent"))
    if strange := sum(flow.where is Where.UNKNOWN for flow in facts.flows):
        yield words("wrong.flows", count=strange)
    if facts.verification.fresh:
        yield words("wrong.unsigned")
    elif not facts.verification.holds:
        yield words("wrong.log")
    elif (why := unknown(facts, words)) is not None:
        yield why
    if facts.verification.stamps_trouble:
        yield words("wrong.stamps")
    if log.trouble or log.unreadable:
        yield words("wrong.unread")


def _itself(words: Words, page_sum: str) -> Iterator[Block]:
    yield Heading(words("self.title"))
    yield Paragraph(words("self.note"))
    yield Listing(["appliance compliance check compliance.html", "head -n -1 compliance.html | sha256sum"])
    if page_sum:
        yield Pairs([(words("self.html"), Code(page_sum))])
