"""`appliance policy test`: what a person reads of a text, and the same for scripts."""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from appliance import config as configuration
from appliance import control
from appliance.__main__ import WRONG_INPUT, main
from appliance.api import wire
from appliance.config import Config, Limits
from appliance.privacy.detect import detector
from tests.api.test_policy import Guard
from tests.fakes import journal
from tests.fakes.detector import Detector
from tests.fakes.house import House, until

LETTER = "Anna Weber schreibt an Bernd Klein,\nund zwar an die Sonnenschein KG.\n"
RULE = {"data_class": "personal", "use_case": "letters", "may": "pseudonymise", "purpose": "letters to clients",
        "regions": ["eu"], "agreement": "DPA 1"}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "state": "s",
    "models": {"chat": {"card": "tiny"}},
    "accounts": {"use_cases": {"letters": {}, "health": {"data_class": "personal"}}},
    "egress": {"mode": "anonymized",
               "providers": {"near": {"url": "https://api.example.com/v1", "region": "eu", "agreement": "DPA 1"}}},
    "privacy": {"policy": [RULE]},
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return written(tmp_path, SETTINGS)


def written(folder: Path, settings: dict[str, Any]) -> Config:
    file = folder / "appliance.yaml"
    file.write_text(yaml.safe_dump(settings))
    return configuration.load(file)


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    file = tmp_path / "letter.txt"
    file.write_text(LETTER)
    return file


@pytest.fixture
def simple(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' detector in the place of the real one, which takes seconds to load."""
    monkeypatch.setattr(detector, "Detector", Detector)


def run(config: Config, *arguments: str | Path) -> int:
    return main(["policy", "test", *map(str, arguments), "--config", str(config.file)])


@pytest.mark.usefixtures("simple")
class TestWithoutAnAppliance:
    def test_a_person_reads_the_answer_first_and_then_why(
        self, config: Config, letter: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = config.file.parent / "names.txt"
        names.write_text("Sonnenschein KG\n")
        main(["lists", "add", "client", str(names), "--config", str(config.file)])
        capsys.readouterr()
        assert run(config, letter, "--use-case", "letters") == 0
        assert (
            capsys.readouterr().out
            == """
  May leave   where the house can't answer in time, masked as below, to near (eu, DPA 1)
  Class       personal
  Rule        rule 1: personal, use case letters
  Purpose     letters to clients
  Looked at   by this command; no appliance that lets anything out runs here

  ✓ a kind of request that may leave
  ✓ not too large
  ✓ nothing that nobody here can read
  ✓ in a language that the detectors know
  ✓ no password, key or token
  ✓ a rule lets it out, and a provider fits
  ✓ nothing of an original remains after masking
  ✓ the second, stricter look finds nothing

  Found       3
    person            Anna Weber                                       0.90  fake         messages[0].content
    person            Bernd Klein                                      0.90  fake         messages[0].content
    client            Sonnenschein KG                                  1.00               messages[0].content

  Masked      messages[0].content
    Klient_001 schreibt an Klient_002,
    und zwar an die Klient_003.

"""
        )

    def test_what_stays_is_told_with_its_reason(
        self, config: Config, letter: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(config, letter, "--use-case", "health") == 0
        said = capsys.readouterr().out
        assert "Stays       policy: no rule of privacy.policy lets personal requests of this use case leave" in said
        assert "✗ a rule lets it out, and a provider fits" in said
        assert "· nothing of an original remains after masking (not looked at)" in said
        letter.write_text("nichts")
        assert run(config, letter, "--use-case", "letters") == 0
        assert "Class       internal" in capsys.readouterr().out
        assert run(config, letter, "--use-case", "letters", "--class", "personal") == 0
        assert "May leave" in (said := capsys.readouterr().out)
        assert "Found       nothing" in said

    def test_it_works_where_nothing_may_leave_at_all(
        self, tmp_path: Path, letter: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = written(tmp_path, {"state": "s", "models": {"chat": {"card": "tiny"}}})
        assert run(config, letter, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["held"], told["data_class"], told["found"]) == ("policy", "personal", {"person": 2})
        assert told["texts"][0]["masked"].startswith("Klient_001 schreibt an Klient_002,")
        assert told["texts"][0]["finds"][0]["words"] == "Anna Weber"
        assert not config.state.exists(), "nothing is kept, not even that it was asked"

    def test_a_request_is_looked_through_as_one(
        self, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "request.json"
        file.write_text(json.dumps({"model": "m", "max_tokens": 3, "system": "Für Anna Weber.",
                                    "messages": [{"role": "user", "content": "Hallo"}]}))  # fmt: skip
        assert run(config, file, "--operation", "message", "--json") == 0
        paths = {text["path"] for text in json.loads(capsys.readouterr().out)["texts"]}
        assert paths == {"system", "messages[0].content"}
        assert run(config, file) == WRONG_INPUT
        assert "unknown field: system" in capsys.readouterr().err
        file.write_text('{"note": "only JSON, so a text"}')
        assert run(config, file, "--json") == 0
        assert {text["path"] for text in json.loads(capsys.readouterr().out)["texts"]} == {"messages[0].content"}

    def test_a_text_may_come_from_standard_input(
        self, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(LETTER))
        assert run(config, "-", "--json") == 0
        assert json.loads(capsys.readouterr().out)["found"] == {"person": 2}

    def test_colours_are_shown_only_where_they_are_wanted(
        self, config: Config, letter: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        letter.write_text(LETTER + "\x1b[2JAnna Weber\x9b")
        run(config, letter)
        assert "\x1b" not in (said := capsys.readouterr().out), "not even from the text"
        assert "\x9b" not in said
        monkeypatch.setenv("FORCE_COLOR", "1")
        run(config, letter)
        assert "\x1b[1mStays\x1b[0m" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "says"), [
    (["none.txt"], "none.txt can't be read: No such file"),
    (["bytes"], "bytes can't be read: it is no text in UTF-8"),
    (["empty"], "text"),
    (["letter.txt", "--use-case", "gone"], "use_case is none of accounts.use_cases"),
])  # fmt: skip
def test_what_is_wrong_is_named(
    config: Config, letter: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (letter.parent / "bytes").write_bytes(b"\xff\xfe\x00")
    (letter.parent / "empty").write_text("")
    assert run(config, letter.parent / arguments[0], *arguments[1:]) == WRONG_INPUT
    assert says in capsys.readouterr().err


def test_the_real_detectors_are_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path, {"state": "s", "models": {"chat": {"card": "tiny"}}})
    names, file = tmp_path / "names.txt", tmp_path / "letter.txt"
    names.write_text("Blaue Lagune\n")
    main(["lists", "add", "project", str(names), "--config", str(config.file)])
    file.write_text("Sehr geehrte Frau Kowalczyk, das Budget der Blauen Lagune geht an DE89 3704 0044 0532 0130 00.")
    capsys.readouterr()
    assert run(config, file, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    found = {find["words"]: find["kind"] for find in told["texts"][0]["finds"]}
    assert found["Blauen Lagune"] == "project"
    assert found["DE89 3704 0044 0532 0130 00"] == "bank_account"
    assert any("Kowalczyk" in words for words in found)


@contextmanager
def appliance(config: Config) -> Iterator[Any]:
    """What answers on the control socket of an appliance that runs: the real socket and routes, a gate in between."""
    archive = journal.archive(config.file.parent / "archive")
    settings = config.settings
    guard = Guard(settings.privacy) if settings.privacy.policy else None
    house = SimpleNamespace(archive=archive, guard=guard)
    made: Any = SimpleNamespace(config=config, house=house, archive=archive)
    (config.state / "run").mkdir(parents=True)
    listening = wire.listen_unix(config.state / "run" / "control.sock", 0o600)
    server = wire.build_server(control.build(made), wire.WireLimits.of(Limits()), drain_seconds=1)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        until(server.listening.is_set)
        yield archive.journal
    finally:
        server.stop()
        thread.join()
        archive.subjects.close()


@pytest.fixture
def short(house: House) -> Config:
    return written(house.folder, SETTINGS)


def test_an_appliance_that_runs_is_asked_and_puts_it_on_record(
    short: Config, letter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with appliance(short) as log:
        assert run(short, letter, "--use-case", "letters") == 0
        said = capsys.readouterr().out
        assert run(short, letter, "--use-case", "letters", "--json") == 0
        (asked, _) = log.records
    assert "Looked at   by the appliance that runs here" in said
    assert "    person            Anna Weber" in said
    assert json.loads(capsys.readouterr().out)["providers"] == ["near"]
    assert asked["body"].items() >= {"act": "policy.explain", "use_case": "letters", "class": "internal"}.items()
    assert "Weber" not in str(log.lines)
    assert asked["body"]["by"]["role"] == "host"


def test_a_refusal_of_the_appliance_is_passed_on(
    short: Config, letter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with appliance(short) as log:
        log.fail()
        assert run(short, letter) == 1
    assert "the audit log can't be written" in capsys.readouterr().err


@pytest.mark.usefixtures("simple")
def test_an_appliance_that_lets_nothing_out_leaves_it_to_the_command(
    short: Config, letter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(short.file.parent, {"state": "s", "models": {"chat": {"card": "tiny"}}})
    with appliance(config) as log:
        assert run(config, letter) == 0
    assert "Looked at   by this command" in capsys.readouterr().out
    assert not log.records
    assert os.getuid() == config.state.stat().st_uid
