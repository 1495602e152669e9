"""Whether the log is whole: a new one is not damaged, and time stamps are verified with it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import rfc3161_client as rfc3161

from appliance.audit import timestamps
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.compliance.collect import Facts
from appliance.compliance.compose import compose
from appliance.compliance.verification import verified
from appliance.compliance.words import Language, Words
from appliance.config import Audit
from tests.compliance.test_log import INSIDE, written
from tests.compliance.text import plain
from tests.fakes.time_authority import Root, time_authority


def english(facts: Facts) -> str:
    return plain(compose(facts, Words(Language.ENGLISH, facts.month.zone)))


def signed(folder: Path) -> Path:
    """A log with a checkpoint."""

    async def write() -> None:
        journal = await Journal.open(folder / "audit", folder / "audit-keys", Audit())
        journal.note(Kind.ACT, {"act": "test"})
        await journal.close(5)

    asyncio.run(write())
    return folder / "audit"


def fresh(folder: Path) -> Path:
    """A log that has no checkpoint yet, with its key."""
    key = (signed(folder / "other") / "key.pub").read_bytes()
    log = written(folder, [(Kind.ACT, {"act": "start", "by": {"role": "appliance"}, "phase": "done"}, INSIDE)])
    (log / "key.pub").write_bytes(key)
    return log


def test_a_log_that_is_too_new_for_a_checkpoint_is_not_damaged(good: Facts, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    found = verified(fresh(tmp_path))
    assert (found.fresh, found.holds, found.newest) == (True, None, None)
    text = english(replace(good, verification=found))
    assert "✗ The log is new and has no checkpoint yet" in text
    assert "DAMAGED" not in text
    assert "The verification of the log found something" not in text


@pytest.mark.parametrize("left", ["000000000000.jsonl.gz", "000000000000.stub.json", "timestamps/000000000001.tsr"])
def test_a_log_that_had_checkpoints_and_lost_them_is_damaged(tmp_path: Path, left: str) -> None:
    (tmp_path / "other").mkdir()
    log = fresh(tmp_path)
    (log / left).parent.mkdir(exist_ok=True)
    (log / left).write_bytes(b"")
    found = verified(log)
    assert (found.fresh, found.holds) == (False, False)


@pytest.fixture
def authority() -> Iterator[tuple[Root, str]]:
    with tempfile.TemporaryDirectory(prefix="tsa-") as name:
        root = Root(Path(name))
        with time_authority(Path(name), root.issue()) as server:
            yield root, server.url


def stamp(log: Path, url: str) -> Path:
    line = (log / "checkpoints.jsonl").read_bytes().splitlines()[0]
    query = rfc3161.TimestampRequestBuilder(line, rfc3161.HashAlgorithm.SHA256).build()
    answer = httpx.post(url, content=query.as_bytes(), headers={"content-type": "application/timestamp-query"})
    file = log / timestamps.FOLDER / "000000000001.tsr"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(answer.content)
    return file


def test_time_stamps_are_verified_and_counted(good: Facts, tmp_path: Path, authority: tuple[Root, str]) -> None:
    root, url = authority
    log = signed(tmp_path)
    file = stamp(log, url)
    found = verified(log, root.file)
    assert (found.holds, found.stamps, found.stamped) == (True, 1, 1)
    assert "1, verified too; the newest witnesses checkpoint 1" in english(replace(good, verification=found))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found = verified(log, root.file)
    assert found.holds is False
    assert file.name in found.wrong[0]
    text = english(replace(good, verification=found))
    assert "✗ THE LOG IS DAMAGED" in text
    assert file.name in text


def test_time_stamps_that_nobody_can_verify_are_not_passed_over(
    good: Facts, tmp_path: Path, authority: tuple[Root, str]
) -> None:
    log = signed(tmp_path)
    stamp(log, authority[1])
    assert "1, not verified" in english(replace(good, verification=verified(log)))
    (tmp_path / "no.pem").write_text("no certificate")
    found = verified(log, tmp_path / "no.pem")
    assert found.holds is True, "that is no fault of the log"
    text = english(replace(good, verification=found))
    assert "1, NOT VERIFIED" in text
    assert "✗ Something else is NOT IN ORDER" in text


def test_requests_outside_of_the_proven_times_make_the_box_bad(good: Facts, bad: Facts) -> None:
    assert "✓ All 58 verifications" in english(good)
    text = english(bad)
    assert "✗ It is NOT PROVEN THROUGHOUT" in text
    assert "✓ The log is whole" in text, "each sentence has its own mark"
    demand = replace(good.proofs, interval=good.proofs.interval * 0, gaps=bad.proofs.gaps)
    counted = replace(good, proofs=demand, log=bad.log)
    assert "✗ It is NOT PROVEN THROUGHOUT" in english(counted)
