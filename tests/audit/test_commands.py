"""`appliance audit verify`, `list` and `export` while no appliance runs: exit statuses, and what is said."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import console
from appliance.__main__ import NOT_RUNNING, WRONG_INPUT, main
from appliance.api import lookup
from appliance.audit import verifier
from appliance.commands import FAILED, OK
from appliance.commands.search import FILTERS
from appliance.console import Progress
from appliance.errors import ApplianceError
from tests.fakes.house import PATIENCE, ROOT


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of an appliance that has no log yet."""
    file = tmp_path / "appliance.yaml"
    file.write_text(yaml.safe_dump({"state": "state", "models": {"chat": {"card": "tiny"}}}))
    return file


def run(config: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    status = main([*words, "--config", str(config)])
    told = capsys.readouterr()
    return status, told.out + told.err


def made(config: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """A key, and a log where there was none."""
    key: dict[str, Any] = json.loads(run(config, capsys, "keys", "create", "--json", *words)[1])
    return key


# ---- verify


def test_where_there_is_nothing_to_verify_it_is_neither_genuine_nor_not(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = run(config, capsys, "audit", "verify")
    assert (status, "Errno" in told) == (WRONG_INPUT, False)
    assert str(config.parent / "state" / "audit") in told
    made(config, capsys)
    for words in (["--against", "/nope"], ["--key", "/etc/passwd"], ["--key", "/nope"], ["/nope"]):
        status, told = run(config, capsys, "audit", "verify", *words)
        assert (status, "Errno" in told) == (WRONG_INPUT, False), told
        assert told.startswith(f"appliance: {words[-1]}")


def test_a_fingerprint_may_be_the_first_line_of_its_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(config, capsys)
    folder = config.parent / "state" / "audit"
    first = (folder / "key.pub").read_text().splitlines()[0]
    assert first.startswith("fingerprint ")
    assert run(config, capsys, "audit", "verify", "--fingerprint", first)[0] == OK
    assert verifier.main([str(folder), "--fingerprint", first]) == verifier.GENUINE
    wrong = "fingerprint 0000" + first[16:]
    assert run(config, capsys, "audit", "verify", "--fingerprint", wrong)[0] == FAILED


def test_without_its_package_the_verifier_says_what_to_install(tmp_path: Path) -> None:
    program = [sys.executable, "-S", verifier.__file__, str(tmp_path)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path)
    assert ended.returncode == verifier.WRONG_INPUT
    assert ended.stderr == "verifier.py: the package cryptography isn't there: pip install cryptography\n"


# ---- list and export


def test_every_filter_has_a_few_words() -> None:
    assert FILTERS.keys() == lookup.FILTERS.keys()
    assert all(len(words) > 4 for words in FILTERS.values())


def test_a_persons_key_is_asked_for_by_the_person(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hers, nobodys = made(config, capsys, "--user", "Anna Q."), made(config, capsys, "--team", "sales")
    status, told = run(config, capsys, "audit", "list", "--key", hers["id"])
    assert status == WRONG_INPUT
    assert "--user 'Anna Q.'" in told
    status, told = run(config, capsys, "audit", "list", "--key", nobodys["id"])
    assert (status, nobodys["id"] in told) == (OK, True)
    status, told = run(config, capsys, "audit", "list", "--key", "key_00")
    assert (status, "stands sealed in the log" in told) == (OK, True)


@pytest.mark.parametrize(
    ("words", "known"),
    [(("--act", "nosuchact"), "keys.create"), (("--incident", "x"), "audit_torn"), (("--kind", "x"), "refusal")],
)
def test_what_there_is_none_of_is_told_with_what_there_is(
    config: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str], known: str
) -> None:
    made(config, capsys)
    status, told = run(config, capsys, "audit", "list", *words)
    assert (status, known in told) == (WRONG_INPUT, True)


def test_an_export_is_private_whatever_lay_there(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(config, capsys)
    file, link = config.parent / "export.jsonl", config.parent / "link.jsonl"
    file.write_text("before")
    file.chmod(0o644)
    link.symlink_to(file)
    status, told = run(config, capsys, "audit", "export", "--output", str(link))
    assert (status, "no plain file" in told, file.read_text()) == (FAILED, True, "before")
    assert run(config, capsys, "audit", "export", "--output", str(file))[0] == OK
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_text().splitlines()) > 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list"], "looking through the log"),
        (["export", "--format", "csv"], "exporting: 0 records"),
        (["verify"], "going through all records"),
        (["retention", "--dry-run"], "if retention is just running, it comes first"),
    ],
)
def test_what_takes_long_says_what_it_is_on_standard_error(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    made(config, capsys)
    said = threading.Event()
    say = Progress.say

    def slow(show: Progress, text: str) -> None:
        say(show, text)
        said.set()

    def wait(*_: object, **__: object) -> None:
        assert said.wait(PATIENCE)
        raise ApplianceError("that is long enough")

    monkeypatch.setattr(console, "_LONG", 0.01)
    monkeypatch.setattr(Progress, "say", slow)
    for slowly in ("appliance.acts.on_record", "appliance.control.ask", "appliance.audit.verifier.verify"):
        monkeypatch.setattr(slowly, wait)
    assert main(["audit", *words, "--config", str(config)]) == FAILED
    shown = capsys.readouterr()
    assert told in shown.err
    assert told not in shown.out


# ---- a disk that is full


FILL = """
import errno, os, sys
from appliance.audit.archive import Archive
from appliance.audit.disk import RealDisk
open_ = Archive.open
def write(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # without the name of a file, as the kernel has it
async def opened(config):
    archive = await open_(config)
    RealDisk.write = write
    return archive
Archive.open = opened
from appliance.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""The command line on a disk that takes nothing more, once the log is open."""


def run_full(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FILL, *words, "--config", str(config)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


def test_on_a_full_disk_a_command_says_so_with_the_folder_and_without_waiting_for_half_a_minute(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(config, capsys)
    ended = run_full(config, "audit", "list")
    why = f"the audit log can't be written: {config.parent / 'state' / 'audit'}: No space left on device"
    assert ended.returncode == FAILED
    assert f"nothing was done: {why}; make room on its disk" in ended.stderr
    assert "try again in a few seconds" not in ended.stderr


def test_a_start_on_a_full_disk_ends_with_the_reason_and_nothing_else(config: Path) -> None:
    settings = {"state": "state", "listen": {"port": 0}, "egress": {"verify": {"every_seconds": 0}, "mode": "deny"},
                "models": {"chat": {"endpoint": "http://127.0.0.1:9/v1"}}}  # fmt: skip
    config.write_text(yaml.safe_dump(settings))
    ended = run_full(config, "serve")
    assert ended.returncode not in (OK, NOT_RUNNING)
    why = f"the audit log can't be written: {config.parent / 'state' / 'audit'}: No space left on device"
    assert f"appliance: {why}" in ended.stderr, ended.stderr
    assert "never awaited" not in ended.stderr
    assert "Traceback" not in ended.stderr
