"""The benchmark of the audit log: small amounts, to see that all is measured at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import audit
from benchmarks.audit import Written


def test_all_is_measured_and_held_against_its_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rounds", "1", "--records", "8000", "--tasks", "64", "--results", str(tmp_path)]
    assert audit.main(arguments) in (0, 1)  # that depends on the machine
    saved = json.loads((tmp_path / "audit.json").read_text())
    figures = saved["medians"]
    for load in ("records", "requests", "one"):
        assert 0 < figures[load]["kept_p50_ms"] <= figures[load]["kept_p99_ms"]
        assert 0 < figures[load]["request_us"] < 100_000
    assert 0 < figures["packed_bytes"] < figures["request_bytes"] < 1024
    assert min(figures["verified"], figures["verified_by_one"], figures["verified_strictly"], figures["seal_us"]) > 0
    assert len(saved["reached"]) == 4
    assert capsys.readouterr().out.count("at least 200,000") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"audit.json", "audit.md"}


def test_what_was_to_be_reached_is_judged() -> None:
    row = Written(20_000, 60, 1, 1)
    figures = {"request_bytes": 1024, "verified": 200_000.0}
    judged = audit.verdicts({"records": row, "requests": row}, figures)
    assert [reached for reached, _ in judged] == [True] * 4
    worse = {"records": replace(row, records_per_second=19_999), "requests": replace(row, request_us=60.1)}
    judged = audit.verdicts(worse, {"request_bytes": 1025, "verified": 199_999.0})
    assert [reached for reached, _ in judged] == [False] * 4
