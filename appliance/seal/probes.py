"""Every way out that we know, tried by the process that runs this. Whether anything arrived, a canary outside says.

    probes.py < ORDER-AS-JSON        prints one line: {attempt: "done", or the error's name}

An order names the canary's addresses: {"tcp4", "tcp6", "udp4", "udp6": [host, port], "unix path", "unix datagram",
"unix abstract": path}, and optionally "interpreter", a Python to spawn; "neighbour", the path of a Unix socket at
which a process listens that has no seal; and "accepted", the path of one at which connected TCP sockets can be fetched,
to be tried as if they were a caller's, with "reuse", an address in their network.
Each attempt that sends, sends its own name and the order's "nonce", so that the canary knows it from whatever else on
this host may knock. Imports the standard library only; opens nothing when imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

PATIENCE = 1
"""Seconds for a connect; what is refused is refused at once."""
_FAST_OPEN, _FAST_OPEN_CONNECT, _TCP_ULP, _MPTCP, _VSOCK = 0x20000000, 30, 31, 262, 40
_SO_PEERPIDFD, _IPV6_ROUTING_HEADER, _NEW_LISTENER = 77, 57, 1 << 3
REUSES = ("reused by connect", "reused by sendto", "reused by sendmsg", "reused by sendmmsg")
OPENINGS = {  # sockets whose mere existence is a way out
    "raw": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
    "vsock": (_VSOCK, socket.SOCK_STREAM, 0),
    "netlink": (socket.AF_NETLINK, socket.SOCK_RAW, 0),
}
SENDING = frozenset({
    "tcp4", "tcp6", "mptcp", "udp4", "udp6", "dns", "fast open", "fast open sendmsg", "fast open connect", "ctypes",
    "a spawned program", "unix path", "unix datagram", "unix abstract", *REUSES,
})  # fmt: skip
"""Attempts that send something; of all others it is a finding that they were let."""
INSIDE = frozenset({
    "udp4", "udp6", "dns", "fast open connect", "netlink", "bind", "handing on a socket", "borrowing a descriptor",
})  # fmt: skip
"""Attempts that an engine may get done, because they end in its own empty network or among its own processes."""
NEEDS_ROOT = frozenset({"raw", "packet"})

Attempts = dict[str, Callable[[], None]]


def _bounded(sender: socket.socket) -> socket.socket:
    # Not settimeout(): that makes it non-blocking, which Fast Open doesn't take.
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE, 0))
    return sender


def _stream(family: int, address: Any, data: bytes, protocol: int = 0) -> None:
    with _bounded(socket.socket(family, socket.SOCK_STREAM, protocol)) as sender:
        sender.connect(address)
        sender.sendall(data)


def _datagram(family: int, address: Any, data: bytes) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, address)


def _question(nonce: str) -> bytes:
    """A DNS query for the address of the name `dns`, followed by the nonce."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in ("dns", nonce) if label)
    return struct.pack(">6H", 0x6170, 0x0100, 1, 0, 0, 0) + labels + b"\x00" + struct.pack(">2H", 1, 1)


def _fast_open(address: Any, data: bytes) -> None:
    with _bounded(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sender:
        sender.sendto(data, _FAST_OPEN, address)


def _fast_open_sendmsg(address: Any, data: bytes) -> None:
    with _bounded(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sender:
        sender.sendmsg([data], [], _FAST_OPEN, address)


def _fast_open_connect(address: Any, data: bytes) -> None:
    with _bounded(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sender:
        sender.setsockopt(socket.IPPROTO_TCP, _FAST_OPEN_CONNECT, 1)
        sender.connect(address)
        sender.sendall(data)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _failed(what: str) -> OSError:
    return OSError(ctypes.get_errno(), what)


def _ipv4(address: tuple[str, int]) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(address[1]), socket.inet_aton(address[0]))


def _by_ctypes(address: tuple[str, int], data: bytes) -> None:
    libc, where = _libc(), _ipv4(address)
    sender = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    if sender < 0:
        raise _failed("socket")
    try:
        if libc.connect(sender, where, len(where)) < 0 or libc.send(sender, data, len(data), 0) < 0:
            raise _failed("connect")
    finally:
        os.close(sender)


def _by_a_spawned_program(interpreter: str, address: tuple[str, int], data: bytes) -> None:
    program = (
        f"import socket\ntry: socket.create_connection({address!r}, {PATIENCE}).sendall({data!r})\n"
        "except OSError as error: raise SystemExit(error.errno or 1)"
    )
    child = subprocess.run([interpreter, "-I", "-S", "-c", program], stderr=subprocess.DEVNULL, timeout=30, check=False)
    if child.returncode:
        raise OSError(child.returncode, "the program failed")


def _io_uring() -> None:
    result = _libc().syscall(425, 4, ctypes.create_string_buffer(120))
    if result < 0:
        raise _failed("io_uring_setup")
    os.close(result)


def _request_key() -> None:
    number = 249 if os.uname().machine == "x86_64" else 218
    _libc().syscall(number, b"user", b"appliance-probe", None, 0)
    if ctypes.get_errno() != errno.ENOKEY:  # what an unhindered search for a missing key says
        raise _failed("request_key")


def _in_a_child(act: Callable[[], None]) -> None:
    """Do what may cost this process its life: a kernel without that system call table, or systemd, kills for it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        raise Killed(signal.Signals(os.WTERMSIG(ended)).name)
    if code := os.waitstatus_to_exitcode(ended):
        raise OSError(code, os.strerror(code))


class Killed(Exception):
    """An attempt was answered with a signal, whose name this holds."""


def _foreign_architecture() -> None:
    """Open a TCP socket by the 32-bit system call table: socket(2) is number 359 there."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # push rbx; mov eax,359; mov ebx,2; mov ecx,1; xor edx,edx; int 0x80; pop rbx; ret
    page.write(bytes.fromhex("53 b867010000 bb02000000 b901000000 31d2 cd80 5b c3"))
    opened = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    if opened < 0:
        raise OSError(-opened, os.strerror(-opened))
    os.close(opened)


def _open(family: int, kind: int, protocol: int) -> None:
    socket.socket(family, kind, protocol).close()


def _bind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))


def _hand_on() -> None:
    """Hand an open socket to another process, which might be allowed more."""
    near, far = socket.socketpair()
    with near, far:
        socket.send_fds(near, [b"."], [far.fileno()])


def _borrow_from_the_other_end(path: str) -> None:
    """Take a descriptor out of the process at the other end of a Unix socket, by the handle that the socket gives."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)
        other = caller.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    try:
        taken = _libc().syscall(438, other, 0, 0)  # pidfd_getfd
        if taken < 0:
            raise _failed("pidfd_getfd")
        os.close(taken)
    finally:
        os.close(other)


def _take_in() -> None:
    """Install a filter with a listener, by which another process could put its sockets into this one."""
    libc, number = _libc(), 317 if os.uname().machine == "x86_64" else 277
    allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000), 8)
    program = ctypes.create_string_buffer(struct.pack("=H6xQ", 1, ctypes.addressof(allow)), 16)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges: without them anybody may filter himself
    if libc.syscall(number, 1, _NEW_LISTENER, program) < 0:
        raise _failed("seccomp")


def _limit_another() -> None:
    """Set a limit of the process that started this one, to what it is."""
    resource.prlimit(os.getppid(), resource.RLIMIT_CPU, resource.getrlimit(resource.RLIMIT_CPU))


def _borrow() -> None:
    """Take a descriptor out of the process that started this one."""
    parent = os.pidfd_open(os.getppid())
    try:
        taken = _libc().syscall(438, parent, 0, 0)  # pidfd_getfd
        if taken < 0:
            raise _failed("pidfd_getfd")
        os.close(taken)
    finally:
        os.close(parent)


def _ulp(accepted: socket.socket) -> None:
    # The kernel has the layer, or says that it hasn't; a filter says EPERM.
    with contextlib.suppress(FileNotFoundError):
        accepted.setsockopt(socket.IPPROTO_TCP, _TCP_ULP, b"smc")


def _route(accepted: socket.socket) -> None:
    """Have the packets of a connection go by way of another host: a segment routing header with two stations."""
    stations = socket.inet_pton(socket.AF_INET6, "::") + socket.inet_pton(socket.AF_INET6, "2001:db8::66")
    header = struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + stations
    accepted.setsockopt(socket.IPPROTO_IPV6, _IPV6_ROUTING_HEADER, header)


def _listen_anew(accepted: socket.socket) -> None:
    _disconnect(accepted)
    accepted.listen(1)


def _disconnect(accepted: socket.socket) -> None:
    if _libc().connect(accepted.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16) < 0:
        raise _failed("connect(AF_UNSPEC)")


def _sendmmsg(sender: socket.socket, data: bytes, flags: int, address: tuple[str, int]) -> None:
    where_buffer, data_buffer = ctypes.create_string_buffer(_ipv4(address)), ctypes.create_string_buffer(data)
    vector = struct.pack("=QQ", ctypes.addressof(data_buffer), len(data))
    vector_buffer = ctypes.create_string_buffer(vector)
    one = struct.pack("=QI4xQQQQi4xI4x", ctypes.addressof(where_buffer), 16,
                      ctypes.addressof(vector_buffer), 1, 0, 0, 0, 0)  # fmt: skip
    if _libc().sendmmsg(sender.fileno(), ctypes.create_string_buffer(one), 1, flags) < 0:
        raise _failed("sendmmsg")


def _reuses(accepted: list[socket.socket], address: tuple[str, int], say: Callable[[str], bytes]) -> Attempts:
    """Attempts that disconnect a caller's connection and use the same socket to go elsewhere."""

    def by_connect() -> None:
        _disconnect(accepted[0])
        accepted[0].connect(address)
        accepted[0].sendall(say("reused by connect"))

    def by_sendto() -> None:
        _disconnect(accepted[1])
        accepted[1].sendto(say("reused by sendto"), _FAST_OPEN, address)

    def by_sendmsg() -> None:
        _disconnect(accepted[2])
        accepted[2].sendmsg([say("reused by sendmsg")], [], _FAST_OPEN, address)

    def by_sendmmsg() -> None:
        _disconnect(accepted[3])
        _sendmmsg(accepted[3], say("reused by sendmmsg"), _FAST_OPEN, address)

    tried: Attempts = dict(zip(REUSES, (by_connect, by_sendto, by_sendmsg, by_sendmmsg), strict=True))
    return tried | {
        "smc": lambda: _ulp(accepted[4]),
        "listening anew": lambda: _listen_anew(accepted[5]),
        "another route": lambda: _route(accepted[6]),
    }


ACCEPTED = ("127.0.0.1",) * 6 + ("::1",)
"""The addresses at which the connections were accepted that an order's `accepted` has to hand out."""


def fetch_accepted(path: str) -> list[socket.socket]:
    """Fetch the connections that the canary hands out at `path`."""
    with socket.socket(socket.AF_UNIX) as canary:
        canary.settimeout(PATIENCE)
        canary.connect(path)
        _, descriptors, _, _ = socket.recv_fds(canary, 1, len(ACCEPTED))
    return [_bounded(socket.socket(fileno=descriptor)) for descriptor in descriptors]


def attempts(order: dict[str, Any]) -> Attempts:
    """All attempts by name."""
    four, six = tuple(order["tcp4"]), tuple(order["tcp6"])
    nonce = str(order.get("nonce", ""))

    def say(name: str) -> bytes:
        return f"{name} {nonce}".strip().encode()

    tried: Attempts = {
        "tcp4": lambda: _stream(socket.AF_INET, four, say("tcp4")),
        "tcp6": lambda: _stream(socket.AF_INET6, six, say("tcp6")),
        "mptcp": lambda: _stream(socket.AF_INET, four, say("mptcp"), _MPTCP),
        "udp4": lambda: _datagram(socket.AF_INET, tuple(order["udp4"]), say("udp4")),
        "udp6": lambda: _datagram(socket.AF_INET6, tuple(order["udp6"]), say("udp6")),
        "dns": lambda: _datagram(socket.AF_INET, tuple(order["udp4"]), _question(nonce)),
        "fast open": lambda: _fast_open(four, say("fast open")),
        "fast open sendmsg": lambda: _fast_open_sendmsg(four, say("fast open sendmsg")),
        "fast open connect": lambda: _fast_open_connect(four, say("fast open connect")),
        "ctypes": lambda: _by_ctypes(four, say("ctypes")),
        "unix path": lambda: _stream(socket.AF_UNIX, order["unix path"], say("unix path")),
        "unix datagram": lambda: _datagram(socket.AF_UNIX, order["unix datagram"], say("unix datagram")),
        "unix abstract": lambda: _stream(socket.AF_UNIX, order["unix abstract"], say("unix abstract")),
        "io_uring": _io_uring,
        "request_key": _request_key,
        "bind": _bind,
        "handing on a socket": _hand_on,
        "borrowing a descriptor": _borrow,
        "taking in a socket": lambda: _in_a_child(_take_in),
        "limiting another process": _limit_another,
    }
    for name, arguments in OPENINGS.items():
        tried[name] = lambda arguments=arguments: _open(*arguments)  # type: ignore[misc]
    if os.uname().machine == "x86_64":
        tried["foreign architecture"] = lambda: _in_a_child(_foreign_architecture)
    if interpreter := order.get("interpreter"):
        tried["a spawned program"] = lambda: _by_a_spawned_program(interpreter, four, say("a spawned program"))
    if neighbour := order.get("neighbour"):
        tried["borrowing from the other end"] = lambda: _borrow_from_the_other_end(neighbour)
    if path := order.get("accepted"):
        tried |= _reuses(fetch_accepted(path), tuple(order.get("reuse", four)), say)
    return tried


def run(tried: Attempts) -> dict[str, str]:
    """What became of each: "done", or the name of the error or of the signal."""
    outcome = {}
    for name, act in tried.items():
        try:
            act()
            outcome[name] = "done"
        except OSError as error:
            outcome[name] = errno.errorcode.get(error.errno or 0, type(error).__name__)
        except Killed as killed:
            outcome[name] = str(killed)
        except Exception as error:  # a probe that breaks is a finding, and not the end of the others
            outcome[name] = type(error).__name__
    return outcome


def main(arguments: list[str]) -> int:
    """Carry out the order on standard input."""
    _ = arguments
    sys.stdout.write(json.dumps(run(attempts(json.load(sys.stdin)))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
