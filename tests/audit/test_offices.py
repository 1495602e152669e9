"""Who did something as an administrator or an auditor, or on the host, isn't erased just like that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Set
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import config as configuration
from appliance.audit.archive import Actor, Archive
from appliance.audit.erasure import erase
from appliance.config import Config
from appliance.errors import Conflict
from appliance.versions import Versions

HOST = Actor("host:root", "host", user="root")


class FakeAccounts:
    """Knows roles by user, and rows of everybody."""

    def __init__(self, **roles: str) -> None:
        self._roles = roles

    async def users(self) -> Set[str]:
        return set(self._roles)

    async def roles(self, subject: str) -> Set[str]:
        return {self._roles[subject]} if subject in self._roles else set()

    async def revoke(self, subject: str) -> Set[str]:
        return set()

    async def forget(self, subject: str, key_ids: Set[str]) -> int:
        return 1


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "appliance.yaml"
    file.write_text(yaml.safe_dump({"state": "state", "models": {"chat": {"card": "tiny"}}}))
    return configuration.load(file)


@pytest.fixture
async def archive(config: Config) -> AsyncIterator[Archive]:
    archive = await Archive.open(config)
    yield archive
    await archive.close(5)


def kept(config: Config) -> Versions:
    return Versions(config.state / "configs")


def erasures(config: Config) -> list[dict[str, Any]]:
    lines = [line for file in (config.state / "audit").glob("0*.jsonl") for line in file.read_text().splitlines()]
    return [body for line in lines if (body := json.loads(line)["body"]).get("act") == "erase"]


async def test_who_commands_the_host_stays(archive: Archive, config: Config) -> None:
    await archive.happened("config.apply", HOST)
    subject = archive.subjects.known("host:root")
    assert subject is not None
    for name in ("host:root", "host:nobody", subject.pseudonym):
        with pytest.raises(Conflict, match=r"Art. 17\(3\)\(e\)"):
            await erase(archive, FakeAccounts(), kept(config), config, HOST, name, "file 7")
    assert archive.subjects.known("host:root") is subject
    assert not erasures(config)


@pytest.mark.parametrize("role", ["admin", "super_admin", "auditor"])
async def test_a_key_of_such_a_role_asks_for_a_reason_which_goes_on_record(
    archive: Archive, config: Config, role: str
) -> None:
    accounts = FakeAccounts(bert=role)
    for reason in (None, ""):
        with pytest.raises(Conflict, match="--reason"):
            await erase(archive, accounts, kept(config), config, HOST, "bert", reason)
    assert not erasures(config)
    await erase(archive, accounts, kept(config), config, HOST, "bert", "left in 2019, file 7")
    await archive.journal.checkpoint_now()
    assert erasures(config)[0]["reason"] == "left in 2019, file 7"


async def test_so_does_what_was_done_in_such_a_role_with_a_token(archive: Archive, config: Config) -> None:
    await archive.happened("read", Actor("bert", "auditor", user="bert"))
    with pytest.raises(Conflict, match="--reason"):
        await erase(archive, FakeAccounts(), kept(config), config, HOST, "bert")


async def test_what_an_administrator_did_to_somebody_makes_them_none(archive: Archive, config: Config) -> None:
    async with archive.act("keys.create", Actor("bert", "admin", user="bert"), target="anna"):
        pass
    await archive.happened("ask", Actor("anna", "user", user="anna"))
    await erase(archive, FakeAccounts(anna="user"), kept(config), config, HOST, "anna")
    await archive.journal.checkpoint_now()
    assert [each["phase"] for each in erasures(config)] == ["intent", "done"]
    assert "reason" not in erasures(config)[0]
