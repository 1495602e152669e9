"""The control socket's own promises, without an appliance behind it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from appliance import config, control
from appliance.accounts.keys import Keyring
from appliance.api.wire import PEER
from appliance.audit.archive import Actor
from appliance.errors import ApplianceError, ConfigInvalid, NotRunning, Problem
from appliance.proposal import Proposal
from tests.fakes import journal

CONFIG = config.of(Path("/etc/x/appliance.yaml"), b"models: {chat: {card: one}}")


class Appliance:
    """Applies as a test says."""

    def __init__(self, folder: Path) -> None:
        self.archive = journal.archive(folder)
        self.by: list[Actor] = []
        self.keys = Keyring(bytes(32), monotonic=lambda: 0.0)
        self.keys.confirm(0.0)
        self.house: Any = SimpleNamespace(keys=self.keys)
        self.end: list[str] | Exception = []
        self.asked: list[int | None] = []

    async def apply(
        self, tell: Callable[[str], None], by: Actor, show: Callable[[Proposal], None] | None = None
    ) -> list[str]:
        self.by.append(by)
        tell("on it")
        if isinstance(self.end, Exception):
            raise self.end
        return self.end

    async def plan(self, tell: Callable[[str], None], version: int | None = None) -> Proposal:
        tell("looking")
        self.asked.append(version)
        if isinstance(self.end, Exception):
            raise self.end
        return Proposal(CONFIG, CONFIG, [], None)

    def status(self) -> dict[str, Any]:
        return {"models": {}}


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    made = Appliance(tmp_path)
    yield made
    made.archive.subjects.close()


def from_user(app: ASGIApp, uid: int) -> ASGIApp:
    """`app`, as a process of that user sees it through a Unix socket."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "extensions": {PEER: {"uid": uid}}}, receive, send)

    return asked


@pytest.fixture
async def client(appliance: Appliance) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(from_user(control.build(appliance), os.getuid()))
    async with httpx.AsyncClient(transport=transport, base_url="http://appliance") as client:
        yield client


async def lines(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await client.post("/apply")).text.splitlines()]


async def test_an_apply_tells_its_progress_and_then_its_end(appliance: Appliance, client: httpx.AsyncClient) -> None:
    appliance.end = ["chat: now answered by two"]
    assert await lines(client) == [{"progress": "on it"}, {"changes": ["chat: now answered by two"]}]
    appliance.end = ApplianceError("bad card")
    assert await lines(client) == [{"progress": "on it"}, {"error": "bad card"}]


async def test_a_plan_is_of_the_file_or_of_a_version(appliance: Appliance, client: httpx.AsyncClient) -> None:
    for body in (None, {}, {"version": 3}):
        progress, end = [json.loads(line) for line in (await client.post("/plan", json=body)).text.splitlines()]
        assert (progress, end["proposal"]["models"]) == ({"progress": "looking"}, [])
    assert appliance.asked == [None, None, 3]


async def test_what_is_wrong_with_a_config_is_told_by_field(appliance: Appliance, client: httpx.AsyncClient) -> None:
    appliance.end = ConfigInvalid("a.yaml", [Problem("models.chat.card", "is missing", 3)])
    for path in ("/apply", "/plan"):
        end = json.loads((await client.post(path)).text.splitlines()[-1])
        assert end["problems"] == [{"where": "models.chat.card", "what": "is missing", "line": 3}]


async def test_a_bug_while_applying_ends_the_wait_too(appliance: Appliance, client: httpx.AsyncClient) -> None:
    appliance.end = RuntimeError("canary")
    _progress, end = await lines(client)
    assert end["error"].startswith("RuntimeError")


async def test_a_lent_key_opens_and_lasts_a_day_at_most(appliance: Appliance, client: httpx.AsyncClient) -> None:
    lent = (await client.post("/keys/lend", json={"seconds": 10**9})).json()
    assert lent["seconds"] == 24 * 3600
    assert appliance.keys.authenticate(lent["key"]).key_id == "key_local"


async def test_a_lent_key_is_on_record_and_what_cant_be_is_not_lent(
    appliance: Appliance, client: httpx.AsyncClient
) -> None:
    records: Any = appliance.archive.journal
    await client.post("/keys/lend", json={"seconds": 60, "by": "host:somebody else"})
    first, second = (record["body"] for record in records.records)
    assert (first["act"], first["phase"], first["key"], first["seconds"]) == ("keys.lend", "intent", "key_local", 60)
    assert first["by"]["subject"] == appliance.archive.subjects.of(Actor.host().name).pseudonym
    assert (second["phase"], second["of"]) == ("done", 1)
    records.fail()
    refused = (await client.post("/keys/lend", json={"seconds": 60})).json()
    assert "key" not in refused
    assert "the audit log can't be written: as the test says" in refused["error"]


@pytest.mark.parametrize(
    ("uid", "name"),
    [(os.getuid(), Actor.host().name), (0, "host:root"), (987654, "host:987654"), (65534, "host:root")],
)
async def test_an_apply_is_on_the_account_of_whoever_the_kernel_says_asked_for_it(
    appliance: Appliance, uid: int, name: str
) -> None:
    transport = httpx.ASGITransport(from_user(control.build(appliance), uid))
    async with httpx.AsyncClient(transport=transport, base_url="http://appliance") as client:
        await client.post("/apply", json={"by": "host:ops"})
        await client.post("/apply")
    assert [(by.name, by.role) for by in appliance.by] == [(name, "host")] * 2


@pytest.mark.parametrize("name", ["act", "by", "key", "name", "of", "phase", "target"])
@pytest.mark.parametrize("phase", ["intent", "done"])
async def test_what_the_log_says_itself_cant_be_told(
    appliance: Appliance, client: httpx.AsyncClient, name: str, phase: str
) -> None:
    answer = await client.post("/audit/acts", json={"name": "x", "phase": phase, "told": {name: "q"}})
    assert answer.status_code == 400
    assert name in answer.json()["error"]
    records: Any = appliance.archive.journal
    assert records.records == []


async def test_acts_of_commands_on_this_host_are_put_on_record(appliance: Appliance, client: httpx.AsyncClient) -> None:
    records: Any = appliance.archive.journal
    act = {"name": "keys.create", "phase": "intent", "target": "anna", "told": {"role": "user"}}
    begun = (await client.post("/audit/acts", json=act)).json()
    assert begun == {"seq": 1}
    end = {"name": "keys.create", "of": 1, "phase": "done", "target": "anna", "key": "key_1", "told": {"n": 1}}
    await client.post("/audit/acts", json=end)
    anna = appliance.archive.subjects.of("anna")
    first, second = (record["body"] for record in records.records)
    assert (first["role"], first["phase"], first["target"]["subject"]) == ("user", "intent", anna.pseudonym)
    assert (second["n"], second["phase"], second["of"], second["target"]["subject"]) == (1, "done", 1, anna.pseudonym)
    assert json.loads(anna.open(second["target"]["sealed"])).items() >= {"user": "anna", "key": "key_1"}.items()
    assert b"anna" not in b"".join(records.lines)
    assert b"key_1" not in b"".join(records.lines)
    records.fail()
    refused = (await client.post("/audit/acts", json=act)).json()
    assert "the audit log can't be written: as the test says" in refused["error"]


async def test_it_has_none_of_the_apis_paths(client: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/health/live", "/docs", "/metrics"):
        assert (await client.get(path)).status_code == 404
    assert (await client.get("/apply")).status_code == 405


def test_asking_where_nothing_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no appliance runs on"):
        list(control.ask(tmp_path, "GET", "/status"))
