"""Every way out that we know, tried by the process that runs this. Whether anything arrived, a canary outside says.

    probes.py < ORDER-AS-JSON        prints one line: {attempt: "done", or the error's name}

An order names the canary's addresses: {"tcp4", "tcp6", "udp4", "udp6": [host, port], "unix path", "unix datagram",
"unix abstract": path}, and optionally "interpreter", a Python to spawn, and "accepted", the path of a Unix socket
at which connected TCP sockets can be fetched, to be tried as if they were a caller's.
Each attempt that sends, sends its own name. Imports the standard library only; opens nothing when imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
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


def _stream(family: int, address: Any, name: str, protocol: int = 0) -> None:
    with _bounded(socket.socket(family, socket.SOCK_STREAM, protocol)) as sender:
        sender.connect(address)
        sender.sendall(name.encode())


def _datagram(family: int, address: Any, data: bytes) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, address)


def _question() -> bytes:
    """A DNS query for the address of the name `dns`."""
    return struct.pack(">6H", 0x6170, 0x0100, 1, 0, 0, 0) + b"\x03dns\x00" + struct.pack(">2H", 1, 1)


def _fast_open(address: Any) -> None:
    with _bounded(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sender:
        sender.sendto(b"fast open", _FAST_OPEN, address)


def _fast_open_sendmsg(address: Any) -> None:
    with _bounded(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sender:
        sender.sendmsg([b"fast open sendmsg"], [], _FAST_OPEN, address)


def _fast_open_connect(address: Any) -> None:
    with _bounded(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sender:
        sender.setsockopt(socket.IPPROTO_TCP, _FAST_OPEN_CONNECT, 1)
        sender.connect(address)
        sender.sendall(b"fast open connect")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _failed(what: str) -> OSError:
    return OSError(ctypes.get_errno(), what)


def _ipv4(address: tuple[str, int]) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(address[1]), socket.inet_aton(address[0]))


def _by_ctypes(address: tuple[str, int]) -> None:
    libc, where = _libc(), _ipv4(address)
    sender = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    if sender < 0:
        raise _failed("socket")
    try:
        if libc.connect(sender, where, len(where)) < 0 or libc.send(sender, b"ctypes", 6, 0) < 0:
            raise _failed("connect")
    finally:
        os.close(sender)


def _by_a_spawned_program(interpreter: str, address: tuple[str, int]) -> None:
    program = (
        f"import socket\ntry: socket.create_connection({address!r}, {PATIENCE}).sendall(b'a spawned program')\n"
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


def _reuses(accepted: list[socket.socket], address: tuple[str, int]) -> Attempts:
    """Attempts that disconnect a caller's connection and use the same socket to go elsewhere."""

    def by_connect() -> None:
        _disconnect(accepted[0])
        accepted[0].connect(address)
        accepted[0].sendall(b"reused by connect")

    def by_sendto() -> None:
        _disconnect(accepted[1])
        accepted[1].sendto(b"reused by sendto", _FAST_OPEN, address)

    def by_sendmsg() -> None:
        _disconnect(accepted[2])
        accepted[2].sendmsg([b"reused by sendmsg"], [], _FAST_OPEN, address)

    def by_sendmmsg() -> None:
        _disconnect(accepted[3])
        _sendmmsg(accepted[3], b"reused by sendmmsg", _FAST_OPEN, address)

    tried: Attempts = dict(zip(REUSES, (by_connect, by_sendto, by_sendmsg, by_sendmmsg), strict=True))
    return tried | {"smc": lambda: _ulp(accepted[4])}


ACCEPTED = 5
"""How many connections an order's `accepted` has to hand out."""


def fetch_accepted(path: str) -> list[socket.socket]:
    """Fetch the connections that the canary hands out at `path`."""
    with socket.socket(socket.AF_UNIX) as canary:
        canary.settimeout(PATIENCE)
        canary.connect(path)
        _, descriptors, _, _ = socket.recv_fds(canary, 1, ACCEPTED)
    return [_bounded(socket.socket(fileno=descriptor)) for descriptor in descriptors]


def attempts(order: dict[str, Any]) -> Attempts:
    """All attempts by name."""
    four, six = tuple(order["tcp4"]), tuple(order["tcp6"])
    tried: Attempts = {
        "tcp4": lambda: _stream(socket.AF_INET, four, "tcp4"),
        "tcp6": lambda: _stream(socket.AF_INET6, six, "tcp6"),
        "mptcp": lambda: _stream(socket.AF_INET, four, "mptcp", _MPTCP),
        "udp4": lambda: _datagram(socket.AF_INET, tuple(order["udp4"]), b"udp4"),
        "udp6": lambda: _datagram(socket.AF_INET6, tuple(order["udp6"]), b"udp6"),
        "dns": lambda: _datagram(socket.AF_INET, tuple(order["udp4"]), _question()),
        "fast open": lambda: _fast_open(four),
        "fast open sendmsg": lambda: _fast_open_sendmsg(four),
        "fast open connect": lambda: _fast_open_connect(four),
        "ctypes": lambda: _by_ctypes(four),
        "unix path": lambda: _stream(socket.AF_UNIX, order["unix path"], "unix path"),
        "unix datagram": lambda: _datagram(socket.AF_UNIX, order["unix datagram"], b"unix datagram"),
        "unix abstract": lambda: _stream(socket.AF_UNIX, order["unix abstract"], "unix abstract"),
        "io_uring": _io_uring,
        "request_key": _request_key,
        "bind": _bind,
        "handing on a socket": _hand_on,
        "borrowing a descriptor": _borrow,
    }
    for name, arguments in OPENINGS.items():
        tried[name] = lambda arguments=arguments: _open(*arguments)  # type: ignore[misc]
    if os.uname().machine == "x86_64":
        tried["foreign architecture"] = lambda: _in_a_child(_foreign_architecture)
    if interpreter := order.get("interpreter"):
        tried["a spawned program"] = lambda: _by_a_spawned_program(interpreter, four)
    if path := order.get("accepted"):
        tried |= _reuses(fetch_accepted(path), four)
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
