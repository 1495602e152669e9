"""What docs/audit.md says of backups, really done: put back into a fresh state folder, and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import config as configuration
from appliance.__main__ import main
from appliance.audit.verifier import verify


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of an appliance with two keys and a log; its state folder lies in `host`."""
    (tmp_path / "host").mkdir()
    file = tmp_path / "host" / "appliance.yaml"
    file.write_text(yaml.safe_dump({"state": "state", "models": {"chat": {"card": "tiny"}}}))
    for user in ("anna", "ben"):
        run(file, "keys", "create", "--user", user)
    return file


def run(config: Path, *words: str) -> None:
    assert main([*words, "--config", str(config)]) == 0


def lose(config: Path) -> Path:
    """The state folder goes; what it held lies where this says."""
    state = configuration.load(config).state
    return state.rename(config.parent / "backup")


def incidents(config: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    run(config, "audit", "list", "--kind", "incident", "--json")
    return [record["body"] for record in json.loads(capsys.readouterr().out)["data"]]


def test_the_log_alone_is_put_back_and_goes_on_with_a_new_key(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup = lose(config)
    state = configuration.load(config).state
    state.mkdir(mode=0o700)
    shutil.copytree(backup / "audit", state / "audit")
    before = verify(state / "audit").records
    told = {each["incident"] for each in incidents(config, capsys)}
    assert {"audit_key_changed", "subjects_lost"} <= told
    assert verify(state / "audit").records > before
    assert main(["audit", "export", "--user", "anna", "--config", str(config)]) == 2, "nobody can tell who that was"


def test_with_its_keys_the_log_goes_on_as_if_nothing_had_been(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup = lose(config)
    state = configuration.load(config).state
    state.mkdir(mode=0o700)
    for name in ("audit", "audit-keys"):
        shutil.copytree(backup / name, state / name)
    told = {each["incident"] for each in incidents(config, capsys)}
    assert not {"audit_key_changed", "subjects_lost"} & told
    verdict = verify(state / "audit", against=backup / "audit")
    assert verdict.genuine, verdict.lines()
    run(config, "audit", "list", "--user", "anna", "--json")
    assert json.loads(capsys.readouterr().out)["data"]


def test_holds_are_found_again_in_the_log(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(config, "audit", "hold", "--since", "2026-01-01", "--reason", "file 7")
    backup = lose(config)
    state = configuration.load(config).state
    state.mkdir(mode=0o700)
    for name in ("audit", "audit-keys"):
        shutil.copytree(backup / name, state / name)
    run(config, "audit", "holds", "--repair")
    capsys.readouterr()
    run(config, "audit", "holds")
    assert "file 7" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["lost", "older"])
def test_a_log_that_is_gone_or_older_than_its_keys_know_goes_on_behind_what_is_missing_and_says_so(
    config: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    state = configuration.load(config).state
    if what == "older":
        shutil.copytree(state / "audit", config.parent / "older")
    run(config, "keys", "create", "--user", "carla")
    last = verify(state / "audit").records
    shutil.rmtree(state / "audit")
    if what == "older":
        (config.parent / "older").rename(state / "audit")
    run(config, "keys", "create", "--user", "dora")
    told = incidents(config, capsys)
    assert "audit_broken" in {each["incident"] for each in told}
    verdict = verify(state / "audit")
    assert not verdict.genuine, "what is missing is missing for ever"
    capsys.readouterr()
    run(config, "audit", "list", "--order", "oldest", "--min-seq", str(last + 1), "--json")
    assert json.loads(capsys.readouterr().out)["data"][0]["seq"] > last, "no number is given twice"


def test_a_new_key_needs_the_old_one_beside_it(config: Path) -> None:
    backup = lose(config)
    state = configuration.load(config).state
    state.mkdir(mode=0o700)
    shutil.copytree(backup / "audit", state / "audit")
    run(config, "audit", "list", "--json")
    old, new = backup / "audit" / "key.pub", state / "audit" / "key.pub"
    assert main(["audit", "verify", "--key", str(new), "--config", str(config)]) == 1
    run(config, "audit", "verify", "--key", str(old), "--key", str(new))
