"""The benchmark of detection and gate: small amounts, to see that all is measured at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import privacy
from benchmarks.protecting import MEASURES, Fact, shares

TIMES = {"pattern_ms": 1.0, "full_ms": 120.0, "gate_ms": 1.0, "chunk_us": 3.0}


def test_all_is_measured_and_held_against_its_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sets", "office", "documents", "--limit", "12", "--results", str(tmp_path), "--missed"]
    assert privacy.main(arguments) in (0, 1)  # few texts decide nothing
    saved = json.loads((tmp_path / "privacy.json").read_text())
    assert {each["measure"] for each in saved["shares"]} == set(MEASURES)
    assert saved["amount"]["sets"] == {"office": 12, "documents": 12}
    assert min(saved["times"].values()) > 0
    told = capsys.readouterr()
    assert "ordinary requests held back" in told.out
    assert "24 requests" not in told.out
    assert "documents: " in told.err
    assert {path.name for path in tmp_path.iterdir()} == {"privacy.json", "privacy.md", "privacy.svg"}


def test_without_the_public_sets_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        privacy.main(["--data", str(tmp_path), "--sets", "germeval"])
    assert exited.value.code == 2
    assert "--sets office documents" in capsys.readouterr().err


def test_what_was_to_be_reached_is_judged() -> None:
    good = [
        Fact("recall", "de", "office", "person", 96, 100),
        Fact("leaked", "de", "office", "", 0, 800),
        Fact("stays", "de", "ordinary", "", 25, 100),
    ]
    assert [reached for reached, _ in privacy.verdicts(good, TIMES)] == [True] * 6
    bad = [
        Fact("recall", "de", "news", "person", 95, 100),
        Fact("leaked", "de", "office", "", 30, 800),
        Fact("stays", "de", "ordinary", "", 26, 100),
    ]
    assert [reached for reached, _ in privacy.verdicts(bad, {name: each + 0.1 for name, each in TIMES.items()})] == [
        False
    ] * 6
    assert [reached for reached, _ in privacy.verdicts([], TIMES)] == [None, None, True, True, True]
    few = [Fact("leaked", "de", "office", "", 0, 100)]
    assert privacy.verdicts(few, TIMES)[0][0] is None


def test_facts_are_counted_in_groups() -> None:
    facts = [Fact("recall", "de", "chat", "person", 1), Fact("recall", "en", "chat", "person", 0)]
    assert [(key, share.hits, share.of) for key, share in shares(facts, "recall", "language").items()] == [
        (("de",), 1, 1), (("en",), 0, 1),
    ]  # fmt: skip
