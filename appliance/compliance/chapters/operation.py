"""The proof that nothing got out, and the requests in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from appliance.compliance.blocks import Block, Bullets, Code, Heading, Pairs, Paragraph, Strong, Table, Text
from appliance.compliance.chapters.kept import nothing, partly
from appliance.compliance.collect import Facts
from appliance.compliance.log import Sum
from appliance.compliance.month import told
from appliance.compliance.proofs import Proofs, within
from appliance.compliance.words import Words

MOST_ROWS = 50
"""Rows of a list that could be of any length."""


def proofs(facts: Facts, words: Words) -> Iterator[Block]:
    """The verifications of the month: how many held, which failed, where there was none."""
    found = facts.proofs
    yield Heading(words("proofs.title"))
    yield Paragraph(words("proofs.intro"))
    interval = words.seconds(found.interval.total_seconds()) if found.interval else words("proofs.interval.none")
    failed = found.count - found.held
    rows: list[tuple[str, Text]] = [
        (words("proofs.mode"), (Code(f"egress: {facts.settings.egress.mode}"), ", ",
                                Code(f"seal: {facts.settings.egress.seal}"))),
        (words("proofs.interval"), interval),
        (words("proofs.count"), words.number(found.count)),
    ]  # fmt: skip
    if found.count:
        rows += [
            (words("proofs.held"), words.number(found.held)),
            (words("proofs.failed"), Strong(words.number(failed)) if failed else words.number(0)),
            (words("proofs.numbers"), words("proofs.numbers.are", first=found.first, last=found.last)),
            (words("proofs.last"), Code(found.last_sha256)),
            (words("proofs.fingerprint"), Code(found.fingerprint)),
        ]
    yield Pairs(rows)
    if not found.count:
        yield Paragraph(Strong(words("proofs.none")))
    if found.failed:
        yield Heading(words("proofs.failed.title"), 2)
        yield Table(
            [words("proofs.number"), words("proofs.at"), words("proofs.checks")],
            [15, 30, 55],
            [
                (words.number(each.number), words.moment(each.at), Code(", ".join(each.checks)) if each.checks else "")
                for each in found.failed[:MOST_ROWS]
            ],
        )
        yield from more(len(found.failed), words)
    yield from _gaps(facts, found, words)
    if found.faults:
        yield Heading(words("proofs.faults.title"), 2)
        yield Paragraph(words("proofs.faults.note"), small=True)
        yield Bullets([Code(fault) for fault in found.faults[:MOST_ROWS]])
        yield from more(len(found.faults), words)


def _gaps(facts: Facts, found: Proofs, words: Words) -> Iterator[Block]:
    yield Heading(words("proofs.gaps.title"), 2)
    if not found.interval:
        yield Paragraph(words("proofs.gaps.off"))
    elif not found.gaps:
        yield Paragraph(words("proofs.gaps.none"))
    if not found.gaps:
        return
    if facts.unknowable:
        yield Paragraph(Strong(words("kept.gaps", count=facts.coverage.gone("intent"))))
    starts = sorted(told(act.at) for act in facts.log.acts.get("start", ()))
    asked = facts.log.asked_in
    # those in which somebody asked first: they are what is wrong
    order = sorted(range(len(found.gaps)), key=lambda index: (not asked[index], index))[:MOST_ROWS]
    rows: list[tuple[Text, ...]] = []
    for index in order:
        gap = found.gaps[index]
        start = within(gap, starts)
        count = words.number(asked[index])
        rows.append((
            words.moment(gap.since), words.moment(gap.until),
            words.seconds((gap.until - gap.since) / timedelta(seconds=1)),
            words.moment(start) if start else "–", Strong(f"✗ {count}") if asked[index] else count,
        ))  # fmt: skip
    names = ("since", "until", "lasted", "start", "asked")
    head = [words(f"proofs.gap.{name}") for name in names]
    yield Table(head, [22, 22, 14, 22, 20], rows, frozenset({4}))
    yield from more(len(found.gaps), words)
    yield Paragraph(words("proofs.gaps.note"), small=True)


def more(count: int, words: Words, most: int = MOST_ROWS) -> Iterator[Block]:
    """How many of a list are not shown, if any."""
    if count > most:
        yield Paragraph(words("more", count=count - most), small=True)


def requests(facts: Facts, words: Words) -> Iterator[Block]:
    """The requests of the month by model, route, use case and outcome, and those that were refused."""
    yield Heading(words("requests.title"))
    yield Paragraph(words("requests.intro"))
    sums = facts.log.sums
    if sums:
        yield from partly(facts, words, "intent", "outcome")
    else:
        yield from nothing(facts, words, "requests.none", "intent", "outcome")
    for column, name in enumerate(("model", "route", "use_case", "outcome")):
        if not sums:
            break
        by: dict[str, Sum] = {}
        total = Sum()
        for key, each in sums.items():
            by.setdefault(key[column], Sum()).add(each)
            total.add(each)
        rows = [
            (_named(name, key, words), *_figures(each, words))
            for key, each in sorted(by.items(), key=lambda item: -item[1].requests)
        ]
        if len(rows) > 1:
            rows.append((Strong(words("requests.total")), *_figures(total, words)))
        head = [words(f"requests.by.{name}"), *(words(f"requests.{each}") for each in
                                                ("count", "prompt", "completion", "cost"))]  # fmt: skip
        yield Table(head, [36, 14, 18, 18, 14], rows, frozenset({1, 2, 3, 4}))
    if any(key[3] == "" for key in sums):
        yield Paragraph(words("requests.open"), small=True)
    yield from _refused(facts, words)


def _named(dimension: str, name: str, words: Words) -> Text:
    if dimension == "model":
        return Code(name)
    if dimension == "use_case":
        return Code(name) if name else words("requests.case.none")
    return words.known(f"{dimension}.{name}") or Code(name)


def _figures(each: Sum, words: Words) -> tuple[Text, ...]:
    counts = (each.requests, each.prompt_tokens, each.completion_tokens)
    return (*map(words.number, counts), words.euros(each.nanoeuros))


def _refused(facts: Facts, words: Words) -> Iterator[Block]:
    known, strangers = facts.log.refusals, facts.log.strangers
    yield Heading(words("requests.refused.title"), 2)
    if not known and not strangers:
        yield from nothing(facts, words, "requests.refused.none", "refusal", "strangers")
        return
    yield from partly(facts, words, "refusal", "strangers")
    codes = sorted(known | strangers, key=lambda code: -(known[code] + strangers[code]))
    yield Table(
        [words(f"requests.refused.{name}") for name in ("code", "known", "strangers")],
        [60, 20, 20],
        [
            (_reason(code, words), words.number(known[code]), words.number(strangers[code]))
            for code in codes[:MOST_ROWS]
        ],
        frozenset({1, 2}),
    )
    yield from more(len(codes), words)


def _reason(code: str, words: Words) -> Text:
    known = words.known(f"code.{code}")
    return (known, " ", Code(code)) if known else Code(code)
