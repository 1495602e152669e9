"""A PostgreSQL in the house: several appliances, each of which decides a group while the others wait."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pg8000.dbapi
from pg8000.converters import literal
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError

from appliance.accounts.entries import Event
from appliance.accounts.store import rows
from appliance.accounts.store.database import Database
from appliance.accounts.store.persons import NAMING
from appliance.accounts.store.prepared import LOOK, put
from appliance.accounts.store.rows import Rows
from appliance.accounts.store.transaction import Look
from appliance.config import Postgresql
from appliance.errors import BooksUnavailable

_LOCK = 0x61_70_70_6C
"""The advisory lock of a group: the same number for all appliances."""
_TIMEOUT_SECONDS = 5.0
_SCRAM_ENDS = 12
_NO_TLS = "refuses SSL"
"""In the driver's own words."""
_SESSION = {
    "client_encoding": "utf8",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",  # each statement has to see what was committed before the lock
    "default_transaction_read_only": "off",
    "synchronous_commit": "on",  # what was answered for is on disk
    "statement_timeout": "4000",
    "idle_in_transaction_session_timeout": "2000",  # an appliance that froze in a group doesn't stop the others
}


class _Unproven(pg8000.dbapi.InterfaceError):  # type: ignore[misc] # has no types
    """The server didn't show that it knows the password."""


class _Connection(pg8000.dbapi.Connection):  # type: ignore[misc]
    """In clear text, the server has to show by SCRAM that it knows the password, too: whoever listens in its place,
    at a port or in a folder of this host, is neither told the password nor taken for it.

    Closes without complaint, as it may after the server has gone: SQLAlchemy would write a page into the log.
    """

    _proven = False

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:  # noqa: N802 - pg8000's name
        """See the protocol: 0 is that all is well, 10 to 12 are SCRAM, 12 its end; the others would tell it."""
        asked = int.from_bytes(data[:4])
        in_clear = self.password and not isinstance(self._usock, ssl.SSLSocket)
        if in_clear and asked not in (10, 11, 12) and not self._proven:
            raise _Unproven("no SCRAM")
        super().handle_AUTHENTICATION_REQUEST(data, context)
        self._proven = self._proven or asked == _SCRAM_ENDS  # a wrong signature has raised

    def close(self) -> None:
        with contextlib.suppress(pg8000.dbapi.Error):
            super().close()


class Shared(Database):
    """One database for several appliances."""

    shared = True
    driver_error = pg8000.dbapi.Error

    def __init__(self, settings: Postgresql, password: str | None, socket: Path | None, ca: Path | None) -> None:
        self._where = f"PostgreSQL at {settings.host}:{settings.port}"
        local = settings.host.startswith("/")
        if socket is None and local:
            socket = Path(settings.host, f".s.PGSQL.{settings.port}")
        self._arguments: dict[str, Any] = {
            "user": settings.user,
            "password": password or "",  # without one, the driver trips over a server that wants one
            "host": settings.host,
            "port": settings.port,
            "database": settings.database,
            "unix_sock": socket and str(socket),
            "timeout": _TIMEOUT_SECONDS,
            # False is in clear text; None would be TLS without a look at the certificate
            "ssl_context": _verifying(ca) if settings.tls and not local else False,
            "application_name": "appliance",
            "startup_params": _SESSION,
        }
        super().__init__(
            create_engine(
                "postgresql+pg8000://",
                creator=self._connect,
                hide_parameters=True,
                pool_pre_ping=True,
                pool_timeout=_TIMEOUT_SECONDS,
            )
        )
        self._put = put(self.engine.dialect)
        self.migrate()

    def _connect(self) -> _Connection:
        try:
            return _Connection(**self._arguments)
        except (pg8000.dbapi.Error, OSError):
            raise
        except Exception as odd:  # the driver trips over answers that no PostgreSQL gives
            raise pg8000.dbapi.InterfaceError("not understood") from odd

    def begin(self, connection: Connection) -> None:
        """Waits for the other appliances, for four seconds at most."""
        connection.begin()
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    def now(self, connection: Connection) -> float:
        """The server's clock."""
        return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())

    def look(self, connection: Connection, look: Look, appliance: str) -> dict[str, Any]:
        """What `look` asks for, as JSON."""
        asked = json.dumps([list(look.accounts), list(look.buckets), list({*look.scopes}), list(look.numbers)])
        found: dict[str, Any] = self._call(connection, "look", LOOK, asked, appliance)[0][0]
        return found

    def put(self, connection: Connection, changed: Rows, appliance: str) -> list[Event]:
        """One statement for all."""
        return [rows.event(row) for row in self._call(connection, "put", self._put, json.dumps(changed), appliance)]

    def _call(self, connection: Connection, name: str, statement: str, argument: str, appliance: str) -> Sequence[Any]:
        """Run a statement that is prepared once for each connection: one way there and back, and nothing to plan."""
        prepared = connection.info.setdefault("prepared", set())
        if name not in prepared:
            connection.exec_driver_sql(f"PREPARE appliance_{name} (jsonb, text) AS {statement}")
            prepared.add(name)
        # Values stand in the text, so not through SQLAlchemy, whose errors show it.
        cursor = connection.connection.cursor()
        cursor.execute(f"EXECUTE appliance_{name} ({literal(argument)}, {literal(appliance)})")
        return cursor.fetchall()

    def scrub(self) -> None:
        """Write the tables anew, in files of their own; the server's log of writes and its backups are its owner's."""
        with self.explained(), contextlib.closing(self._connect()) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("SET statement_timeout = '60s'")
            for table in NAMING:
                cursor.execute(f"VACUUM (FULL) {table.name}")

    def wipe(self) -> None:
        """There is none."""

    def was_lost(self, error: Exception) -> bool:
        """Whether the server ended the connection, as one does that is stopped."""
        return isinstance(error, DBAPIError) and (error.connection_invalidated or _state(error).startswith("57P"))

    def passes(self, error: Exception) -> bool:
        """A server that doesn't answer, or is being started, or has no connection left now; no wrong setting."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, ssl.SSLCertVerificationError | _Unproven) or _NO_TLS in str(cause):
            return False
        code = _state(error)
        return not code or code.startswith(("08", "53300", "57"))

    def why(self, error: Exception) -> str:
        """By PostgreSQL's code for it; its words may hold values."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            what = f"({cause.verify_message}): see `accounts.store.postgresql.host` and `ca`"
            return f"{self._where} has a certificate that isn't trusted {what}"
        if code := _state(error):
            known = _WHY.get(code) or _WHY.get(code[:2])
            return f"{self._where} {known or 'refused a statement: look at its log'} (SQLSTATE {code})"
        if isinstance(cause, _Unproven):
            return (
                f"{self._where} asks for no SCRAM, so anything could pass for it: have its pg_hba.conf say "
                "scram-sha-256, or use TLS; a server that asks for no password needs none in the config"
            )
        if _NO_TLS in str(cause):
            return f"{self._where} speaks no TLS: have it do so (`ssl = on` in its postgresql.conf)"
        return f"{self._where} doesn't answer ({type(cause).__name__}): see that it runs and can be reached"


def _verifying(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as cause:
        what = f"accounts.store.postgresql.ca: {ca} can't be read as a certificate in PEM ({cause.strerror})"
        raise BooksUnavailable(what, code="books_unavailable") from None


def _state(error: Exception) -> str:
    """PostgreSQL's five letters for what went wrong; empty when it said nothing."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    said = cause.args[0] if cause is not None and cause.args else None
    return str(said.get("C", "")) if isinstance(said, dict) else ""


_WHY = {
    "08": "broke the connection off: see that it runs and can be reached",
    "25006": "takes no writes: it is a standby; name the primary in `accounts.store.postgresql.host`",
    "28": "refused the role: see `accounts.store.postgresql.user` and `password`, and its pg_hba.conf",
    "3D": "has no such database: make it, or correct `accounts.store.postgresql.database`",
    "42501": "doesn't let the role use the tables: have it own them, or the database",
    "42P": "has no such tables: have an appliance make them by starting it again",
    "53100": "has a full disk: free some space there",
    "53300": "has no connection left: raise its max_connections",
    "57014": "took too long, or another appliance holds its lock: look at its load",
    "57P": "is being stopped or started: it is tried again by itself",
    "58": "can't use its disk: look at its log",
    "XX": "has damaged data or a bug: look at its log",
}
