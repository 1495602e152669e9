"""An authority in the house stamps checkpoints of a running appliance, and OpenSSL verifies the stamps."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import ROOT, House, Running, until
from tests.fakes.time_authority import Root, TimeAuthority, time_authority

Start = Callable[..., Running]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


@pytest.fixture
def authority(tmp_path: Path, root: Root) -> Iterator[TimeAuthority]:
    with time_authority(tmp_path, root.issue()) as authority:
        yield authority


@pytest.fixture
def stamping(house: House, authority: TimeAuthority, root: Root) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["audit"] = {
        "checkpoint_seconds": 0.2,
        "timestamps": {"url": authority.url, "certificate": str(root.file), "every_seconds": 10},
    }
    return house


def command(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "appliance", *arguments, "--config", str(house.config)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def stamps(house: House) -> list[Path]:
    return sorted((house.state / "audit" / "timestamps").glob("*.tsr"))


def shown(running: Running) -> dict[str, Any]:
    told: dict[str, Any] = running.status()["audit"]["timestamps"]
    return told


def test_a_stamp_is_made_and_openssl_verifies_it(stamping: House, start: Start, root: Root) -> None:
    running = start(stamping)
    (stamp,) = until(lambda: stamps(stamping))
    # the auditor's own lines, on a copy of the folder
    page = (ROOT / "docs" / "audit.md").read_text()
    (block,) = [block for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "openssl" in block]
    shutil.copy(root.file, stamping.state / "audit" / "tsa-chain.pem")
    lines = block.replace("000000000012", stamp.stem).replace("12p", f"{int(stamp.stem)}p")
    told = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines],
        cwd=stamping.state / "audit", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Verification: OK" in told.stdout, told.stderr
    assert "Time stamp: " in told.stdout
    for made in ("tsa-chain.pem", "line"):
        (stamping.state / "audit" / made).unlink()
    done = command(stamping, "egress", "verify", "--json")
    report = json.loads(done.stdout)
    assert {check["name"]: check["violations"] for check in report["checks"] if not check["holds"]} == {}
    (destination,) = report["findings"]["destinations"]
    assert (destination["name"], destination["kind"]) == ("time stamping authority", "in-house")
    assert shown(running) == {"checkpoint": int(stamp.stem), "failing": 0.0, "trouble": None}
    assert running.stop() == 0, running.output.read_text()


def test_an_authority_that_is_wrong_shows_and_holds_nothing_up(
    stamping: House, start: Start, authority: TimeAuthority
) -> None:
    authority.forge = lambda query, stamp: (200, b"<html>")
    running = start(stamping).ready()
    until(lambda: shown(running)["trouble"])
    with running.client() as client:
        body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    assert "timestamps" in command(stamping, "status").stdout
    authority.forge = None
    until(lambda: stamps(stamping))
    until(lambda: shown(running)["trouble"] is None)


def test_a_certificate_that_is_not_there_keeps_it_from_starting(stamping: House) -> None:
    stamping.settings["audit"]["timestamps"]["certificate"] = "/nowhere.pem"
    stamping.write()
    done = command(stamping, "serve")
    assert done.returncode != 0
    assert "audit.timestamps.certificate" in done.stderr


def test_a_verification_of_the_log_verifies_the_stamps_too(stamping: House, start: Start) -> None:
    running = start(stamping)
    (stamp, *_) = until(lambda: stamps(stamping))
    assert running.stop() == 0, running.output.read_text()
    assert command(stamping, "audit", "verify").returncode == 0
    spoilt = bytearray(stamp.read_bytes())
    spoilt[-1] ^= 1
    stamp.write_bytes(spoilt)
    done = command(stamping, "audit", "verify")
    assert done.returncode == 1
    assert stamp.name in done.stdout + done.stderr
