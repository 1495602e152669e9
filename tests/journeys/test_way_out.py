"""What a witness on the road sees of an appliance with a way out: the configured destinations, and nothing else.

python -m tests.journeys.test_way_out     what happens in the house; prints what came of it
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes import house as houses
from tests.fakes.house import House, Running
from tests.fakes.network import Outside, Packet
from tests.fakes.street import ADDRESSES

INSIDE, ASTRAY, CLOUD = "gpu.house.test", "at-8-8-8-8.test", "at-9-9-9-9.test"
STREET = {*ADDRESSES["street"].values()}


def happen(house: House) -> dict[str, Any]:
    """Ask a server in the house, one whose name leads out of it, and a provider without a clearance."""
    house.settings["models"] = {
        "inside": {"endpoint": f"http://{INSIDE}/v1"},
        "astray": {"endpoint": f"http://{ASTRAY}/v1"},
    }
    house.settings["egress"] = {
        "mode": "anonymized",
        "providers": {"cloud": {"url": f"https://{CLOUD}/v1"}},
        "verify": {"every_seconds": 0},
    }
    house.write()
    running = Running(house)
    with running.client(trust_env=False) as client:
        asked = {
            model: client.post(
                "/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": f"to {model}"}]}
            ).status_code
            for model in ("inside", "astray")
        }
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(house.state / "run/outlet/p1.sock"))) as gateway:
        asked["cloud"] = gateway.post("http://cloud/v1/chat/completions", json={"content": "to cloud"}).status_code
    return {"asked": asked, "exit": running.stop()}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], list[Packet]]]:
    with Outside(tmp_path_factory.mktemp("street")) as outside:
        command = [sys.executable, "-m", "tests.journeys.test_way_out"]
        run = outside.run(command, stdout=subprocess.PIPE, timeout=100, check=True)
        outside.control()
        yield json.loads(run.stdout), outside.sent()


def test_what_may_not_leave_is_refused(seen: tuple[dict[str, Any], list[Packet]]) -> None:
    told, _ = seen
    # the street answers, though not as a model would
    assert told == {"asked": {"inside": 502, "astray": 502, "cloud": 403}, "exit": 0}


def test_only_the_configured_server_in_the_house_is_connected_to(seen: tuple[dict[str, Any], list[Packet]]) -> None:
    _, packets = seen
    connections = {(packet.destination, packet.port) for packet in packets if packet.kind == "tcp"}
    assert connections <= {(address, 80) for address in STREET}
    assert any(b"to inside" in packet.payload for packet in packets)
    assert not any(b"to astray" in packet.payload or b"to cloud" in packet.payload for packet in packets)


def test_no_other_name_is_looked_up_than_those_that_were_asked_for(
    seen: tuple[dict[str, Any], list[Packet]],
) -> None:
    _, packets = seen
    assert {packet.name for packet in packets if packet.name} == {INSIDE, ASTRAY}
    others = [packet for packet in packets if packet.kind != "tcp" and not packet.name]
    assert others == []


if __name__ == "__main__":
    for house in houses.house():
        print(json.dumps(happen(house)))  # noqa: T201 - the answer to whoever started it
