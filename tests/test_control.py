"""The control socket's own promises, without an appliance behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from appliance import control
from appliance.accounts.keys import Keyring
from appliance.errors import ApplianceError, NotRunning


class Appliance:
    """Applies as a test says."""

    def __init__(self) -> None:
        self.keys = Keyring(bytes(32), monotonic=lambda: 0.0)
        self.keys.confirm(0.0)
        self.house: Any = SimpleNamespace(keys=self.keys)
        self.end: list[str] | Exception = []

    async def apply(self, tell: Callable[[str], None]) -> list[str]:
        tell("on it")
        if isinstance(self.end, Exception):
            raise self.end
        return self.end

    def status(self) -> dict[str, Any]:
        return {"models": {}}


@pytest.fixture
def appliance() -> Appliance:
    return Appliance()


@pytest.fixture
async def client(appliance: Appliance) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(control.build(appliance))
    async with httpx.AsyncClient(transport=transport, base_url="http://appliance") as client:
        yield client


async def lines(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await client.post("/apply")).text.splitlines()]


async def test_an_apply_tells_its_progress_and_then_its_end(appliance: Appliance, client: httpx.AsyncClient) -> None:
    appliance.end = ["chat: now answered by two"]
    assert await lines(client) == [{"progress": "on it"}, {"changes": ["chat: now answered by two"]}]
    appliance.end = ApplianceError("bad card")
    assert await lines(client) == [{"progress": "on it"}, {"error": "bad card"}]


async def test_a_bug_while_applying_ends_the_wait_too(appliance: Appliance, client: httpx.AsyncClient) -> None:
    appliance.end = RuntimeError("canary")
    _progress, end = await lines(client)
    assert end["error"].startswith("RuntimeError")


async def test_a_lent_key_opens_and_lasts_a_day_at_most(appliance: Appliance, client: httpx.AsyncClient) -> None:
    lent = (await client.post("/keys/lend", json={"seconds": 10**9})).json()
    assert lent["seconds"] == 24 * 3600
    assert appliance.keys.authenticate(lent["key"]).key_id == "key_local"


async def test_it_has_none_of_the_apis_paths(client: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/health/live", "/docs", "/metrics"):
        assert (await client.get(path)).status_code == 404
    assert (await client.get("/apply")).status_code == 405


def test_asking_where_nothing_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no appliance runs on"):
        list(control.ask(tmp_path, "GET", "/status"))
