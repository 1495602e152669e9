"""`appliance usage`: the table that a person reads, and the same for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.__main__ import WRONG_INPUT, main
from appliance.accounts.entries import NANO, Account, Balance, Changes, Kind, Scope, Span, UsageKey, Used
from appliance.accounts.keys import KeyRecord
from appliance.accounts.store import Store
from appliance.audit.subjects import Subjects
from appliance.config import Allowance

USED = {
    UsageKey("2026-11-21", "key_1", "anna", "sales", "", "chat"): Used(1200, 2_345_678, 3000, 4 * NANO + 5, 0),
    UsageKey("2026-11-22", "key_2", "", "", "", "chat"): Used(1, 2, 3, 0, 0),
    UsageKey("2026-10-31", "key_1", "anna", "research", "", "chat"): Used(7, 70, 70, 0, 2),
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    store = Store.sqlite(tmp_path)
    store.claim("here")
    allowance = Allowance(tokens_per_month=1_000_000)
    store.add_key(KeyRecord("key_1", b"1", "Anna's laptop", 0.0, "host", user="anna", allowance=allowance))
    month = {kind: Account(Scope(kind, name), Span.MONTH, "2026-11-01")
             for kind, name in ((Kind.TEAM, "sales"), (Kind.KEY, "key_1"), (Kind.USER, "anna"))}  # fmt: skip
    store.commit(Changes(used=USED, balances={each: Balance(2_348_678, 4 * NANO) for each in month.values()}))
    store.close()
    teams = {"sales": {"tokens_per_month": 3_000_000, "euros_per_month": 100}}
    prices = {"models": {"chat": {"prompt_euros_per_million": 1, "completion_euros_per_million": 1}}}
    settings = {"state": ".", "models": {"chat": {"card": "tiny"}}, "accounts": {"teams": teams, "prices": prices}}
    return written(tmp_path, settings, works_council=False)


def written(folder: Path, settings: dict[str, Any], *, works_council: bool) -> Path:
    file = folder / "appliance.yaml"
    file.write_text(yaml.safe_dump(settings | {"audit": {"works_council": works_council}}))
    return file


@pytest.fixture
def pseudonymous(config: Path) -> tuple[Path, str]:
    """The same in works-council mode, and Anna's pseudonym."""
    subjects = Subjects.open(config.parent / "audit-keys")
    pseudonym = subjects.of("anna").pseudonym
    subjects.close()
    settings = yaml.safe_load(config.read_text())
    settings["accounts"]["each_key"] = {"tokens_per_month": 10}
    settings["accounts"]["users"] = {"anna": {"tokens_per_month": 4_697_356}}
    return written(config.parent, settings, works_council=True), pseudonym


def shown(capsys: pytest.CaptureFixture[str], config: Path, *options: str) -> str:
    assert main(["usage", "--config", str(config), "--month", "2026-11", *options]) == 0
    return capsys.readouterr().out


def test_teams_are_shown_with_the_share_of_the_budget_that_is_used_most(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    title, _, head, none, sales, total = shown(capsys, config).splitlines()
    assert title == "2026-11, days of Europe/Berlin"
    assert head.split("  ")[-1] == "of the month's budget"
    assert re.fullmatch(r" +sales +1,200 +2,345,678 +3,000 +4\.00  █{9}░{3}  78 %", sales)
    assert re.fullmatch(r" +\(none\) +1 +2 +3 +0\.00", none)
    assert re.fullmatch(r" +total +1,201 +2,345,680 +3,003 +4\.00", total)


def test_a_key_is_shown_with_whose_it_is_and_its_own_budget(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, _, first, *_ = shown(capsys, config, "--by", "key").splitlines()
    assert re.search(r"key_1 .* Anna's laptop +█{12} 234 %$", first)


def test_rows_stand_by_name_and_never_by_amount(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.sqlite(config.parent)
    amounts = {"dora": 5, "anna": 1, "emil": 9, "ben": 7}
    for name, tokens in amounts.items():
        store.commit(Changes(used={UsageKey("2025-01-02", name, name, name, "", "chat"): Used(1, tokens, 0, 0, 0)}))
    store.close()
    for by in ("user", "team", "key", "user,model"):
        assert main(["usage", "--config", str(config), "--month", "2025-01", "--by", by]) == 0
        names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[3:-1]]
        assert names == sorted(amounts), by


def test_in_works_council_mode_persons_are_pseudonyms_and_their_keys_are_the_person(
    pseudonymous: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    config, anna = pseudonymous
    for by in ("user", "key", "day,user", "team,key,user"):
        for form in ((), ("--json",), ("--csv",)):
            out = shown(capsys, config, "--by", by, *form)
            assert anna in out
            assert not re.search("anna|key_1", out, re.IGNORECASE), by
    user = next(line for line in shown(capsys, config, "--by", "user").splitlines() if anna in line)
    assert user.endswith(" 50 %"), "of the person's budget"
    _, _, _, key_2, key_1, _ = shown(capsys, config, "--by", "key").splitlines()
    assert key_1.split()[0] == anna
    assert "%" not in key_1, "a person's keys have no one budget"
    assert key_2.split()[0] == "key_2"


def test_whom_the_key_store_doesnt_know_is_a_person_without_pseudonym(
    pseudonymous: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = pseudonymous
    (config.parent / "audit-keys" / "subjects").unlink()
    (anna,) = (row for row in json.loads(shown(capsys, config, "--by", "user", "--json"))["data"] if row["user"])
    assert (anna["user"], anna["requests"]) == ("person without pseudonym", 1200)
    assert not (config.parent / "audit-keys" / "subjects").exists(), "who only looks makes none"


def test_unsettled_requests_are_a_column_if_there_are_any(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unsettled" not in shown(capsys, config)
    assert main(["usage", "--config", str(config), "--month", "2026-10"]) == 0
    assert re.search(r"research +7 +70 +70 +0\.00 +2\n", capsys.readouterr().out)


def test_days_stand_in_their_order(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, config, "--by", "day,user").splitlines()
    assert [line.split()[:2] for line in lines[3:5]] == [["2026-11-21", "anna"], ["2026-11-22", "(none)"]]


def test_a_month_without_use_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--config", str(config), "--month", "2020-01"]) == 0
    assert capsys.readouterr().out == "2020-01, days of Europe/Berlin: nothing was used\n"


def test_scripts_get_json_and_spreadsheets_csv(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = json.loads(shown(capsys, config, "--by", "team,model", "--json"))
    assert (body["from"], body["to"], body["by"]) == ("2026-11-01", "2026-11-30", ["team", "model"])
    assert body["data"][1] == {
        "team": "sales", "model": "chat", "requests": 1200, "prompt_tokens": 2_345_678, "completion_tokens": 3000,
        "euros": "4.000000005", "unsettled": 0,
    }  # fmt: skip
    assert body["total"]["requests"] == 1201
    table = list(csv.DictReader(io.StringIO(shown(capsys, config, "--by", "team,model", "--csv"))))
    assert table[1] == {name: str(value) for name, value in body["data"][1].items()}


@pytest.mark.parametrize(
    "options",
    [
        ["--month", "2026-13"], ["--month", "november"], ["--by", "teams"], ["--by", "team,team"], ["--by", ""],
        ["--csv", "--json"],
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["usage", *options])
    assert ended.value.code == WRONG_INPUT
    assert options[0] in capsys.readouterr().err
