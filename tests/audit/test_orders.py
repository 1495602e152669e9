"""`appliance audit hold`, `release`, `holds` and `retention`, while no appliance runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from appliance.__main__ import WRONG_INPUT, main
from appliance.audit import verifier
from appliance.audit.orders import Orders
from appliance.commands import FAILED, OK
from appliance.errors import AuditFailed
from tests.audit import chain
from tests.audit.days import TERMS, Days, one_of_each


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of an appliance whose log begins long ago, on 2026-01-01."""
    file = tmp_path / "appliance.yaml"
    settings = {"state": "state", "models": {"chat": {"card": "tiny"}}, "audit": {"retention": {"requests_days": 30}}}
    file.write_text(yaml.safe_dump(settings))

    async def begin() -> None:
        async with Days(tmp_path / "state") as days:
            days.archive.subjects.of("anna")
            await one_of_each(days)
            await days.turn()

    (tmp_path / "state").mkdir(mode=0o700)
    asyncio.run(begin())
    return file


def run(config: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["audit", *words, "--config", str(config)])
    told = capsys.readouterr()
    return status, told.out + told.err


def test_a_hold_is_placed_shown_and_ended(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, capsys, "holds") == (OK, "nothing is held\n")
    status, told = run(config, capsys, "hold", "--since", "2026-01-01", "--reason", "file 7", "--json")
    held = json.loads(told)
    assert (status, held["since"], held["reason"]) == (OK, "2026-01-01", "file 7")
    shown = f"{held['id']}  everybody, 2026-01-01 to today and after: file 7\n"
    assert run(config, capsys, "holds") == (OK, shown)
    assert json.loads(run(config, capsys, "holds", "--json")[1]) == [held]
    assert run(config, capsys, "retention", "--dry-run") == (
        OK, "no record would be removed\n5 older records are held: appliance audit holds\n",
    )  # fmt: skip
    assert run(config, capsys, "release", held["id"])[0] == OK
    assert run(config, capsys, "holds") == (OK, "nothing is held\n")


def test_a_person_is_held_by_name_and_shown_by_pseudonym(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = run(config, capsys, "hold", "--subject", "anna", "--reason", "file 7")
    assert status == OK
    assert "anna" not in told
    assert "p_" in told


def test_retention_tells_what_goes_before_it_goes(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    what = "5 records {} (1 content, 1 intent, 1 outcome, 1 refusal, 1 strangers), from 2026-01-01 to 2026-01-01, in 1 "
    for _ in range(2):
        assert run(config, capsys, "retention", "--dry-run") == (OK, what.format("would be removed") + "segments\n")
    assert run(config, capsys, "retention", "--now") == (OK, what.format("removed") + "segments\n")
    status, told = run(config, capsys, "retention", "--now", "--json")
    assert (status, json.loads(told)) == (
        OK, {"failed": [], "held": 0, "newest": None, "oldest": None, "removed": {}, "segments": 0},
    )  # fmt: skip
    assert verifier.verify(config.parent / "state" / "audit").genuine


def test_a_segment_that_stays_is_named_and_the_status_tells(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config.parent / "state" / "audit" / "000000000001.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-5])
    status, told = run(config, capsys, "retention", "--now")
    assert (status, told) == (
        FAILED, "no record was removed\nsegment 000000000001 stays as it is: it can't be read: it is damaged\n",
    )  # fmt: skip


def test_what_is_wrong_is_said_with_what_to_do(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, capsys, "hold", "--reason", "x") == (
        WRONG_INPUT, "appliance: say what to hold: days (since, until), a person (subject), or both\n",
    )  # fmt: skip
    assert run(config, capsys, "release", "hold_0")[0] == WRONG_INPUT
    (config.parent / "state" / "audit-work" / "holds.json").unlink()
    for words in (["holds"], ["hold", "--reason", "x", "--since", "2026-01-01"], ["retention", "--now"]):
        status, told = run(config, capsys, *words)
        assert status == FAILED
        assert "holds.json is gone" in told
        assert "`appliance audit holds --repair`" in told
    assert run(config, capsys, "holds", "--repair") == (OK, "nothing is held\n")
    assert run(config, capsys, "retention", "--dry-run")[0] == OK


def test_where_there_is_no_log_yet_nothing_is_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "appliance.yaml").write_text(yaml.safe_dump({"models": {"chat": {"card": "tiny"}}, "state": "state"}))
    assert run(tmp_path / "appliance.yaml", capsys, "holds") == (OK, "nothing is held\n")
    assert not (tmp_path / "state").exists()


async def test_what_keeps_failing_is_one_incident_until_it_works_or_fails_in_another_way(tmp_path: Path) -> None:
    async with Days(tmp_path / "state") as days:
        orders, settings = Orders(days.archive, tmp_path / "state"), TERMS
        key, away = tmp_path / "state" / "audit-keys" / "signing.pem", tmp_path / "away"
        key.rename(away)
        for _ in range(3):
            with pytest.raises(AuditFailed, match=r"signing\.pem can't be read"):
                await orders.daily(settings)
        away.rename(key)
        await orders.daily(settings)
        key.rename(away)
        with pytest.raises(AuditFailed):
            await orders.daily(settings)
        away.rename(key)
        await days.archive.journal.checkpoint_now()
    bodies = [body for body in chain.bodies(tmp_path / "state" / "audit") if "incident" in body]
    assert [body["incident"] for body in bodies] == ["retention_failed"] * 2
