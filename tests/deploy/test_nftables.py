"""The rule set by uid, in force: two hosts made of network namespaces, joined by a cable."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "configs" / "nftables" / "appliance.nft"
OURS, OTHER = 64123, 64124
HERE, THERE = "10.77.0.1", "10.77.0.2"

pytestmark = [
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft isn't installed (Debian: nftables)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="two users in one network take root to make"),
]

WITNESS = """
table inet witness {
	counter arrived { }
	chain input {
		type filter hook input priority filter
		tcp flags & (syn|ack) == syn counter name arrived
		udp dport { 7000, 8000 } counter name arrived
		icmp type echo-request counter name arrived
		icmpv6 type echo-request counter name arrived
	}
}
"""

ATTEMPT = """
import errno, os, socket, struct, sys
user, kind, there = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.setresgid(user, user, user)
os.setresuid(user, user, user)
family = socket.AF_INET6 if ":" in there else socket.AF_INET
try:
    if kind in ("tcp", "mptcp", "fastopen"):
        sock = socket.socket(family, socket.SOCK_STREAM, 262 if kind == "mptcp" else 0)
    elif kind == "ping":
        sock = socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_ICMP if ":" not in there else 58)
    else:
        sock = socket.socket(family, socket.SOCK_DGRAM)
except OSError as missing:
    sys.exit(f"{kind}: {missing}")
for late in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
    sock.setsockopt(socket.SOL_SOCKET, late, struct.pack("ll", 3, 0))
try:
    if kind == "ping":
        sock.sendto(bytes([128 if ":" in there else 8, 0, 0, 0, 0, 0, 0, 1]), (there, 0))
    elif kind == "fastopen":
        sock.sendto(b"hello", 0x20000000, (there, 7000))
    else:
        sock.connect((there, 7000))
        sock.send(b"hello")
    print("through" if sock.recv(100) else "closed")
except OSError as refused:
    print(errno.errorcode[refused.errno])
"""

ECHO = """
import os, selectors, socket, sys
user = int(sys.argv[1])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
watched = selectors.DefaultSelector()
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        sock = socket.socket(family, kind)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, int(sys.argv[2])))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        watched.register(sock, selectors.EVENT_READ)
print("listens", flush=True)
while True:
    for key, _ in watched.select():
        if key.fileobj.type == socket.SOCK_DGRAM:
            data, who = key.fileobj.recvfrom(100)
            key.fileobj.sendto(data, who)
        else:
            with key.fileobj.accept()[0] as accepted:
                accepted.sendall(accepted.recv(100))
"""

Networks = tuple[str, str]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    """Ours and another host's network, by name; the other one echoes."""
    ours, other = (f"appliance-test-{os.getpid()}-{side}" for side in ("a", "b"))
    servers: list[subprocess.Popen[str]] = []
    try:
        for network in (ours, other):
            run("ip", "netns", "add", network)
            run("ip", "-n", network, "link", "set", "lo", "up")
        run("ip", "link", "add", "cable", "netns", ours, "type", "veth", "peer", "name", "cable", "netns", other)
        for number, network in enumerate((ours, other), 1):
            run("ip", "-n", network, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
            run("ip", "-n", network, "address", "add", f"fd77::{number}/64", "dev", "cable", "nodad")
            run("ip", "-n", network, "link", "set", "cable", "up")
        run("ip", "netns", "exec", ours, "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
        servers += [echo(other, OTHER, 7000), echo(ours, OTHER, 7000), echo(ours, OURS, 8000)]
        yield ours, other
    finally:
        for server in servers:
            server.kill()
            server.wait()
        for network in (ours, other):
            subprocess.run(["ip", "netns", "delete", network], check=False)


def echo(network: str, user: int, port: int) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", network, sys.executable, "-c", ECHO, str(user), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "listens\n"
    return server


@pytest.fixture
def ours(networks: Networks, tmp_path: Path) -> str:
    """Our network with the rules in force, and counters at nought; in both a witness of what arrives."""
    (tmp_path / "witness.nft").write_text(f"flush ruleset\n{WITNESS}")
    for network in networks:
        run("ip", "netns", "exec", network, "nft", "--file", str(tmp_path / "witness.nft"))
    load(networks[0], tmp_path)
    return networks[0]


def load(network: str, folder: Path, **changed: str) -> None:
    text = RULES.read_text()
    for old, new in {"define user = appliance": f"define user = {OURS}", **changed}.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "rules.nft").write_text(text)
    run("ip", "netns", "exec", network, "nft", "--check", "--file", str(folder / "rules.nft"))
    run("ip", "netns", "exec", network, "nft", "--file", str(folder / "rules.nft"))


def attempt(network: str, user: int, kind: str, there: str) -> str:
    return run("ip", "netns", "exec", network, sys.executable, "-c", ATTEMPT, str(user), kind, there).strip()


def counters(network: str, table: str = "appliance") -> dict[str, int]:
    """Packets by counter, read as docs/deploy.md says."""
    told = run("ip", "netns", "exec", network, "nft", "--json", "list", "counters", "table", "inet", table)
    return {
        entry["counter"]["name"]: entry["counter"]["packets"]
        for entry in json.loads(told)["nftables"]
        if "counter" in entry
    }


@pytest.mark.parametrize("there", [THERE, "fd77::2", HERE])
@pytest.mark.parametrize("kind", ["tcp", "udp", "ping", "mptcp", "fastopen"])
def test_what_our_user_starts_is_refused_and_counted_and_anothers_passes(
    ours: str, networks: Networks, kind: str, there: str
) -> None:
    if kind == "mptcp" and not Path("/proc/sys/net/mptcp/enabled").exists():
        pytest.skip("this kernel has no MPTCP")

    def arrived() -> int:
        return sum(counters(network, "witness")["arrived"] for network in networks)

    assert attempt(ours, OTHER, kind, there) == "through", "the control: without it a refusal proves nothing"
    assert counters(ours) == {"answered": 0, "allowed": 0, "loopback": 0, "refused": 0}
    before = arrived()
    assert before > 0
    assert attempt(ours, OURS, kind, there) in ("ECONNREFUSED", "EPERM", "EHOSTUNREACH", "EACCES", "EAGAIN")
    assert arrived() == before
    assert counters(ours)["refused"] > 0
    assert counters(ours)["allowed"] == counters(ours)["answered"] == 0


@pytest.mark.parametrize("there", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_what_our_user_sends_to_the_loopback_arrives_and_is_counted(ours: str, kind: str, there: str) -> None:
    """The canary of the proofs listens there; and a proof without its canary would be none."""
    assert attempt(ours, OURS, kind, there) == "through"
    assert counters(ours)["loopback"] > 0
    assert counters(ours)["refused"] == 0


@pytest.mark.parametrize("there", [HERE, "fd77::1"])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_what_others_ask_our_user_is_answered(ours: str, networks: Networks, kind: str, there: str) -> None:
    script = ATTEMPT.replace("7000", "8000")
    said = run("ip", "netns", "exec", networks[1], sys.executable, "-c", script, str(OTHER), kind, there)
    assert said.strip() == "through"
    assert counters(ours)["answered"] > 0
    assert counters(ours)["refused"] == 0


def test_servers_of_the_house_can_be_let_through_one_by_one(ours: str, tmp_path: Path) -> None:
    examples = re.findall(r"(?m)^#(add element .*)$", RULES.read_text())
    assert len(examples) == 2
    mine = [f"{{ {THERE} . tcp . 7000 }}", "{ fd77::2 . udp . 7000 }"]
    filled = {f"#{old}": re.sub(r"\{.*\}", new, old) for old, new in zip(examples, mine, strict=True)}
    load(ours, tmp_path, **filled)
    assert attempt(ours, OURS, "tcp", THERE) == attempt(ours, OURS, "udp", "fd77::2") == "through"
    assert counters(ours)["allowed"] > 0
    assert counters(ours)["refused"] == 0
    assert attempt(ours, OURS, "udp", THERE) != "through"
    assert attempt(ours, OURS, "tcp", "fd77::2") != "through"
    refused = counters(ours)["refused"]
    assert refused > 0

    load(ours, tmp_path)  # as it was: the sets are emptied, what was counted stays
    assert attempt(ours, OURS, "tcp", THERE) == "ECONNREFUSED"
    assert counters(ours)["refused"] > refused


def test_the_examples_are_understood(networks: Networks, tmp_path: Path) -> None:
    examples = {f"#{line}": line for line in re.findall(r"(?m)^#(add element .*)$", RULES.read_text())}
    load(networks[0], tmp_path, **examples)
