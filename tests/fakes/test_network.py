"""The witness sees: whatever leaves the house is in the capture, byte for byte, whoever lives there."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.network import Outside, Packet
from tests.fakes.people import PEOPLE
from tests.fakes.street import ADDRESSES, PCAP_HEADER

FOUR, SIX, NAME = "8.8.8.8", "2001:4860:4860::8888", "telemetry.example"
PYTHON = shutil.which("python3", path=os.defpath) or ""
"""A Python that every user can read."""


@pytest.fixture(scope="module", params=PEOPLE)
def outside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with Outside(tmp_path_factory.mktemp("street"), user=request.param) as outside:
        yield outside


@pytest.fixture(scope="module")
def seen(outside: Outside) -> list[Packet]:
    """What left when one of each kind was sent, and each was answered."""
    outcome = outside.attempt(FOUR, SIX, NAME)
    assert outcome == dict.fromkeys(("tcp4", "tcp6", "udp4", "udp6", "ping", "name"), "done")
    return outside.packets()


@pytest.mark.parametrize(
    ("way", "kind", "destination", "port"),
    [
        ("tcp4", "tcp", FOUR, 80),
        ("tcp6", "tcp", SIX, 80),
        ("udp4", "udp", FOUR, 80),
        ("udp6", "udp", SIX, 80),
        ("ping", "icmp", FOUR, None),
    ],
)
def test_what_is_sent_is_seen_with_its_bytes(
    seen: list[Packet], way: str, kind: str, destination: str, port: int | None
) -> None:
    (packet,) = [packet for packet in seen if packet.payload == f"by {way}".encode()]
    assert (packet.kind, packet.destination, packet.port) == (kind, destination, port)
    assert packet.payload in packet.frame


def test_a_name_that_is_looked_up_is_known(outside: Outside, seen: list[Packet]) -> None:
    assert set(outside.names()) == {NAME}
    assert {packet.destination for packet in seen if packet.name} == {ADDRESSES["street"][socket.AF_INET]}


def test_nobody_asks_for_an_address_on_the_link(seen: list[Packet]) -> None:
    """Else an ARP request, which counts, could be the link's own."""
    assert {packet.kind for packet in seen} <= {"tcp", "udp", "icmp", "link"}


def test_the_controls_do_not_count_but_work(outside: Outside, seen: list[Packet]) -> None:
    before = outside.sent()
    outside.control()
    assert outside.sent() == before
    assert len(outside.packets()) > len(seen)


def test_a_program_finds_its_way_by_a_name_and_what_comes_back_is_an_answer(outside: Outside) -> None:
    code = (
        "import socket\n"
        "with socket.create_connection(('www.example', 443), 5) as sender:\n"
        "    sender.sendall(b'hello, street'); print(sender.recv(99).decode(), sender.getpeername()[0])"
    )
    done = outside.run([PYTHON, "-c", code], capture_output=True)
    assert done.stdout.split(",") == ["hello", f" street {ADDRESSES['street'][socket.AF_INET6]}\n"], done.stderr
    assert "www.example" in outside.names()
    assert b"hello, street" in {packet.payload for packet in outside.sent()}


def test_a_door_that_nobody_opens_is_seen_all_the_same(outside: Outside) -> None:
    code = "import socket; socket.create_connection(('198.51.100.1', 4711), 5)"
    done = outside.run([PYTHON, "-c", code], capture_output=True)
    assert "ConnectionRefusedError" in done.stderr
    assert [packet.port for packet in outside.sent() if packet.destination == "198.51.100.1"] == [4711]


def test_a_datagram_to_the_whole_neighbourhood_counts(outside: Outside) -> None:
    code = (
        "import socket\n"
        "sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n"
        "for address in ('255.255.255.255', '224.0.0.251'):\n"
        "    for port in (53, 80, 5353): sender.sendto(b'all', (address, port))"
    )
    outside.run([PYTHON, "-c", code], check=True)
    said = {(packet.destination, packet.port) for packet in outside.sent() if packet.payload == b"all"}
    assert said == {(address, port) for address in ("255.255.255.255", "224.0.0.251") for port in (53, 80, 5353)}


def test_the_house_is_like_an_ordinary_host(outside: Outside) -> None:
    code = (
        "import socket, os\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).sendall(b'x')\n"
        "print(socket.gethostbyname('localhost'), os.getuid(), os.getcwd())"
    )
    user = int((outside._user or [f"={os.geteuid()}"])[0].split("=")[1])
    shown = outside.run([PYTHON, "-c", code], capture_output=True, check=True, cwd=Path("/usr"))
    assert shown.stdout.split() == ["127.0.0.1", str(user), "/usr"]
    assert outside.run(["sh", "-c", "exit 7"]).returncode == 7


def test_the_host_is_not_in_the_house(outside: Outside) -> None:
    """No way leads from the house to the host's own sockets, nor to its daemon for names."""
    with socket.create_server(("127.0.0.1", 0)) as host, socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(f"\0appliance-test-{os.getpid()}")
        daemon.listen()
        code = (
            "import socket, sys\n"
            "for family, address in ((2, ('127.0.0.1', int(sys.argv[1]))), (1, '\\0' + sys.argv[2])):\n"
            "    try: socket.socket(family).connect(address)\n"
            "    except ConnectionRefusedError: print('refused')"
        )
        arguments = [str(host.getsockname()[1]), f"appliance-test-{os.getpid()}"]
        shown = outside.run([PYTHON, "-c", code, *arguments], capture_output=True, check=True)
    assert shown.stdout.split() == ["refused", "refused"]


def test_frames_that_are_not_understood_count() -> None:
    for frame in (b"", b"\0" * 14, b"\0" * 12 + b"\x08\x00\x45", b"\0" * 12 + b"\x08\x06" + b"\0" * 28):
        assert Packet.parse(0.0, frame).kind == "other"


@pytest.mark.skipif(not shutil.which("tshark"), reason="reads the capture with a program of somebody else's: tshark")
def test_others_can_read_the_capture(outside: Outside, seen: list[Packet]) -> None:
    fields = ["-T", "fields", "-e", "frame.len", "-e", "frame.protocols", "-e", "dns.qry.name"]
    packets = outside.packets()
    lines = subprocess.check_output(["tshark", "-n", "-r", outside.capture, *fields], text=True, timeout=60)
    read = [line.split("\t") for line in lines.splitlines()][: len(packets)]
    assert [int(length) for length, *_ in read] == [len(packet.frame) for packet in packets]
    for packet, (_, protocols, name) in zip(packets, read, strict=True):
        if packet.kind in ("tcp", "udp"):
            assert protocols.split(":")[3] == packet.kind
            assert name == (packet.name or "")


def test_a_witness_that_missed_something_says_so(tmp_path: Path) -> None:
    with Outside(tmp_path) as outside:
        street = outside._street
        street.send_signal(signal.SIGSTOP)
        flood = (
            "import socket\n"
            "sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "for _ in range(60000): sender.sendto(bytes(1400), ('8.8.8.8', 9))"
        )
        outside.run([PYTHON, "-c", flood], check=True)
        street.send_signal(signal.SIGCONT)
        with pytest.raises(AssertionError, match="the witness was too slow"):
            outside.packets()


def test_nothing_is_left_when_it_is_over(tmp_path: Path) -> None:
    networks = Path("/proc/self/ns/net").stat().st_ino, Path("/etc/resolv.conf").read_bytes()
    with Outside(tmp_path) as outside:
        assert outside.packets() is not None
    assert outside._street.returncode == 0
    assert (Path("/proc/self/ns/net").stat().st_ino, Path("/etc/resolv.conf").read_bytes()) == networks
    assert outside.capture.read_bytes().startswith(PCAP_HEADER)
