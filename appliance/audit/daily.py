"""A job that runs soon after the start, and then once a day, early in the morning; every hour until it works."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from appliance.errors import in_full

HOUR = 3
"""When it runs, by the clock of the house. It is no hour that a change of the clocks leaves out, nearly everywhere."""
_SOON = 5.0
"""Seconds after the start."""
_AGAIN = 3600.0
"""Seconds after a run that failed: a disk that was full at 3 o'clock may have room at 4."""
_STEP = 600.0
"""Seconds between two looks at the clock, which may be set meanwhile."""
_LONGEST = 25 * 3600.0
"""Seconds from one run to the next, however far the clock is set back."""


async def daily(
    job: Callable[[], Awaitable[object]],
    zone: Callable[[], ZoneInfo],
    *,
    soon: float = _SOON,
    wall: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Run `job` after `soon` seconds and then every day, until cancelled. What it raises is logged; it runs again soon.

    `zone`: of the house, asked anew each day.
    """
    await sleep(soon)
    while True:
        began = wall()
        due = next_run(began, zone())
        try:
            await job()
        except Exception as cause:
            due = min(due, began + _AGAIN)
            why = in_full(cause)
            logging.getLogger("appliance.audit").error("the daily job failed, and runs again in an hour: %s", why)
        slept = 0.0
        while (left := min(due - wall(), _LONGEST - slept)) > 0:
            await sleep(min(left, _STEP))
            slept += min(left, _STEP)


def next_run(after: float, zone: ZoneInfo) -> float:
    """The first 3 o'clock after a moment; both in seconds since 1970."""
    local = datetime.fromtimestamp(after, zone)
    due = local.replace(hour=HOUR, minute=0, second=0, microsecond=0, fold=0)
    while due.timestamp() <= after:
        due = (due.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=zone)
    return due.timestamp()
