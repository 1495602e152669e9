"""Sockets to listen on: what is taken, what is refused, and what is left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.api.wire import base_url, listen_tcp, listen_unix, passed_socket
from appliance.errors import CannotListen
from tests.fakes.house import ROOT


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one, as the paths of Unix sockets have to be."""
    with tempfile.TemporaryDirectory(prefix="listen-") as folder:
        yield Path(folder)


def test_a_unix_socket_is_for_user_and_group_and_listens_at_once(folder: Path) -> None:
    umask = os.umask(0)
    try:
        with listen_unix(folder / "api.sock") as sock:
            assert (folder / "api.sock").stat().st_mode & 0o777 == 0o660
            assert base_url(sock, tls=False) == f"unix:{folder}/api.sock"
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(folder / "api.sock"))
    finally:
        os.umask(umask)


def test_a_socket_that_a_dead_server_left_is_replaced(folder: Path) -> None:
    listen_unix(folder / "api.sock").close()
    assert (folder / "api.sock").is_socket()
    listen_unix(folder / "api.sock").close()


def test_a_socket_with_a_living_server_is_left_alone_even_when_its_queue_is_full(folder: Path) -> None:
    path = folder / "api.sock"
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as first:
        living.bind(str(path))
        living.listen(0)
        with pytest.raises(CannotListen, match="another program listens"):
            listen_unix(path)
        living.accept()[0].close()  # the probe
        first.connect(str(path))  # fills the queue
        with pytest.raises(CannotListen, match="another program listens"):
            listen_unix(path)
        assert path.is_socket()


def test_what_is_no_socket_is_never_removed(folder: Path) -> None:
    listen_unix(folder / "other.sock").close()
    (folder / "file").write_text("precious")
    (folder / "link").symlink_to(folder / "other.sock")
    (folder / "folder").mkdir()
    for name in ("file", "link", "folder"):
        with pytest.raises(CannotListen, match="isn't a socket"):
            listen_unix(folder / name)
    assert (folder / "file").read_text() == "precious"
    assert (folder / "link").is_symlink()


def test_a_path_that_can_not_be_says_what_it_wants(folder: Path) -> None:
    with pytest.raises(CannotListen, match="the folder has to exist"):
        listen_unix(folder / "missing" / "api.sock")
    with pytest.raises(CannotListen, match="too long"):
        listen_unix(folder / ("x" * 120))


def test_a_port_in_use_is_named() -> None:
    with listen_tcp("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"127\.0\.0\.1:{port}: Address already in use"):
            listen_tcp("127.0.0.1", port)


def test_addresses_are_shown_as_they_can_be_reached() -> None:
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")):  # noqa: S104 - for a moment
        with listen_tcp(host, 0) as sock:
            assert base_url(sock, tls=True) == f"https://{shown}:{sock.getsockname()[1]}"


TAKE = """
import os, sys
from appliance.api.wire.listening import CannotListen, base_url, passed_socket
try:
    sock = passed_socket(os.environ)
except CannotListen as refusal:
    sys.exit(str(refusal))
told = [name for name in os.environ if name.startswith("LISTEN_")]
print(sock and base_url(sock, tls=False), sock and os.get_inheritable(sock.fileno()), told)
"""


def take(sock: socket.socket | int, *, count: str = "1", process: str = "$$") -> tuple[str, str]:
    """What a process says, and complains, that gets `sock` as systemd would pass it."""
    descriptor = sock if isinstance(sock, int) else sock.fileno()
    script = f"exec 3<&{descriptor}; LISTEN_PID={process} LISTEN_FDS={count} LISTEN_FDNAMES=api exec {sys.executable} -"
    done = subprocess.run(
        ["bash", "-c", script], input=TAKE, cwd=ROOT, pass_fds=[descriptor], capture_output=True, text=True, check=False
    )
    return done.stdout.strip(), done.stderr.strip()


def test_a_passed_socket_is_taken_and_no_child_takes_it_again(folder: Path) -> None:
    with listen_tcp("127.0.0.1", 0) as sock:
        assert take(sock) == (f"{base_url(sock, tls=False)} False []", "")
    with listen_unix(folder / "api.sock") as sock:
        assert take(sock) == (f"unix:{folder}/api.sock False []", "")


def test_a_socket_for_another_process_is_not_taken() -> None:
    with listen_tcp("127.0.0.1", 0) as sock:
        assert take(sock, process="1") == ("None None []", "")
    assert passed_socket({}) is None


@pytest.mark.parametrize("count", ["0", "2", "", "x"])
def test_exactly_one_socket_is_passed(count: str) -> None:
    with listen_tcp("127.0.0.1", 0) as sock:
        assert "may have one ListenStream=" in take(sock, count=count)[1]


def test_a_passed_socket_that_is_unfit_is_refused_with_the_setting_to_change(folder: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        assert "doesn't listen for connections" in take(datagrams)[1]
    with listen_tcp("127.0.0.1", 0) as server, socket.create_connection(server.getsockname()) as connected:
        assert "Accept=no" in take(connected)[1]
    with socket.socket(socket.AF_INET) as bound:
        bound.bind(("127.0.0.1", 0))
        assert "doesn't listen for connections" in take(bound)[1]
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{folder}")
        abstract.listen()
        assert "has no path" in take(abstract)[1]
    with (folder / "file").open("w") as file:
        assert "no socket as descriptor 3" in take(file.fileno())[1]
