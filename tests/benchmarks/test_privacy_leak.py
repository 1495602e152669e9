"""The public leak benchmark against the appliance, and what is put before its provider."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from pathlib import Path

import pytest

from benchmarks import privacy_leak
from benchmarks.privacy_leak import FINISH, relaying
from tests.fakes.certificates import Authority


def test_the_relay_takes_tls_off_and_adds_why_an_answer_ended(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    heard = bytearray()

    def provide(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            heard.extend(connection.recv(1 << 16))
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\ndata: {}\n\ndata: [DONE]\n\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        provider = threading.Thread(target=provide, args=(listening,))
        provider.start()
        with relaying(authority.issue("provider.test"), ("127.0.0.1", 0), listening.getsockname()) as address:
            trusting = ssl.create_default_context(cafile=str(authority.file))
            with (
                socket.create_connection(address) as plain,
                trusting.wrap_socket(plain, server_hostname="provider.test") as asking,
            ):
                asking.sendall(b'POST / HTTP/1.1\r\n\r\n{"no": "line end"}')
                answer = b"".join(iter(lambda: asking.recv(1 << 16), b""))
        provider.join()
    assert bytes(heard).endswith(b'{"no": "line end"}')
    assert answer == b"HTTP/1.1 200 OK\r\n\r\ndata: {}\n\n" + FINISH + b"data: [DONE]\n\n"


@pytest.mark.long
def test_nothing_leaks_and_everything_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert privacy_leak.main(["--iterations", "2", "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "privacy-leak.json").read_text())["report"]
    assert report["checks"]["configured_upstream_boundary"]["correlated_requests"] == 2
    assert all(check["passed"] for check in report["checks"].values())
    assert "CLEAN" in capsys.readouterr().out
