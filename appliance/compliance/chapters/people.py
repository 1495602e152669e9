"""Who has access, whose data was erased, who read the log, and who was revealed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from appliance.compliance.blocks import Block, Code, Heading, Mark, Paragraph, Strong, Table, Text
from appliance.compliance.chapters.operation import MOST_ROWS, more
from appliance.compliance.collect import Facts
from appliance.compliance.log import Act
from appliance.compliance.words import Words

_LONGEST = 300


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
                (role(one.role, words), one.user or words("access.program"), Code(one.id), words.day(one.created),
                 words.day(one.expires) if one.expires is not None else Strong(words("access.endless")))
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
    yield from acts(log.acts.get("erase", ()), log.counts["erase"], words, "rights.erase.none")
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
        yield Paragraph(words("rights.retention.runs", count=log.counts["retention"], done=done))
    yield from acts(runs, log.counts["retention"], words, "rights.retention.none")
    yield Heading(words("rights.holds.title"), 2)
    held = sorted([*log.acts.get("hold", ()), *log.acts.get("release", ())], key=lambda act: act.seq)
    yield from acts(held, log.counts["hold"] + log.counts["release"], words, "rights.holds.none")


def reveals(facts: Facts, words: Words) -> Iterator[Block]:
    """Who read the log and who was revealed."""
    log = facts.log
    yield Heading(words("reveals.title"))
    council = facts.settings.audit.works_council
    yield Paragraph(words("reveals.mode.on") if council else (Mark(holds=False), " ", words("reveals.mode.off")))
    yield Heading(words("reveals.title.list"), 2)
    shown = sorted((act for name, each in log.acts.items() if name.startswith("reveal") for act in each),
                   key=lambda act: act.seq)  # fmt: skip
    count = sum(number for name, number in log.counts.items() if name.startswith("reveal"))
    yield from acts(shown, count, words, "reveals.none")
    yield Heading(words("reads.title"), 2)
    reads = sorted((act for name in ("read", "export") for act in log.acts.get(name, ())), key=lambda act: act.seq)
    yield from acts(reads, log.counts["read"] + log.counts["export"], words, "reads.none")


def acts(shown: Sequence[Act], count: int, words: Words, none: str) -> Iterator[Block]:
    """A list of acts, `count` in all; the text `none` where there are none."""
    if not shown:
        yield Paragraph(words(none))
        return
    yield Table(
        [words(f"acts.{name}") for name in ("at", "name", "by", "told", "end")],
        [18, 14, 28, 29, 11],
        [
            (words.moment(act.at), act_name(act.name, words), who(act, words), told(act, words), ended(act, words))
            for act in shown[:MOST_ROWS]
        ],
    )
    yield from more(count, words)


def act_name(name: str, words: Words) -> Text:
    """What was done, in words where there are some."""
    return words.known(f"act.{name}") or Code(name)


def role(name: str, words: Words) -> str:
    """A role, in words where there are some."""
    return words.known(f"role.{name}") or name


def who(act: Act, words: Words) -> Text:
    """Who did it: the role, and the pseudonym."""
    if not act.by:
        return role(act.role, words) if act.role else "–"
    return (role(act.role, words), " ", Code(act.by))


def ended(act: Act, words: Words) -> Text:
    """How it ended."""
    text = words.known(f"end.{act.end}") or act.end
    return text if act.end == "done" else Strong(text)


def told(act: Act, words: Words) -> Text:
    """What else the record tells, as it tells it."""
    parts: list[str | Code] = [words("acts.target"), " ", Code(act.target)] if act.target else []
    details = particulars(act.told, words)
    if details:
        parts += ["; " if parts else "", Code(details)]
    return tuple(parts) or "–"


def particulars(told: Mapping[str, object], words: Words) -> str:
    """Fields of a record on one line, named in words where there are some; what is long is cut."""
    line = ", ".join(f"{words.known(f'told.{name}') or name}: {value}" for name, value in _flat(told))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _flat(told: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in told.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif value not in (None, "", []):
            yield f"{above}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
