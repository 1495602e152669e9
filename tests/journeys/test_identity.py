"""People of the company ask with tokens of its own identity provider, of which only the published keys are fetched."""

from __future__ import annotations

import hmac
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import psutil
import pytest

from tests.fakes import house as houses
from tests.fakes.certificates import Authority
from tests.fakes.house import ROOT, House, Running, until
from tests.fakes.identity_provider import IdentityProvider, Signer, encoded, identity_provider

Start = Callable[..., Running]
ASK: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"
HEARD = "/realms/company/keys"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def provider(authority: Authority) -> Iterator[IdentityProvider]:
    with identity_provider(authority.issue("provider")) as provider:
        yield provider


def furnish(house: House, provider: IdentityProvider, authority: Authority, **changed: Any) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["accounts"] = {
        "use_cases": {"letters": {}, "reports": {}},
        "identity": provider.settings(
            ca=str(authority.file),
            claims={"team": "department", "role": "realm_access.roles"},
            roles={"llm-admins": "admin"},
            use_cases=["letters"],
        )
        | changed,
    }
    return house


@pytest.fixture(scope="module")
def running(provider: IdentityProvider, authority: Authority) -> Iterator[Running]:
    for house in houses.house():
        furnish(house, provider, authority).write()
        running = Running(house).ready()
        yield running
        running.stop()


def ask(running: Running, token: str, **headers: str) -> httpx.Response:
    sent = {"authorization": f"Bearer {token}", **headers}
    return httpx.post(running.base_url + PATH, json=ASK, headers=sent, timeout=30)


def everything_written(running: Running) -> str:
    files = [running.output, *(running.house.state / "logs").iterdir()]
    return "".join(file.read_text(errors="replace") for file in files)


def test_a_token_asks_through_the_official_sdks(running: Running, provider: IdentityProvider) -> None:
    token = provider.token(department="research")
    asked = openai.OpenAI(base_url=f"{running.base_url}/v1", api_key=token).chat.completions.create(**ASK)
    assert asked.choices[0].message.content
    client = anthropic.Anthropic(base_url=running.base_url, auth_token=token, api_key=None)
    answer = client.messages.create(model="chat", max_tokens=16, messages=ASK["messages"])
    assert answer.content
    assert {line.partition(" ")[2] for line in provider.heard} == {HEARD}


def test_forged_tokens_are_refused_as_a_wrong_key_is(running: Running, provider: IdentityProvider) -> None:
    header, body, signature = provider.token().split(".")
    signer = provider.signers[0]
    now = int(time.time())
    unsigned = f"{encoded({'alg': 'none', 'kid': signer.kid})}.{body}"
    shared = f"{encoded({'alg': 'HS256', 'kid': signer.kid})}.{body}"
    mac = hmac.digest(json.dumps(signer.jwk()).encode(), shared.encode(), "sha256")
    admin = encoded(provider.claims(realm_access={"roles": ["llm-admins"]}))
    forged = {
        "none": f"{unsigned}.",
        "none, signed": f"{unsigned}.{signature}",
        "shared": f"{shared}.{encoded(mac)}",
        "stranger": provider.token(Signer()),
        "stranger in disguise": provider.token(Signer(kid=signer.kid)),
        "promoted": f"{header}.{admin}.{signature}",
        "expired": provider.token(iat=now - 900, exp=now - 600),
        "other audience": provider.token(aud="another"),
        "truncated": provider.token()[:-4],
    }
    wrong = ask(running, "sk-appliance-" + "x" * 43)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
    for token in forged.values():
        refused = ask(running, token)
        assert (refused.status_code, refused.json()["error"]) == (401, wrong.json()["error"])
    with pytest.raises(openai.AuthenticationError) as error:
        openai.OpenAI(base_url=f"{running.base_url}/v1", api_key=forged["none"]).chat.completions.create(**ASK)
    assert error.value.code == "invalid_api_key"
    assert ask(running, provider.token()).status_code == 200


def test_a_token_names_the_use_cases_of_the_config_and_no_other(running: Running, provider: IdentityProvider) -> None:
    token = provider.token()
    assert ask(running, token, **{"x-use-case": "letters"}).status_code == 200
    assert ask(running, token, **{"x-use-case": "reports"}).status_code == 403


def test_who_administers_is_told_by_a_claim(running: Running, provider: IdentityProvider) -> None:
    def keys(**claims: Any) -> int:
        headers = {"authorization": f"Bearer {provider.token(**claims)}"}
        return httpx.get(f"{running.base_url}/admin/keys", headers=headers, timeout=30).status_code

    assert keys(realm_access={"roles": ["llm-admins", "everyone"]}) == 200
    assert keys(realm_access={"roles": ["everyone"]}) == 403
    assert keys(realm_access={"roles": ["admin"]}) == 403
    assert keys() == 403
    assert ask(running, provider.token(realm_access={"roles": ["llm-admins"]})).status_code == 403


def test_no_token_and_no_name_is_in_any_log_or_process_list(running: Running, provider: IdentityProvider) -> None:
    good, bad = provider.token(preferred_username="erika.mustermann"), provider.token(aud="another")
    assert (ask(running, good).status_code, ask(running, bad).status_code) == (200, 401)
    until(lambda: "InvalidAudienceError" in everything_written(running))  # the reason, for whoever looks after it
    written = everything_written(running)
    for token in (good, bad):
        for part in token.split("."):
            assert part not in written
            assert not any(part in " ".join(line) for line in running.commands().values())
    assert "erika.mustermann" not in written


def test_keys_that_were_rotated_are_taken_and_those_taken_back_refused(
    running: Running, provider: IdentityProvider
) -> None:
    old = provider.token()
    assert ask(running, old).status_code == 200
    provider.rotate()
    until(lambda: ask(running, provider.token()).status_code == 200)
    assert ask(running, old).status_code == 401


def test_without_the_provider_keys_go_on_and_tokens_are_asked_to_wait(
    house: House, start: Start, authority: Authority
) -> None:
    with identity_provider(authority.issue("provider")) as gone:
        furnish(house, gone, authority)
    running = start(house).ready()
    refused = ask(running, gone.token())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "identity_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert ask(running, running.key).status_code == 200
    assert "the identity provider's keys could not be fetched" in everything_written(running)


def test_a_provider_with_a_strangers_certificate_is_not_believed(
    house: House, start: Start, provider: IdentityProvider, tmp_path: Path
) -> None:
    furnish(house, provider, Authority(tmp_path, "stranger"))
    asked = len(provider.heard)
    running = start(house).ready()
    assert ask(running, provider.token()).status_code == 503
    assert len(provider.heard) == asked


def test_a_verification_holds_and_lists_the_provider(running: Running, provider: IdentityProvider) -> None:
    assert ask(running, provider.token()).status_code == 200
    line = [sys.executable, "-m", "appliance", "egress", "verify", "--json", "--config", str(running.house.config)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    report = json.loads(done.stdout)
    assert {check["name"]: check["violations"] for check in report["checks"] if not check["holds"]} == {}
    assert done.returncode == 0
    (destination,) = report["findings"]["destinations"]
    assert destination == {
        "name": "keys of the identity provider",
        "address": f"127.0.0.1:{provider.server_port}",
        "kind": "in-house",
        "tls": True,
        "resolved": ["127.0.0.1"],
    }


def test_nothing_but_the_outlet_and_its_dialler_ever_connects(running: Running, provider: IdentityProvider) -> None:
    assert ask(running, provider.token()).status_code == 200
    gateway = psutil.Process(running.process.pid)
    remote = [
        each for each in gateway.net_connections("inet") if each.raddr and each.raddr.port == provider.server_port
    ]
    assert remote == []
