"""An auditor at work: looks up what was asked, takes it along, and learns with somebody else who it was."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from appliance.core import Role
from tests.fakes import keys
from tests.fakes.house import ROOT, House, Running, until

Start = Callable[..., Running]
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "tokens=3"}], "max_tokens": 3}


@pytest.fixture
def house(house: House) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    return house


def client(running: Running, key: str) -> httpx.Client:
    return httpx.Client(base_url=running.base_url, headers={"x-api-key": key}, timeout=30)


def command(house: House, *arguments: str, status: int = 0) -> str:
    line = [sys.executable, "-m", "appliance", "audit", *arguments, "--config", str(house.config)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def listed(house: House, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command(house, "list", "--json", *arguments))["data"]
    return found


def test_by_a_requests_id_an_auditor_finds_who_asked_what_and_what_came_of_it(house: House, start: Start) -> None:
    running = start(house).ready()
    _, user = keys.make(running, user="erika", team="tax")
    _, key = keys.make(running, role=Role.AUDITOR, user="otto")
    with client(running, user) as asking:
        ids = [asking.post("/v1/chat/completions", json=CHAT).headers["x-request-id"]]
        named = {"x-request-id": "erika's own"}
        ids.append(asking.post("/v1/chat/completions", json=CHAT, headers=named).headers["x-request-id"])
        assert asking.get("/admin/audit").status_code == 403
    with client(running, key) as auditor:

        def ask(**params: Any) -> list[dict[str, Any]]:
            return auditor.get("/admin/audit", params=params).raise_for_status().json()["data"]

        for id_ in ids:
            (intent,) = ask(request=id_)
            assert (intent["body"]["model"], intent["body"]["team"]) == ("chat", "tax")
            (outcome,) = until(lambda seq=intent["seq"]: ask(intent=seq, kind="outcome"))  # type: ignore[misc]
            assert outcome["body"]["completion_tokens"] == 3
            assert ask(subject=intent["body"]["subject"], kind="intent", limit=1)
        asked = {"kind": "refusal", "code": "not_allowed", "subject": intent["body"]["subject"]}
        refusals = auditor.get("/admin/audit", params=asked)
        assert [each["body"]["status"] for each in refusals.json()["data"]] == [403]
        for word in ("erika", "otto", key, user):
            assert word not in refusals.text + auditor.get("/admin/audit").text
        reads = auditor.get("/admin/audit", params={"act": "read", "min_seq": 1, "limit": 1000}).text
        assert "erika" not in reads, "not even as somebody's request id"


def test_an_export_has_every_line_of_the_log_and_the_log_knows_of_it(house: House, start: Start) -> None:
    house.settings["audit"] = {"checkpoint_records": 7}
    running = start(house).ready()
    _, user = keys.make(running, user="erika")
    _, key = keys.make(running, role=Role.AUDITOR, user="otto")
    with client(running, user) as asking:
        for _ in range(10):
            asking.post("/v1/chat/completions", json=CHAT).raise_for_status()
    with client(running, key) as auditor:
        export = auditor.get("/admin/audit/export").raise_for_status()
        table = auditor.get("/admin/audit/export", params={"format": "csv"}).raise_for_status()
        told = auditor.get("/admin/audit/status").json()
        ended = auditor.get("/admin/audit", params={"act": "export", "order": "oldest"}).json()["data"]
    lines = export.content.splitlines()
    head = "0" * 64
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        assert (record["seq"], record["prev"]) == (number, head)
        head = hashlib.sha256(line).hexdigest()
    assert record["body"]["act"] == "export"
    done = [each["body"] for each in ended if each["body"]["phase"] == "done"]
    assert [each["sha256"] for each in done] == [hashlib.sha256(each.content).hexdigest() for each in (export, table)]
    _, *rows = csv.reader(io.StringIO(table.text, newline=""))
    assert [int(row[0]) for row in rows[: len(lines)]] == list(range(1, len(lines) + 1))
    assert told["checkpoint"]["last"] >= 20
    assert told["fingerprint"] in (house.state / "audit" / "key.pub").read_text()


def test_the_command_line_tells_the_same_and_is_on_record_whether_the_appliance_runs_or_not(
    house: House, start: Start
) -> None:
    running = start(house).ready()
    _, user = keys.make(running, user="erika")
    _, key = keys.make(running, role=Role.AUDITOR, user="otto")
    with client(running, user) as asking:
        asking.post("/v1/chat/completions", json=CHAT).raise_for_status()
    with client(running, key) as auditor:
        asked = {"kind": "intent", "order": "oldest"}
        intents = auditor.get("/admin/audit", params=asked).json()["data"]
    assert listed(house, "--kind", "intent", "--order", "oldest") == intents
    assert command(house, "holds") == "nothing is held\n"
    assert running.stop() == 0
    assert listed(house, "--kind", "intent", "--order", "oldest") == intents

    reads = listed(house, "--act", "read", "--role", "host", "--order", "oldest")
    assert [each["body"].get("filters", {}).get("kind") for each in reads[:3]] == ["intent", None, "intent"]
    assert reads[1]["body"]["what"] == "holds"
    assert {each["body"]["by"]["role"] for each in reads} == {"host"}
    line = command(house, "list", "--kind", "intent", "--limit", "1")
    assert f"subject={intents[0]['body']['subject']}" in line
    assert "sealed" not in line
    assert "no record" in command(house, "list", "--code", "nothing")
    file = house.folder / "log.jsonl"
    assert "records" in command(house, "export", "--output", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    export = file.read_bytes()
    (done,) = listed(house, "--limit", "1", "--act", "export", "--kind", "act")
    assert done["body"]["sha256"] == hashlib.sha256(export).hexdigest()
    assert done["body"]["records"] == export.count(b"\n")
    head, *_ = csv.reader(io.StringIO(command(house, "export", "--format", "csv", "--kind", "act"), newline=""))
    assert head[:3] == ["seq", "at", "kind"]
    command(house, "list", "--subject", "erika", status=2)
    assert intents[0] in listed(house, "--user", "erika"), "whoever has the key store may look for a name"
    (read,) = listed(house, "--limit", "1", "--act", "read")
    assert "erika" not in json.dumps(read)
    assert "nothing is on record" in command(house, "list", "--user", "nobody", status=2)
    command(house, "export", "--output", str(house.folder / "no" / "such"), status=1)
    assert "GENUINE" in command(house, "verify")


def test_without_a_log_the_command_line_says_so_and_makes_none(house: House) -> None:
    house.write()
    assert "there is no log" in command(house, "list", status=1)
    assert not (house.state / "audit").exists()


def test_who_it_was_two_people_learn_and_a_restart_forgets_it(house: House, start: Start) -> None:
    running = start(house).ready()
    _, user = keys.make(running, user="erika")
    _, first = keys.make(running, role=Role.SUPER_ADMIN, user="carla")
    _, second = keys.make(running, role=Role.AUDITOR, user="otto")
    with client(running, user) as asking:
        asking.post("/v1/chat/completions", json=CHAT).raise_for_status()
    with client(running, first) as carla, client(running, second) as otto:
        (intent,) = otto.get("/admin/audit", params={"kind": "intent"}).json()["data"]
        order = {"subject": intent["body"]["subject"], "reason": "file 4711, suspected leak"}
        reveal = carla.post("/admin/audit/reveals", json=order).raise_for_status().json()
        path = f"/admin/audit/reveals/{reveal['id']}"
        assert carla.post(f"{path}/approve").status_code == 403
        assert otto.post(f"{path}/approve").status_code == 200
        assert carla.get(path).json()["name"] == otto.get(path).json()["name"] == "erika"
        told = otto.get("/admin/audit", params={"subject": order["subject"], "kind": "act"})
        shown = [each["body"]["act"] for each in told.json()["data"] if each["body"]["act"].startswith("reveal.")]
        assert shown[::-1] == ["reveal.ask", "reveal.approve", "reveal.approve", "reveal.show", "reveal.show"]
        assert "erika" not in told.text
    running.stop()
    again = start(house).ready()
    with client(again, first) as carla:
        assert carla.get(path).status_code == 404
        assert carla.get("/admin/audit/reveals").json()["data"] == []
    log = (house.state / "logs").rglob("*")
    assert not [file for file in log if file.is_file() and b"erika" in file.read_bytes()]


def test_whoever_looks_first_waits_for_nothing_to_be_loaded(house: House, start: Start) -> None:
    """What is loaded while requests are answered holds all of them up."""
    running = start(house, environment={"PYTHONPROFILEIMPORTTIME": "1"}).ready()
    running.printed("✓ ready")
    _, key = keys.make(running, role=Role.AUDITOR, user="otto")
    before = running.output.read_text()
    assert "import time:" in before
    with client(running, key) as auditor:
        for path in ("", "/export", "/export?format=csv&from=2026-01-01", "/status", "/reveals"):
            auditor.get(f"/admin/audit{path}").raise_for_status()
    assert "import time:" not in running.output.read_text()[len(before) :]


def test_closed_segments_are_searched_too(house: House, start: Start) -> None:
    house.settings["audit"] = {"segment_mib": 1}
    running = start(house).ready()
    _, user = keys.make(running, user="erika")
    _, key = keys.make(running, role=Role.AUDITOR, user="otto")
    with client(running, user) as asking:
        first = asking.post("/v1/chat/completions", json=CHAT).headers["x-request-id"]

        def closed() -> bool:
            for _ in range(200):  # each is a record of a few hundred bytes
                assert asking.get("/admin/audit").status_code == 403
            return any((house.state / "audit").glob("*.jsonl.gz"))

        until(closed)
    with client(running, key) as auditor:
        asked: dict[str, Any] = {"request": first}
        while True:
            page = auditor.get("/admin/audit", params=asked).raise_for_status().json()
            if page["data"] or not page["has_more"]:
                break
            asked["after"] = page["next"]
    assert [record["body"]["request"] for record in page["data"]] == [first]
