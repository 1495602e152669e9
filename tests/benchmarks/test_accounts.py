"""The benchmark of the books: small amounts, to see that they are measured at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import accounts
from benchmarks.accounts import Sample
from tests.fakes import postgres as servers

SMALL = ["--rounds", "1", "--requests", "200", "--tasks", "8"]


def test_both_stores_are_measured_without_limits_and_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", servers.PASSWORD)
    for server in servers.postgres():
        database = server.database()
        named = f"{database.user}@{database.host}:{database.port}/{database.database}"
        arguments = [*SMALL, "--results", str(tmp_path), "--postgresql", named]
        assert accounts.main(arguments) in (0, 1)  # that depends on the machine

        saved = json.loads((tmp_path / "accounts.json").read_text())
        for backend in ("SQLite", "PostgreSQL"):
            for name in ("no limits", "four scopes"):
                row = saved["medians"][backend][name]
                assert 0 < row["request_us"] < 100_000
                assert 0 < row["reserve_p50_ms"] <= row["reserve_p99_ms"]
        assert saved["round_trip_ms"] > 0
        assert len(saved["reached"]) == 2
        said = capsys.readouterr().out
        assert said.count("us per request; at most 60") == 2
        assert "| PostgreSQL | four scopes |" in (tmp_path / "accounts.md").read_text()
        assert {path.name for path in tmp_path.iterdir()} == {"accounts.json", "accounts.md"}

        assert accounts.main(arguments) == 2
        assert "is in use; name an empty one" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["books", "books@db/bench", "@db:5432/bench", "books@db:5432"])
def test_a_database_that_is_not_named_whole_is_refused(named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        accounts.main(["--postgresql", named])
    assert "USER@HOST:PORT/DATABASE" in capsys.readouterr().err


def test_what_was_to_be_reached_is_judged_by_processor_time() -> None:
    def row(microseconds: float) -> Sample:
        return Sample(microseconds, 1, 1, 1, 1, 1)

    judged = accounts.verdicts({"SQLite": {"no limits": row(60), "four scopes": row(60.1)}})
    assert [reached for reached, _ in judged] == [True, False]
