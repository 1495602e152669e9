"""The tests' own outside world: a house with one road out, and a witness on the road that keeps every frame.

Two network namespaces are joined by a veth pair. In the *house* runs what is under test: it has a loopback, a
default route for IPv4 and IPv6 and a name server, as an ordinary host has. The *street* stands for the internet:
it answers for every address there is, over TCP and UDP, and to every name that is looked up. Needs Linux, no
program, and no root: an ordinary user gets a user namespace around both.

    with Outside(folder) as outside:
        outside.run([sys.executable, "-m", "something"])
        outside.control()
        assert outside.sent() == []

Neighbours are entered by hand, so nobody has to ask for an address on the link: an ARP request or a neighbour
solicitation is a sign of someone who sends, and counts.
"""

from __future__ import annotations

import ipaddress
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.street import PCAP_HEADER

ROOT = Path(__file__).resolve().parents[2]
CONTROL = {"four": "192.0.2.77", "six": "2001:db8::77", "name": "control.test"}
"""Where the controls send; nothing else does."""
NAME_PORTS = {53, 5353, 5355}
LINK_TYPES = {131, 132, 133, 143}
"""ICMPv6 that a kernel sends by itself when a link comes up: multicast reports and the call for a router."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame that left the house. `kind` is tcp, udp, icmp, link (see LINK_TYPES) or other; `port` is the one it
    was sent to; `name` is the name that it looks up."""

    seconds: float
    kind: str
    destination: str
    port: int | None
    name: str | None
    payload: bytes
    frame: bytes

    @classmethod
    def parse(cls, seconds: float, frame: bytes) -> Packet:
        """Read a frame as far as it is understood. What isn't, is of kind other."""
        try:
            return cls(seconds, *_parse(frame), frame)
        except (IndexError, struct.error):
            return cls(seconds, "other", "", None, None, b"", frame)


def _parse(frame: bytes) -> tuple[str, str, int | None, str | None, bytes]:
    packet = frame[14:]
    match frame[12:14]:
        case b"\x08\x00":
            (length,) = struct.unpack_from("!H", packet, 2)
            protocol, destination, rest = packet[9], packet[16:20], packet[(packet[0] & 15) * 4 : length]
        case b"\x86\xdd":
            protocol, destination, rest = packet[6], packet[24:40], packet[40:]
            while protocol in (0, 43, 60):  # options before the payload
                protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
        case ethertype:
            return "other", f"ethertype {ethertype.hex()}", None, None, packet
    address = str(ipaddress.ip_address(destination))
    match protocol:
        case 6:
            (port,), payload = struct.unpack_from("!2xH", rest), rest[(rest[12] >> 4) * 4 :]
            name = question(payload[2:]) if port in NAME_PORTS and payload else None  # a length goes before it
            return "tcp", address, port, name, payload
        case 17:
            (port,), payload = struct.unpack_from("!2xH", rest), rest[8:]
            return "udp", address, port, question(payload) if port in NAME_PORTS else None, payload
        case 1 | 58:
            kind = "link" if protocol == 58 and rest[0] in LINK_TYPES else "icmp"
            return kind, address, None, None, rest[8:]
    return "other", address, None, None, rest


def question(message: bytes) -> str | None:
    """The first name that a DNS message asks for."""
    labels, at = [], 12
    while at < len(message) and (length := message[at]):
        labels.append(message[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    return ".".join(labels) or None


class Outside:
    """House, road and street, from `with` to its end."""

    def __init__(self, folder: Path, *, ports: tuple[int, ...] = (80, 443), user: int | None = None) -> None:
        """Keeps the capture as street.pcap in `folder`. The street listens on `ports`.

        As `user`, root lives here like an ordinary user.
        """
        self.capture = folder / "street.pcap"
        self._ports = ports
        self._user = [f"--user={user}"] if user is not None else []

    def __enter__(self) -> Outside:
        with self.capture.open("wb", buffering=0) as capture:
            capture.write(PCAP_HEADER)
            self._street = subprocess.Popen(
                self._program("open", f"--capture={capture.fileno()}", *map(str, self._ports)),
                pass_fds=[capture.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        self._ask()
        return self

    def __exit__(self, *_: object) -> None:
        with self._street:
            assert self._street.stdin
            self._street.stdin.close()

    def _program(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tests.fakes.street", *self._user, *arguments]

    def _ask(self) -> None:
        """Have the street write all that has come. It also says once by itself that it is open."""
        assert self._street.stdin
        assert self._street.stdout
        self._street.stdin.write(b"\n")
        self._street.stdin.flush()
        said = self._street.stdout.readline()
        assert said, "the street could not be built; what it lacks is said above"
        assert json.loads(said) == {"dropped": 0}, "the witness was too slow: what it did not see may be anything"

    def command(self, command: list[str]) -> list[str]:
        """The command that runs `command` in the house, as a child of whoever starts it."""
        return [*self._program("enter", str(self._street.pid), "--"), *command]

    def run(
        self, command: list[str], *, cwd: Path = ROOT, check: bool = False, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """`subprocess.run` in the house, as text."""
        return subprocess.run(self.command(command), cwd=cwd, check=check, text=True, **options)

    def popen(self, command: list[str], *, cwd: Path = ROOT, **options: Any) -> subprocess.Popen[Any]:
        """`subprocess.Popen` in the house."""
        return subprocess.Popen(self.command(command), cwd=cwd, **options)

    def attempt(self, four: str, six: str, name: str) -> dict[str, str]:
        """`street.attempt` by a process in the house that nothing holds back."""
        tried = subprocess.check_output(self._program("attempt", str(self._street.pid), four, six, name), cwd=ROOT)
        outcome: dict[str, str] = json.loads(tried)
        return outcome

    def control(self) -> None:
        """The positive control: fails unless everything that is sent from the house arrives, answers and is seen.

        It also sees to it that what was sent before has come.
        """
        before = len(self.packets())
        outcome = self.attempt(**CONTROL)
        assert outcome == dict.fromkeys(outcome, "done")
        seen = self.packets()[before:]
        assert CONTROL["name"] in {packet.name for packet in seen}
        for way in outcome.keys() - {"name"}:
            assert any(b"by " + way.encode() in packet.payload for packet in seen), f"{way} was not seen"

    def packets(self) -> list[Packet]:
        """Every frame that has left the house, in order."""
        self._ask()
        return list(_read(self.capture))

    def sent(self) -> list[Packet]:
        """The packets that count: not the link's own, and not the controls'."""
        ours = {CONTROL["four"], CONTROL["six"]}
        return [
            packet
            for packet in self.packets()
            if packet.kind != "link" and packet.destination not in ours and packet.name != CONTROL["name"]
        ]

    def names(self) -> list[str]:
        """Every name that was looked up, but for the controls'."""
        return [packet.name for packet in self.sent() if packet.name]


def _read(capture: Path) -> Iterator[Packet]:
    data, at = capture.read_bytes(), len(PCAP_HEADER)
    while at < len(data):
        seconds, micro, length, _ = struct.unpack_from("<IIII", data, at)
        yield Packet.parse(seconds + micro / 1e6, data[at + 16 : at + 16 + length])
        at += 16 + length
