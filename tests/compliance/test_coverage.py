"""What the log can't know of a month: what was removed of it, and what was before the log."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.audit.archive import Actor, Archive
from appliance.audit.holds import Holds
from appliance.audit.journal import Journal
from appliance.audit.subjects import Subjects
from appliance.audit.sweep import Sweep
from appliance.compliance.collect import Facts, gather
from appliance.compliance.compose import compose
from appliance.compliance.coverage import Coverage, coverage
from appliance.compliance.month import Month
from appliance.compliance.words import Language, Words
from appliance.config.audit import Retention
from tests.compliance import sample
from tests.compliance.text import plain
from tests.fakes.house import House

SPAN = ("2026-10-31T23:00:00.000Z", "2026-11-30T23:00:00.000Z")
DAY = 86_400.0


def german(facts: Facts) -> str:
    return plain(compose(facts, Words(Language.GERMAN, facts.month.zone)))


async def swept(house: House) -> Facts:
    """A life of which retention removed all requests, and a report on it 200 days later."""
    loaded = sample.config_of(house)
    sample.proofs(loaded.state)
    await sample.life(loaded, requests=60)
    clock = sample.Clock(sample.NOW + timedelta(days=200))
    keys = loaded.state / "audit-keys"
    journal = await Journal.open(loaded.state / "audit", keys, loaded.settings.audit, wall=clock)
    archive = Archive(journal, Subjects.open(keys), Holds.open(loaded.state / "audit-work"))
    async with archive.act("read", Actor.host(), filters={}):
        pass
    await journal.checkpoint_now()
    await journal.exclusively(lambda: None)  # what was closed is compressed then, and only that is shortened
    await Sweep(archive, loaded.state, wall=clock, breath=0).run(Retention(), Actor.host(), sure=True)
    await archive.close(5)
    month = Month.of(sample.NOW.date().replace(day=1), loaded.settings.accounts.zone, clock.at)
    return gather(loaded, [], month, host="h", made=clock.at)


def test_what_retention_removed_of_a_month_is_told_and_never_that_there_was_nothing(house: House) -> None:
    facts = asyncio.run(swept(house))
    covered = facts.coverage
    assert covered.removed["intent"] > 50
    assert {"intent", "outcome", "refusal", "strangers"} <= covered.over
    assert "act" not in covered.over
    text = german(facts)
    requests = covered.gone("intent", "outcome")
    assert f"Für diesen Zeitraum gibt es keine Aufzeichnungen mehr: {requests} Einträge nach Frist entfernt." in text
    assert "nichts gefragt" not in text
    assert "Nichts wurde abgelehnt" not in text
    assert f"mit unterschriebenem Beleg: {sum(covered.removed.values())}." in text
    assert "✓ Das Protokoll ist vollständig" not in text
    assert "spätestens" not in text, "no request is left that names weights"
    assert "Person gelöscht" in text, "acts are kept for longer"


def test_a_month_before_or_after_has_nothing_to_do_with_it(house: House) -> None:
    facts = asyncio.run(swept(house))
    folder = house.state / "audit"
    now, oldest = facts.made.timestamp(), facts.log.begins
    later = coverage(folder, ("2026-11-30T23:00:00.000Z", "2026-12-31T23:00:00.000Z"), Retention(), now, oldest)
    assert (later.gone("intent"), later.began) == (0, facts.coverage.began)
    assert "intent" in later.ever
    assert later.began.startswith("2026-11-20")


def test_a_stub_whose_time_nobody_knows_may_be_of_any_month(tmp_path: Path) -> None:
    stub = {"first": 1, "last": 9, "kinds": {"intent": 9}}
    (tmp_path / "000000000001.stub.json").write_text(json.dumps(stub))
    (tmp_path / "000000000010.stub.json").write_text("no stub")
    assert coverage(tmp_path, SPAN, Retention(), 0, "").removed == {"intent": 9}
    assert coverage(tmp_path / "nowhere", SPAN, Retention(), 0, "") == Coverage()


def test_kinds_whose_time_is_over_are_said_to_be_so_even_where_nothing_went(good: Facts) -> None:
    covered = coverage(Path("/nonexistent"), SPAN, Retention(), sample.NOW.timestamp() + 100 * DAY, "2020")
    assert {"refusal", "content"} == covered.over
    text = german(replace(good, coverage=covered))
    assert text.count("(Soweit noch Aufzeichnungen vorhanden sind: Die Aufbewahrungsfrist ist abgelaufen.)") == 1


def test_where_requests_are_gone_gaps_between_verifications_make_the_box_bad(good: Facts) -> None:
    gaps = replace(good, coverage=replace(good.coverage, removed={"intent": 5}))
    assert gaps.proofs.gaps
    text = german(gaps)
    assert "✗ NICHT DURCHGEHEND NACHGEWIESEN" in text
    assert "nicht mehr festzustellen: 5 Anfragen" in text


@pytest.mark.parametrize(("began", "said"), [("", "noch kein Protokoll"), ("2027-01-01T00:00:00.000Z", "01.01.2027")])
def test_a_month_that_the_log_knows_nothing_of_makes_the_box_bad(good: Facts, began: str, said: str) -> None:
    text = german(replace(good, coverage=Coverage(began), log=replace(good.log, sums=type(good.log.sums)())))
    box = next(line for line in text.splitlines() if line.startswith("✗ Für diesen Zeitraum"))
    assert said in box
