"""`appliance egress verify` on running appliances: sound ones, and ones with a violation built in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from appliance.seal import probes
from tests.egress import sabotage
from tests.fakes import guards
from tests.fakes.endpoint import endpoint
from tests.fakes.house import House, Running, until

ROOT = Path(__file__).parents[2]
Start = Callable[..., Running]
ASK = {"messages": [{"role": "user", "content": "hello"}]}
FOUND_BY = {
    "a thread without the seal": "threads",
    "an extra socket": "sockets",
    "a connection elsewhere": "sockets",
    "a process beside the seal": "threads",
    "a process whose parent has ended": "threads",
    "an engine that is called the gateway": "trouble",
    "no filter on system calls": "threads",
    "no landlock": "probes",
    "a host daemon's socket": "host_sockets",
    "an engine's filter without rules": "probes",
    "an engine in the host's network": "namespaces",
    "an engine with capabilities": "threads",
    "an engine with a socket from outside": "sockets",
    "a host daemon's socket in an engine": "host_sockets",
}


def command(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "appliance", *arguments, "--config", str(house.config)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def verify(house: House) -> tuple[int, dict[str, Any]]:
    done = command(house, "egress", "verify", "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def furnish(house: House) -> None:
    house.card("tiny")
    house.card("small", task="embedding")
    house.serve("chat", "tiny")
    house.serve("vectors", "small")


def failed(report: dict[str, Any]) -> dict[str, list[str]]:
    return {check["name"]: check["violations"] for check in report["checks"] if not check["holds"]}


def test_on_a_sound_appliance_everything_holds_and_the_report_shows_it(house: House, start: Start) -> None:
    furnish(house)
    running = start(house).ready("chat").ready("vectors")
    status, report = verify(house)
    assert failed(report) == {}
    assert (status, report["holds"]) == (0, True)
    tried = {(probe["place"], probe["attempt"]) for probe in report["findings"]["probes"]}
    assert {place for place, _ in tried} == {"gateway", "engine chat", "engine vectors"}
    assert {attempt for place, attempt in tried if place == "gateway"} >= probes.SENDING
    assert {attempt for place, attempt in tried if place == "engine chat"} >= probes.SENDING - set(probes.REUSES)
    assert not any(probe["arrived"] for probe in report["findings"]["probes"])
    reached = {probe["attempt"] for probe in report["findings"]["probes"] if probe["control_arrived"]}
    assert reached >= probes.SENDING
    pids = {process.pid for process in running.family()}
    assert pids <= {process["pid"] for process in report["findings"]["processes"]}
    assert running.status()["egress"]["verify"]["last"]["holds"] is True
    with running.client() as client:
        assert "appliance_egress_holds 1.0" in client.get("/metrics").text


def test_reports_follow_each_other_and_can_be_read_printed_and_checked(house: House, start: Start) -> None:
    furnish(house)
    start(house).ready("chat")
    _, first = verify(house)
    page = house.folder / "report.html"
    second = command(house, "egress", "verify", "--html", str(page))
    assert second.returncode == 0, second.stdout + second.stderr
    assert "<html" in page.read_text()
    shown = json.loads(command(house, "egress", "report", "--json").stdout)
    assert shown["number"] == first["number"] + 1
    assert json.loads(command(house, "egress", "report", "1", "--json").stdout)["number"] == 1
    assert command(house, "egress", "check").returncode == 0
    (file,) = (house.state / "egress" / "reports").glob("*1.json")
    assert command(house, "egress", "check", str(file)).returncode == 0
    file.write_bytes(file.read_bytes().replace(b'"holds":true', b'"holds":false', 1))
    broken = command(house, "egress", "check")
    assert broken.returncode == 1
    assert "1" in broken.stdout
    status, third = verify(house)
    assert status == 1
    assert "ledger" in failed(third)


def test_the_way_out_is_probed_too_and_where_it_leads_is_listed(house: House, start: Start) -> None:
    with endpoint() as far:
        house.settings["models"]["far"] = {"endpoint": far.url}
        running = start(house)
        with running.client() as client:
            assert client.post("/v1/chat/completions", json=ASK | {"model": "far"}).status_code == 200
        status, report = verify(house)
        assert failed(report) == {}
        assert status == 0
        (destination,) = report["findings"]["destinations"]
        assert (destination["name"], destination["address"]) == ("far", f"127.0.0.1:{far.server_port}")
        assert destination["resolved"] == ["127.0.0.1"]
        tried = {probe["attempt"] for probe in report["findings"]["probes"] if probe["place"] == "outlet"}
        assert tried >= probes.SENDING
        does = {process["place"]: process["role"] for process in report["findings"]["processes"]}
        assert does == {"gateway": "gateway", "nursery": "trusted", "outlet": "outlet", "dialler": "trusted"}
        assert len(far.heard) == 1


def test_the_gate_is_probed_too_and_each_of_its_processes_is_accounted_for(house: House, start: Start) -> None:
    furnish(house)
    model = {"model": "m", "context_length": 4096, "prompt_euros_per_million": 0, "completion_euros_per_million": 0}
    agreed = {"region": "eu", "agreement": "AVV 1"}
    house.settings["egress"] |= {
        "mode": "anonymized",
        "euros_per_day": 1,
        "providers": {"far": {"url": "https://far.example.com/v1", "models": {"chat": model}, **agreed}},
    }
    rule = {"data_class": "personal", "may": "pseudonymise", "purpose": "tests", "regions": ["eu"]}
    house.settings["privacy"] = {"policy": [rule | {"agreement": "AVV 1"}], "detectors": {"processes": 2}}
    running = start(house, instead=guards.instead(house)).ready("chat").ready("vectors")
    status, report = verify(house)
    assert failed(report) == {}
    assert status == 0
    tried = {probe["attempt"] for probe in report["findings"]["probes"] if probe["place"] == "gate"}
    assert tried >= probes.SENDING
    of_gate = [process for process in report["findings"]["processes"] if process["place"] == "gate"]
    template = min(of_gate, key=lambda process: process["started"])
    assert [process["role"] for process in of_gate] == ["gate"] * 4
    assert {process["parent"] for process in of_gate} == {running.process.pid, template["pid"]}
    # one that was killed and forked anew is one of them, too
    detector = max(of_gate, key=lambda process: (process["started"], process["pid"]))
    os.kill(detector["pid"], signal.SIGKILL)
    until(
        lambda: len([each for each in psutil.Process(template["pid"]).children() if each.pid != detector["pid"]]) == 3
    )
    assert failed(verify(house)[1]) == {}


def test_nobody_to_verify_is_said_so(house: House) -> None:
    furnish(house)
    house.write()
    done = command(house, "egress", "verify")
    assert done.returncode == 3
    assert "no appliance runs" in done.stderr


@pytest.fixture
def daemon() -> Iterator[None]:
    """Somebody else's service on this host."""
    sabotage.DAEMON.parent.mkdir()
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(sabotage.DAEMON))
            listener.listen()
            yield
    finally:
        shutil.rmtree(sabotage.DAEMON.parent)


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("violation", FOUND_BY)
def test_a_violation_is_found(house: House, violation: str) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.write()
    line = [sys.executable, "-m", "tests.egress.sabotage", violation, "serve", "--config", str(house.config)]
    running = Running(house, instead=line)
    try:
        running.ready()
        status, report = verify(house)
        assert status == 1
        assert FOUND_BY[violation] in failed(report), failed(report)
    finally:
        running.stop()


def test_every_violation_is_expected_to_be_found() -> None:
    assert FOUND_BY.keys() == sabotage.IN_THE_GATEWAY.keys() | sabotage.IN_KEEPERS.keys()
    assert len(FOUND_BY) >= 10
