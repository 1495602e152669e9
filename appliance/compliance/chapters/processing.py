"""The record of processing activities, and the models that process."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.compliance.blocks import Blank, Block, Code, Heading, Inline, Mark, Pairs, Paragraph, Strong, Table, Text
from appliance.compliance.collect import Facts
from appliance.compliance.factsheets import WEIGHTS, Factsheet
from appliance.compliance.flows import Flow, Where
from appliance.compliance.words import Words


def processing(facts: Facts, words: Words) -> Iterator[Block]:
    """What of a request goes where, and for what."""
    yield Heading(words("flows.title"))
    yield Paragraph(words("flows.intro"))
    outside = [flow for flow in facts.flows if flow.where is Where.OUTSIDE]
    none = words("flows.abroad.none", mode=facts.settings.egress.mode)
    yield Pairs([
        (words("flows.controller"), Blank(words("flows.controller.fill"))),
        (words("flows.officer"), Blank(words("flows.officer.fill"))),
        (words("flows.subjects"), words("flows.subjects.are")),
        (words("flows.abroad"), ", ".join(f"{flow.name} ({flow.place})" for flow in outside) or none),
    ])  # fmt: skip
    for flow in facts.flows:
        yield from _flow(flow, words)
    yield from _rules(facts, words)
    yield from _use_cases(facts, words)


def _flow(flow: Flow, words: Words) -> Iterator[Block]:
    def said(part: str) -> str:
        fills = {
            name: words("rights.days.are", count=fill) if isinstance(fill, int) else fill
            for name, fill in flow.fills.items()
        }
        return words(f"flow.{flow.kind}{part}", name=flow.name, **fills)

    where = words(f"where.{flow.where}")
    loud = flow.where in (Where.OUTSIDE, Where.UNKNOWN)
    place: Text = (Strong(where) if loud else where, ": ", Code(flow.place))
    yield Heading(said(""), 2)
    rows: list[tuple[str, Text]] = [
        (words("flows.place"), place),
        (words("flows.fields"), said(".fields")),
        (words("flows.purpose"), said(".purpose")),
        (words("flows.basis"), Blank(words("flows.basis.fill"))),
        (words("flows.kept"), said(".kept")),
    ]
    if flow.protection:
        rows.append((words("flows.protection"), _protection(flow, words)))
    if flow.where is Where.UNKNOWN:
        rows.append((words("flows.setting"), Code(flow.name)))
    yield Pairs(rows)


def _protection(flow: Flow, words: Words) -> Text:
    parts: list[Inline] = []
    for each in flow.protection:
        said = words(f"protection.{each}")
        parts += ["; "] if parts else []
        parts.append(Strong(said) if each == "clear" else said)
    return tuple(parts)


def _rules(facts: Facts, words: Words) -> Iterator[Block]:
    yield Heading(words("rules.title"), 2)
    rules = facts.settings.privacy.policy
    if not rules:
        yield Paragraph(words("rules.none"))
        return
    names = ("class", "case", "may", "purpose", "where")
    yield Table(
        [words(f"rules.{name}") for name in names],
        [14, 14, 16, 30, 26],
        [
            (
                Code(rule.data_class), words("rules.case.all") if rule.use_case == "*" else Code(rule.use_case),
                words(f"rules.may.{rule.may}"), rule.purpose, f"{', '.join(rule.regions)}; {rule.agreement}",
            )
            for rule in rules
        ],
    )  # fmt: skip


def _use_cases(facts: Facts, words: Words) -> Iterator[Block]:
    yield Heading(words("cases.title"), 2)
    cases = facts.settings.accounts.use_cases
    if not cases:
        yield Paragraph(words("cases.none"))
        return
    yield Table(
        [words("cases.name"), words("cases.purpose"), words("cases.stores")],
        [25, 55, 20],
        [
            (Code(name), case.purpose or Blank(words("cases.fill")), Strong(words("yes")) if case.store_content
             else words("no"))
            for name, case in sorted(cases.items())
        ],
    )  # fmt: skip


def models(facts: Facts, words: Words) -> Iterator[Block]:
    """A factsheet for each model."""
    yield Heading(words("models.title"))
    for sheet in facts.factsheets:
        yield Heading(sheet.name, 2)
        yield Pairs(list(_factsheet(sheet, facts, words)))
    yield Paragraph(words("models.note"), small=True)


def _factsheet(sheet: Factsheet, facts: Facts, words: Words) -> Iterator[tuple[str, Text]]:
    if sheet.endpoint:
        yield words("models.endpoint"), Code(sheet.endpoint)
        yield words("models.endpoint.name"), Code(sheet.upstream)
        length = sheet.context_length
        told = words("models.context.tokens", count=length) if length else words("unknown")
        yield words("models.context"), told
        return
    yield words("models.folder"), Code(sheet.folder)
    card = sheet.card
    if card is None:
        yield words("models.trouble"), (Mark(holds=False), " ", Code(sheet.trouble))
        return
    yield words("models.name"), card.title
    yield words("models.licence"), Code(card.licence)
    yield words("models.source"), Code(sheet.source)
    yield words("models.task"), words(f"models.task.{card.task}")
    yield words("models.quantization"), Code(card.quantization)
    yield words("models.context"), words("models.context.tokens", count=sheet.context_length or card.context_length)
    yield words("models.languages"), ", ".join(card.languages)
    yield words("models.weights"), Code(sheet.weights) if sheet.weights else words("models.weights.none")
    if sheet.weights:
        yield words("models.size"), words("models.size.are", size=words.size(sheet.bytes), count=sheet.files)
        first = facts.log.first_use.get(sheet.weights[:WEIGHTS])
        never = words("models.since.never")
        since = "models.since.latest" if "intent" in facts.coverage.ever else "models.since.first"
        yield words("models.since"), words(since, at=words.moment(first)) if first else never
    if sheet.adapters:
        yield words("models.adapters"), Code("; ".join(sheet.adapters))
    yield words("models.use"), _quoted(card.intended_use, words)
    if card.out_of_scope:
        yield words("models.not_for"), _quoted("; ".join(card.out_of_scope), words)
    if card.limits:
        yield words("models.limits"), _quoted("; ".join(card.limits), words)


def _quoted(text: str, words: Words) -> str:
    return words("quoted", text=" ".join(text.split()))
