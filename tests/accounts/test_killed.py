"""Whenever the process is killed, the books agree with what was used, to within what was in flight."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.accounts.bookkeeper import Bookkeeper
from appliance.accounts.entries import Account, Kind, Scope, Span
from appliance.accounts.store import Store
from appliance.config import Accounts
from tests.accounts.under_load import RESERVED, TASKS
from tests.fakes.house import ROOT

TEAM = Scope(Kind.TEAM, "sales")


def used_until_killed(folder: Path, answers: int) -> int:
    """Tokens that a process used that was killed soon after so many answers."""
    command = [sys.executable, "-m", "tests.accounts.under_load", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        used = sum(int(process.stdout.readline()) for _ in range(answers))
        process.kill()
        return used + sum(map(int, process.stdout.read().split()))


async def check(folder: Path, moments: list[int]) -> None:
    before = 0
    for answers in moments:
        used = used_until_killed(folder, answers)
        store = Store.sqlite(folder)
        keeper = Bookkeeper(store, Accounts())
        await keeper.open()
        await keeper.close(10)
        months = store.usage("2000-01-01", "2999-12-31", Span.MONTH)
        booked = sum(sums.prompt_tokens + sums.completion_tokens for _, sums in months)
        # of each task, a reservation was open, and the one before it may have been settled in memory only
        assert used <= booked - before <= used + TASKS * 2 * RESERVED
        accounts = [Account(TEAM, Span.MONTH, key.day) for key, _ in months]
        balances = store.balances(accounts)
        assert balances.keys() == set(accounts)
        assert sum(balance.tokens for balance in balances.values()) == booked
        assert not any(balance.reserved_tokens for balance in balances.values())
        store.close()
        before = booked


async def test_killed_at_some_moments_the_books_agree(tmp_path: Path) -> None:
    await check(tmp_path, [1, 9, 100, 333])


@pytest.mark.long
async def test_killed_at_200_random_moments_the_books_agree(tmp_path: Path) -> None:
    chance = random.Random(4)  # noqa: S311 - which moments, no secret
    await check(tmp_path, [chance.randrange(1, 500) for _ in range(200)])
