"""A colleague's key, from the command that makes it to the second in which it is taken back."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.fakes import house as houses
from tests.fakes.house import ROOT, House, Running, until
from tests.fakes.postgres import PASSWORD, Postgres, postgres

Start = Callable[..., Running]
USER: Any = {"role": "user", "content": "tokens=3"}


@pytest.fixture
def served(house: House) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.write(accounts={"use_cases": {"mail": {}}})
    return house


@pytest.fixture
def other() -> Iterator[House]:
    yield from houses.house()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    yield from postgres()


def test_one_command_makes_a_key_that_both_sdks_take_before_and_after_a_restart(served: House, start: Start) -> None:
    before = served.keys("create", "--user", "anna", "--team", "sales")
    running = start(served).ready()
    during = served.keys("create", "--user", "ben")
    assert (before["base_url"], during["base_url"]) == (None, running.base_url)
    for key in (before["key"], during["key"]):
        assert asks(running, key) == 200, "at once"
        with openai.OpenAI(base_url=f"{running.base_url}/v1", api_key=key, max_retries=0) as sdk:
            assert sdk.chat.completions.create(model="chat", messages=[USER]).choices
        with anthropic.Anthropic(base_url=running.base_url, api_key=key, max_retries=0) as claude:
            assert claude.messages.create(model="chat", messages=[USER], max_tokens=9).content
    assert running.stop() == 0
    again = start(served).ready()
    assert asks(again, during["key"]) == 200


def asks(running: Running, key: str) -> int:
    return httpx.get(f"{running.base_url}/v1/models", headers={"x-api-key": key}).status_code


def test_a_key_that_the_command_line_revokes_is_refused_within_a_second(served: House, start: Start) -> None:
    running = start(served).ready()
    made = served.keys("create", "--user", "anna")
    with httpx.Client(base_url=running.base_url, headers={"x-api-key": made["key"]}) as client:
        assert client.get("/v1/models").status_code == 200
        command = [sys.executable, "-m", "appliance", "keys", "revoke", made["id"], "--config", str(served.config)]
        revoked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert "within a second" in revoked.stdout
        until(lambda: client.get("/v1/models").status_code == 401, patience=1)
        for _ in range(100):  # and stays so
            assert client.get("/v1/models").json()["error"]["code"] == "invalid_api_key"


def test_a_key_that_one_appliance_revokes_another_on_the_same_postgresql_refuses_within_a_second(
    served: House, start: Start, server: Postgres, other: House
) -> None:
    secrets = {"PEPPER": "5a" * 32, "BOOKS": PASSWORD}
    store = server.database().model_dump(mode="json", exclude_none=True) | {"password": "env.BOOKS"}
    other.card("tiny")
    other.serve("chat", "tiny")
    appliances = []
    for each in (served, other):
        each.write(accounts={"store": {"postgresql": store, "pepper": "env.PEPPER"}})
        appliances.append(start(each, environment=secrets).ready())
    first, second = appliances
    with pytest.MonkeyPatch.context() as environment:
        for name, value in secrets.items():
            environment.setenv(name, value)
        admin = served.keys("create", "--role", "admin")["key"]
    assert asks(first, admin) == 200
    with httpx.Client(base_url=first.base_url, headers={"x-api-key": admin}) as client:
        made = client.post("/admin/keys", json={"user": "anna"}).json()
        assert asks(second, made["key"]) == 200
        client.post(f"/admin/keys/{made['id']}/revoke")
        until(lambda: asks(second, made["key"]) == 401, patience=1)
        assert asks(first, made["key"]) == 401


WRONG: list[list[tuple[str, str]]] = [
    [("authorization", "Bearer KEYx")],
    [("x-api-key", "KEY"), ("authorization", "Bearer KEY")],
    [("x-api-key", "KEY"), ("x-api-key", "KEY")],
    [("authorization", "Bearer KEY"), ("Authorization", "Bearer KEY")],
    [("authorization", "Bearer K\u00cbY")],
    [("x-api-key", "x" * 6000)],
]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/admin/keys"])
def test_whatever_is_wrong_with_a_key_is_the_same_answer_on_the_wire(shared: Running, path: str) -> None:
    answers = []
    for sent in WRONG:
        headers = [(name.encode(), value.replace("KEY", shared.key).encode("latin-1")) for name, value in sent]
        answers.append(httpx.post(f"{shared.base_url}{path}", headers=headers, json={"model": "chat"}))
    assert {(answer.status_code, answer.content) for answer in answers} == {(401, answers[0].content)}
    assert answers[0].json()["error"]["code"] == "invalid_api_key"


def test_a_rotated_key_opens_beside_the_new_one_and_without_an_overlap_not(served: House, start: Start) -> None:
    running = start(served).ready()
    first = served.keys("create")
    second = served.keys("rotate", first["id"], "--overlap", "1h")
    assert asks(running, second["key"]) == 200
    assert asks(running, first["key"]) == 200
    third = served.keys("rotate", first["id"], "--overlap", "0h")
    assert asks(running, third["key"]) == 200
    assert [asks(running, each["key"]) for each in (first, second)] == [401, 401]


def test_the_sdks_exceptions_show_the_reason(served: House, start: Start) -> None:
    running = start(served).ready()
    auditor = served.keys("create", "--role", "auditor")["key"]
    assert asks(running, auditor) == 403

    def chat(key: str, **headers: str) -> None:
        with openai.OpenAI(base_url=f"{running.base_url}/v1", api_key=key, max_retries=0) as sdk:
            sdk.chat.completions.create(model="chat", messages=[USER], extra_headers=headers)

    def message(key: str) -> None:
        with anthropic.Anthropic(base_url=running.base_url, api_key=key, max_retries=0) as sdk:
            sdk.messages.create(model="chat", messages=[USER], max_tokens=9)

    with pytest.raises(openai.AuthenticationError) as unknown:
        chat("sk-appliance-none")
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        chat(auditor)
    assert (forbidden.value.code, forbidden.value.type) == ("not_allowed", "permission_error")
    with pytest.raises(openai.PermissionDeniedError):
        chat(running.key, **{"x-use-case": "mail"})
    with pytest.raises(anthropic.AuthenticationError, match="is not known here"):
        message("sk-appliance-none")
    with pytest.raises(anthropic.PermissionDeniedError, match="permission_error"):
        message(auditor)


def test_an_administrator_looks_after_keys_from_afar_and_the_log_has_the_reasons(served: House, start: Start) -> None:
    running = start(served).ready()
    admin = served.keys("create", "--role", "admin")
    assert asks(running, admin["key"]) == 200
    with httpx.Client(base_url=running.base_url, headers={"authorization": f"Bearer {admin['key']}"}) as client:
        made = client.post("/admin/keys", json={"user": "anna", "use_cases": ["mail"]}).json()
        assert asks(running, made["key"]) == 200, "at once"
        assert client.post(f"/admin/keys/{made['id']}/revoke").status_code == 200
        assert asks(running, made["key"]) == 401, "at once"
        assert client.post("/v1/chat/completions", json={"model": "chat", "messages": [USER]}).status_code == 403
    assert [each["state"] for each in served.keys("list", "--user", "anna")] == ["revoked"]
    log = served.state / "logs" / "requests.log"
    for reason in ('"p_[0-9a-f]{24} is revoked"', '"role admin may not ask models"'):
        until(lambda reason=reason: re.search(reason, log.read_text()))
    assert made["id"] not in log.read_text(), "whose key it is stands in the list of keys"
