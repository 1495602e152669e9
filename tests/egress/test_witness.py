"""The witness: verifies by itself, and what follows when it can't, or is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.fakes.house import House, Running, over, until

Start = Callable[..., Running]
PATH = "/v1/chat/completions"
ASK = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
INTRUDER = """
import os, sys
for kind in ("user", "net"):
    try:
        os_setns = __import__("ctypes").CDLL(None, use_errno=True).setns
        os_setns(os.open(f"/proc/{sys.argv[1]}/ns/{kind}", os.O_RDONLY), 0)
    except OSError:
        pass
print("in", flush=True)
sys.stdin.read()
"""


def furnish(house: House, on_failure: str) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["egress"] = {"mode": "deny", "verify": {"every_seconds": 0.5, "on_failure": on_failure}}


@contextmanager
def intruder(running: Running) -> Iterator[None]:
    """A process of somebody else's that has entered an engine's network."""
    engine = str(running.engine_pids()[0])
    with subprocess.Popen(
        [sys.executable, "-c", INTRUDER, engine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "in\n"
        yield
        process.kill()


def holds(running: Running) -> bool | None:
    last = running.status()["egress"]["verify"]["last"]
    return None if last is None else bool(last["holds"])


def witness(running: Running) -> psutil.Process:
    found = [each for each, line in running.commands().items() if "appliance.witness" in line]
    return next(each for each in found if each.ppid() == running.process.pid)


def test_it_proves_the_seal_again_and_again(house: House, start: Start) -> None:
    furnish(house, "alert")
    running = start(house).ready()
    until(lambda: holds(running) and running.status()["egress"]["verify"]["last"]["number"] >= 3)


def test_a_failure_is_an_alert_and_serving_goes_on(house: House, start: Start) -> None:
    furnish(house, "alert")
    running = start(house).ready()
    until(lambda: holds(running))
    with intruder(running), running.client() as client:
        until(lambda: holds(running) is False)
        assert "appliance_egress_holds 0.0" in client.get("/metrics").text
        assert client.post(PATH, json=ASK).status_code == 200
        assert "THE SEAL IS NOT PROVEN: processes" in (house.state / "logs" / "appliance.log").read_text()


def test_if_the_config_says_so_a_failure_stops_serving_until_it_holds_again(house: House, start: Start) -> None:
    furnish(house, "stop")
    running = start(house).ready()
    until(lambda: holds(running))
    with running.client() as client:
        assert client.post(PATH, json=ASK).status_code == 200
        with intruder(running):
            until(lambda: holds(running) is False)
            refused = client.post(PATH, json=ASK)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "egress_not_proven")
            assert refused.headers["retry-after"] == "60"
            assert "processes" in refused.json()["error"]["message"]
            assert client.get("/health/ready").status_code == 503
            assert client.get("/health/live").status_code == 200
        until(lambda: holds(running))
        assert client.post(PATH, json=ASK).status_code == 200
        assert client.get("/health/ready").status_code == 200


def test_a_proof_that_is_overdue_is_none(house: House, start: Start) -> None:
    furnish(house, "stop")
    running = start(house).ready()
    until(lambda: holds(running))
    watching = witness(running)
    with running.client() as client:
        for process in [watching, *watching.children(recursive=True)]:
            process.suspend()
        until(lambda: client.post(PATH, json=ASK).status_code == 503)
        assert running.status()["egress"]["verify"]["overdue"] is True
        assert "appliance_egress_holds 0.0" in client.get("/metrics").text
        watching.resume()
        for process in watching.children(recursive=True):
            process.resume()
        until(lambda: client.post(PATH, json=ASK).status_code == 200)


def test_a_verification_that_can_not_be_finished_counts_as_failed(house: House, start: Start) -> None:
    furnish(house, "stop")
    running = start(house).ready()
    until(lambda: holds(running))
    (house.state / "egress" / "started.json").write_text("{")
    until(lambda: holds(running) is False)
    assert "verification" in running.status()["egress"]["verify"]["last"]["failed"][0]


def test_a_chain_that_is_taken_away_while_it_runs_counts_as_failed_from_then_on(house: House, start: Start) -> None:
    furnish(house, "stop")
    running = start(house).ready()
    egress = house.state / "egress"
    until(lambda: holds(running) and (running.status()["egress"]["verify"]["last"]["number"] >= 2))
    for name in ("ledger.jsonl", "head.json", "reports"):
        (egress / name).rename(house.folder / name)
    until(lambda: running.status()["egress"]["verify"]["last"]["failed"] == ["ledger"])
    until(lambda: len((egress / "ledger.jsonl").read_bytes().splitlines()) >= 3)
    first, *_, last = map(json.loads, (egress / "ledger.jsonl").read_bytes().splitlines())
    assert (first["number"], first["holds"], last["holds"]) == (1, False, False)
    assert running.status()["egress"]["verify"]["refuses"] == "failed (ledger)"


def test_an_appliance_that_lost_its_witness_ends(house: House, start: Start) -> None:
    furnish(house, "alert")
    running = start(house).ready()
    witness(running).send_signal(signal.SIGKILL)
    assert running.process.wait(30) == 1
    assert "the process that proves the seal has ended" in running.printed("proves the seal")


def test_the_witness_ends_with_the_appliance_however_that_ends(house: House, start: Start) -> None:
    furnish(house, "alert")
    running = start(house).ready()
    watching = witness(running)
    os.kill(running.process.pid, signal.SIGKILL)
    until(lambda: over(watching))
    assert Path(house.state / "egress").stat().st_mode & 0o777 == 0o700
