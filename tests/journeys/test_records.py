"""What stands in the audit log of what was asked: before it is answered, and after, and nothing that it says."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.audit.subjects import Subjects
from appliance.audit.verifier import verify
from tests.fakes.house import House, Running, until

Start = Callable[..., Running]
CHAT = "/v1/chat/completions"
SECRET = "Erika Mustermann, Lohnsteuerklasse 3"


def records(house: House, *kinds: str) -> list[dict[str, Any]]:
    """What stands in the open segment of the log, in order."""
    lines = sorted((house.state / "audit").glob("*.jsonl"))[0].read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith('{"at"')]
    return [record for record in found if not kinds or record["kind"] in kinds]


def pairs(house: House) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Intents with their outcomes."""
    ends = {record["body"]["intent"]: record["body"] for record in records(house, "outcome")}
    return [(each["body"], ends[each["seq"]]) for each in records(house, "intent") if each["seq"] in ends]


def chat(prompt: str, **more: object) -> dict[str, object]:
    return {"model": "chat", "messages": [{"role": "user", "content": prompt}], "max_tokens": 30, **more}


@pytest.fixture
def house(house: House) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.write(accounts={
        "use_cases": {"mail": {"purpose": "sorting of mail"}, "review": {"store_content": True}},
        "prices": {"models": {"chat": {"prompt_euros_per_million": 1, "completion_euros_per_million": 2}}},
    })  # fmt: skip
    return house


def test_who_asked_what_model_is_on_record_and_what_came_of_it_and_nothing_that_was_said(
    house: House, start: Start
) -> None:
    key = house.keys("create", "--user", "Erika", "--team", "tax", "--use-case", "mail")["key"]
    nobody = house.keys("create", "--team", "tax")
    running = start(house).ready()
    with running.client() as client:
        client.headers["authorization"] = f"Bearer {key}"
        for stream in (False, True):
            answer = client.post(CHAT, json=chat(SECRET, stream=stream), headers={"x-use-case": "mail"})
            assert answer.status_code == 200
        message = {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": SECRET}]}
        assert client.post("/v1/messages", json=message).status_code == 200
        client.headers["authorization"] = f"Bearer {nobody['key']}"
        assert client.post("/v1/completions", json={"model": "chat", "prompt": SECRET}).status_code == 200
    (first, whole), (second, streamed), (third, _), (fourth, _) = until(
        lambda: len(found := pairs(house)) == 4 and found
    )
    assert first["operation"] == "chat"
    assert (first["use_case"], first["purpose"], first["team"], first["role"]) == (
        "mail",
        "sorting of mail",
        "tax",
        "user",
    )
    assert (first["route"], first["model"], first["class"], first["stream"]) == ("local", "chat", "internal", False)
    assert first["request"] == answer_id(first)
    assert first["subject"] == second["subject"] == third["subject"] != fourth["subject"]
    assert (whole["outcome"], whole["status"], whole["finish"]) == ("answered", 200, "length") or whole[
        "finish"
    ] == "stop"
    assert whole["prompt_tokens"] > 0
    assert whole["nanoeuros"] == whole["prompt_tokens"] * 1000 + whole["completion_tokens"] * 2000
    assert streamed["first_token_ms"] <= streamed["total_ms"]
    assert "key" not in first, "whose it is shows only sealed"
    assert fourth["key"] == nobody["id"]
    running.stop()
    text = b"".join(file.read_bytes() for file in (house.state / "audit").iterdir() if file.is_file())
    assert b"Erika" not in text
    assert b"Lohnsteuer" not in text
    assert verify(house.state / "audit").genuine


def answer_id(body: dict[str, Any]) -> str:
    assert body["request"].startswith("req_")
    return str(body["request"])


def test_what_was_refused_is_on_record_of_strangers_only_how_many(house: House, start: Start) -> None:
    key = house.keys("create", "--user", "anna")["key"]
    running = start(house).ready()
    with httpx.Client(base_url=running.base_url, headers={"x-api-key": key}) as client:
        assert client.post(CHAT, json=chat("hello") | {"model": "none"}).status_code == 404
        assert client.get("/admin/keys").status_code == 403
        for _ in range(3):
            assert client.post(CHAT, json=chat("hello"), headers={"x-api-key": "sk-appliance-wrong"}).status_code == 401
    running.stop()
    refused = [each["body"] for each in records(house, "refusal")]
    assert [(each["status"], each["code"]) for each in refused] == [(404, "model_not_found"), (403, "not_allowed")]
    assert all(each["subject"].startswith("p_") for each in refused)
    (strangers,) = records(house, "strangers")
    assert strangers["body"]["counts"]["invalid_api_key"] == 3


def test_content_is_kept_encrypted_and_only_for_use_cases_that_store_it(house: House, start: Start) -> None:
    key = house.keys("create", "--user", "anna", "--use-case", "review", "--use-case", "mail")["key"]
    running = start(house).ready()
    with httpx.Client(base_url=running.base_url, headers={"x-api-key": key}) as client:
        for use_case in ("mail", "review"):
            for stream in (False, True):
                sent = client.post(CHAT, json=chat(SECRET, stream=stream), headers={"x-use-case": use_case})
                assert sent.status_code == 200
    running.stop()
    stored = [each["body"] for each in records(house, "content")]
    review = {each["seq"] for each in records(house, "intent") if each["body"]["use_case"] == "review"}
    assert [each["part"] for each in stored] == ["asked", "answered"] * 2
    assert {each["intent"] for each in stored} == review
    subjects = Subjects.open(house.state / "audit-keys")
    try:
        anna = subjects.known("anna")
        assert anna is not None
        asked, answered, _, streamed = (anna.open(each["sealed"]) for each in stored)
    finally:
        subjects.close()
    assert SECRET.encode() in asked
    assert json.loads(answered)["choices"]
    assert streamed.startswith(b"data: ")


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as full:
        while full.write(bytes(4096)):
            pass


def test_nothing_runs_that_cannot_be_put_on_record_and_it_goes_on_by_itself(house: House, start: Start) -> None:
    """On a real disk that is full: a small one, on which only the audit log lies."""
    folder = house.state / "audit"
    house.write(audit={"checkpoint_seconds": 0.2})
    start(house).ready().stop()
    shutil.rmtree(house.state / "audit-keys")  # else the empty disk would be a log that was taken away
    mount = f"mount -t tmpfs -o size=512k,mode=0700,uid={os.getuid()} audit {folder}"
    running = start(
        house,
        under=[
            "unshare",
            *([] if os.geteuid() == 0 else ["--map-root-user"]),
            "--mount",
            "sh",
            "-c",
            f'{mount} && exec "$@"',
            "sh",
        ],
    ).ready()
    inside = Path(f"/proc/{running.process.pid}/root{folder}")
    with running.client() as client:
        assert client.post(CHAT, json=chat("one")).status_code == 200
        filler = inside / "filler"
        fill(filler)
        # a page of the segment may have room yet
        refused = until(lambda: (answer := client.post(CHAT, json=chat("two"))).status_code != 200 and answer)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "audit_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/metrics").text.count("appliance_audit_well 0.0") == 1
        assert running.status()["audit"]["well"] == 0
        heard = len(house.heard())
        for _ in range(5):
            assert client.post(CHAT, json=chat("three")).status_code == 503
        assert len(house.heard()) == heard, "no engine hears of what isn't on record"
        filler.unlink()
        until(lambda: client.post(CHAT, json=chat("four")).status_code == 200)
        assert running.status()["audit"]["well"] == 1
    assert until(lambda: verify(inside).genuine and not verify(inside).unsigned)
    told = [json.loads(line) for line in sorted(inside.glob("*.jsonl"))[0].read_text().splitlines()]
    (incident,) = [each["body"] for each in told if each["kind"] == "incident"]
    assert incident["incident"] == "audit_unwritable"
    assert incident["refused"] >= 6
