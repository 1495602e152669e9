"""Every way out that we know, tried by the process that runs this; a sink elsewhere sees what came.

attempts.py TARGETS-AS-JSON     prints one line: {attempt: "done" or the error's name}
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

FAST_OPEN, FAST_OPEN_CONNECT, TCP_ULP, MPTCP, VSOCK = 0x20000000, 30, 31, 262, 40
OPENINGS = {  # sockets whose mere existence is a way out
    "raw": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
    "vsock": (VSOCK, socket.SOCK_STREAM, 0),
}
NEEDS_ROOT = {"raw", "packet"}


def _stream(family: int, address: Any, name: str, protocol: int = 0) -> None:
    with socket.socket(family, socket.SOCK_STREAM, protocol) as sender:
        sender.settimeout(5)
        sender.connect(address)
        sender.sendall(name.encode())


def _datagram(family: int, address: Any, name: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(name.encode(), address)


def _fast_open(address: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sender:
        sender.sendto(b"fast open", FAST_OPEN, address)


def _fast_open_sendmsg(address: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sender:
        sender.sendmsg([b"fast open sendmsg"], [], FAST_OPEN, address)


def _fast_open_connect(address: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sender:
        sender.setsockopt(socket.IPPROTO_TCP, FAST_OPEN_CONNECT, 1)
        sender.connect(address)
        sender.sendall(b"fast open connect")


def _by_ctypes(address: tuple[str, int]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    where = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(address[1]), socket.inet_aton(address[0]))
    sender = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    if sender < 0 or libc.connect(sender, where, len(where)) < 0 or libc.send(sender, b"ctypes", 6, 0) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    os.close(sender)


def _by_subprocess(address: tuple[str, int]) -> None:
    program = f"import socket; socket.create_connection({address!r}).sendall(b'subprocess')"
    if subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL, check=False).returncode:
        raise OSError(errno.ECHILD, "the child failed")


def _io_uring() -> None:
    result = ctypes.CDLL(None, use_errno=True).syscall(425, 4, ctypes.create_string_buffer(120))
    if result < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    os.close(result)


def _request_key() -> None:
    number = 249 if os.uname().machine == "x86_64" else 218
    ctypes.CDLL(None, use_errno=True).syscall(number, b"user", b"appliance-test", None, 0)
    if ctypes.get_errno() != errno.ENOKEY:  # what an unhindered search for a missing key says
        raise OSError(ctypes.get_errno(), "request_key")


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


def _disconnect(accepted: socket.socket) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(accepted.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16) < 0:
        raise OSError(ctypes.get_errno(), "connect(AF_UNSPEC)")


def _sendmmsg(sender: socket.socket, data: bytes, flags: int, address: tuple[str, int]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    where = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(address[1]), socket.inet_aton(address[0]))
    where_buffer, data_buffer = ctypes.create_string_buffer(where), ctypes.create_string_buffer(data)
    vector = struct.pack("=QQ", ctypes.addressof(data_buffer), len(data))
    vector_buffer = ctypes.create_string_buffer(vector)
    one = struct.pack("=QI4xQQQQi4xI4x", ctypes.addressof(where_buffer), 16,
                      ctypes.addressof(vector_buffer), 1, 0, 0, 0, 0)  # fmt: skip
    if libc.sendmmsg(sender.fileno(), ctypes.create_string_buffer(one), 1, flags) < 0:
        raise OSError(ctypes.get_errno(), "sendmmsg")


def reuses(accepted: list[socket.socket], address: tuple[str, int]) -> dict[str, Callable[[], None]]:
    """Attempts that disconnect an accepted connection and use the same socket to go elsewhere."""

    def by_connect() -> None:
        _disconnect(accepted[0])
        accepted[0].connect(address)
        accepted[0].sendall(b"reused by connect")

    def by_sendto() -> None:
        _disconnect(accepted[1])
        accepted[1].sendto(b"reused by sendto", FAST_OPEN, address)

    def by_sendmsg() -> None:
        _disconnect(accepted[2])
        accepted[2].sendmsg([b"reused by sendmsg"], [], FAST_OPEN, address)

    def by_sendmmsg() -> None:
        _disconnect(accepted[3])
        _sendmmsg(accepted[3], b"reused by sendmmsg", FAST_OPEN, address)

    return {
        "reused by connect": by_connect,
        "reused by sendto": by_sendto,
        "reused by sendmsg": by_sendmsg,
        "reused by sendmmsg": by_sendmmsg,
    }


def attempts(targets: dict[str, Any]) -> dict[str, Callable[[], None]]:
    """All attempts by name; those that send, send their name."""
    four, six = tuple(targets["tcp4"]), tuple(targets["tcp6"])
    tried: dict[str, Callable[[], None]] = {
        "tcp4": lambda: _stream(socket.AF_INET, four, "tcp4"),
        "tcp6": lambda: _stream(socket.AF_INET6, six, "tcp6"),
        "mptcp": lambda: _stream(socket.AF_INET, four, "mptcp", MPTCP),
        "udp4": lambda: _datagram(socket.AF_INET, tuple(targets["udp4"]), "udp4"),
        "udp6": lambda: _datagram(socket.AF_INET6, tuple(targets["udp6"]), "udp6"),
        "fast open": lambda: _fast_open(four),
        "fast open sendmsg": lambda: _fast_open_sendmsg(four),
        "fast open connect": lambda: _fast_open_connect(four),
        "ctypes": lambda: _by_ctypes(four),
        "subprocess": lambda: _by_subprocess(four),
        "unix path": lambda: _stream(socket.AF_UNIX, targets["unix path"], "unix path"),
        "unix abstract": lambda: _stream(socket.AF_UNIX, targets["unix abstract"], "unix abstract"),
        "io_uring": _io_uring,
        "request_key": _request_key,
    }
    for name, arguments in OPENINGS.items():
        if os.geteuid() == 0 or name not in NEEDS_ROOT or "TRY_ALL" in os.environ:
            tried[name] = lambda arguments=arguments: _open(*arguments)  # type: ignore[misc]
    if os.uname().machine == "x86_64":
        tried["foreign architecture"] = _foreign_architecture
    return tried


def run(tried: dict[str, Callable[[], None]]) -> dict[str, str]:
    """What became of each."""
    outcome = {}
    for name, act in tried.items():
        try:
            act()
            outcome[name] = "done"
        except OSError as error:
            outcome[name] = errno.errorcode.get(error.errno or 0, str(error))
    return outcome


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(attempts(json.loads(sys.argv[1])))) + "\n")
