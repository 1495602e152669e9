"""What the command line does is on record before it is done, by the appliance that runs or by the command itself."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import config as configuration
from appliance import incidents
from appliance.__main__ import main
from appliance.accounts.store import Store
from appliance.acts import Tell, on_record
from appliance.audit import names
from appliance.audit.subjects import Subjects
from appliance.audit.verifier import verify
from appliance.config import Config
from appliance.errors import AuditFailed
from tests.fakes.house import ROOT


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "appliance.yaml"
    prices = {"models": {"chat": {"prompt_euros_per_million": 1, "completion_euros_per_million": 1}}}
    settings = {"state": "state", "models": {"chat": {"card": "tiny"}}, "accounts": {"prices": prices}}
    file.write_text(yaml.safe_dump(settings))
    return configuration.load(file)


def acts(config: Config) -> list[dict[str, Any]]:
    """The bodies of all acts in the log."""
    found = []
    for file in sorted((config.state / "audit").glob("*.jsonl")):
        if file.stem.isdigit():
            found += [json.loads(line) for line in file.read_text().splitlines()]
    return [each["body"] for each in found if each["kind"] == "act"]


def command(config: Config, *arguments: str) -> int:
    return main(["keys", *arguments, "--config", str(config.file)])


def keys(config: Config) -> list[str]:
    store = Store.sqlite(config.state)
    try:
        known = store.keys()
        return [record.id for record in known]
    finally:
        store.close()


def test_keys_are_made_rotated_and_revoked_on_record_where_no_appliance_runs(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    command(config, "create", "--user", "Anna Q.", "--team", "sales", "--euros-per-day", "1.5", "--name", "Anna's",
            "--json")  # fmt: skip
    made = json.loads(capsys.readouterr().out)
    assert command(config, "rotate", made["id"], "--overlap", "1h") == 0
    assert command(config, "revoke", made["id"]) == 0
    told = [(act["act"], act["phase"]) for act in acts(config)]
    assert told == [(f"keys.{what}", phase) for what in ("create", "rotate", "revoke") for phase in ("intent", "done")]
    create, created, rotate, *_ = acts(config)
    assert (create["team"], create["role"], create["allowance"]) == (
        "sales", "user", {"at_limit": "reject", "euros_per_day": "1.5"},
    )  # fmt: skip
    assert rotate["overlap_seconds"] == 3600
    assert created["of"] == 1
    subjects = Subjects.open(config.state / "audit-keys")
    anna = subjects.known("Anna Q.")
    assert anna is not None
    for act in (created, rotate):
        assert act["target"]["subject"] == anna.pseudonym
        assert json.loads(anna.open(act["target"]["sealed"])).items() >= {"user": "Anna Q.", "key": made["id"]}.items()
    by = subjects.find(create["by"]["subject"])
    assert by is not None
    assert (by.name.split(":")[0], create["by"]["role"]) == ("host", "host")
    subjects.close()
    log = "".join(file.read_text() for file in (config.state / "audit").glob("*.json*"))
    for hidden in ("Anna", made["id"], made["key"]):
        assert hidden not in log
    assert verify(config.state / "audit").genuine


def test_a_key_of_nobodys_stands_there_by_its_id(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    command(config, "create", "--team", "sales", "--json")
    made = json.loads(capsys.readouterr().out)
    intent, done = acts(config)
    assert "target" not in done
    assert done["key"] == made["id"]
    assert "key" not in intent


def test_an_id_that_is_no_keys_is_nothing_that_was_done(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("rotate", "revoke"):
        assert command(config, what, "sk-appliance-secret") == 2
    assert not (config.state / "audit").exists()


def test_what_fails_is_on_record_as_failed(config: Config) -> None:
    def work(tell: Tell) -> None:
        tell(steps=1)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        on_record(config, "keys.create", work)
    intent, failed = acts(config)
    assert (intent["phase"], failed["phase"], failed["error"], failed["steps"]) == ("intent", "failed", "OSError", 1)


def test_where_it_cant_be_put_on_record_nothing_is_done_and_the_message_says_what_to_do(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    command(config, "create")
    before = keys(config)
    (config.state / "audit").rename(config.state / "elsewhere")
    (config.state / "audit").write_text("in the way")
    assert command(config, "create") == 1
    complaint = capsys.readouterr().err
    assert "nothing was done" in complaint
    assert "the user that runs the appliance has to own this folder" in complaint
    assert keys(config) == before


def test_a_damaged_key_store_is_told_with_its_own_advice_only(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    command(config, "create", "--user", "anna")
    file = config.state / "audit-keys" / "subjects"
    file.write_bytes(b"garbage" + file.read_bytes()[7:])
    assert command(config, "create") == 1
    complaint = capsys.readouterr().err
    assert "Restore it from a backup of it" in complaint
    assert "try again in a moment" not in complaint
    assert "room on its disk" not in complaint


def test_where_another_process_has_the_log_nothing_is_done(config: Config) -> None:
    done: list[str] = []

    def inner(_: Tell) -> None:
        done.append("inner")

    def outer(_: Tell) -> None:
        done.append("outer")
        with ThreadPoolExecutor(1) as elsewhere, pytest.raises(AuditFailed, match="try again in a moment"):
            elsewhere.submit(on_record, config, "keys.create", inner).result(30)

    on_record(config, "keys.create", outer)
    assert done == ["outer"]


@pytest.fixture
def shared(tmp_path: Path) -> Config:
    """A config whose store is a PostgreSQL, on a host without a state folder."""
    store = {"postgresql": {"host": "10.0.0.1", "database": "d", "user": "u"}, "pepper": "env.PEPPER"}
    settings = {"state": "new", "models": {"chat": {"card": "tiny"}}, "accounts": {"store": store}}
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump(settings))
    return configuration.load(file)


def test_on_a_host_without_a_state_folder_the_log_begins_there(shared: Config) -> None:
    config = shared
    assert on_record(config, "keys.revoke", lambda _: "done", target="anna", key="key_1") == "done"
    assert [act["phase"] for act in acts(config)] == ["intent", "done"]
    assert (config.state.stat().st_mode & 0o777) == 0o700
    assert on_record(config, "keys.revoke", lambda _: "again") == "again", "and the folder is known as ours"


def test_a_folder_that_is_somebody_elses_is_left_alone(shared: Config) -> None:
    config = shared
    config.state.mkdir()
    (config.state / "photos").mkdir()
    with pytest.raises(configuration.ConfigInvalid, match="photos"):
        on_record(config, "keys.revoke", lambda _: pytest.fail("it may not be done"))
    assert [entry.name for entry in config.state.iterdir()] == ["photos"]


def test_every_act_and_every_incident_is_in_the_documentation() -> None:
    source = "\n".join(file.read_text() for file in (ROOT / "appliance").rglob("*.py"))
    acts_of_code = set(re.findall(r'(?:act|happened|note|on_record)\(\s*(?:\w+, )?"([a-z_.]+)"', source))
    incidents_of_code = set(re.findall(r'"incident": "(\w+)"', source))
    incidents_of_code |= {incidents.ENGINE, incidents.SEAL, incidents.OVERDUE, incidents.BOOKS, incidents.IDENTITY}
    assert {"keys.create", "config.apply", "start", "stop", "report"} <= acts_of_code
    page = (ROOT / "docs" / "audit.md").read_text()
    rows = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("|"))
    documented = set(re.findall(r"`([a-z_.]+)`", rows))
    assert acts_of_code | incidents_of_code <= documented, (acts_of_code | incidents_of_code) - documented
    assert acts_of_code == set(names.ACTS), "and can be asked for"
    assert incidents_of_code == set(names.INCIDENTS)
