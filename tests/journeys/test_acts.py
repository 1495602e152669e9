"""What administrators do to an appliance, and what goes wrong with it, stands in its log."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from appliance import __version__, acts, config, control
from appliance.__main__ import main
from appliance.audit.subjects import Subjects
from appliance.audit.verifier import verify
from appliance.weights.card import load_card
from appliance.weights.manifest import vouch
from tests.fakes.house import ROOT, House, Running, until

Start = Callable[..., Running]


def records(house: House, kind: str) -> list[dict[str, Any]]:
    """The bodies of all records of that kind, in order, and under `seq` their numbers."""
    files = [file for file in (house.state / "audit").iterdir() if file.name[0].isdigit() and ".jsonl" in file.name]
    lines: list[bytes] = []
    for file in sorted(files):
        content = file.read_bytes()
        lines += (gzip.decompress(content) if file.suffix == ".gz" else content).splitlines()
    found = [json.loads(line) for line in lines]
    return [{**each["body"], "seq": each["seq"]} for each in found if each["kind"] == kind]


def acts_of(house: House, *names: str) -> list[dict[str, Any]]:
    return [act for act in records(house, "act") if act["act"] in names]


@pytest.fixture
def house(house: House) -> House:
    house.card("one")
    house.card("two")
    house.card("crash", faults={"start": "crash"})
    house.serve("chat", "one")
    return house


def pseudonym(house: House, name: str) -> str:
    """Of whom an appliance knew that has ended."""
    with contextlib.closing(Subjects.open(house.state / "audit-keys")) as subjects:
        known = subjects.known(name)
    assert known is not None, name
    return known.pseudonym


def test_keys_made_from_afar_and_on_the_host_are_on_record_with_who_and_for_whom(house: House, start: Start) -> None:
    house.write()
    admin = house.keys("create", "--user", "Boss", "--role", "admin")
    running = start(house).ready()
    with httpx.Client(base_url=running.base_url, headers={"x-api-key": admin["key"]}) as client:
        made = client.post("/admin/keys", json={"user": "Anna", "team": "sales", "use_cases": []}).json()
        assert client.post(f"/admin/keys/{made['id']}/rotate", json={"overlap_hours": 2}).status_code == 200
        assert client.post(f"/admin/keys/{made['id']}/revoke").status_code == 200
        assert client.post("/admin/keys", json={"role": "admin"}).status_code == 403
        assert client.post("/admin/keys/key_00/revoke").status_code == 404
    tool = house.keys("create", "--name", "a tool")
    house.keys("revoke", tool["id"])
    assert running.stop() == 0
    boss, anna, host = (pseudonym(house, name) for name in ("Boss", "Anna", acts.Actor.host().name))
    told = acts_of(house, "keys.create", "keys.rotate", "keys.revoke")
    shown = [(act["act"], act["phase"], act.get("by", {}).get("subject")) for act in told]
    assert shown == [
        ("keys.create", "intent", host), ("keys.create", "done", None),
        ("keys.create", "intent", boss), ("keys.create", "done", None),
        ("keys.rotate", "intent", boss), ("keys.rotate", "done", None),
        ("keys.revoke", "intent", boss), ("keys.revoke", "done", None),
        ("keys.create", "intent", boss), ("keys.create", "failed", None),
        ("keys.create", "intent", host), ("keys.create", "done", None),
        ("keys.revoke", "intent", host), ("keys.revoke", "done", None),
    ]  # fmt: skip
    assert {act["target"]["subject"] for act in told[2:8] if "target" in act} == {anna}
    assert (told[4]["overlap_seconds"], told[4]["team"]) == (7200, "sales")
    assert told[9]["error"] == "Forbidden"
    assert [act.get("key") for act in told[10:]] == [None, tool["id"], tool["id"], None]
    for act, before in zip(told[1::2], told[::2], strict=True):
        assert act["of"] == before["seq"]
    log = b"".join(file.read_bytes() for file in (house.state / "audit").glob("0*.jsonl"))
    for hidden in ("Anna", "Boss", made["id"], made["key"], admin["id"]):
        assert hidden.encode() not in log
    assert verify(house.state / "audit").genuine


def test_while_the_appliance_hangs_no_key_is_made_on_its_host(
    house: House, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = start(house).ready()
    before = until(lambda: house.keys("list"))
    # the first key is on record, its end a moment later
    until(lambda: [act["phase"] for act in acts_of(house, "keys.create")] == ["intent", "done"])
    monkeypatch.setattr(acts, "_PATIENCE", 0.3)
    running.process.send_signal(signal.SIGSTOP)
    try:
        assert main(["keys", "create", "--config", str(house.config)]) == 1
    finally:
        running.process.send_signal(signal.SIGCONT)
    assert "nothing was done" in capsys.readouterr().err
    assert house.keys("list") == before


def fingerprint(house: House, card: str) -> str:
    folder = house.folder / "models" / card
    return vouch(folder / "weights", load_card(folder))


def test_another_config_is_on_record_with_what_changed_and_whoever_wanted_it(house: House, start: Start) -> None:
    house.write(accounts={"users": {"Anna": {"tokens_per_day": 77}}})
    running = start(house).ready()
    old = config.load(house.config).version
    house.serve("chat", "two")
    house.settings["accounts"]["users"]["Anna"]["tokens_per_day"] = 99
    house.write(limits={"choices": 3})
    line = [sys.executable, "-m", "appliance", "apply", "--config", str(house.config)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True, timeout=60)
    house.serve("chat", "crash")
    house.write()
    assert "error" in running.apply()
    house.serve("chat", "two")
    house.write(limits={"choices": 4})
    running.process.send_signal(signal.SIGHUP)
    until(lambda: [act["phase"] for act in acts_of(house, "config.apply")][-1:] == ["done"])
    assert running.stop() == 0
    begun, done, again, failed, hung_up, _ = acts_of(house, "config.apply")
    assert begun["sections"] == ["accounts", "limits", "models"]
    assert begun["by"]["subject"] == pseudonym(house, acts.Actor.host().name)
    assert {"-    card: one", "+    card: two"} <= set(begun["diff"].splitlines())
    assert re.findall("([+-]) {4}person-without-pseudonym-1: hidden-", begun["diff"]) == ["-", "+"]
    assert begun["policy"] != old
    assert done["changes"] == ["chat: now answered by two", "limits: taken over", "accounts: taken over"]
    one, two = ({"card": card, "weights": fingerprint(house, card)} for card in ("one", "two"))
    assert done["swaps"] == [{"model": "chat", "old": one, "new": two}]
    assert (again["sections"], failed["phase"], failed["error"]) == (["models"], "failed", "EngineFailed")
    assert hung_up["sections"] == ["limits"], "what failed never was in effect"
    assert hung_up["by"] == {"role": "host"}
    assert "Anna" not in "".join(file.read_text() for file in (house.state / "audit").glob("0*.jsonl"))
    applied = (house.state / "audit-work" / "applied.yaml").read_text()
    assert "Anna" not in applied
    with contextlib.closing(Subjects.open(house.state / "audit-keys")) as subjects:
        assert subjects.known("Anna") is None, "whoever only stands in the config may have been erased"


def test_each_run_is_on_record_with_what_it_runs_on_and_what_changed_since_the_last(house: House, start: Start) -> None:
    running = start(house).ready()
    policy = config.load(house.config).version
    assert running.stop() == 0
    house.write(queue={"headroom": 0.2})
    second = start(house).ready()
    second.process.kill()
    second.process.wait()
    third = start(house).ready()
    assert third.stop() == 0
    told = [(act["act"], act.get("sections")) for act in acts_of(house, "start", "stop")]
    everything = sorted(house.settings.keys() - {"queue"})
    assert told == [("start", everything), ("stop", None), ("start", ["queue"]), ("start", []), ("stop", None)]
    first, stop, *_ = acts_of(house, "start", "stop")
    assert (first["version"], first["policy"], first["mode"]) == (__version__, policy, "deny")
    assert first["models"] == {"chat": {"card": "one", "weights": fingerprint(house, "one")}}
    assert "seccomp" in first["seal"]
    assert first["works_council"] is True
    assert stop["asked"] is True


def test_an_engine_that_dies_is_an_incident_until_it_answers_again(house: House, start: Start) -> None:
    running = start(house).ready()
    prompt = "Frau Mustermann fault=die"
    with running.client() as client:
        client.post("/v1/chat/completions", json={"model": "chat", "messages": [{"role": "user", "content": prompt}]})

    def incidents() -> list[dict[str, Any]]:
        return [each for each in records(house, "incident") if each["incident"] == "engine_down"]

    until(lambda: incidents() and incidents()[-1]["phase"] == "end")
    assert {each["model"] for each in incidents()} == {"chat"}
    assert "Mustermann" not in json.dumps(incidents())
    assert running.stop() == 0


def test_a_store_that_cant_be_written_is_an_incident(house: House, start: Start) -> None:
    running = start(house).ready()
    with running.client() as client:
        body = {"model": "chat", "messages": [{"role": "user", "content": "tokens=1"}]}
        with locked(house):
            until(lambda: client.post("/v1/chat/completions", json=body).status_code == 503)
            until(lambda: begun(house) == ["begin"])
        until(lambda: client.post("/v1/chat/completions", json=body).status_code == 200)
        until(lambda: begun(house) == ["begin", "end"])
    assert running.stop() == 0


def begun(house: House) -> list[str]:
    return [each["phase"] for each in records(house, "incident") if each["incident"] == "books_unavailable"]


@contextlib.contextmanager
def locked(house: House) -> Iterator[None]:
    """Hold the store as another program might: nothing can be written to it."""
    store = sqlite3.connect(house.state / "accounts.db", isolation_level=None)
    store.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        store.rollback()
        store.close()


def test_what_a_verification_of_the_seal_came_to_is_on_record_when_it_changes(house: House, start: Start) -> None:
    running = start(house).ready()

    def verdict(number: int, *failed: str) -> None:
        told = {"number": number, "time": "2026-11-22T00:00:00Z", "timestamp": 1.0, "holds": not failed,
                "failed": list(failed), "sha256": "0" * 64}  # fmt: skip
        list(control.ask(house.state, "POST", "/egress/verdict", told))

    for number, failed in enumerate([(), (), ("canary",), ("canary",), ()], 1):
        verdict(number, *failed)
    until(lambda: len(acts_of(house, "egress.verdict")) == 3)
    shown = [(act["report"], act["holds"], act["failed"]) for act in acts_of(house, "egress.verdict")]
    assert shown == [(1, True, []), (3, False, ["canary"]), (5, True, [])]
    verdict(6, "canary")
    until(lambda: [each["why"] for each in records(house, "incident") if each["incident"] == "seal_not_proven"])
    assert running.stop() == 0
