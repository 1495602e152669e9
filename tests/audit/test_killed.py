"""Whenever the process is killed, the log opens again, its chain holds, and what went out has its intent."""

from __future__ import annotations

import multiprocessing
import random
import signal
from pathlib import Path

import pytest

from appliance.audit.journal import Journal
from appliance.config.audit import Audit
from tests.audit import chain, under_fire

ROUNDS = 25
"""Kills that one log sees; then another one begins, since all of it is read after each."""


async def killed(state: Path, after: float) -> int:
    """Kill a process that writes, `after` so many seconds; how many answers have gone out on this log by then."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.audit.under_fire"])
    process = context.Process(target=under_fire.run, args=(state,))
    process.start()
    process.join(after)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    journal = await Journal.open(state / "audit", state / "audit-keys", Audit())
    await journal.close(10)
    checkpoints = chain.checkpoints(state / "audit")
    records = chain.records(state / "audit")
    assert (checkpoints[-1].last if checkpoints else 0) == len(records)
    assert not [record for record in records if record["body"].get("incident", "audit_torn") != "audit_torn"]
    delivered = state / "delivered"
    told = [line.split() for line in delivered.read_text().splitlines()] if delivered.exists() else []
    for seq, request in told:
        assert records[int(seq) - 1]["body"]["request"] == request
    return len(told)


async def check(folder: Path, kills: int) -> None:
    chance = random.Random(5)  # noqa: S311 - which moments, no secret
    answers = 0
    for number in range(kills):
        state = folder / str(number // ROUNDS)
        state.mkdir(exist_ok=True)
        before = answers if number % ROUNDS else 0
        answers = await killed(state, chance.uniform(0, 0.15))
        assert answers >= before
    assert answers


async def test_killed_at_30_random_moments_the_log_holds(tmp_path: Path) -> None:
    await check(tmp_path, 30)


@pytest.mark.long
async def test_killed_at_1000_random_moments_the_log_holds(tmp_path: Path) -> None:
    await check(tmp_path, 1000)
