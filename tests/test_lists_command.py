"""`appliance lists`: names come in by files, are kept encrypted, and show nowhere that nobody asked for."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import config as configuration
from appliance.__main__ import WRONG_INPUT, main
from appliance.audit.verifier import verify
from appliance.config import Config
from appliance.privacy.kinds import Kind
from appliance.privacy.site.entry import SiteEntry
from appliance.privacy.site.lists import Lists


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "appliance.yaml"
    file.write_text(yaml.safe_dump({"state": "state", "models": {"chat": {"card": "tiny"}}}))
    return configuration.load(file)


@pytest.fixture
def names(tmp_path: Path) -> Path:
    file = tmp_path / "names.txt"
    file.write_text("Anna Müller; Müller-Reisen\nOtto Lange\n")
    return file


def lists(config: Config, *arguments: str | Path) -> int:
    return main(["lists", *map(str, arguments), "--config", str(config.file)])


def kept(config: Config) -> list[SiteEntry]:
    return Lists(config.lists).every()


def acts(config: Config) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (config.state / "audit" / "000000000001.jsonl").read_text().splitlines()]
    return [each["body"] for each in found if each["kind"] == "act"]


def test_names_are_added_shown_and_removed(
    config: Config, names: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lists(config, "add", "client", names) == 0
    said = capsys.readouterr()
    assert said.out == (
        "✓ client: 2 added, 0 removed, 2 in all; the appliance looks for them from its next start on\n"
    )  # fmt: skip
    assert kept(config) == [
        SiteEntry("Anna Müller", Kind.CLIENT, ("Müller-Reisen",)), SiteEntry("Otto Lange", Kind.CLIENT),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Otto Lange\nnobody here\n")))
    assert lists(config, "remove", "client", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"list": "client", "added": 0, "removed": 1, "entries": 1}
    assert [entry.name for entry in kept(config)] == ["Anna Müller"]


def test_counts_are_shown_and_names_only_to_who_asks(
    config: Config, names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists(config, "add", "employee", names)
    capsys.readouterr()
    assert lists(config, "show") == 0
    counts = capsys.readouterr().out
    assert counts.split() == ["client", "0", "employee", "2", "project", "0", "organisation", "0"]
    assert lists(config, "show", "employee", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"employee": 2}
    assert lists(config, "show", "--names") == 0
    assert capsys.readouterr().out == "employee: Anna Müller; Müller-Reisen\nemployee: Otto Lange\n"
    assert lists(config, "show", "employee", "--names", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"employee": [["Anna Müller", "Müller-Reisen"], ["Otto Lange"]]}


def test_it_is_on_record_what_was_done_and_no_name(config: Config, names: Path) -> None:
    lists(config, "add", "client", names)
    lists(config, "import", "client", names, "--replace")
    lists(config, "remove", "client", names)
    lists(config, "show", "--names")
    lists(config, "show")
    told = [(act["act"], act["phase"]) for act in acts(config)]
    assert told == [("lists.change", "intent"), ("lists.change", "done")] * 3 + [
        ("lists.show", "intent"), ("lists.show", "done"),
    ]  # fmt: skip
    began, done = acts(config)[:2]
    assert (began["list"], began["how"]) == ("client", "add")
    assert (done["added"], done["removed"], done["entries"]) == (2, 0, 2)
    assert acts(config)[6]["client"] == 0
    for file in config.state.rglob("*"):
        if file.is_file():
            assert not any(name.encode() in file.read_bytes() for name in ("Müller", "Lange", "Reisen")), file
    assert verify(config.state / "audit").genuine


def test_an_import_adds_or_replaces(config: Config, names: Path, tmp_path: Path) -> None:
    table = tmp_path / "clients.csv"
    table.write_bytes("Nachname;Vorname\r\nGroß;Änne\r\nLange;Otto\r\n".encode("cp1252"))
    columns = ["--column", "Vorname", "--column", "Nachname"]
    assert lists(config, "add", "client", names) == 0
    assert lists(config, "import", "client", table, *columns) == 0
    assert [entry.name for entry in kept(config)] == ["Anna Müller", "Otto Lange", "Änne Groß"]
    assert lists(config, "import", "client", table, *columns, "--replace") == 0
    assert [entry.name for entry in kept(config)] == ["Änne Groß", "Otto Lange"]


def test_fifty_thousand_names_are_imported(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "many.txt"
    file.write_text("".join(f"Anna Müller{number}\n" for number in range(50_000)))
    assert lists(config, "import", "client", file) == 0
    assert lists(config, "show", "client", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"client": 50_000}


@pytest.mark.parametrize(("content", "says"), [
    ("Otto Lange\nx\n", "line 2 is no name"), ("# nobody\n", "holds no names; nothing was changed"),
    ("", "holds no names"), (b"\x81\x8d", "is no text"),
])  # fmt: skip
def test_a_file_that_is_wrong_changes_nothing_and_is_told_of_without_names(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | bytes, says: str
) -> None:
    file = tmp_path / "wrong.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert lists(config, "import", "client", file, "--replace") == WRONG_INPUT
    complaint = capsys.readouterr().err
    assert says in complaint
    assert "Lange" not in complaint
    assert not config.state.exists()


def test_a_file_that_is_not_there_and_a_list_that_there_is_not_are_refused(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lists(config, "add", "client", tmp_path / "none.txt") == WRONG_INPUT
    assert "can't be read: No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        lists(config, "add", "customer")
    assert "client" in capsys.readouterr().err


def test_no_name_can_be_said_on_the_command_line(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Everybody on the host sees what stands there."""
    assert lists(config, "add", "client", "Anna Müller") == WRONG_INPUT
    assert kept(config) == []


def test_a_list_that_is_damaged_stays_as_it_is(config: Config, names: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists(config, "add", "client", names)
    file = config.lists / "client.list"
    file.write_bytes(file.read_bytes()[:-1])
    before = file.read_bytes()
    capsys.readouterr()
    assert lists(config, "add", "client", names) == 1
    assert "restore both from a backup" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert acts(config)[-1]["phase"] == "failed"


def test_the_folder_of_the_lists_may_be_chosen(config: Config, names: Path, tmp_path: Path) -> None:
    assert config.lists == config.state / "lists"
    config.file.write_text(config.file.read_text() + "privacy: {lists: own}\n")
    elsewhere = configuration.load(config.file)
    assert elsewhere.lists == tmp_path / "own"
    assert lists(elsewhere, "add", "client", names) == 0
    assert (tmp_path / "own" / "client.list").exists()


def test_lists_alone_are_put_back_from_a_backup(
    config: Config, names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists(config, "add", "client", names)
    elsewhere = config.state.parent / "backup"
    (config.state / "lists").rename(elsewhere)
    shutil.rmtree(config.state)
    config.state.mkdir(mode=0o700)
    elsewhere.rename(config.lists)
    capsys.readouterr()
    assert lists(config, "remove", "client", names, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"list": "client", "added": 0, "removed": 2, "entries": 0}
