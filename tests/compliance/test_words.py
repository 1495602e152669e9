"""The texts: both languages have all of them, and neither speaks the other's."""

from __future__ import annotations

import re
import string
import zoneinfo
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from appliance.compliance.access import access
from appliance.compliance.blocks import Block, Bullets, Code, Listing, Pairs, Paragraph, Table, Text, inlines
from appliance.compliance.collect import Facts
from appliance.compliance.compose import compose
from appliance.compliance.coverage import Coverage
from appliance.compliance.factsheets import Factsheet
from appliance.compliance.flows import Flow, Where
from appliance.compliance.insight import Act, Insight, Looks
from appliance.compliance.log import Log, Sum
from appliance.compliance.proofs import Proofs
from appliance.compliance.verification import Verification
from appliance.compliance.words import TEXTS, Language, Words
from appliance.config import Privacy, Rule
from appliance.core import DataClass
from tests.compliance import sample
from tests.compliance.text import plain

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
GERMAN, ENGLISH = TEXTS[Language.GERMAN], TEXTS[Language.ENGLISH]
ONLY_ENGLISH = {
    "the", "and", "of", "with", "this", "which", "were", "are", "is", "has", "have", "from", "that", "for", "by", "to",
    "it", "or", "no", "request", "requests", "record", "records", "key", "keys", "machine", "house", "not", "none",
    "verification", "checkpoint", "unknown", "outcome", "failed", "only",
}  # fmt: skip
ONLY_GERMAN = {
    "der", "die", "das", "und", "ist", "nicht", "mit", "eine", "einer", "wer", "von", "zu", "auf", "Anfragen",
    "Prüfung", "Schlüssel", "Protokoll", "keine", "oder", "wird", "Haus",
}  # fmt: skip


def test_both_languages_have_the_same_texts_with_the_same_blanks() -> None:
    assert GERMAN.keys() == ENGLISH.keys()
    for name, text in GERMAN.items():
        assert blanks(text) - {"count"} == blanks(ENGLISH[name]) - {"count"}, name
        assert blanks(text) == blanks(ENGLISH[name]) or name.endswith(".one"), name
        assert text.strip() == text != "", name


def blanks(text: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}


class Listening(Words):
    """Notes which texts were asked for."""

    asked: ClassVar[set[str]] = set()

    def __call__(self, name: str, /, **fills: str | int) -> str:
        self.asked.add(name)
        return super().__call__(name, **fills)


def test_every_text_is_used_by_some_report(good: Facts, bad: Facts) -> None:
    chat = good.factsheets[0]
    assert chat.card is not None
    ranks = replace(chat, adapters=("a: b",), card=chat.card.model_copy(update={"task": "rerank"}))

    def without(facts: Facts, **settings: Any) -> Facts:
        """A month of an appliance on which nothing ever happened, and which can't say that the log is whole."""
        audit = facts.settings.audit.model_copy(update={"works_council": False})
        accounts = facts.settings.accounts.model_copy(update={"use_cases": {}})
        nobody = access([], facts.month, 0, pseudonymous=False)
        return replace(
            facts, settings=facts.settings.model_copy(update={"audit": audit, "accounts": accounts} | settings),
            proofs=Proofs(), log=Log(trouble=["x"], unreadable=1), access=nobody,
            verification=Verification(None, ["x"]), month=replace(facts.month, over=True),
            factsheets=[
                Factsheet("a", trouble="x"), replace(facts.factsheets[0], weights=""), facts.factsheets[0], ranks,
            ],
            flows=[*facts.flows, Flow("unknown", "x", "y", Where.UNKNOWN, ())],
        )  # fmt: skip

    broken = replace(bad, verification=replace(bad.verification, holds=False, wrong=["x"] * 99))
    named = access(sample.keys(), good.month, 0, pseudonymous=False)
    unsigned = replace(good, verification=Verification(True), access=named)
    silent = replace(good, proofs=replace(good.proofs, gaps=(), faults=["x"]))
    alone = replace(good, flows=[flow for flow in good.flows if flow.where is Where.HERE])
    nothing = replace(good, log=Log(), proofs=replace(good.proofs, gaps=()))
    long = Act(1, "", "config.apply", "", "", "", {"diff": "x\n" * 99})
    odd = replace(good, log=Log(acts=defaultdict(list, {"config.apply": [long]}), counts=Counter({"config.apply": 1}),
                  sums=defaultdict(Sum, {("a", "b", "c", ""): Sum(1)})),
                  factsheets=[Factsheet("a", endpoint="x")])  # fmt: skip
    calm = replace(good, log=Log(counts=Counter({"read": 1})))
    whole = Coverage("2020-01-01T00:00:00.000Z")
    some = Counter({"intent": 9, "act": 1, "incident": 1, "refusal": 1})
    gone = replace(nothing, coverage=replace(whole, removed=some), proofs=bad.proofs)
    fewer = replace(bad, coverage=replace(whole, removed=some, ever=frozenset(some)))
    over = replace(nothing, coverage=replace(whole, over=frozenset({"act", "intent"})))
    early = replace(nothing, coverage=Coverage("2030-01-01T00:00:00.000Z"))
    never = replace(nothing, coverage=Coverage())
    fresh = replace(good, verification=Verification(None, fresh=True))
    stamped = [
        replace(good, verification=replace(good.verification, **kind))
        for kind in ({"stamps": 2}, {"stamps": 2, "stamps_verified": False}, {"stamps_trouble": "x"},
                     {"stamps_verified": False})
    ]  # fmt: skip
    insight = Insight(BERLIN)
    look = Act(1, sample.BEGAN.isoformat(), "reveal.show", "p_1", "auditor", "", {"reveal": "r"}, "failed")
    insight.take(look)
    insight.take(replace(look, name="reveal.approve"))
    insight.take(replace(look, told={"reveal": "q"}, name="reveal.ask"))
    insight.reads["d", "p_1", "auditor"] = Looks(look, look.at, about=Counter(map(str, range(99))))
    asked = replace(good, log=Log(insight=insight))
    besides = replace(good, flows=[*good.flows, Flow("unknown", "x", "y", Where.UNKNOWN, ())])
    rule = {"purpose": "Briefe", "regions": ["eu"], "agreement": "AVV 1"}
    rules = [Rule(data_class=DataClass.PERSONAL, use_case="angebote", may="pseudonymise", **rule),
             Rule(data_class=DataClass.PUBLIC, may="send", **rule)]  # fmt: skip
    privacy = Privacy(floor=DataClass.PUBLIC, policy=rules)
    opened = replace(good, settings=good.settings.model_copy(update={"privacy": privacy}))
    for facts in (opened, good, bad, broken, unsigned, silent, alone, nothing, odd, calm, without(good), gone, fewer,
                  over, early, fresh, asked, besides, never, replace(good, coverage=whole), *stamped):  # fmt: skip
        compose(facts, Listening(Language.GERMAN, BERLIN), "sum")
    things = re.compile(
        r"(month|flow|protection|where|role|route|outcome|end|act|told|incident|time|code|error|kind|order)\.|.*\.one$"
    )
    left = {name for name in GERMAN.keys() - Listening.asked if not things.match(name)}
    assert left == {"footer", "paper.footer", "title"}


@pytest.mark.parametrize("which", ["good", "bad"])
@pytest.mark.parametrize(("language", "strange"), [(Language.GERMAN, ONLY_ENGLISH), (Language.ENGLISH, ONLY_GERMAN)])
def test_a_report_is_in_one_language(
    which: str, language: Language, strange: set[str], request: pytest.FixtureRequest
) -> None:
    facts: Facts = request.getfixturevalue(which)
    text = plain(map(without_names, compose(facts, Words(language, facts.month.zone))))
    for name in ("Büro & Empfang", "reklamation", *(case.purpose or "" for case in
                 facts.settings.accounts.use_cases.values())):  # fmt: skip
        text = text.replace(name, "")
    text = re.sub(r"[„“][^“”]*[“”]|\S*://\S*|\([^)]*: false\)", "", text)  # what a card says is quoted
    assert set(re.findall(r"\w+", text)) & strange == set()
    assert len(text) > 9000


def without_names(block: Block) -> Block:
    """A block without what machines are called by."""
    match block:
        case Paragraph(text):
            return Paragraph(bare(text))
        case Bullets(items):
            return Bullets([bare(item) for item in items])
        case Pairs(rows):
            return Pairs([(word, bare(text)) for word, text in rows])
        case Table(head, widths, rows):
            return Table(head, widths, [[bare(cell) for cell in row] for row in rows])
        case Listing():
            return Listing([])
    return block


def bare(text: Text) -> Text:
    return tuple(part for part in inlines(text) if not isinstance(part, Code))


def test_figures_and_moments_are_written_as_each_language_does() -> None:
    german, english = (Words(language, BERLIN) for language in Language)
    at = datetime(2026, 11, 22, 23, 4, 5, tzinfo=UTC)
    assert (german.moment(at), english.moment(at)) == ("23.11.2026, 00:04:05", "2026-11-23, 00:04:05")
    assert german.moment("2026-11-22T23:04:05.678Z") == german.moment(at.timestamp()) == german.moment(at)
    assert (german.day(at), english.day(at)) == ("23.11.2026", "23 November 2026")
    assert (german.month(at), english.month(at)) == ("November 2026", "November 2026")
    assert german.month(at.replace(month=3)) == "März 2026"
    assert (german.number(1_234_567), english.number(1_234_567)) == ("1.234.567", "1,234,567")
    assert (german.euros(1_234_567_890_000), english.euros(1_234_567_890_000)) == ("1.234,57 €", "€1,234.57")
    assert (german.euros(0), german.euros(1), english.euros(1)) == ("0,00 €", "< 0,01 €", "< €0.01")
    assert (german.size(5 * 2**30 + 2**29), english.size(77)) == ("5,5 GiB", "77 B")
    assert [german.seconds(each) for each in (59, 300, 7200, 3 * 86_400)] == [
        "59 Sekunden", "5 Minuten", "2 Stunden", "3 Tage",
    ]  # fmt: skip
    assert german.moment("nonsense") == "nonsense"


def test_of_one_thing_it_speaks_in_the_singular(good: Facts) -> None:
    german, english = (Words(language, BERLIN) for language in Language)
    assert (german("rights.days.are", count=1), english("rights.days.are", count=2)) == ("1 Tag", "2 days")
    for language, never in ((Language.GERMAN, "Alle 1 "), (Language.ENGLISH, "All 1 ")):
        one = replace(good, proofs=replace(good.proofs, count=1, held=1))
        text = plain(compose(one, Words(language, BERLIN)))
        assert never not in text
        assert text.count("Die eine Prüfung" if language is Language.GERMAN else "The one verification") == 1
