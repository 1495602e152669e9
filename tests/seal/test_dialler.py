"""What a process under the dialler's seal can't do, and the little that it can."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from appliance.egress.canary import Canary
from appliance.seal import probes
from tests.fakes.house import ROOT

SEALED = """
import json, os, socket, sys
from appliance.seal import probes
from appliance.seal.dialler import seal_dialler
from appliance.seal.evidence import evidence

order, ports = json.loads(sys.argv[1]), json.loads(sys.argv[2])
seal = seal_dialler(ports)

def listen():
    with socket.socket() as listener:
        listener.listen()

def bind_udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))

def ping():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)

def to_a_path():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.sendto(b"to a path", order["unix datagram"])

tried = probes.attempts(order | {"interpreter": sys.executable}) | {
    "listen": listen, "bind udp": bind_udp, "ping": ping, "to a path": to_a_path,
    "writing to a file": lambda: open("/tmp/new", "w"),
    "a file of root's folder": lambda: os.stat("/var/lib"),
    "signal to a stranger": lambda: os.kill(os.getppid(), 0),
}
print(json.dumps({"outcome": probes.run(tried), "missing": seal.missing,
    "evidence": [[t.seccomp, t.filters, t.no_new_privileges, t.capabilities] for t in evidence()]}))
"""
NEEDED = {"udp4", "udp6", "dns", "handing on a socket"}
"""Looking up names, and giving the outlet what it asked for."""


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary() as made:
        yield made


def sealed(canary: Canary, *ports: int) -> dict[str, Any]:
    command = [sys.executable, "-c", SEALED, json.dumps(canary.order), json.dumps(ports)]
    result: dict[str, Any] = json.loads(subprocess.check_output(command, cwd=ROOT, timeout=60))
    return result


def test_no_port_but_the_configured_ones_is_reached_and_nothing_but_tcp_and_names(canary: Canary) -> None:
    result = sealed(canary, 443)
    assert result["missing"] == []
    assert {name for name, said in result["outcome"].items() if said == "done"} == NEEDED
    assert canary.arrived() == {"udp4", "udp6", "dns"}
    assert result["outcome"].keys() >= (probes.SENDING - set(probes.REUSES))
    assert result["evidence"] == [[2, 1, 1, 0]]


def test_a_configured_port_is_reached_by_a_plain_connection_only(canary: Canary) -> None:
    result = sealed(canary, canary.order["tcp4"][1])
    reached = {name for name, said in result["outcome"].items() if said == "done"} - NEEDED
    assert reached == {"tcp4", "ctypes", "fast open connect"}
    assert canary.arrived() >= {"tcp4", "ctypes"}
    assert result["outcome"]["mptcp"] == "EPERM"
