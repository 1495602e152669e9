"""No log, metric or error ever holds a prompt, an answer or a key; and what is on disk is private."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from typing import Any

import httpx

from appliance.audit.subjects import hidden
from tests.fakes.house import House, Running, until

PROMPT, ANSWER, STRANGER, NAME = (
    "canary-prompt-7f3a",
    "canaryanswer9b2c",
    "sk-canary-stranger-5d1e",
    "canary-field-8e4b",
)


def bad_and_good(client: httpx.Client, stranger: httpx.Client) -> None:
    """Requests of every kind, with a canary wherever a caller can write."""
    said = f"{PROMPT} say={ANSWER}"
    message = {"role": "user", "content": said}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {"messages": [message]}),
        ("/v1/completions", {"prompt": said}),
        ("/v1/responses", {"input": said, "instructions": PROMPT}),
        ("/v1/messages", {"messages": [message], "max_tokens": 9, "system": PROMPT}),
        ("/v1/embeddings", {"model": "vectors", "input": PROMPT}),
        ("/v1/rerank", {"model": "vectors", "query": PROMPT, "documents": [PROMPT]}),
        ("/v1/score", {"model": "vectors", "text_1": PROMPT, "text_2": PROMPT}),
    ]
    for path, body in bodies:
        right = {"model": "chat", **body}
        for change in (
            {}, {"stream": True}, {NAME: PROMPT}, {"temperature": PROMPT}, {"model": PROMPT}, {"user": PROMPT},
            {"messages": PROMPT}, {"stop": [PROMPT] * 99}, {"tools": [{"type": PROMPT}]}, {"n": PROMPT},
        ):  # fmt: skip
            client.post(path, json=right | change, headers={"x-request-id": "a-plain-id"})
        stranger.post(path, json=right)
        for fault in ("error", "cut", "broken", "busy", "html", "not_json", "bad_chunk", "unfinished"):
            faulty = json.loads(json.dumps(right).replace(PROMPT, f"{PROMPT} gap=0.01 tokens=4 fault={fault}"))
            client.post(path, json=faulty)
            client.post(path, json=faulty | {"stream": True})
        client.post(path, content=json.dumps(right)[:-1])
        client.post(path, content=json.dumps(right).encode() + b"\xff")
        client.post(f"{path}/{PROMPT}", json=right)
        client.get(path, params={"q": PROMPT})
    client.get(f"/v1/models/{PROMPT}")
    client.get("/v1/models", headers={"x-request-id": PROMPT + " " + STRANGER, "user-agent": PROMPT})


def administered(running: Running, admin: str, known: dict[str, Any]) -> list[str]:
    """Do with keys from afar what can be done, right and wrong; the keys that this showed."""
    with httpx.Client(base_url=running.base_url, headers={"x-api-key": admin}) as client:
        made = client.post("/admin/keys", json={"name": "from afar"}).json()
        rotated = client.post(f"/admin/keys/{known['id']}/rotate", json={"overlap_hours": 1}).json()
        client.post("/admin/keys", json={"name": STRANGER, NAME: made["key"]})
        client.post("/admin/keys", json={"expires": PROMPT})
        client.post(f"/admin/keys/{made['key']}/revoke")
        client.post(f"/admin/keys/{made['id']}/revoke")
        client.get("/admin/keys", params={"user": STRANGER, NAME: PROMPT})
    for headers in (
        {"x-api-key": made["key"]},
        {"x-api-key": made["key"], "authorization": f"Bearer {admin}"},
        {"x-api-key": rotated["key"], "x-use-case": PROMPT},
        {"authorization": f"Bearer {admin}.{STRANGER}.x"},
    ):
        httpx.post(f"{running.base_url}/v1/chat/completions", headers=headers, json={"model": "chat", "messages": []})
    return [made["key"], rotated["key"]]


def test_canaries_in_prompts_answers_and_keys_are_found_nowhere(house: House, start: Callable[..., Running]) -> None:
    house.card("tiny", context_length=4096)
    house.card("small", task="embedding")
    house.serve("chat", "tiny")
    house.serve("vectors", "small")
    running = start(house).ready("chat").ready("vectors")
    first_key = until(lambda: [word for word in running.output.read_text().split() if word.startswith("sk-")])[0]
    made = house.keys("create", "--user", "anna")
    rotated = house.keys("rotate", made["id"])
    admin = house.keys("create", "--role", "admin")
    secrets = [PROMPT, ANSWER, STRANGER, NAME, running.key, made["key"], rotated["key"], admin["key"]]
    stranger = httpx.Client(base_url=running.base_url, headers={"authorization": f"Bearer {STRANGER}"})
    with running.client() as client, stranger:
        bad_and_good(client, stranger)
        assert any(PROMPT in str(note) for note in house.heard()), "the canary has to be able to sing"
        secrets += administered(running, admin["key"], made)
        metrics = client.get("/metrics").text
        client.post(
            "/v1/chat/completions", json={"model": "chat", "messages": [{"role": "user", "content": "fault=die"}]}
        )
    status = json.dumps(running.status())
    assert running.stop() == 0
    written = {
        str(file.relative_to(house.state)): file.read_bytes().decode(errors="replace")
        for file in house.state.rglob("*")
        if file.is_file() and "cache" not in file.relative_to(house.state).parts
    }
    assert {"logs/appliance.log", "logs/requests.log", "accounts.db"} <= set(written)
    pepper = (house.state / "pepper").read_bytes()
    secrets += [pepper.hex(), repr(pepper)[2:-1]]
    written |= {"metrics": metrics, "status": status, "output": running.output.read_text()}
    assert len(written["logs/requests.log"].splitlines()) > 100
    for place, text in written.items():
        for secret in secrets:
            assert secret not in text, f"{secret} in {place}"
        assert (first_key in text) == (place == "output"), f"the first key is shown once, not in {place}"
        assert "Traceback" not in text or place.startswith("logs/engine"), place


def test_what_is_on_disk_is_for_the_appliance_only(shared: Running) -> None:
    state = shared.house.state
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for folder in ("run", "logs", "cache"):
        assert stat.S_IMODE((state / folder).stat().st_mode) == 0o700, folder
    for file in ("accounts.db", "accounts.db-wal", "accounts.db-shm", "pepper", "run/control.sock"):
        assert stat.S_IMODE((state / file).stat().st_mode) == 0o600, file
    for private in (state / "run").glob("e*"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_a_line_of_the_access_log_says_who_what_and_how(client: httpx.Client, shared: Running) -> None:
    ask = {"model": "chat", "messages": [{"role": "user", "content": "tokens=3"}], "stream": True}
    id_ = "req_0123456789abcdef01234567"
    client.post("/v1/chat/completions", json=ask, headers={"x-request-id": id_})
    log = shared.house.state / "logs" / "requests.log"
    (found,) = until(lambda: [line for line in log.read_text().splitlines() if id_ in line])
    line = json.loads(found)
    assert (line["key"], line["model"], line["operation"], line["outcome"]) == ("key_local", "chat", "chat", "answered")
    assert (line["completion_tokens"], line["status"]) == (3, 200)
    assert 0 < line["first_token_ms"] <= line["total_ms"]


def test_a_refused_request_leaves_a_line_and_of_an_id_that_may_be_a_name_nothing_that_can_be_guessed(
    client: httpx.Client, shared: Running
) -> None:
    name = "erika-00000000000000000000"
    for headers in ({}, {"authorization": "Bearer wrong"}):
        refused = client.post("/v1/completions", json={"model": 7}, headers={"x-request-id": name, **headers})
        assert refused.headers["x-request-id"] == name
    log, mark = shared.house.state / "logs" / "requests.log", hidden(shared.house.state / "audit-keys").request(name)
    found = until(lambda: len(lines := [x for x in log.read_text().splitlines() if mark in x]) == 2 and lines)
    first, second = map(json.loads, found)
    assert (first["key"], first["operation"], first["status"], first["code"]) == (
        "key_local", "completion", 400, "invalid_value",
    )  # fmt: skip
    assert (second["key"], second["status"], second["code"]) == (None, 401, "invalid_api_key")
    assert "erika" not in log.read_text()
