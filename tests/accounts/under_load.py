"""A process that books on SQLite as fast as it can, and tells what it did, until it is killed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from appliance.accounts.bookkeeper import Bookkeeper
from appliance.accounts.entries import Want
from appliance.accounts.store import Store
from appliance.config import Accounts

TASKS = 8
RESERVED = 100


async def main(folder: Path) -> None:
    keeper = Bookkeeper(Store.sqlite(folder), Accounts())
    await keeper.open()

    async def task(number: int) -> None:
        want = Want(f"k{number}", None, "sales", None, "m", RESERVED, 0)
        for turn in range(10**9):
            booking = await keeper.reserve(want)
            await booking.kept()
            used = (17 * turn + number) % RESERVED + 1
            os.write(1, b"%d\n" % used)  # what an engine would have counted, known before it is settled
            booking.settle(used, 0)

    await asyncio.gather(*(task(number) for number in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
