"""The programs behind tests/fakes/network.py, each a process with one thread, since no other may enter a namespace.

    python -m tests.fakes.street [--user=ID] open --capture=DESCRIPTOR PORT...     be the street
    python -m tests.fakes.street [--user=ID] enter PID COMMAND...                  become a command in the house
    python -m tests.fakes.street [--user=ID] attempt PID FOUR SIX NAME             try every way out of the house

The street serves until its standard input ends. For each byte there it writes all frames that have come to the
capture, and then says how many were dropped: a line `{"dropped": 0}`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import selectors
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ADDRESSES = {
    "street": {socket.AF_INET: "10.77.0.1", socket.AF_INET6: "fd77::1"},
    "house": {socket.AF_INET: "10.77.0.2", socket.AF_INET6: "fd77::2"},
}
_MACS = {"street": "02:00:00:00:00:01", "house": "02:00:00:00:00:02"}
_NEW_NAMESPACE, _NEW_NETWORK, _NEW_USER = 0x00020000, 0x40000000, 0x10000000
_PACKET_LEVEL = 263
PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1)


def answer(query: bytes) -> bytes:
    """The DNS response: every name is in the street, but `at-8-8-8-8.` and the like are where they say."""
    end = query.index(b"\0", 12) + 5
    (kind,) = struct.unpack_from("!H", query, end - 4)
    family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
    data = socket.inet_pton(family, ADDRESSES["street"][family]) if family else b""
    label = query[13 : 13 + query[12]].decode("latin-1")
    if label.startswith("at-"):
        data = socket.inet_aton(label[3:].replace("-", ".")) if kind == 1 else b""
    record = struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(data)) + data if data else b""
    return query[:2] + struct.pack("!HHHHH", 0x8180, 1, bool(data), 0, 0) + query[12:end] + record


def attempt(four: str, six: str, name: str, port: int = 80) -> dict[str, str]:
    """Try to send each way's own name to these addresses: "done" where something answered, else what was said.

    Holds its own imports: tests also plant its source in engines.
    """
    import socket

    def by(family: int, kind: int, way: str, protocol: int = 0, head: bytes = b"") -> None:
        with socket.socket(family, kind, protocol) as sender:
            sender.settimeout(20)
            sender.connect((four if family == socket.AF_INET else six, port))
            sender.sendall(head + f"by {way}".encode())
            sender.recv(100)

    echo_request = b"\x08" + bytes(7)
    ways: dict[str, Callable[[], object]] = {
        "tcp4": lambda: by(socket.AF_INET, socket.SOCK_STREAM, "tcp4"),
        "tcp6": lambda: by(socket.AF_INET6, socket.SOCK_STREAM, "tcp6"),
        "udp4": lambda: by(socket.AF_INET, socket.SOCK_DGRAM, "udp4"),
        "udp6": lambda: by(socket.AF_INET6, socket.SOCK_DGRAM, "udp6"),
        "ping": lambda: by(socket.AF_INET, socket.SOCK_DGRAM, "ping", socket.IPPROTO_ICMP, echo_request),
        "name": lambda: socket.getaddrinfo(name.encode(), port),
    }
    outcome = {}
    for way, act in ways.items():
        try:
            act()
            outcome[way] = "done"
        except OSError as error:
            outcome[way] = str(error)
    return outcome


def _call(name: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _become(user: int) -> None:
    set_dumpable = 4
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _call("prctl", set_dumpable, 1, 0, 0, 0)  # else /proc/self belongs to root, as after any change of user


def _build(network: Any) -> int:
    """Enter new namespaces and join them; this process ends up in the street. The house's network, as a descriptor."""
    user, group = os.geteuid(), os.getegid()
    if user:
        _call("unshare", _NEW_USER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _call("unshare", _NEW_NAMESPACE | _NEW_NETWORK)
    street = os.open("/proc/self/ns/net", os.O_RDONLY)
    _call("unshare", _NEW_NETWORK)
    house = os.open("/proc/self/ns/net", os.O_RDONLY)
    Path("/proc/sys/net/ipv4/ping_group_range").write_text(f"{group} {group}")
    with network() as link:
        peer = {"ifname": "road", "address": _MACS["street"], "net_ns_fd": street}
        link.link("add", ifname="road", kind="veth", address=_MACS["house"], peer=peer)
        _set_up(link, "house", "street")
    _call("setns", street, _NEW_NETWORK)
    with network() as link:
        _set_up(link, "street", "house")
    return house


def _set_up(link: Any, here: str, there: str) -> None:
    no_detection, permanent = 0x02, 0x80
    (road,) = link.link_lookup(ifname="road")
    (loopback,) = link.link_lookup(ifname="lo")
    link.link("set", index=loopback, state="up")
    # No address of the kernel's own making: it would tell the neighbourhood of it.
    none = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}
    link.link("set", index=road, IFLA_AF_SPEC={"attrs": [["AF_INET6", none]]})
    link.link("set", index=road, state="up")
    for family, bits in ((socket.AF_INET, 32), (socket.AF_INET6, 128)):
        own, other = ADDRESSES[here][family], ADDRESSES[there][family]
        link.addr("add", index=road, family=family, address=own, prefixlen=bits, flags=no_detection)
        link.neigh("add", index=road, family=family, dst=other, lladdr=_MACS[there], state=permanent)
        link.route("add", family=family, dst=f"{other}/{bits}", oif=road, scope="link")
        # In the street every address that has no nearer route is one of its own.
        out = {"gateway": other} if here == "house" else {"oif": loopback, "type": "local", "scope": "host"}
        link.route("add", family=family, dst="default", **out)


def _furnish() -> None:
    """Names are looked up in the street: not by a daemon of the host's, and not as the host is set up."""
    bind, recursive_private = 0x1000, 0x4000 | 0x40000
    _call("mount", b"none", b"/", None, recursive_private, None)
    settings = {
        "resolv.conf": f"nameserver {ADDRESSES['street'][socket.AF_INET]}\noptions timeout:20 attempts:1\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    }
    for name, text in settings.items():
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            Path(file.name).chmod(0o644)
            _call("mount", file.name.encode(), f"/etc/{name}".encode(), None, bind, None)
    if Path("/run/nscd").exists():
        _call("mount", b"none", b"/run/nscd", b"tmpfs", 0, None)


class _Street:
    """Sockets of the street, served by a process that lives in the house."""

    def __init__(self, capture: int, ports: list[int]) -> None:
        self._capture = capture
        self._dropped = 0
        self._selector = selectors.DefaultSelector()
        self._wire = _wire()
        self._watch(self._wire, self._keep)
        for port in {53, *ports}:
            for family in (socket.AF_INET, socket.AF_INET6):
                self._listen(family, port)

    def _watch(self, source: socket.socket | int, act: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, act)

    def _listen(self, family: int, port: int) -> None:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sink = socket.socket(family, kind)
            sink.setblocking(False)
            if family == socket.AF_INET6:
                sink.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sink.bind(("", port))
            if kind == socket.SOCK_STREAM:
                sink.listen(64)
                self._watch(sink, lambda sink=sink: self._accept(sink))  # type: ignore[misc]
                continue
            # IP_PKTINFO and IP_FREEBIND, and the same for IPv6: an answer comes from the address that was asked.
            for option in (8, 15) if family == socket.AF_INET else (49, 78):
                sink.setsockopt(socket.IPPROTO_IP if family == socket.AF_INET else socket.IPPROTO_IPV6, option, 1)
            reply = answer if port == 53 else bytes
            self._watch(sink, lambda sink=sink, reply=reply: _echo(sink, reply))  # type: ignore[misc]

    def _accept(self, sink: socket.socket) -> None:
        connection, _ = sink.accept()
        self._watch(connection, lambda: self._echo_stream(connection))

    def _echo_stream(self, connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            if data := connection.recv(1 << 16):
                connection.sendall(data)
                return
        self._selector.unregister(connection)
        connection.close()

    def _keep(self) -> None:
        while True:
            try:
                frame = self._wire.recv(1 << 18)
            except BlockingIOError:
                return
            seconds, nano = divmod(time.time_ns(), 10**9)
            head = struct.pack("<IIII", seconds, nano // 1000, len(frame), len(frame))
            os.write(self._capture, head + frame)

    def _tell(self) -> None:
        if not os.read(0, 1):
            raise SystemExit
        self._keep()
        statistics = 6
        self._dropped += struct.unpack("II", self._wire.getsockopt(_PACKET_LEVEL, statistics, 8))[1]
        os.write(1, json.dumps({"dropped": self._dropped}).encode() + b"\n")

    def serve(self) -> None:
        """Until standard input ends."""
        self._watch(0, self._tell)
        while True:
            for key, _ in self._selector.select():
                key.data()


def _wire() -> socket.socket:
    """Sees what the house sends, whoever it is addressed to and whatever it says it comes from."""
    ignore_outgoing, every_protocol = 23, 0x0003
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.setsockopt(_PACKET_LEVEL, ignore_outgoing, 1)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    wire.setblocking(False)
    wire.bind(("road", every_protocol))
    return wire


def _echo(sink: socket.socket, reply: Callable[[bytes], bytes]) -> None:
    data, where, _, caller = sink.recvmsg(1 << 16, 128)
    # No answer to what isn't a question, nor from an address that is everybody's.
    with contextlib.suppress(ValueError, struct.error, OSError):
        sink.sendmsg([reply(data)], where, 0, caller)


def _enter(pid: int) -> None:
    folder = Path.cwd()
    own = Path("/proc/self/ns/user").stat().st_ino == Path(f"/proc/{pid}/ns/user").stat().st_ino
    _call("setns", os.pidfd_open(pid), _NEW_NAMESPACE | _NEW_NETWORK | (0 if own else _NEW_USER))
    os.chdir(folder)


def main() -> None:
    """Be the street; or enter the house beside the street of that process id, and run or try something there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--user", type=int)
    roles = parser.add_subparsers(dest="role", required=True)
    opening = roles.add_parser("open")
    opening.add_argument("--capture", type=int, required=True)
    opening.add_argument("ports", type=int, nargs="*")
    for role, rest in {"enter": "command", "attempt": "targets"}.items():
        entering = roles.add_parser(role)
        entering.add_argument("pid", type=int)
        entering.add_argument(rest, nargs="+")
    options = parser.parse_args()
    if options.role == "open":
        from pyroute2 import IPRoute  # now, since the user that this becomes may not be able to read it
    if options.user is not None:
        _become(options.user)
    if options.role == "open":
        house = _build(IPRoute)
        _furnish()
        street = _Street(options.capture, options.ports)  # its sockets stay where they were made
        _call("setns", house, _NEW_NETWORK)
        street.serve()
    elif options.role == "enter":
        _enter(options.pid)
        os.execvp(options.command[0], options.command)  # noqa: S606 - a list, and no shell is wanted
    else:
        _enter(options.pid)
        sys.stdout.write(json.dumps(attempt(*options.targets)))


if __name__ == "__main__":
    main()
