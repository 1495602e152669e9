"""In works-council mode nobody finds out from the appliance who used it how much: not by name, not by key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from appliance.api.routes import ROUTES
from appliance.core import Role
from tests.fakes.house import ROOT, House, Running, until

Start = Callable[..., Running]
NAME = "Annegret Quast"
CHAT = "/v1/chat/completions"
THE_ACCESS_LIST = "/admin/keys"
"""It has to say who may come in, and says nothing of use."""
QUERIES = {
    "/admin/usage": [
        "by=user", "by=key", "by=user,key", "by=day,user,model", "by=team,user", "by=key&format=csv",
        "by=month,user&format=csv", "user=PSEUDONYM&by=user,key", "key=PSEUDONYM&by=day,key",
    ],
    "/admin/audit": ["limit=1000", "kind=intent", "kind=act", "subject=PSEUDONYM"],
    "/admin/audit/export": ["format=jsonl", "format=csv"],
}  # fmt: skip


def ask(running: Running, key: str, prompt: str = "tokens=3", **more: Any) -> int:
    body = {"model": "chat", "messages": [{"role": "user", "content": prompt}], "max_tokens": 20, **more}
    return httpx.post(f"{running.base_url}{CHAT}", json=body, headers={"x-api-key": key}, timeout=30).status_code


def command(house: House, *arguments: str) -> str:
    line = [sys.executable, "-m", "appliance", *arguments, "--config", str(house.config)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def house(house: House) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.write(accounts={"users": {NAME: {"tokens_per_day": 20, "at_limit": "warn"}}})
    return house


def test_a_person_who_worked_all_day_is_found_nowhere(house: House, start: Start) -> None:
    warned = ("--tokens-per-day", "10", "--at-limit", "warn")
    person = house.keys("create", "--user", NAME, "--team", "sales", *warned)
    revoked = house.keys("create", "--user", NAME, "--team", "sales", "--tokens-per-day", "1")
    tool = house.keys("create", "--team", "sales", "--name", "a tool")
    other = house.keys("create", "--user", "ben", "--team", "sales")
    roles = [role for role in Role if role is not Role.USER]
    staff = {role: house.keys("create", "--role", role, "--user", role)["key"] for role in roles}
    running = start(house).ready()

    # a day's work, with all that can happen in one
    for key in (person, tool, other):
        assert ask(running, key["key"]) == 200
    assert ask(running, person["key"], "tokens=19", stream=True) == 200
    assert ask(running, revoked["key"]) == 429
    house.keys("revoke", revoked["id"])
    until(lambda: ask(running, revoked["key"]) == 401)
    assert ask(running, person["key"], model="nope") == 404
    headers = {"x-api-key": person["key"], "x-use-case": "none", "x-request-id": NAME}
    assert httpx.post(f"{running.base_url}{CHAT}", json={}, headers=headers).status_code == 403
    assert httpx.get(f"{running.base_url}/admin/usage", headers=headers).status_code == 403
    house.settings["accounts"]["users"][NAME]["tokens_per_day"] = 50
    house.write()
    assert running.apply()["changes"] == ["accounts: taken over"]
    house.keys("rotate", person["id"])

    def get(path: str, key: str) -> httpx.Response:
        return httpx.get(f"{running.base_url}{path}", headers={"x-api-key": key}, timeout=30)

    def rows(query: str) -> Any:
        return get(f"/admin/usage?{query}", staff[Role.ADMIN]).json()["data"]

    (pseudonym,) = until(lambda: [row["user"] for row in rows("by=user") if row["user"] and row["requests"] == 2])
    assert re.fullmatch("p_[0-9a-f]{24}", pseudonym)

    # whatever shows anything
    shown = {"metrics": get("/metrics", "").text, "status": json.dumps(running.status())}
    reveal = {"subject": pseudonym, "reason": "to have one to look at"}
    asked = httpx.post(
        f"{running.base_url}/admin/audit/reveals", json=reveal, headers={"x-api-key": staff[Role.AUDITOR]}
    )
    assert asked.status_code in (200, 201), asked.text
    asset = re.findall(r"/docs/([\w.-]+)", get("/docs", "").text)[0]
    walked = 0
    # what a record holds of a person is opened after a second one has approved, and to nobody before
    apart = {THE_ACCESS_LIST, "/admin/audit/reveals/{id}/records/{seq}"}
    for path in sorted(path for method, path in ROUTES if method == "GET" and path not in apart):
        real = path.format(model="chat", id=asked.json()["id"], asset=asset)
        for query in ["", *QUERIES.get(path, ())]:
            target = f"{real}?{query.replace('PSEUDONYM', pseudonym)}"
            answers = [get(target, key) for key in (*staff.values(), other["key"])]
            assert 200 in [answer.status_code for answer in answers], target
            shown |= {f"{target} {number}": answer.text for number, answer in enumerate(answers)}
            walked += 1
    assert walked > 20
    for form in ((), ("--json",), ("--csv",)):
        for by in ("user", "key", "user,key,team", "day,user"):
            shown[f"usage {by} {form}"] = command(house, "usage", "--by", by, *form)
    shown["console status"] = command(house, "status")
    events = get("/admin/events", staff[Role.ADMIN]).json()["data"]
    assert {(event["holder"], event["name"]) for event in events} == {("key", pseudonym), ("user", pseudonym)}
    assert pseudonym in shown["usage user ()"]
    log = until(lambda: (text := (house.state / "logs" / "requests.log").read_text()).count("revoked") and text)
    assert f'"{pseudonym} is revoked"' in log
    assert f'"key": "{tool["id"]}"' in log, "a key of nobody's stands there as it is"
    assert pseudonym in (house.state / "logs" / "appliance.log").read_text()
    assert running.stop() == 0
    shown["console"] = running.output.read_text()
    # the books, and the configs that were applied: what the administrator wrote of persons is kept as it was written
    kept = ("accounts.db", "cache", "configs/")
    shown |= {
        str(file): file.read_bytes().decode(errors="replace")
        for file in house.state.rglob("*")
        if file.is_file() and not str(file.relative_to(house.state)).startswith(kept)
    }
    assert any("audit/0000" in place for place in shown)
    for place, text in shown.items():
        for word in (NAME, "annegret", "quast", person["id"], revoked["id"]):
            assert word.lower() not in text.lower(), f"{word} in {place}"


def test_who_asks_by_name_is_told_how_to_ask(house: House, start: Start) -> None:
    person = house.keys("create", "--user", NAME)
    admin = house.keys("create", "--role", "admin")["key"]
    running = start(house).ready()
    assert ask(running, person["key"]) == 200
    with httpx.Client(base_url=running.base_url, headers={"x-api-key": admin}) as client:
        for param, value in (("user", NAME), ("user", "nobody at all"), ("key", person["id"])):
            refused = client.get("/admin/usage", params={param: value})
            assert refused.status_code == 400
            error = refused.json()["error"]
            assert (error["param"], error["code"]) == (param, "pseudonym_needed")
            assert "by=user" in error["message"]
        until(lambda: client.get("/admin/usage?by=user").json()["data"])
        (row,) = client.get("/admin/usage?by=user").json()["data"]
        for param in ("user", "key"):
            asked = client.get("/admin/usage", params={param: row["user"], "by": "key"}).json()["data"]
            assert [(each["key"], each["requests"]) for each in asked] == [(row["user"], 1)]


def test_ones_own_use_is_shown_by_name(house: House, start: Start) -> None:
    person = house.keys("create", "--user", NAME)
    running = start(house).ready()
    assert ask(running, person["key"]) == 200
    own = httpx.get(f"{running.base_url}/v1/usage", headers={"x-api-key": person["key"]}).json()
    assert (own["user"]["name"], own["key"]["id"]) == (NAME, person["id"])
    assert {budget["name"] for budget in own["budgets"]} == {NAME}


def test_without_works_council_mode_names_are_shown(house: House, start: Start) -> None:
    house.write(audit={"works_council": False})
    person = house.keys("create", "--user", NAME)
    admin = house.keys("create", "--role", "admin")["key"]
    running = start(house).ready()
    assert ask(running, person["key"]) == 200

    def rows(by: str) -> Any:
        url = f"{running.base_url}/admin/usage?by={by}&user={NAME}"
        return httpx.get(url, headers={"x-api-key": admin}).json()["data"]

    until(lambda: [row["user"] for row in rows("user")] == [NAME])
    assert [row["key"] for row in rows("key")] == [person["id"]]
    log = house.state / "logs" / "requests.log"
    until(lambda: f'"key": "{person["id"]}"' in log.read_text())


def test_a_key_that_an_administrator_made_or_rotated_tells_nothing_of_the_person(house: House, start: Start) -> None:
    person = house.keys("create", "--user", NAME, "--tokens-per-month", "1000")
    admin = house.keys("create", "--role", "admin")["key"]
    running = start(house).ready()
    assert ask(running, person["key"]) == 200

    def usage(key: str) -> Any:
        return httpx.get(f"{running.base_url}/v1/usage", headers={"x-api-key": key}).json()

    until(lambda: usage(person["key"])["key"]["today"]["requests"] == 1)
    until(lambda: any(budget.get("used") for budget in usage(person["key"])["budgets"]))
    with httpx.Client(base_url=running.base_url, headers={"x-api-key": admin}) as client:
        made = client.post("/admin/keys", json={"user": NAME}).json()["key"]
        rotated = client.post(f"/admin/keys/{person['id']}/rotate").json()["key"]
    for key in (made, rotated):
        told = usage(key)
        assert told["user"] == {"name": NAME}
        assert [told["key"][span]["requests"] for span in ("today", "month")] == [0, 0]
        assert [name for budget in told["budgets"] for name in ("used", "left", "limit") if name in budget] == []
