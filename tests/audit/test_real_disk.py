"""The log on real disks and beside real processes: full, read-only, and already taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from appliance.audit.journal import Journal
from appliance.config.audit import Audit
from tests.fakes.house import ROOT

APART = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]

SECOND = """
import asyncio, sys
from pathlib import Path
from appliance.audit.journal import Journal
from appliance.config.audit import Audit
from appliance.errors import AuditFailed
state = Path(sys.argv[1])
try:
    asyncio.run(Journal.open(state / "audit", state / "audit-keys", Audit()))
except AuditFailed as refused:
    print(refused)
"""


def test_on_a_full_disk_nothing_is_acknowledged_and_with_room_again_it_goes_on(tmp_path: Path) -> None:
    command = [*APART, sys.executable, "-m", "tests.audit.small_disk", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    number = told["acknowledged"]
    assert 20 < number < 100
    assert told["full"] == {"well": 0, "on_disk": True}
    assert told["after"][:number] == list(range(1, number + 1))
    assert told["after"][number:] == [number + 1, -1, "audit_unwritable", -2]
    assert "Read-only file system" in told["read_only"]
    assert str(tmp_path) in told["read_only"]


async def test_a_second_process_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    def second() -> str:
        command = [sys.executable, "-c", SECOND, str(tmp_path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout

    journal = await Journal.open(tmp_path / "audit", tmp_path / "audit-keys", Audit())
    assert "another process writes to the log" in second()
    await journal.close(5)
    assert second() == ""
