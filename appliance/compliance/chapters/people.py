"""Who has access, whose data was erased, who read the log, and who was revealed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from appliance.compliance.blocks import Block, Code, Heading, Inline, Mark, Paragraph, Strong, Table, Text, inlines
from appliance.compliance.chapters.kept import nothing, partly
from appliance.compliance.chapters.particulars import act_name, ended, quoted, role, told, who
from appliance.compliance.collect import Facts
from appliance.compliance.insight import Act, Looks, Reveal
from appliance.compliance.words import Words

_MOST_ABOUT = 20
"""Pseudonyms in one row; of more, how many."""


def access(facts: Facts, words: Words) -> Iterator[Block]:
    """Who has keys: administrators and auditors by name, others counted."""
    found = facts.access
    yield Heading(words("access.title"))
    yield Paragraph(words("access.intro" if found.pseudonymous else "access.intro.named"))
    if found.named:
        yield Table(
            [words(f"access.{name}") for name in ("role", "user", "key", "created", "expires")],
            [20, 28, 22, 15, 15],
            [
                (role(one.role, words), one.user or words("access.program"), Code(one.id), words.month(one.created),
                 words.month(one.expires) if one.expires is not None else Strong(words("access.endless")))
                for one in found.named
            ],
        )  # fmt: skip
    else:
        yield Paragraph(words("access.named.none"))
    if found.teams:
        names = [] if found.pseudonymous else [words("access.users")]
        yield Table(
            [words(f"access.{name}") for name in ("team", "persons", "programs", "keys", "endless.count")] + names,
            [40, 15, 15, 15, 15] if found.pseudonymous else [24, 12, 12, 12, 12, 28],
            [
                (name or words("access.team.none"), *map(words.number, (team.persons, team.programs, team.keys,
                 team.endless)), *([] if found.pseudonymous else [", ".join(team.users)]))
                for name, team in found.teams.items()
            ],
            frozenset({1, 2, 3, 4}),
        )  # fmt: skip
    else:
        yield Paragraph(words("access.teams.none"))
    identity = facts.settings.accounts.identity
    if identity is not None:
        yield Paragraph(words("access.identity", issuer=identity.issuer))
    yield Heading(words("access.changes.title"), 2)
    if not found.changes:
        yield Paragraph(words("access.changes.none"))
        return
    yield Table(
        [words(f"access.{name}") for name in ("role", "new", "revoked", "expired", "active", "endless.count")],
        [30, 14, 14, 14, 14, 14],
        [
            (role(each.role, words), *map(words.number, (each.created, each.revoked, each.expired, each.active,
                                                         each.endless)))
            for each in found.changes
        ],
        frozenset({1, 2, 3, 4, 5}),
    )  # fmt: skip


def rights(facts: Facts, words: Words) -> Iterator[Block]:
    """Erasures, retention and holds."""
    log, kept = facts.log, facts.settings.audit.retention
    yield Heading(words("rights.title"))
    yield Heading(words("rights.erase.title"), 2)
    yield from acts(log.acts.get("erase", ()), facts, words, "rights.erase.none")
    yield Heading(words("rights.retention.title"), 2)
    days = {
        "requests": kept.requests_days, "refusals": kept.refusals_days, "content": kept.content_days,
        "acts": kept.acts_days, "incidents": kept.incidents_days,
    }  # fmt: skip
    yield Table(
        [words("rights.kind"), words("rights.days")],
        [60, 40],
        [(words(f"kind.{kind}"), words("rights.days.are", count=count)) for kind, count in days.items()],
        frozenset({1}),
    )
    runs = log.acts.get("retention", ())
    if runs:
        done = sum(run.end == "done" for run in runs)
        yield Paragraph(words("rights.retention.runs", count=len(runs), done=done))
    yield from acts(runs, facts, words, "rights.retention.none")
    yield Heading(words("rights.holds.title"), 2)
    held = [act for name in ("hold", "release", "holds.repair") for act in log.acts.get(name, ())]
    yield from acts(held, facts, words, "rights.holds.none")


def reveals(facts: Facts, words: Words) -> Iterator[Block]:
    """Who read the log and who was revealed: every reveal, every export, and reads by person and day."""
    log = facts.log
    yield Heading(words("reveals.title"))
    council = facts.settings.audit.works_council
    yield Paragraph(words("reveals.mode.on") if council else (Mark(holds=False), " ", words("reveals.mode.off")))
    yield Heading(words("reveals.title.list"), 2)
    if log.insight.reveals:
        yield from partly(facts, words, "act")
        yield Table(
            [words(f"reveal.{name}") for name in ("subject", "asked", "approved", "shown")],
            [28, 22, 22, 28],
            [_reveal(each, facts, words) for each in log.insight.reveals.values()],
        )
    else:
        yield from nothing(facts, words, "reveals.none", "act")
    yield Heading(words("reads.title"), 2)
    if log.insight.reads:
        yield from partly(facts, words, "act")
        yield Table(
            [words(f"reads.{name}") for name in ("day", "by", "count", "about")],
            [16, 34, 12, 38],
            [
                (words.day(looks.first.at), who(looks.first, facts, words),
                 _count(looks, words), _about(looks, words))
                for _, looks in sorted(log.insight.reads.items())
            ],
            frozenset({2}),
        )  # fmt: skip
        yield Paragraph(words("reads.note"), small=True)
    else:
        yield from nothing(facts, words, "reads.none", "act")
    yield Heading(words("exports.title"), 2)
    yield from acts(log.acts.get("export", ()), facts, words, "exports.none")


def _reveal(reveal: Reveal, facts: Facts, words: Words) -> tuple[Text, ...]:
    reason = words("reveal.reason", reason=quoted(reveal.reason, words)) if reveal.reason else "–"
    asked: Text = words("reveal.before")
    if reveal.asked is not None:
        asked = (words.moment(reveal.asked.at), ", ", *inlines(who(reveal.asked, facts, words)))
        if reveal.asked.end != "done":
            asked = (*asked, ", ", Strong(words(f"end.{reveal.asked.end}")))
    approved: list[Inline] = []
    for each in reveal.approvals:
        approved += ["; "] if approved else []
        approved += [words.moment(each.at), ", ", *inlines(who(each, facts, words))]
        approved += [", ", Strong(words("reveal.refused"))] if each.end == "failed" else []
    shown: list[Inline] = []
    for looks in reveal.looks.values():
        seen = looks.count - looks.failed
        shown += ["; "] if shown else []
        shown += [*inlines(who(looks.first, facts, words)), ": "]
        if seen:
            first, last = (words.moment(at) for at in (looks.first.at, looks.last))
            when = words("reveal.once", at=first) if looks.count == 1 else words("reveal.span", first=first, last=last)
            shown += [Strong(words("reveal.times", count=seen)), " ", when]
        if looks.failed:
            shown += [", "] if seen else []
            shown.append(words("reveal.vain", count=looks.failed))
    return (
        (Code(reveal.subject), "; ", reason), asked, tuple(approved) or Strong(words("reveal.unapproved")),
        tuple(shown) or words("reveal.never"),
    )  # fmt: skip


def _count(looks: Looks, words: Words) -> str:
    number = words.number(looks.count)
    return number if not looks.failed else f"{number} ({words('reveal.vain', count=looks.failed)})"


def _about(looks: Looks, words: Words) -> Text:
    """Whose records were asked for, one by one."""
    parts: list[Inline] = []
    for pseudonym, count in looks.about.most_common(_MOST_ABOUT):
        parts += [", "] if parts else []
        parts += [Code(pseudonym), f" ({words('reveal.times', count=count)})"]
    if len(looks.about) > _MOST_ABOUT:
        parts += ["; ", words("told.more", count=len(looks.about) - _MOST_ABOUT)]
    return tuple(parts) or "–"


def acts(shown: Sequence[Act], facts: Facts, words: Words, none: str) -> Iterator[Block]:
    """A list of acts, all of them; the text `none` where there are none."""
    if not shown:
        yield from nothing(facts, words, none, "act")
        return
    yield from partly(facts, words, "act")
    yield Table(
        [words(f"acts.{name}") for name in ("at", "name", "by", "told", "end")],
        [18, 15, 22, 34, 11],
        [
            (words.moment(act.at), act_name(act.name, words), who(act, facts, words), told(act, words),
             ended(act, words))
            for act in sorted(shown, key=lambda act: act.seq)
        ],
    )  # fmt: skip
