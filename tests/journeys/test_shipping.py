"""Every record gets to a collector in the house, whatever is killed in between."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from appliance.audit import segments
from tests.fakes.fluent_bit import FLUENT_BIT, MISSING, fluent_bit
from tests.fakes.house import ROOT, House, Running, until

Start = Callable[..., Running]
KEY = "collector-s3cret-key"
ASK: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
NAME = "collector of audit records"


class Station:
    """A collector in a process of its own, at an address that stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.fakes.collector", str(self.port), str(self.folder)]
        self.process = subprocess.Popen(command, cwd=ROOT)
        until(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def plan(self, *words: str | int) -> None:
        (self.folder / "plan.json").write_text(json.dumps(words))

    @property
    def taken(self) -> list[list[dict[str, Any]]]:
        file = self.folder / "taken.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def station(house: House) -> Iterator[Station]:
    station = Station(house.folder / "collector")
    yield station
    station.kill()


@pytest.fixture
def shipping(house: House, station: Station, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv("COLLECTOR_KEY", KEY)
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["audit"] = {
        "checkpoint_seconds": 0.2,
        "shipping": {"endpoint": f"http://127.0.0.1:{station.port}", "key": "env.COLLECTOR_KEY", "batch_records": 7},
    }
    return house


def ask(running: Running, number: int) -> None:
    with running.client() as client:
        for _ in range(number):
            assert client.post("/v1/chat/completions", json=ASK).status_code == 200


def written(house: House) -> dict[int, str]:
    folder = house.state / "audit"
    lines = [line.decode() for segment in segments.listed(folder) for line in segments.lines(segment)]
    return {json.loads(line)["seq"]: line for line in lines}


def behind(running: Running) -> float:
    told: float = running.status()["audit"]["shipping"]["behind"]
    return told


def require_all_arrived(house: House, station: Station) -> None:
    """That each record in the log was taken, as it is there, and in order within each delivery."""
    arrived = {record["seq"]: record["line"] for delivery in station.taken for record in delivery}
    there = written(house)
    assert {seq: line for seq, line in there.items() if arrived.get(seq) != line} == {}
    for delivery in station.taken:
        numbers = [record["seq"] for record in delivery]
        assert numbers == sorted(numbers)


def test_all_of_it_arrives_though_both_ends_are_killed(shipping: House, station: Station, start: Start) -> None:
    station.plan("twice", 503)
    station.start()
    running = start(shipping).ready()
    ask(running, 5)
    until(lambda: behind(running) == 0)
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    running = start(shipping).ready()
    ask(running, 5)
    station.kill()
    ask(running, 5)  # nobody waits for the collector
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    station.start()
    running = start(shipping).ready()
    ask(running, 1)
    until(lambda: behind(running) == 0)
    require_all_arrived(shipping, station)
    seen = [record["seq"] for delivery in station.taken for record in delivery]
    assert len(seen) > len(set(seen))  # at least once it was twice
    assert running.stop() == 0


@pytest.mark.long
def test_all_of_it_arrives_though_both_ends_are_killed_again_and_again(
    shipping: House, station: Station, start: Start
) -> None:
    dice = random.Random(5)  # noqa: S311 - for moments, not for secrets
    station.start()
    running = start(shipping).ready()
    for _ in range(12):
        station.plan(*dice.choices(["away", "twice", 503, 500, "html"], k=dice.randrange(4)))
        ask(running, dice.randrange(1, 12))
        if dice.random() < 0.5:
            station.kill()
        if dice.random() < 0.5:
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
            running = start(shipping).ready()
        if station.process is None:
            station.start()
    until(lambda: behind(running) == 0, 120)
    require_all_arrived(shipping, station)


def test_how_far_behind_it_is_shows_and_the_key_does_not(shipping: House, station: Station, start: Start) -> None:
    running = start(shipping).ready()
    ask(running, 2)
    told = until(lambda: running.status()["audit"]["shipping"])
    assert told["behind"] >= 4
    until(lambda: running.status()["audit"]["shipping"]["trouble"])
    line = [sys.executable, "-m", "appliance", "status", "--config", str(shipping.config)]
    shown = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert "shipping" in shown.stdout
    station.start()
    until(lambda: behind(running) == 0)
    assert running.status()["audit"]["shipping"]["trouble"] is None
    files = [running.output, *(shipping.state / "logs").iterdir()]
    assert not any(KEY in file.read_text(errors="replace") for file in files)
    assert not any(KEY in " ".join(line) for line in running.commands().values())


def test_a_verification_holds_and_lists_the_collector(shipping: House, station: Station, start: Start) -> None:
    station.start()
    running = start(shipping).ready()
    ask(running, 1)
    until(lambda: behind(running) == 0)
    line = [sys.executable, "-m", "appliance", "egress", "verify", "--json", "--config", str(shipping.config)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    report = json.loads(done.stdout)
    assert {check["name"]: check["violations"] for check in report["checks"] if not check["holds"]} == {}
    assert done.returncode == 0
    (destination,) = report["findings"]["destinations"]
    assert (destination["name"], destination["kind"]) == (NAME, "in-house")
    assert destination["address"] == f"127.0.0.1:{station.port}"
    gateway = psutil.Process(running.process.pid)
    ports = [each.raddr.port for each in gateway.net_connections("inet") if each.raddr]
    assert station.port not in ports


@pytest.mark.skipif(not FLUENT_BIT, reason=MISSING)
def test_a_real_collector_takes_every_record(shipping: House, station: Station, start: Start, tmp_path: Path) -> None:
    config = tmp_path / "fluent-bit.yaml"
    config.write_text(
        f"""
service: {{flush: 0.2, log_level: info}}
pipeline:
  inputs:
    - {{name: opentelemetry, listen: 127.0.0.1, port: {station.port}, successful_response_code: 200}}
  outputs:
    - {{name: file, match: "*", path: {tmp_path}, file: taken.jsonl, format: plain}}
"""
    )
    taken = tmp_path / "taken.jsonl"

    def lines() -> set[str]:
        return {json.loads(line)["log"] for line in taken.read_text().splitlines()} if taken.exists() else set()

    running = start(shipping).ready()
    ask(running, 3)
    with fluent_bit(config, tmp_path / "log.txt"):
        ask(running, 3)
        until(lambda: behind(running) == 0)
    ask(running, 3)  # while it is away
    with fluent_bit(config, tmp_path / "log.txt"):
        until(lambda: behind(running) == 0)
        until(lambda: lines() >= set(written(shipping).values()))
    assert running.stop() == 0
