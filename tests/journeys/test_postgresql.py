"""An appliance whose keys and books are in a real PostgreSQL: through the outlet, or by a socket of this host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.config import Postgresql
from tests.fakes.certificates import Authority
from tests.fakes.house import ROOT, House, Running, until
from tests.fakes.postgres import PASSWORD, Postgres, postgres

Start = Callable[..., Running]
ASK: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
PEPPER = "5a" * 32
SECRETS = {"BOOKS_PASSWORD": PASSWORD, "PEPPER": PEPPER}
NAME = "PostgreSQL of keys and books"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    yield from postgres()


def furnish(house: House, database: Postgresql, **changed: Any) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    told = database.model_dump(mode="json", exclude_none=True) | {"password": "env.BOOKS_PASSWORD"} | changed
    house.settings["accounts"] = {"store": {"postgresql": told, "pepper": "env.PEPPER"}}
    return house


def command(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "appliance", *arguments, "--config", str(house.config)]
    return subprocess.run(
        line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=os.environ | SECRETS
    )


def new_key(house: House, *arguments: str) -> str:
    done = command(house, "keys", "create", "--user", "erika", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["key"])


def ask(running: Running, key: str) -> httpx.Response:
    return httpx.post(
        f"{running.base_url}/v1/chat/completions", json=ASK, headers={"authorization": f"Bearer {key}"}, timeout=30
    )


def verified(house: House) -> dict[str, Any]:
    """The report of a verification, all of which holds."""
    done = command(house, "egress", "verify", "--json")
    report: dict[str, Any] = json.loads(done.stdout)
    assert {check["name"]: check["violations"] for check in report["checks"] if not check["holds"]} == {}
    assert done.returncode == 0
    return report


def asked_and_verified(house: House, running: Running) -> dict[str, Any]:
    """What a verification finds while keys and books are in use."""
    key = new_key(house)
    until(lambda: ask(running, key).status_code == 200)
    return verified(house)


def test_by_tcp_it_is_reached_through_the_outlet_alone_and_a_verification_holds(
    house: House, start: Start, server: Postgres
) -> None:
    running = start(furnish(house, server.database()), environment=SECRETS).ready()
    report = asked_and_verified(house, running)
    assert report["findings"]["destinations"] == [
        {
            "name": NAME, "address": f"127.0.0.1:{server.port}", "kind": "in-house", "tls": False,
            "resolved": ["127.0.0.1"],
        }
    ]  # fmt: skip
    holders = {
        process["place"]
        for process in report["findings"]["processes"]
        for each in process["sockets"]
        if each["remote"] == f"127.0.0.1:{server.port}"
    }
    assert holders == {"outlet"}


def test_by_a_folder_of_this_host_it_needs_no_outlet_and_a_verification_holds(
    house: House, start: Start, server: Postgres
) -> None:
    furnish(house, server.database(), host=str(server.folder), tls=True)
    running = start(house, environment=SECRETS).ready()
    findings = asked_and_verified(house, running)["findings"]
    assert findings["destinations"] == []
    assert {process["place"] for process in findings["processes"]} & {"outlet", "dialler"} == set()
    assert {(each["place"], each["path"], each["configured"]) for each in findings["host_sockets"]} == {
        ("gateway", str(server.socket), True)
    }


def test_tls_is_spoken_with_the_server_itself_and_secrets_may_lie_where_the_gateway_sees_nothing(
    house: House, start: Start, server: Postgres, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    secret, pepper = tmp_path / "password", tmp_path / "pepper"
    secret.write_text(PASSWORD)
    pepper.write_text(PEPPER)
    with server.with_tls_by_tcp(authority.issue("db.house.test")) as port:
        furnish(house, server.database(), port=port, tls=True, ca=str(authority.file), password=f"file:{secret}")
        house.settings["accounts"]["store"]["pepper"] = f"file:{pepper}"
        running = start(house).ready()
        (destination,) = asked_and_verified(house, running)["findings"]["destinations"]
        assert (destination["name"], destination["tls"]) == (NAME, True)


def test_a_server_with_a_strangers_certificate_is_not_told_the_password(
    house: House, start: Start, server: Postgres, tmp_path: Path
) -> None:
    with server.with_tls_by_tcp(Authority(tmp_path, "right").issue("db.house.test")) as port:
        furnish(house, server.database(), port=port, tls=True, ca=str(Authority(tmp_path, "wrong").file))
        with pytest.raises(AssertionError, match=r"isn't trusted.*accounts\.store\.postgresql\.host` and `ca`"):
            start(house, environment=SECRETS)


def test_a_connection_that_no_destination_accounts_for_is_found(house: House, start: Start, server: Postgres) -> None:
    """The same appliance, had its config not named the server."""
    running = start(furnish(house, server.database()), environment=SECRETS).ready()
    asked_and_verified(house, running)
    noted = house.state / "egress" / "started.json"
    noted.write_text(json.dumps(json.loads(noted.read_text()) | {"destinations": []}))
    done = command(house, "egress", "verify", "--json")
    assert done.returncode == 1
    wrong = {check["name"]: check["violations"] for check in json.loads(done.stdout)["checks"] if not check["holds"]}
    assert wrong.keys() == {"sockets"}
    assert all(f"127.0.0.1:{server.port}" in line and "leads to no destination" in line for line in wrong["sockets"])


@pytest.mark.parametrize("by", ["tcp", "folder"])
def test_while_it_is_gone_nobody_is_served_and_it_goes_on_by_itself(
    house: House, start: Start, server: Postgres, by: str
) -> None:
    furnish(house, server.database(), **({"host": str(server.folder)} if by == "folder" else {}))
    running = start(house, environment=SECRETS).ready()
    key = new_key(house)
    until(lambda: ask(running, key).status_code == 200)
    served = len(house.heard())
    server.stop(crash=True)
    try:
        refused = until(lambda: (answer := ask(running, key)).status_code == 503 and answer)
        assert refused.json()["error"]["code"] in ("books_unavailable", "keys_unavailable")
        assert len(house.heard()) == served
    finally:
        server.start()
    until(lambda: ask(running, key).status_code == 200)
    verified(house)


@pytest.mark.parametrize("by", ["tcp", "folder"])
def test_a_server_that_comes_up_after_the_appliance_is_waited_for(
    house: House, start: Start, server: Postgres, by: str
) -> None:
    furnish(house, server.database(), **({"host": str(server.folder)} if by == "folder" else {}))
    output = house.folder / "output.txt"
    server.stop()
    with ThreadPoolExecutor(1) as aside:
        starting = aside.submit(start, house, environment=SECRETS)
        try:
            until(lambda: output.exists() and "waiting for keys and books" in output.read_text())
        finally:
            server.start()
        running = starting.result().ready()
    assert ask(running, running.key).status_code == 200
    told = output.read_text()
    assert told.count("waiting for keys and books: PostgreSQL at") == 1
    assert "see that it runs and can be reached" in told


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"password": "env.PEPPER"}, "refused the role: see `accounts.store.postgresql.user` and `password`"),
        ({"database": "nowhere"}, "has no such database"),
        ({"tls": True}, "speaks no TLS"),
    ],
)
def test_a_setting_that_is_wrong_is_told_at_once(
    house: House, start: Start, server: Postgres, wrong: dict[str, Any], says: str
) -> None:
    furnish(house, server.database())
    house.settings["accounts"]["store"]["postgresql"] |= wrong
    with pytest.raises(AssertionError, match=says):
        start(house, environment=SECRETS)
    assert "waiting for keys and books" not in (house.folder / "output.txt").read_text()


def test_no_secret_is_in_any_log_or_process_list(house: House, start: Start, server: Postgres) -> None:
    running = start(furnish(house, server.database()), environment=SECRETS).ready()
    key = new_key(house)
    until(lambda: ask(running, key).status_code == 200)
    written = "".join(file.read_text(errors="replace") for file in [running.output, *(house.state / "logs").iterdir()])
    lines = [" ".join(line) for line in running.commands().values()]
    for process in running.family()[1:]:  # but for the one that was given them
        lines += process.environ().values()
    for secret in (PASSWORD, PEPPER, key):
        assert secret not in written
        assert not any(secret in line for line in lines)
