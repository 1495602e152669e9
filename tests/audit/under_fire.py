"""Processes that write to a log as fast as they can, until they are killed."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.config.audit import Audit

TASKS = 16
READINGS = 50
"""Readings of the clock on one day: so often does a segment end."""


def run(state: Path) -> None:
    """Write to the log below `state`, and note in `delivered` what requests were told that they are on record."""
    asyncio.run(write(state))


async def write(state: Path) -> None:
    """As `run` has it."""
    days = itertools.count(1)
    settings = Audit(checkpoint_records=20)
    journal = await Journal.open(
        state / "audit", state / "audit-keys", settings, wall=lambda: next(days) * (86_400 / READINGS)
    )
    delivered = os.open(state / "delivered", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def task(number: int) -> None:
        for turn in itertools.count():
            request = f"{os.getpid()}-{number}-{turn}"
            ticket = journal.write(Kind.INTENT, {"request": request, "purpose": "p" * (turn * 37 % 5000)})
            await ticket.kept()
            os.write(delivered, f"{ticket.seq} {request}\n".encode())
            journal.note(Kind.OUTCOME, {"intent": ticket.seq})

    await asyncio.gather(*(task(number) for number in range(TASKS)))
