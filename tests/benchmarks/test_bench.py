"""`make bench`, with a real appliance process and real Locust users in front of the static upstream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest

from appliance import config as configuration
from appliance.errors import NotRunning
from benchmarks import bench, processes, serving
from benchmarks.gateways import Upstream, write_config
from benchmarks.people import NOTES, SUBJECTS, Talker

QUICK = ["--users", "3", "--seconds", "1", "--think", "0"]
EASY = {"time_to_first_token_ms": 60_000, "inter_token_latency_ms": 60_000, "end_to_end_ms": 60_000}
IMPOSSIBLE = EASY | {"time_to_first_token_ms": 0.001}


class Loads(HTMLParser):
    """Collects whatever a page would fetch, and counts its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "svg"
        if tag in ("script", "link", "iframe", "img", "image", "object", "embed"):
            self.fetched.append(tag)
        self.fetched += [
            value for name, value in attrs
            if name in ("src", "href", "xlink:href", "data", "action") and value and not value.startswith("#")
        ]  # fmt: skip


def config(folder: Path, upstream: Upstream, objectives: Mapping[str, float]) -> Path:
    """A config in `folder` with these objectives."""
    return write_config(folder, processes.free_port(), upstream.socket, objectives=objectives)


def test_objectives_met(tmp_path: Path, upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
    """No appliance runs: one is started, measured and stopped, and the report tells of it without a word said."""
    file = config(tmp_path, upstream, EASY)
    assert bench.main(["--config", str(file), "--results", str(tmp_path / "results"), *QUICK]) == bench.MET
    said = capsys.readouterr()
    assert "✓ objectives met" in said.out
    assert "3 users chat" in said.err

    (folder,) = (tmp_path / "results").iterdir()
    content = json.loads((folder / "report.json").read_text())
    assert content["met"] is True
    assert content["verdict"]["failed"] == 0
    assert content["verdict"]["share"] == 1
    assert content["scenario"] == {"model": "chat", "users": 3, "seconds": 1, "think_seconds": 0, "seed": 1}
    assert content["objectives"]["end_to_end_ms"] == 60_000
    assert content["setting"]["cores"] >= 1
    for request in content["requests"]:
        assert request["missed"] == []
        assert request["status"] == 200
        assert len(request["gaps_ms"]) + 1 == request["tokens"]
        assert request["tokens"] in (32, 64, 96, 128)
        assert 0 < request["first_token_ms"] <= request["end_to_end_ms"]
    assert {request["user"] for request in content["requests"]} == {0, 1, 2}

    page = (folder / "report.html").read_text()
    loads = Loads()
    loads.feed(page)
    assert loads.fetched == []
    assert "@import" not in page
    assert loads.pictures == 4
    asked = [opening for subjects in SUBJECTS.values() for opening, *_ in subjects] + [*NOTES["de"], *NOTES["en"]]
    assert not any(words in page or words in json.dumps(content, ensure_ascii=False) for words in asked)
    with pytest.raises(NotRunning):
        serving.status(configuration.load(file))


def test_objectives_missed_by_the_appliance_that_runs(
    tmp_path: Path, upstream: Upstream, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that runs is taken and left running, by config and by address; a wrong key is wrong input."""
    file = config(tmp_path, upstream, IMPOSSIBLE)
    results = ["--results", str(tmp_path / "results")]
    with serving.appliance(configuration.load(file)) as running:
        capsys.readouterr()
        assert bench.main(["--config", str(file), *results, *QUICK]) == bench.MISSED
        said = capsys.readouterr()
        assert "✗ objectives missed" in said.out
        assert "starting one" not in said.err
        assert serving.status(configuration.load(file))["pid"] == running.pid

        there = ["--config", str(file), "--address", running.address, *results, *QUICK]
        assert bench.main([*there, "--key", "sk-wrong"]) == bench.WRONG_INPUT
        assert bench.main([*there, "--key", running.key, "--model", "none"]) == bench.WRONG_INPUT
    said = capsys.readouterr()
    assert "there are chat" in said.err
    (folder,) = (tmp_path / "results").iterdir()
    content = json.loads((folder / "report.json").read_text())
    assert content["met"] is False
    assert all(request["missed"] == ["time_to_first_token_ms"] for request in content["requests"])
    assert "Objectives missed" in (folder / "report.html").read_text()


def test_wrong_config_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "appliance.yaml"
    file.write_text("models:\n  chat:\n    card: a\nobjektives: {}\n")
    assert bench.main(["--config", str(file)]) == bench.WRONG_INPUT
    assert "objektives" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--users", "0"], ["--address", "ftp://127.0.0.1"], ["--no-such"]])
def test_wrong_command_line(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(arguments)


def test_no_appliance_at_the_address(tmp_path: Path, upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path, upstream, EASY)
    nowhere = f"http://127.0.0.1:{processes.free_port()}"
    assert bench.main(["--config", str(file), "--address", nowhere, "--key", "sk-any"]) == bench.NOT_RUNNING
    assert nowhere in capsys.readouterr().err


def test_people_say_the_same_for_the_same_seed_and_never_endlessly_much() -> None:
    one, same, other = Talker("1-0"), Talker("1-0"), Talker("2-0")
    heard = []
    for _ in range(200):
        assert (one.ask(), one.messages) == (same.ask(), same.messages)
        other.ask()
        heard.append(other.messages != one.messages)
        assert sum(len(message["content"]) for message in one.messages) < 4000
        for talker in (one, same, other):
            talker.hear("So ist es.")
    assert any(heard)
    one.ask()
    one.hear("")
    assert one.ask()
    assert len(one.messages) == 1  # a conversation that broke off is not gone on with
