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

from appliance.seal.probes import ACCEPTED

_MOST = 4096
_SILENT = "a connection without a word"


class Canary:
    """Listens on this host's loopback and on Unix sockets, in the namespaces of whoever makes it.

    One canary for each place that is probed, so that what arrives tells where it came from. A context manager.
    """

    def __init__(self) -> None:
        # /tmp itself: a path below a longer folder may be too long for a socket
        self._folder = Path(tempfile.mkdtemp(prefix="canary-", dir="/tmp"))
        self._listening: list[socket.socket] = []
        self._connections: list[socket.socket] = []
        self.order: dict[str, Any] = {}
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

    def hand_out(self, path: Path, host: str = "127.0.0.1") -> None:
        """Hand ACCEPTED connections, as a server at `host` accepts them, to who connects to the Unix socket `path`.

        A sealed process can't listen any more; what it could do with a caller's connection is tried on these.
        """
        with socket.create_server((host, 0)) as server:
            callers = [socket.create_connection(("127.0.0.1", server.getsockname()[1])) for _ in range(ACCEPTED)]
            accepted = [server.accept()[0] for _ in range(ACCEPTED)]
        self._connections += [*callers, *accepted]
        door = socket.socket(socket.AF_UNIX)
        door.bind(str(path))
        path.chmod(0o600)
        door.listen(1)
        self._connections.append(door)
        self.order["accepted"] = str(path)

        def give() -> None:
            with contextlib.suppress(OSError):  # closed: nobody came
                guest, _ = door.accept()
                with guest:
                    socket.send_fds(guest, [b"."], [connection.fileno() for connection in accepted])

        threading.Thread(target=give, daemon=True).start()

    def arrived(self) -> set[str]:
        """The name of each attempt that has got through. Call it when whoever tried has ended."""
        names = set()
        for listener in self._listening:
            with contextlib.suppress(BlockingIOError):
                while True:
                    names.add(_next(listener))
        return names

    def close(self) -> None:
        """Close every socket and remove the folder."""
        for opened in [*self._listening, *self._connections]:
            with contextlib.suppress(OSError):  # wakes a thread that waits in accept
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        if path := self.order.get("accepted"):
            Path(path).unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _next(listener: socket.socket) -> str:
    if listener.type == socket.SOCK_DGRAM:
        data = listener.recv(_MOST)
        return "dns" if b"\x03dns\x00" in data else data.decode(errors="replace")
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(0.2)
        try:
            return connection.recv(_MOST).decode(errors="replace") or _SILENT
        except OSError:
            return _SILENT
