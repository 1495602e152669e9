"""What the log tells of a month: sums by nothing that is a person, in little memory, however damaged it is."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from appliance.audit.record import Chain, Kind, moment
from appliance.compliance import log
from appliance.compliance.collect import Facts
from appliance.compliance.log import MOST, Sum

SPAN = ("2026-11-01T00:00:00.000Z", "2026-12-01T00:00:00.000Z")
INSIDE = 1_795_000_000.0  # 2026-11-18
INTENT = {"model": "chat", "operation": "chat", "request": "r", "route": "local", "subject": "p_1", "use_case": "mail"}


def outcome(intent: int, **changed: Any) -> dict[str, Any]:
    usual = {"outcome": "answered", "prompt_tokens": 10, "completion_tokens": 5, "nanoeuros": 7}
    return {"intent": intent, **usual, **changed}


def written(folder: Path, records: Iterable[tuple[Kind, dict[str, Any], float]]) -> Path:
    chain, folder = Chain(), folder / "audit"
    folder.mkdir(exist_ok=True)
    lines = [chain.append(kind, body, at) for kind, body, at in records]
    (folder / "000000000001.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return folder


def test_each_request_is_summed_by_what_it_was_and_not_by_who_asked(tmp_path: Path) -> None:
    found = log.read(written(tmp_path, [
        (Kind.INTENT, INTENT, INSIDE),
        (Kind.INTENT, INTENT | {"subject": "p_2", "sealed": "x"}, INSIDE),
        (Kind.OUTCOME, outcome(2, outcome="failed"), INSIDE),
        (Kind.OUTCOME, outcome(1), INSIDE),
        (Kind.INTENT, {"model": "big", "request": "r", "route": "house", "subject": "p_1"}, INSIDE),
    ]), SPAN)  # fmt: skip
    assert dict(found.sums) == {
        ("chat", "local", "mail", "answered"): Sum(1, 10, 5, 7),
        ("chat", "local", "mail", "failed"): Sum(1, 10, 5, 7),
        ("big", "house", "", ""): Sum(1),
    }
    assert found.records == 5
    assert "p_1" not in repr(found)


def test_only_what_was_asked_in_the_month_counts_and_with_what_became_of_it_later(tmp_path: Path) -> None:
    first, last = 1_793_491_200.0, 1_796_083_199.999  # of the month
    found = log.read(written(tmp_path, [
        (Kind.INTENT, INTENT, first - 0.001),
        (Kind.INTENT, INTENT, first),
        (Kind.OUTCOME, outcome(1), first),
        (Kind.OUTCOME, outcome(2), first),
        (Kind.INTENT, INTENT, last),
        (Kind.INTENT, INTENT, last + 0.002),
        (Kind.OUTCOME, outcome(5), last + 0.002),
        (Kind.OUTCOME, outcome(6), last + 0.002),
        (Kind.REFUSAL, {"code": "not_allowed"}, last + 0.002),
    ]), SPAN)  # fmt: skip
    assert moment(first) == SPAN[0]
    assert dict(found.sums) == {("chat", "local", "mail", "answered"): Sum(2, 20, 10, 14)}
    assert found.records == 4
    assert not found.refusals


def test_what_ran_when_the_appliance_died_has_no_outcome(tmp_path: Path) -> None:
    found = log.read(written(tmp_path, [
        (Kind.INTENT, INTENT, INSIDE),
        (Kind.ACT, {"act": "start", "by": {"role": "appliance"}, "phase": "done"}, INSIDE),
        (Kind.OUTCOME, outcome(1), INSIDE),
    ]), SPAN)  # fmt: skip
    assert dict(found.sums) == {("chat", "local", "mail", ""): Sum(1)}


def test_an_act_has_its_end_and_what_was_told_then(tmp_path: Path) -> None:
    by = {"role": "auditor", "sealed": "x", "subject": "p_9"}
    found = log.read(written(tmp_path, [
        (Kind.ACT, {"act": "export", "by": by, "phase": "intent", "form": "csv"}, INSIDE),
        (Kind.ACT, {"act": "erase", "by": by, "phase": "intent", "target": {"sealed": "y", "subject": "p_7"}}, INSIDE),
        (Kind.ACT, {"act": "export", "of": 1, "phase": "done", "records": 12}, INSIDE),
        (Kind.ACT, {"act": "erase", "of": 2, "phase": "failed", "error": "Conflict"}, INSIDE),
        (Kind.ACT, {"act": "read", "by": by, "phase": "intent"}, INSIDE),
    ]), SPAN)  # fmt: skip
    export, erase = (found.acts[name][0] for name in ("export", "erase"))
    assert (export.end, export.told, export.by) == ("done", {"form": "csv", "records": 12}, "p_9")
    assert (erase.end, erase.target, erase.told) == ("failed", "p_7", {"error": "Conflict"})
    assert found.counts == {"export": 1, "erase": 1, "read": 1}
    assert found.ends == {("export", "done"): 1, ("erase", "failed"): 1, ("read", "open"): 1}
    assert found.administrators == {"p_9"}


def test_an_incident_that_begins_and_ends_is_one(tmp_path: Path) -> None:
    body = {"incident": "engine_down", "model": "chat"}
    found = log.read(written(tmp_path, [
        (Kind.INCIDENT, body | {"phase": "begin", "why": "stalled"}, INSIDE),
        (Kind.INCIDENT, body | {"phase": "begin", "model": "big"}, INSIDE),
        (Kind.INCIDENT, body | {"phase": "end", "seconds": 9}, INSIDE),
        (Kind.INCIDENT, body | {"phase": "end", "seconds": 0}, INSIDE),
        (Kind.INCIDENT, {"incident": "audit_torn", "bytes": 7}, INSIDE),
    ]), SPAN)  # fmt: skip
    assert found.incident_counts == {"engine_down": 3, "audit_torn": 1}
    assert [each.told for each in found.incidents["engine_down"]] == [
        {"model": "chat", "why": "stalled", "seconds": 9}, {"model": "big"}, {"model": "chat", "seconds": 0},
    ]  # fmt: skip


def test_requests_in_gaps_and_the_first_use_of_weights_are_found(tmp_path: Path) -> None:
    weights = "ab" * 16
    records = [(Kind.INTENT, INTENT, INSIDE + second) for second in range(10)]
    records[4] = (Kind.INTENT, INTENT | {"weights": weights}, INSIDE + 4)
    gaps = [(moment(INSIDE + 2), moment(INSIDE + 5)), (moment(INSIDE + 9), moment(INSIDE + 20))]
    found = log.read(written(tmp_path, records), SPAN, weights=[weights, "cd" * 16], gaps=gaps)
    assert found.asked_in == {0: 3, 1: 1}
    assert found.first_use == {weights: moment(INSIDE + 4)}


def test_what_retention_removed_is_no_damage_and_what_is_no_record_is(tmp_path: Path) -> None:
    folder = written(tmp_path, [(Kind.INTENT, INTENT, INSIDE)] * 3)
    file = folder / "000000000001.jsonl"
    lines = file.read_bytes().splitlines()
    lines[1] = b'{"kind":"intent","seq":2,"sha256":"%s"}' % (b"0" * 64)
    file.write_bytes(b"\n".join(lines) + b"\n")
    assert log.read(folder, SPAN).unreadable == 0
    at = b'{"at":"2026-11-18T00:00:00.000Z"'
    strange = [
        b"", b"\xff\xfe", b"{}", at, at + b',"body":[],"kind":"intent"}', at + b',"body":{},"kind":"outcome","seq":1}',
    ]  # fmt: skip
    file.write_bytes(b"\n".join([*lines, *strange]) + b"\n")
    found = log.read(folder, SPAN)
    assert found.unreadable == len(strange)
    assert found.sums[("chat", "local", "mail", "")].requests == 2


def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = written(tmp_path, [(Kind.INTENT, INTENT, INSIDE)] * 3)
    (folder / "000000000004.jsonl.gz").write_bytes(b"\x1f\x8b\x08 no gzip")
    found = log.read(folder, SPAN)
    assert found.trouble == ["000000000004.jsonl.gz"]
    assert found.records == 3
    assert log.read(tmp_path / "nowhere", SPAN).records == 0


def test_of_very_many_acts_and_incidents_all_are_counted_and_some_are_kept(tmp_path: Path) -> None:
    records: list[tuple[Kind, dict[str, Any], float]] = []
    for _ in range(MOST + 100):
        records.append((Kind.ACT, {"act": "stop", "by": {"role": "appliance"}, "phase": "done"}, INSIDE))
        records.append((Kind.INCIDENT, {"incident": "x"}, INSIDE))
    found = log.read(written(tmp_path, records), SPAN)
    assert (found.counts["stop"], len(found.acts["stop"])) == (MOST + 100, MOST)
    assert found.ends["stop", "done"] == MOST + 100
    assert (found.incident_counts["x"], len(found.incidents["x"])) == (MOST + 100, MOST)


def many(folder: Path, count: int) -> Path:
    """A log of `count` records, not chained: reading doesn't look at that."""
    folder.mkdir()
    at = '"at":"2026-11-18T00:00:00.000Z"'
    with (folder / "000000000001.jsonl").open("w") as file:
        for seq in range(1, count, 2):
            intent = json.dumps(INTENT | {"subject": f"p_{seq:024x}", "sealed": "A" * 120}, separators=(",", ":"))
            ended = json.dumps(outcome(seq), separators=(",", ":"))
            file.write(f'{{{at},"body":{intent},"kind":"intent","prev":"{0:064}","seq":{seq}}}\n')
            file.write(f'{{{at},"body":{ended},"kind":"outcome","prev":"{0:064}","seq":{seq + 1}}}\n')
    return folder


def peak(folder: Path) -> int:
    tracemalloc.start()
    try:
        log.read(folder, SPAN)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    peak(many(tmp_path / "warm", 100))
    assert peak(many(tmp_path / "long", 20_000)) < peak(many(tmp_path / "short", 1000)) + 100_000


@pytest.mark.long
def test_a_million_records_are_read_in_little_memory_with_progress(tmp_path: Path) -> None:
    said: list[str] = []
    folder = many(tmp_path / "million", 1_000_000)
    found = log.read(folder, SPAN, say=said.append)
    assert found.records == 1_000_000
    assert found.sums[("chat", "local", "mail", "answered")].requests == 500_000
    assert said[-1] == "1,000,000 records of the log read"
    assert len(said) == 50


def test_a_life_is_read_as_it_was(good: Facts) -> None:
    found = good.log
    assert found.trouble == []
    assert found.unreadable == 0
    assert sum(each.requests for each in found.sums.values()) == found.kinds["intent"] > 300
    assert {key[0] for key in found.sums} == {"chat", "archiv", "vectors"}
    (reveal,) = found.insight.reveals.values()
    assert [looks.count for looks in reveal.looks.values()] == [3, 1]
    assert set(found.first_use) == {sheet.weights[:32] for sheet in good.factsheets if sheet.weights}
