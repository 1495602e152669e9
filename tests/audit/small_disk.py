"""A process that writes to a log on a disk of its own, which becomes full, then free, then read-only.

It is started in namespaces of its own, where it may mount; it prints what became of each.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.config.audit import Audit
from appliance.errors import AuditFailed, AuditUnavailable
from tests.audit import chain
from tests.fakes.house import until

ROOM = 100_000
"""Bytes that are left on the disk, about."""


def mount(*arguments: str) -> None:
    """What the command does; only in these namespaces."""
    subprocess.run(["mount", *arguments], check=True)


async def main(state: Path) -> dict[str, Any]:
    """Use the disk at `state`, and tell."""
    journal = await Journal.open(state / "audit", state / "audit-keys", Audit())
    ballast = state / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(state).free - ROOM))
    acknowledged = 0
    try:
        while True:
            await journal.write(Kind.INTENT, {"number": acknowledged + 1, "text": "x" * 1000}).kept()
            acknowledged += 1
    except AuditUnavailable:
        pass
    journal.note(Kind.OUTCOME, {"number": -1})
    full = {"well": journal.describe()["well"], "on_disk": len(chain.records(state / "audit")) >= acknowledged}
    ballast.unlink()
    await asyncio.to_thread(until, lambda: journal.describe()["well"])
    await journal.write(Kind.INTENT, {"number": -2}).kept()
    await journal.close(5)
    bodies = chain.bodies(state / "audit")
    after = [body.get("number", body.get("incident")) for body in bodies]
    mount("-o", "remount,ro", str(state))
    try:
        await Journal.open(state / "audit", state / "audit-keys", Audit())
    except AuditFailed as refused:
        return {"acknowledged": acknowledged, "full": full, "after": after, "read_only": str(refused)}
    return {}


if __name__ == "__main__":
    where = Path(sys.argv[1])
    mount("-t", "tmpfs", "-o", "size=2m", "log", str(where))
    sys.stdout.write(json.dumps(asyncio.run(main(where))))
