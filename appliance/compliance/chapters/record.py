"""Incidents, what was administered, whether the log is whole, and what no report can show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from appliance.compliance.blocks import Block, Bullets, Code, Heading, Listing, Mark, Pairs, Paragraph, Strong, Table
from appliance.compliance.blocks import Text as Cell
from appliance.compliance.chapters.kept import nothing, partly
from appliance.compliance.chapters.operation import MOST_ROWS, more
from appliance.compliance.chapters.particulars import act_name, ended, particulars, quoted, who
from appliance.compliance.collect import Facts
from appliance.compliance.insight import Act
from appliance.compliance.verification import Verification
from appliance.compliance.words import Words

_MOST_LINES = 60
_LIMITS = ("root", "tail", "between", "answers", "content", "config", "legal")


def incidents(facts: Facts, words: Words) -> Iterator[Block]:
    """What went wrong: how often, and each in turn."""
    log = facts.log
    yield Heading(words("incidents.title"))
    if not log.incident_counts:
        yield from nothing(facts, words, "incidents.none", "incident")
        return
    yield from partly(facts, words, "incident")
    yield Table(
        [words(f"incidents.{name}") for name in ("name", "count", "first", "last")],
        [46, 10, 22, 22],
        [
            (_incident(name, words), words.number(count), words.moment(log.incidents[name][0].at),
             words.moment(log.incident_last.get(name, log.incidents[name][-1].at)))
            for name, count in log.incident_counts.most_common()
        ],
        frozenset({1}),
    )  # fmt: skip
    every = sorted((each for group in log.incidents.values() for each in group), key=lambda each: each.seq)
    telling = [each for each in every if each.told]
    if telling:
        yield Heading(words("incidents.detail"), 2)
        yield Table(
            [words("acts.at"), words("incidents.name"), words("acts.told")],
            [18, 37, 45],
            [
                (words.moment(each.at), _incident(each.name, words), particulars(each.told, words) or "–")
                for each in telling[:MOST_ROWS]
            ],
        )
        yield from more(len(telling), words)


def _incident(name: str, words: Words) -> Cell:
    known = words.known(f"incident.{name}")
    return (known, " ", Code(name)) if known else Code(name)


def administration(facts: Facts, words: Words) -> Iterator[Block]:
    """What was done, by kind, and each change of the config."""
    log = facts.log
    yield Heading(words("acts.title"))
    if not log.counts:
        yield from nothing(facts, words, "acts.none", "act")
        return
    yield from partly(facts, words, "act")
    yield Heading(words("acts.counts"), 2)
    yield Table(
        [words(f"acts.{name}") for name in ("name", "count", "done", "failed")],
        [55, 15, 15, 15],
        [
            (act_name(name, words), words.number(count), *(words.number(log.ends[name, end]) for end in
                                                           ("done", "failed")))
            for name, count in sorted(log.counts.items(), key=lambda item: (-item[1], item[0]))
        ],
        frozenset({1, 2, 3}),
    )  # fmt: skip
    yield Heading(words("acts.config.title"), 2)
    changes = _changes(facts)
    if not changes:
        yield from nothing(facts, words, "acts.config.none", "act")
        return
    yield Table(
        [words(f"acts.{name}") for name in ("at", "name", "by", "sections", "end")],
        [18, 18, 28, 23, 13],
        [
            (words.moment(act.at), act_name(act.name, words), who(act, facts, words),
             Code(", ".join(_sections(act.told)) or "–"), ended(act, words))
            for act in changes
        ],
    )  # fmt: skip
    yield Paragraph(words("acts.config.note"), small=True)


def _changes(facts: Facts) -> list[Act]:
    """What was applied, and starts that found another config than the one before."""
    acts = [act for name in ("config.apply", "start") for act in facts.log.acts.get(name, ())]
    changed = [act for act in acts if act.name != "start" or _sections(act.told)]
    return sorted(changed, key=lambda act: act.seq)


def _sections(told: dict[str, Any]) -> list[str]:
    sections = told.get("sections")
    return [str(each) for each in sections] if isinstance(sections, list) else []


def verification(facts: Facts, words: Words) -> Iterator[Block]:
    """Whether the log is whole, and what to note of it elsewhere."""
    found, log = facts.verification, facts.log
    yield Heading(words("log.title"))
    result = "fresh" if found.fresh else {True: "yes", False: "no", None: "unchecked"}[found.holds]
    newest = found.newest
    rows: list[tuple[str, Cell]] = [
        (words("log.holds"), Strong(words(f"log.holds.{result}"))),
        (words("log.records"), words.number(found.records)),
        (words("log.removed"), words.number(found.removed)),
        (words("log.removed.month"), words.number(sum(facts.coverage.removed.values()))),
        (words("log.unsigned"), words.number(found.unsigned)),
        (words("log.month"), words.number(log.records)),
        (words("log.begins"), words.moment(log.begins) if log.begins else "–"),
        (words("log.stamps"), _stamps(found, words)),
    ]
    if newest is not None:
        at = words.moment(newest.at)
        is_ = words("log.checkpoint.is", number=newest.number, at=at, last=newest.last)
        rows += [(words("log.checkpoint"), is_), (words("log.checkpoint.sha256"), Code(newest.sha256))]
    else:
        rows.append((words("log.checkpoint"), words("log.checkpoint.none")))
    rows.append((words("log.fingerprint"), Code(found.fingerprint) if found.fingerprint else "–"))
    yield Pairs(rows)
    if log.trouble:
        yield Paragraph(Strong(words("log.unread", files=", ".join(log.trouble))))
    if log.unreadable:
        yield Paragraph(Strong(words("log.unreadable", count=log.unreadable)))
    if found.wrong:
        yield Heading(words("log.wrong.title"), 2)
        yield Paragraph(words("log.wrong.note"), small=True)
        yield Bullets([(Mark(holds=False), " ", Code(each)) for each in found.wrong[:MOST_ROWS]])
        yield from more(len(found.wrong), words)
    yield Paragraph(words("log.note"))


def _stamps(found: Verification, words: Words) -> str:
    if found.stamps_trouble:
        return words("log.stamps.trouble", count=found.stamps, why=quoted(found.stamps_trouble, words))
    if not found.stamps:
        return words("log.stamps.none" if found.stamps_verified else "log.stamps.off")
    kind = "are" if found.stamps_verified else "unverified"
    return words(f"log.stamps.{kind}", count=found.stamps, newest=found.stamped)


def limits(_: Facts, words: Words) -> Iterator[Block]:
    """What no report can show."""
    yield Heading(words("limits.title"))
    yield Bullets([words(f"limits.{name}") for name in _LIMITS])


def appendix(facts: Facts, words: Words) -> Iterator[Block]:
    """The changes of the config in full."""
    changes = [(act, _lines(act.told)) for act in _changes(facts)]
    telling = [(act, lines) for act, lines in changes if lines]
    if not telling:
        return
    yield Heading(words("appendix.title"))
    for act, lines in telling:
        yield Heading(words.moment(act.at), 2)
        yield Listing(lines[:_MOST_LINES])
        if len(lines) > _MOST_LINES:
            yield Paragraph(words("appendix.cut", seq=act.seq), small=True)


def _lines(told: dict[str, Any]) -> list[str]:
    """The difference that an act tells of, line by line."""
    diff = told.get("diff")
    return diff.splitlines() if isinstance(diff, str) else []
