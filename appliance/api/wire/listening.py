"""The sockets that a server listens on: bound here, or passed by systemd."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import MutableMapping
from pathlib import Path

from appliance.errors import CannotListen

_BACKLOG = 2048
_FIRST_PASSED = 3
_LONGEST_PATH = 107


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as cause:
        what = f"can't listen on {host}:{port}: {os.strerror(cause.errno or 0)}; is another program there?"
        raise CannotListen(what) from cause


def listen_unix(path: Path, mode: int = 0o660) -> socket.socket:
    """A listening Unix socket that whom `mode` lets write may connect to, in place of one left by a dead server.

    Raises CannotListen, also when `path` is anything but a socket that nobody listens on.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise CannotListen(f"{path} is too long for a Unix socket: over {_LONGEST_PATH} bytes")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        sock.bind(str(path))
        path.chmod(mode)  # before listen(): nobody connects under the wider mode
        sock.listen(_BACKLOG)
    except OSError as cause:
        sock.close()
        what = f"{os.strerror(cause.errno or 0)}; the folder has to exist, and this user to be allowed to write to it"
        raise CannotListen(f"can't listen on {path}: {what}") from cause
    except CannotListen:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise CannotListen(f"{path} is there and isn't a socket; name another path, or remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)  # a full queue isn't waited for: somebody listens
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise CannotListen(f"another program listens on {path}; stop it, or name another path")


def passed_socket(environment: MutableMapping[str, str]) -> socket.socket | None:
    """The listening socket that systemd passed to this process, None where it passed none (sd_listen_fds(3)).

    Takes the variables that say so out of `environment`, so that no child takes the socket for its own. Raises
    CannotListen for anything but one socket that listens for TCP or on a Unix socket with a path.
    """
    told = {name: environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if told["LISTEN_PID"] != str(os.getpid()):
        return None  # meant for a process above this one, which didn't unset them
    if told["LISTEN_FDS"] != "1":
        raise CannotListen(f"systemd passed {told['LISTEN_FDS']} sockets; its .socket unit may have one ListenStream=")
    try:
        sock = socket.socket(fileno=_FIRST_PASSED)
    except OSError as cause:
        what = f"systemd passed no socket as descriptor {_FIRST_PASSED}: {os.strerror(cause.errno or 0)}"
        raise CannotListen(what) from cause
    sock.set_inheritable(False)
    problem = _why_unfit(sock)
    if problem:
        sock.close()
        raise CannotListen(f"the socket that systemd passed {problem}")
    return sock


def _why_unfit(sock: socket.socket) -> str:
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "doesn't listen for connections; its .socket unit needs ListenStream= and Accept=no"
    if sock.family == socket.AF_UNIX:
        # an abstract one has no mode: everybody in the network namespace could connect
        return "" if isinstance(sock.getsockname(), str) else "has no path; name one with ListenStream=/run/..."
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.proto != socket.IPPROTO_TCP:
        return "is neither TCP nor a Unix socket; its .socket unit needs a plain ListenStream="
    return ""


def base_url(sock: socket.socket, *, tls: bool) -> str:
    """Where programs on this host reach `sock`: `http://127.0.0.1:8000`, or `unix:/path/to.sock`."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"  # every address of this host; this one works as pasted on it
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
