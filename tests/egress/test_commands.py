"""`appliance egress ...`: what it says when things go wrong; its exit status never says more than was proven."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance import witness
from appliance.__main__ import main
from appliance.commands import egress as commands
from appliance.commands import running as running_commands
from appliance.egress.ledger import Ledger
from tests.egress import found
from tests.fakes.house import House, Running, until

Start = Callable[..., Running]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with two reports: one that holds, one that doesn't."""
    Ledger(tmp_path).append(found.built(*found.holding()))
    Ledger(tmp_path).append(found.built(*found.violated()))
    return tmp_path


def serving(house: House, **verify: Any) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["egress"] = {"mode": "deny", "verify": verify or {"every_seconds": 0}}


@pytest.mark.parametrize(("number", "says"), [(1, "says that all holds"), (2, "says that NOT all holds")])
def test_one_report_is_told_by_number_time_verdict_and_key(
    kept: Path, number: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = kept / "reports" / f"{number:06}.json"
    told = (kept / "key.pub").read_text().splitlines()[0].removeprefix("fingerprint ")
    assert main(["egress", "check", str(file)]) == 0
    out = capsys.readouterr().out
    assert f"report {number} of 2026-11-22T10:05:00Z {says}" in out
    assert f"the key {told} signed it" in out
    assert "none was named to compare" in out
    assert "missing" not in out
    assert main(["egress", "check", str(file), "--fingerprint", told]) == 0
    assert "none was named" not in capsys.readouterr().out
    assert main(["egress", "check", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True, "wrong": [], "compared": False, "number": number, "time": "2026-11-22T10:05:00Z",
        "holds": number == 1, "fingerprint": told,
    }  # fmt: skip


def test_a_copy_of_the_folder_is_checked_as_a_whole(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["egress", "check", str(kept)]) == 0
    out = capsys.readouterr().out
    assert "every report is as it was signed, and none is missing" in out
    assert "none was named to compare" in out


@pytest.mark.parametrize("words", ["", " ", "3f2a", "3f2a 91bc 07de 55a1 c3b0 9e4f 12d8 6a7z"])
def test_what_is_no_fingerprint_is_refused(kept: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["egress", "check", str(kept), "--fingerprint", words])
    assert ended.value.code == 2
    assert "eight groups of four digits" in capsys.readouterr().err


def test_what_is_no_report_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    page.write_text("<html>")
    for given, said in (
        (tmp_path, "is a folder without a ledger.jsonl: name a report, or a copy of the folder `egress`"),
        (tmp_path / "none.json", "none.json can't be read: No such file or directory"),
        (page, "report.html can't be read, or was written anew"),
    ):
        assert main(["egress", "check", str(given)]) == 1
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("page", ["no/such/folder/report.html", "."])
@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_page_that_can_not_be_written_is_told_before_anything_else(
    house: House, command: str, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    house.write()
    with pytest.raises(SystemExit) as ended:
        main(["egress", command, "--config", str(house.config), "--html", str(house.folder / page)])
    assert ended.value.code == 2
    assert "can't be written" in capsys.readouterr().err
    assert not (house.state / "egress").exists()


def test_a_report_that_can_not_be_kept_is_shown_as_no_proof(
    house: House, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    serving(house)
    start(house).ready("chat")
    (house.state / "egress" / "reports").write_text("in the way, as a full disk is")
    assert main(["egress", "verify", "--config", str(house.config)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("✗ NOT KEPT, NOT SIGNED, and so no proof: the report can't be kept: ")
    assert "Every attempt to send from inside failed" in out
    assert "signed by  " not in out
    assert main(["egress", "verify", "--json", "--config", str(house.config)]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert "signature" not in shown
    assert shown["unkept"].startswith("the report can't be kept")


def test_an_appliance_that_runs_and_does_not_answer_is_not_proven(
    house: House, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serving(house)
    running = start(house).ready("chat")
    monkeypatch.setattr(commands, "_PATIENCE", 0.2)
    monkeypatch.setattr(running_commands, "_PATIENCE", 0.2)
    running.process.send_signal(signal.SIGSTOP)
    try:
        assert main(["egress", "verify", "--config", str(house.config)]) == 1
        assert "runs on" in (err := capsys.readouterr().err)
        assert "doesn't answer within 0.2 seconds; so nothing is proven" in err
        assert main(["status", "--config", str(house.config)]) == 1
    finally:
        running.process.send_signal(signal.SIGCONT)


def test_a_verification_that_breaks_is_a_failure_without_a_traceback(
    house: House, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serving(house)
    start(house).ready("chat")

    def breaks(*_: object) -> None:
        raise subprocess.TimeoutExpired("probes", 10)

    monkeypatch.setattr(witness, "run", breaks)
    assert main(["egress", "verify", "--config", str(house.config)]) == 1
    assert "nothing is proven: TimeoutExpired" in capsys.readouterr().err


def test_the_status_is_1_while_requests_are_refused(
    house: House, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    serving(house, every_seconds=0.5, on_failure="stop")
    running = start(house).ready("chat")
    until(lambda: (running.status()["egress"]["verify"]["last"] or {}).get("holds"))
    assert main(["status", "--config", str(house.config)]) == 0
    with running.client() as client:
        assert "appliance_egress_failures_total 0.0" in client.get("/metrics").text
    (house.state / "egress" / "started.json").write_text("{")
    until(lambda: running.status()["egress"]["verify"]["refuses"])
    with running.client() as client:
        assert re.search(r"^appliance_egress_failures_total [1-9]", client.get("/metrics").text, re.MULTILINE)
    capsys.readouterr()
    assert main(["status", "--config", str(house.config)]) == 1
    assert "every request is refused: the proof failed (verification" in capsys.readouterr().out
