"""Every way out, tried from under each seal at addresses of the internet, with a packet capture as the witness.

python -m tests.seal.test_matrix PLACE STATE     tries, in the house of tests.fakes.network; prints what came of it
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from appliance.egress.canary import Canary
from appliance.engines.nursery import program
from appliance.seal import probes, view
from appliance.seal.gateway import listen_no_more, seal_gateway
from tests.fakes.network import Outside

ROOT = Path(__file__).parents[2]
FOUR, SIX = "198.51.100.7", "2001:db8:1::7"
STREET = {"tcp4": [FOUR, 443], "tcp6": [SIX, 443], "udp4": [FOUR, 53], "udp6": [SIX, 53]}
ON_THE_WIRE = probes.SENDING - {"unix path", "unix datagram", "unix abstract"}
BY_EVERY_PLACE = ON_THE_WIRE - set(probes.REUSES)


def try_all(place: str, state: str) -> dict[str, Any]:
    with Canary() as canary, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        if place == "gateway":
            canary.hand_out(Path(folder) / "accepted", "0.0.0.0")  # noqa: S104 - of one address, it couldn't go elsewhere
        order = canary.order | STREET | {"interpreter": sys.executable}
        way = {"gateway": as_gateway, "engine": as_engine}[place]
        outcome = way(order, state, Path(folder))
        return {"outcome": outcome, "arrived": sorted(canary.arrived())}


def as_gateway(order: dict[str, Any], state: str, folder: Path) -> dict[str, str]:
    line = [sys.executable, "-m", "tests.seal.test_matrix", "gateway", f"as {state}", str(folder)]
    outcome: dict[str, str] = json.loads(subprocess.check_output(line, input=json.dumps(order).encode(), cwd=ROOT))
    return outcome


def as_engine(order: dict[str, Any], state: str, folder: Path) -> dict[str, str]:
    start = f"import sys; sys.path.append({str(ROOT)!r}); sys.stdin = open({str(folder / 'order')!r})\n"
    command = [sys.executable, "-c", f"{start}from appliance.seal.probes import main; main([])"]
    (folder / "order").write_text(json.dumps(order))
    log = folder / "log"
    seen = [f"--readable={path}" for path in (*view.interpreter(), folder)]
    keeper = program("engines.keeper", f"--log={log}", *seen, "--", *command)
    if state == "unsealed":
        log.write_bytes(subprocess.check_output(command))
    else:
        subprocess.run(keeper, check=True, stdout=subprocess.DEVNULL)
    outcome: dict[str, str] = json.loads(log.read_text())
    return outcome


def become_gateway(state: str, folder: Path) -> dict[str, str]:
    order = json.load(sys.stdin)
    listener = socket.create_server(("127.0.0.1", 0))
    if state == "as sealed":
        seal_gateway([*view.interpreter(), folder])
        listen_no_more()
    with listener:
        return probes.run(probes.attempts(order))


def in_the_house(outside: Outside, place: str, state: str) -> dict[str, Any]:
    done = outside.run([sys.executable, "-m", "tests.seal.test_matrix", place, state], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def came(outside: Outside) -> set[str]:
    """The attempts whose names stand in packets that left the house."""
    wire = b"\0".join(packet.payload for packet in outside.sent())
    names = {name for name in ON_THE_WIRE - {"dns"} if name.encode() in wire}
    return names | ({"dns"} if any(name.startswith("dns.") for name in outside.names()) else set())


@pytest.mark.parametrize("place", ["gateway", "engine"])
def test_unsealed_every_attempt_leaves_the_house(place: str, tmp_path: Path) -> None:
    with Outside(tmp_path) as outside:
        result = in_the_house(outside, place, "unsealed")
        assert came(outside) == (ON_THE_WIRE if place == "gateway" else BY_EVERY_PLACE), result
        assert set(result["arrived"]) == probes.SENDING - ON_THE_WIRE


@pytest.mark.parametrize("place", ["gateway", "engine"])
def test_sealed_no_attempt_makes_a_packet(place: str, tmp_path: Path) -> None:
    with Outside(tmp_path) as outside:
        outside.control()
        result = in_the_house(outside, place, "sealed")
        assert result["outcome"].keys() >= (probes.SENDING if place == "gateway" else BY_EVERY_PLACE)
        outside.control()
        assert outside.sent() == []
        assert result["arrived"] == []


if __name__ == "__main__":
    where, how, *rest = sys.argv[1:]
    told = become_gateway(how, Path(rest[0])) if rest else try_all(where, how)
    sys.stdout.write(json.dumps(told))
