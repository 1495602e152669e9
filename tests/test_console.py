"""Whoever waits is told what for, and whoever doesn't is told nothing."""

from __future__ import annotations

import pytest

from appliance import console
from appliance.console import waiting
from tests.fakes.house import until


def test_what_takes_long_is_told_once_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_LONG", 0.01)
    asked: list[None] = []

    def told() -> str:
        asked.append(None)
        return "looking through the log"

    with waiting(told):
        until(lambda: len(asked) == 1)
    shown = capsys.readouterr()
    assert shown.err == "  looking through the log\n"
    assert shown.out == "", "where a script reads"


def test_what_is_quick_is_not_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "_LONG", 3600)
    with waiting(lambda: "looking through the log"):
        pass
    assert capsys.readouterr().err == ""


def test_on_a_terminal_the_line_moves_on_and_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(console, "_LONG", 0.01)
    asked: list[None] = []

    def told() -> str:
        asked.append(None)
        return f"{len(asked)} records"

    with waiting(told):
        until(lambda: len(asked) == 3)
    shown = capsys.readouterr().err
    assert "1 records" in shown
    assert "2 records" in shown
    assert shown.endswith("\r\x1b[K")
