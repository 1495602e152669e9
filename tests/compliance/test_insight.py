"""Who looked into the log and who was revealed: nothing of it is ever crowded out, and whoever did it has a name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance.audit.record import Kind
from appliance.compliance import log
from appliance.compliance.chapters import people
from appliance.compliance.chapters.particulars import particulars
from appliance.compliance.collect import Facts
from appliance.compliance.insight import Act
from appliance.compliance.log import MOST, Log
from appliance.compliance.words import Language, Words
from tests.compliance import sample
from tests.compliance.test_log import INSIDE, SPAN, written
from tests.compliance.text import plain, words

AUDITOR = {"role": "auditor", "subject": "p_a"}
CHIEF = {"role": "super_admin", "subject": "p_b"}
Body = dict[str, Any]


def done(name: str, by: Body, told: Body, of: int, end: str = "done") -> list[tuple[Kind, Body, float]]:
    return [
        (Kind.ACT, {"act": name, "by": by, "phase": "intent"} | told, INSIDE + of),
        (Kind.ACT, {"act": name, "of": of, "phase": end}, INSIDE + of),
    ]


def many(tmp_path: Path, acts: list[tuple[str, Body, Body]]) -> Log:
    records = [record for index, act in enumerate(acts) for record in done(*act, of=2 * index + 1)]
    return log.read(written(tmp_path, records), SPAN)


def told(facts: Facts, found: Log, language: Language = Language.ENGLISH) -> str:
    return plain(people.reveals(replace(facts, log=found), Words(language, facts.month.zone)))


def test_a_reveal_is_one_row_and_no_number_of_looks_hides_another(good: Facts, tmp_path: Path) -> None:
    one, two = ({"reveal": f"reveal_{n}", "subject": "p_x", "reason": f"file {n}"} for n in (1, 2))
    found = many(tmp_path, [
        ("reveal.approve", CHIEF, one), *[("reveal.show", AUDITOR, one)] * (MOST + 1), ("reveal.show", CHIEF, one),
        ("reveal.approve", CHIEF, two), ("reveal.show", AUDITOR, two),
    ])  # fmt: skip
    first, second = found.insight.reveals.values()
    assert {by: looks.count for (by, _), looks in first.looks.items()} == {"p_a": MOST + 1, "p_b": 1}
    assert (first.reason, second.reason) == ("file 1", "file 2")
    text = told(good, found)
    assert "501 times (first 2026-11-18, 12:06:43, last 2026-11-18, 12:23:23)" in text
    assert "file 2" in text
    assert text.count("before this period") == 2


def test_erasures_exports_and_holds_are_all_there(good: Facts, tmp_path: Path) -> None:
    found = many(tmp_path, [
        (name, AUDITOR, {"subject": f"p_{number}"})
        for number in range(MOST + 1)
        for name in ("erase", "export", "hold")
    ])  # fmt: skip
    facts = replace(good, log=found)
    text = plain([*people.rights(facts, Words(Language.ENGLISH, good.month.zone)), *people.reveals(
        facts, Words(Language.ENGLISH, good.month.zone))])  # fmt: skip
    assert text.count(f"p_{MOST}") == 3
    assert "more; the log" not in text


def test_reads_are_summed_by_person_and_day_and_tell_whose_records_were_asked_for(good: Facts, tmp_path: Path) -> None:
    reads = [("read", AUDITOR, {"filters": {"subject": "p_x"}})] * 700 + [("read", CHIEF, {"filters": {}})]
    found = many(tmp_path, reads)
    assert {key[1]: looks.count for key, looks in found.insight.reads.items()} == {"p_a": 700, "p_b": 1}
    assert "700 | p_x (700 times)" in told(good, found)


def test_whoever_administers_is_named_in_acts_and_nobody_else_is(good: Facts) -> None:
    text = told(good, good.log, Language.GERMAN)
    for name in ("Prüfung: Änne Öztürk", "oberste Verwaltung: Jörg Größer"):
        assert name in text
    assert "person5" not in text, "a plain user who tried to read stands there by pseudonym"
    assert "Nutzung p_" in text
    assert set(good.names.values()) >= {"Änne Öztürk", "Jörg Größer"}
    assert not {name for name in good.names.values() if name.startswith("person")}


def shown(about: Body, language: Language = Language.GERMAN) -> str:
    return words(particulars(about, Words(language, sample.config.Accounts().zone)))


def test_a_reason_is_quoted_stands_last_and_imitates_nothing() -> None:
    reason = f"because\n“; Person: p_0; „ {'x' * 500}"
    text = shown({"reason": reason, "reveal": "reveal_1", "hold": {"id": "hold_1"}})
    assert text.startswith("Vorgang: reveal_1; Sperre: hold_1; Grund: „because '; Person: p_0; ' x")
    assert (text.count("„"), text.count("“")) == (1, 1)
    assert len(text) < 560


def test_particulars_are_in_words_of_the_language_and_times_of_the_zone() -> None:
    about = {
        "error": "Forbidden", "failed": 0, "filters": {"kind": "refusal", "order": "newest"}, "held": 0,
        "hold": {"at": "x", "by": "y"}, "newest": "2026-08-20T21:59:59.000Z", "removed": {"intent": 1234}, "rows": 6,
        "since": "2026-11-01", "why": "the engine ended (exit status 1)",
    }  # fmt: skip
    assert shown(about) == (
        "ab: 01.11.2026; neuester Eintrag: 20.08.2026, 23:59:59; Filter Art: Abgelehntes; Reihenfolge: neueste zuerst; "
        "entfernte Anfragen: 1.234; Zeilen der Bücher: 6; weil: „the engine ended (exit status 1)“; "
        "gescheitert: nicht erlaubt"
    )
    assert "failed: not allowed" in shown(about, Language.ENGLISH)


def test_the_longest_reason_stays_whole_beside_whom_it_is_about(good: Facts) -> None:
    act = Act(1, sample.BEGAN.isoformat(), "hold", "", "host", "p_person", {"hold": {"reason": "x" * 500}})
    found = Log()
    found.acts["hold"].append(act)
    text = plain(people.rights(replace(good, log=found), Words(Language.ENGLISH, good.month.zone)))
    assert "concerns p_person" in text
    assert "x" * 500 in text
