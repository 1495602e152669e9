"""What would hear it if a sealed process could send: sockets of every kind, just outside the seal."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from appliance.egress import handout
from appliance.egress.owner import as_owner

_MOST = 4096
_MOST_KNOCKS = 200
"""Of which one listener is asked; more can't be ours."""


class Canary:
    """Listens on this host's loopback and on Unix sockets, in the namespaces of whoever makes it.

    One canary for each place that is probed, so that what arrives tells where it came from. A context manager.
    """

    def __init__(self) -> None:
        # /tmp itself: a path below a longer folder may be too long for a socket
        self._folder = Path(tempfile.mkdtemp(prefix="canary-", dir="/tmp"))
        self._listening: list[socket.socket] = []
        self._connections: list[socket.socket] = []
        self._paths: list[Path] = []
        self._nonce = secrets.token_hex(16)
        self.strangers = 0
        """How many knocked that none of our attempts was: a port scanner, a curious neighbour."""
        self.order: dict[str, Any] = {"nonce": self._nonce}
        """The addresses, as an order of `appliance.seal.probes`."""
        loopback4, loopback6 = ("127.0.0.1", 0), ("::1", 0)
        self._listen("tcp4", socket.AF_INET, socket.SOCK_STREAM, loopback4)
        self._listen("udp4", socket.AF_INET, socket.SOCK_DGRAM, loopback4)
        self._listen("tcp6", socket.AF_INET6, socket.SOCK_STREAM, loopback6)
        self._listen("udp6", socket.AF_INET6, socket.SOCK_DGRAM, loopback6)
        self._listen("unix path", socket.AF_UNIX, socket.SOCK_STREAM, str(self._folder / "stream"))
        self._listen("unix datagram", socket.AF_UNIX, socket.SOCK_DGRAM, str(self._folder / "datagram"))
        abstract = f"\0appliance-canary-{os.getpid()}-{secrets.token_hex(4)}"
        self._listen("unix abstract", socket.AF_UNIX, socket.SOCK_STREAM, abstract)

    def _listen(self, name: str, family: int, kind: int, address: Any) -> None:
        listener = socket.socket(family, kind)
        try:
            listener.bind(address)
        except OSError:  # no IPv6 on this host: nothing can arrive there, and the control run shows it
            listener.close()
            self.order[name] = list(address)
            return
        self._listening.append(listener)
        if kind == socket.SOCK_STREAM:
            listener.listen(64)
        listener.settimeout(0)
        self.order[name] = address if family == socket.AF_UNIX else list(listener.getsockname()[:2])

    def stand_beside(self, path: Path) -> None:
        """Listen at `path` as a process without a seal: who connects gets a handle on it, and tries to use that."""
        self._open(path)
        self.order["neighbour"] = str(path)

    def hand_out(self, path: Path, host: str | None = None) -> None:
        """Hand connections, as a server accepts them, to the one who connects to the Unix socket `path`.

        A sealed process can't listen any more; what it could do with a caller's connection is tried on these. They are
        in a network of their own or, for those who watch another way, in this one, accepted at `host`.
        """
        made = handout.apart() if host is None else handout.here(host)
        self._connections += [*made.callers, *made.accepted]
        made.listener.settimeout(0)
        self._listening.append(made.listener)
        if host is None:
            self.order["reuse"] = list(made.listener.getsockname())
        door = self._open(path)
        self.order["accepted"] = str(path)
        accepted = made.accepted

        def give() -> None:
            with contextlib.suppress(OSError):  # closed: nobody came
                guest, _ = door.accept()
                with guest:
                    socket.send_fds(guest, [b"."], [connection.fileno() for connection in accepted])

        threading.Thread(target=give, daemon=True).start()

    def _open(self, path: Path) -> socket.socket:
        door = socket.socket(socket.AF_UNIX)
        self._connections.append(door)
        with as_owner(path.parent):  # where root verifies, too: it is the appliance's user that has to come in
            door.bind(str(path))
            path.chmod(0o600)
        self._paths.append(path)
        door.listen(1)
        return door

    def arrived(self) -> set[str]:
        """The name of each attempt that has got through. Call it when whoever tried has ended: all is here by then."""
        names = set()
        for listener in self._listening:
            for _ in range(_MOST_KNOCKS):
                try:
                    said = _next(listener)
                except BlockingIOError:
                    break
                if (name := self._attempt(said)) is None:
                    self.strangers += 1
                else:
                    names.add(name)
        return names

    def _attempt(self, said: bytes) -> str | None:
        """Which attempt said it. Whoever doesn't know the nonce is none of ours, and proves nothing."""
        name, _, nonce = said.decode(errors="replace").rpartition(" ")
        if secrets.compare_digest(nonce.encode(), self._nonce.encode()):
            return name
        return "dns" if b"\x03dns" in said and self._nonce.encode() in said else None

    def close(self) -> None:
        """Close every socket and remove the folder."""
        for opened in [*self._listening, *self._connections]:
            with contextlib.suppress(OSError):  # wakes a thread that waits in accept
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for path in self._paths:
            with contextlib.suppress(OSError), as_owner(path.parent):
                path.unlink()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _next(listener: socket.socket) -> bytes:
    if listener.type == socket.SOCK_DGRAM:
        return listener.recv(_MOST)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(0)
        try:
            return connection.recv(_MOST)
        except OSError:
            return b""
