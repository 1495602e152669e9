"""Erasing a person: in which order, what stands against it, and what is left when it breaks off."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Set
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import config as configuration
from appliance.audit import erasure
from appliance.audit.archive import Actor, Archive
from appliance.audit.erasure import Erased, left
from appliance.audit.holds import place, release
from appliance.audit.slots import FILE
from appliance.audit.verifier import verify
from appliance.config import Config
from appliance.core import Caller
from appliance.errors import AuditFailed, AuditUnavailable, BadRequest, BooksUnavailable, Conflict, NotFound
from appliance.versions import Versions

ADMIN = Actor("host:root", "host", user="root")


class FakeAccounts:
    """Remembers what was asked of it; the step `fails` fails."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.named = {"anna": 5}
        """Rows by user."""
        self.fails: str | None = None
        self.done: list[tuple[str, bool]] = []
        """Steps, and whether the key was still there."""

    async def roles(self, subject: str) -> Set[str]:
        return set()

    async def users(self) -> Set[str]:
        return self.named.keys()

    async def revoke(self, subject: str) -> Set[str]:
        return self._step("revoke", subject, {"key_1"} if subject in self.named else set())

    async def forget(self, subject: str, key_ids: Set[str]) -> int:
        return self._step("forget", subject, self.named.get(subject, 0)) and self.named.pop(subject)

    def _step(self, name: str, subject: str, result: Any) -> Any:
        if name == self.fails:
            raise BooksUnavailable("the store is gone")
        self.done.append((name, self.archive.subjects.known(subject) is not None))
        return result


async def erase(archive: Archive, accounts: FakeAccounts, config: Config, *more: Any) -> Erased:
    """Erase somebody, with the versions of the config that there are."""
    return await erasure.erase(archive, accounts, Versions(config.state / "configs"), config, *more)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return write(tmp_path)


def write(folder: Path, **accounts: Any) -> Config:
    file = folder / "appliance.yaml"
    settings = {"state": "state", "models": {"chat": {"card": "tiny"}}, "accounts": accounts}
    file.write_text("# by anna\n" + yaml.safe_dump(settings, sort_keys=False))
    return configuration.load(file)


@pytest.fixture
async def archive(config: Config) -> AsyncIterator[Archive]:
    archive = await Archive.open(config)
    yield archive
    await archive.close(5)


@pytest.fixture
def accounts(archive: Archive) -> FakeAccounts:
    return FakeAccounts(archive)


def acts(config: Config) -> list[dict[str, Any]]:
    """Erasures as they are on record."""
    lines = [
        line for file in sorted((config.state / "audit").glob("0*.jsonl")) for line in file.read_text().splitlines()
    ]
    bodies = [record["body"] for record in map(json.loads, lines) if record["kind"] == "act"]
    return [body for body in bodies if body["act"] == "erase"]


async def test_it_is_on_record_first_then_keys_are_refused_then_the_key_goes_then_the_accounts_forget(
    archive: Archive, accounts: FakeAccounts, config: Config
) -> None:
    pseudonym = archive.subjects.of("anna").pseudonym
    begun: list[int] = []
    revoke = accounts.revoke

    async def seen(subject: str) -> Set[str]:
        begun.append(len(acts(config)))
        return await revoke(subject)

    accounts.revoke = seen  # type: ignore[method-assign]
    assert await erase(archive, accounts, config, ADMIN, "anna") == Erased(pseudonym, 1, 5)
    assert begun == [1], "it was on disk before the first step"
    assert accounts.done == [("revoke", True), ("forget", False)]
    await archive.journal.checkpoint_now()
    first, second = acts(config)
    assert (first["phase"], first["subject"], first["by"]["role"]) == ("intent", pseudonym, "host")
    assert (second["phase"], second["keys"], second["rows"]) == ("done", 1, 5)
    assert "target" not in first, "what is sealed under a key that goes at once is worth nothing"
    assert archive.subjects.find(pseudonym) is None


async def test_what_was_sealed_before_is_not_used_again(
    archive: Archive, accounts: FakeAccounts, config: Config
) -> None:
    """Names are sealed once for each caller, and kept in memory: after an erasure that would be the old key's."""
    caller = Caller("key_1", user="anna")
    before = archive.caller(caller)
    assert archive.caller(caller) is before
    await erase(archive, accounts, config, ADMIN, "anna")
    late = archive.caller(caller)
    assert late["subject"] != before["subject"]
    assert archive.subjects.find(late["subject"]) is None
    assert "anna" not in repr(archive._callers)


async def test_no_file_of_the_log_or_beside_it_holds_the_name_or_the_key(
    archive: Archive, accounts: FakeAccounts, config: Config
) -> None:
    async with archive.act("keys.create", Actor("anna", "admin", "key_1", "anna"), target="anna"):
        pass
    store = config.state / "audit-keys" / FILE
    before = store.read_bytes()
    await erase(archive, accounts, config, ADMIN, "anna", "file 4711")
    keys = [before[at + 32 : at + 64] for at in range(512, len(before), 512) if any(before[at : at + 512])]
    assert len(keys) == 1
    await archive.close(5)
    for file in config.state.rglob("*"):
        if file.is_file():
            assert b"anna" not in file.read_bytes(), file
            assert keys[0] not in file.read_bytes(), file
    assert verify(config.state / "audit").genuine


@pytest.mark.parametrize("whose", ["theirs", "everybody's"])
async def test_what_is_held_isnt_erased_until_the_hold_ends(
    archive: Archive, accounts: FakeAccounts, config: Config, whose: str
) -> None:
    archive.subjects.of("anna")
    about: dict[str, Any] = {"subject": "anna"} if whose == "theirs" else {"since": "2026-01-01"}
    hold = await place(archive, ADMIN, reason="file 7 O 12/26", now=1_800_000_000.0, **about)
    with pytest.raises(Conflict) as refused:
        await erase(archive, accounts, config, ADMIN, "anna")
    assert hold.id in str(refused.value)
    assert "file 7 O 12/26" in str(refused.value)
    assert (accounts.done, acts(config)) == ([], [])
    assert archive.subjects.known("anna") is not None
    await release(archive, ADMIN, hold.id)
    assert (await erase(archive, accounts, config, ADMIN, "anna")).rows == 5


async def test_a_hold_of_somebody_elses_records_is_no_reason(
    archive: Archive, accounts: FakeAccounts, config: Config
) -> None:
    for name in ("anna", "ben"):
        archive.subjects.of(name)
    await place(archive, ADMIN, reason="x", subject="ben", now=1_800_000_000.0)
    assert (await erase(archive, accounts, config, ADMIN, "anna")).pseudonym is not None


async def test_while_holds_cant_be_read_nobody_is_erased(
    archive: Archive, accounts: FakeAccounts, config: Config
) -> None:
    archive.subjects.of("anna")
    archive.holds.trouble = "holds.json is damaged"
    with pytest.raises(Conflict, match=r"holds\.json is damaged"):
        await erase(archive, accounts, config, ADMIN, "anna")
    assert archive.subjects.known("anna") is not None


async def test_whom_the_config_names_is_refused_by_the_line_it_is_on(
    archive: Archive, accounts: FakeAccounts, config: Config, tmp_path: Path
) -> None:
    archive.subjects.of("anna")
    with pytest.raises(Conflict, match=r"line 9 of .*appliance\.yaml names this person, under accounts\.users"):
        await erase(archive, accounts, write(tmp_path, users={"ben": {}, "anna": {"tokens_per_day": 5}}), ADMIN, "anna")
    before = write(tmp_path, users={"anna": {}})
    write(tmp_path)
    with pytest.raises(Conflict, match="appliance apply"):
        await erase(archive, accounts, before, ADMIN, "anna")
    assert accounts.done == []


async def test_without_a_log_nothing_is_done(
    archive: Archive, accounts: FakeAccounts, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.subjects.of("anna")

    def unwell(*_: object) -> None:
        raise AuditUnavailable("the disk is full")

    monkeypatch.setattr(archive.journal, "write", unwell)
    with pytest.raises(AuditUnavailable):
        await erase(archive, accounts, config, ADMIN, "anna")
    assert accounts.done == []
    assert archive.subjects.known("anna") is not None


async def test_without_the_accounts_the_key_stays_and_the_next_time_does_it_all(
    archive: Archive, accounts: FakeAccounts, config: Config
) -> None:
    archive.subjects.of("anna")
    accounts.fails = "revoke"
    with pytest.raises(BooksUnavailable):
        await erase(archive, accounts, config, ADMIN, "anna")
    assert archive.subjects.known("anna") is not None
    accounts.fails = None
    assert (await erase(archive, accounts, config, ADMIN, "anna")).rows == 5


async def test_what_broke_off_after_the_key_was_gone_is_completed_by_erasing_again(
    archive: Archive, accounts: FakeAccounts, config: Config
) -> None:
    """As when the power goes at that moment: the log knows nobody of that name any more, the accounts do."""
    archive.subjects.of("anna")
    accounts.fails = "forget"
    with pytest.raises(BooksUnavailable):
        await erase(archive, accounts, config, ADMIN, "anna")
    assert archive.subjects.known("anna") is None
    accounts.fails = None
    assert await erase(archive, accounts, config, ADMIN, "anna") == Erased(None, 1, 5)
    await archive.journal.checkpoint_now()
    assert [(each["phase"], each.get("error")) for each in acts(config)] == [
        ("intent", None), ("failed", "BooksUnavailable"), ("intent", None), ("done", None),
    ]  # fmt: skip
    with pytest.raises(NotFound, match="nobody of this name"):
        await erase(archive, accounts, config, ADMIN, "anna")


async def test_a_pseudonym_is_as_good_as_a_name_where_the_name_is_not_known(
    archive: Archive, accounts: FakeAccounts, config: Config
) -> None:
    """Somebody whose key came back with a backup: the log names them by pseudonym only."""
    pseudonym = archive.subjects.of("anna").pseudonym
    assert await erase(archive, accounts, config, ADMIN, pseudonym) == Erased(pseudonym, 1, 5)
    assert archive.subjects.find(pseudonym) is None
    accounts.named = {}
    with pytest.raises(NotFound):
        await erase(archive, accounts, config, ADMIN, pseudonym)
    long = archive.subjects.of("x" * 400)
    with pytest.raises(BadRequest, match="give it whole"):
        await erase(archive, accounts, config, ADMIN, long.pseudonym)
    assert (await erase(archive, accounts, config, ADMIN, "x" * 400)).pseudonym == long.pseudonym


async def test_a_name_like_a_pseudonym_is_that_pseudonym_first(
    archive: Archive, accounts: FakeAccounts, config: Config
) -> None:
    """Such names are refused today; a key that is older may have one, and be somebody else's."""
    pseudonym = archive.subjects.of("anna").pseudonym
    archive.subjects.of(pseudonym)
    accounts.named[pseudonym] = 7
    assert (await erase(archive, accounts, config, ADMIN, pseudonym)).rows == 5
    assert (archive.subjects.known("anna"), accounts.named) == (None, {pseudonym: 7})
    assert (await erase(archive, accounts, config, ADMIN, pseudonym)).rows == 7


async def test_others_that_read_like_the_name_are_told_and_stay(
    archive: Archive, accounts: FakeAccounts, tmp_path: Path
) -> None:
    config = write(tmp_path, users={"ANNA": {}, "ben": {}})
    for name in ("anna", "Anna", "anna ", "an na", "ａｎｎａ"):
        archive.subjects.of(name)
    accounts.named |= {"aNNa": 1, "annabel": 2}
    erased = await erase(archive, accounts, config, ADMIN, "anna")
    assert erased.alike == ["ANNA", "Anna", "aNNa", "anna ", "ａｎｎａ"]
    assert "Anna" not in repr(erased)
    assert archive.subjects.known("Anna") is not None
    assert (await erase(archive, accounts, write(tmp_path), ADMIN, "aNNa")).alike == ["Anna", "anna ", "ａｎｎａ"]


async def test_a_name_is_found_however_it_is_written(archive: Archive, accounts: FakeAccounts, config: Config) -> None:
    archive.subjects.of("Änne")
    accounts.named["Änne"] = 3
    assert (await erase(archive, accounts, config, ADMIN, "A\u0308nne ")).rows == 3


async def test_nobody_and_no_name(archive: Archive, accounts: FakeAccounts, config: Config) -> None:
    with pytest.raises(NotFound):
        await erase(archive, accounts, config, ADMIN, "ben")
    with pytest.raises(BadRequest, match="subject"):
        await erase(archive, accounts, config, ADMIN, "")
    assert len(archive.subjects) == 1, "the administrator; nobody came there by being looked for"


async def test_whoever_erases_themselves_is_erased(archive: Archive, accounts: FakeAccounts, config: Config) -> None:
    me = Actor("anna", "super_admin", "key_1", "anna")
    assert (await erase(archive, accounts, config, me, "anna")).pseudonym is None, "never seen before the act itself"
    pseudonym = acts(config)[0]["by"]["subject"]
    assert archive.subjects.find(pseudonym) is None


def test_it_tells_where_else_the_name_stands(config: Config) -> None:
    logs = config.state / "logs"
    logs.mkdir(parents=True)
    (logs / "appliance.log").write_text("x\n" + "user anna has used 70 %\n" * 7 + "joanna, annabel\n")
    (logs / "appliance.log.1").write_text("joanna\n")
    assert left(config, "anna") == [
        f"{config.file}, line 1",
        f"{logs / 'appliance.log'}, line 2, 3, 4, 5, 6 and 2 more",
    ]
    assert left(config, "a.*") == []


async def test_configs_of_before_name_nobody_who_was_erased(
    archive: Archive, accounts: FakeAccounts, config: Config, tmp_path: Path
) -> None:
    versions = Versions(config.state / "configs")
    before = write(tmp_path, users={"anna": {"tokens_per_day": 5}, "ben": {}})
    versions.keep(before.text, "start", [])
    versions.keep(write(tmp_path).text, "host:root", [])
    assert (await erase(archive, accounts, config, ADMIN, "anna")).configs == 1
    first, second = versions.all()
    assert configuration.of(before.file, versions.text(first)).settings.accounts.users.keys() == {"ben"}
    assert b"by anna" in versions.text(second), "a comment is the administrator's to change"
    assert left(config, "anna")[1] == f"{config.state / 'configs' / '000002.yaml'}, line 1"
    await archive.happened("read", ADMIN)  # what was noted before is on disk then
    assert acts(config)[-1]["configs"] == 1
    with pytest.raises(NotFound):
        await erase(archive, accounts, config, ADMIN, "anna")


async def test_whom_only_a_config_of_before_names_is_erased_from_there(
    archive: Archive, accounts: FakeAccounts, config: Config, tmp_path: Path
) -> None:
    Versions(config.state / "configs").keep(write(tmp_path, users={"cleo": {}}).text, "start", [])
    write(tmp_path)
    done = await erase(archive, accounts, config, ADMIN, "cleo")
    assert (done.rows, done.configs) == (0, 1)


async def test_configs_that_cant_be_rewritten_are_told_and_erasing_again_completes_it(
    archive: Archive, accounts: FakeAccounts, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Versions(config.state / "configs").keep(write(tmp_path, users={"anna": {}}).text, "start", [])
    write(tmp_path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device", "000001.yaml")

    with monkeypatch.context() as broken:
        broken.setattr(Versions, "forget", full)
        with pytest.raises(AuditFailed, match=r"may still hold the name: 000001\.yaml: No"):
            await erase(archive, accounts, config, ADMIN, "anna")
    await archive.happened("read", ADMIN)
    assert acts(config)[-1]["phase"] == "failed"
    assert (await erase(archive, accounts, config, ADMIN, "anna")).configs == 1
