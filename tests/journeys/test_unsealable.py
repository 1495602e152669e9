"""A kernel that can't hold the seal, simulated by a filter over the whole appliance: it says so and doesn't start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.house import House, Running, until

ROOT = Path(__file__).parents[2]
LIMITED = """
import os, sys
from appliance.seal import kernel
kernel._X86["unshare"], kernel._ARM["unshare"] = 272, 97
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
kernel.seccomp([kernel.never(call) for call in sys.argv[1].split(",")])
os.execv(sys.argv[2], sys.argv[2:])
"""
KERNELS = {
    "landlock_create_ruleset": ("the seal lacks landlock tcp", "Linux 6.7", "lsm="),
    "unshare": ("the seal lacks network namespace", "user.max_user_namespaces", "docs/deploy.md"),
}


def under(missing: str) -> list[str]:
    """A command that runs another one on a kernel without these calls."""
    return [sys.executable, "-c", LIMITED, missing]


@pytest.mark.parametrize("missing", KERNELS)
def test_it_refuses_to_start_and_says_what_is_missing_and_how_to_get_it(house: House, missing: str) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.write()
    refused = subprocess.run(
        [*under(missing), sys.executable, "-m", "appliance", "serve", "--config", str(house.config)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    for words in KERNELS[missing]:
        assert words in refused.stderr
    assert "Traceback" not in refused.stderr


def test_best_effort_has_to_be_asked_for_and_shows_wherever_one_looks(house: House) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.write(egress={"mode": "deny", "seal": "best-effort", "verify": {"every_seconds": 0}})
    running = Running(house, under=under("landlock_create_ruleset,unshare"))
    try:
        running.ready()
        egress = running.status()["egress"]
        assert {line.split(":")[0] for line in egress["missing"]} >= {"landlock tcp", "network namespace"}
        assert "! The seal is not complete: landlock tcp" in running.printed("! The seal is not complete: landlock")
        with running.client() as client:
            metrics = client.get("/metrics").text
        assert float(until(lambda: _value(metrics, 'appliance_seal_missing{place="gateway"}'))) >= 2
        assert float(_value(metrics, 'appliance_seal_missing{place="engine chat"}')) >= 2
        shown = subprocess.run(
            [sys.executable, "-m", "appliance", "status", "--config", str(house.config)],
            cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "FORCE_COLOR": "1"},
        ).stdout  # fmt: skip
        assert "\x1b[31m" in shown
        verified = subprocess.run(
            [sys.executable, "-m", "appliance", "egress", "verify", "--json", "--config", str(house.config)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert verified.returncode == 1, verified.stderr
        failed = {check["name"] for check in json.loads(verified.stdout)["checks"] if not check["holds"]}
        assert {"seal", "namespaces", "probes"} <= failed
    finally:
        running.stop()


def _value(metrics: str, name: str) -> str:
    (line,) = (line for line in metrics.splitlines() if line.startswith(name))
    return line.rsplit(" ", 1)[1]
