"""The dialler: whoever orders, only the configured destinations are connected to, where a name leads as it should."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.dispatch.dialler import AT_ONCE, ORDER, Destination, look_up
from appliance.seal.evidence import evidence
from tests.fakes.network import Outside
from tests.fakes.orders import destination, dialler
from tests.fakes.people import PEOPLE

PYTHON = shutil.which("python3", path=os.defpath) or ""
"""A Python that every user can read."""


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        yield server


def here(server: socket.socket) -> Destination:
    return destination("127.0.0.1", server.getsockname()[1])


def test_an_order_gets_a_connection_to_its_destination(server: socket.socket) -> None:
    with dialler(destination("127.0.0.1", 9), here(server)) as made:
        made.order(1)
        index, reason, connection = made.answer()
        assert (index, reason) == (1, "")
        assert connection
        caller, _ = server.accept()
        with connection, caller:
            connection.sendall(b"hello")
            assert caller.recv(9) == b"hello"


def test_a_destination_that_does_not_answer_is_a_reason(server: socket.socket) -> None:
    port = server.getsockname()[1]
    server.close()
    with dialler(destination("127.0.0.1", port), destination("no-such-name.invalid", 80)) as made:
        made.order(0)
        assert made.answer() == (0, "[Errno 111] Connection refused", None)
        made.order(1)
        index, reason, connection = made.answer()
        assert (index, connection) == (1, None)
        assert reason


@pytest.mark.parametrize(
    "order",
    [ORDER.pack(99), ORDER.pack(1), b"\xff\xff\xff\xff", b"\0", b"127.0.0.1:80", b"\0" * 64, b"\0\0\0\0\0"],
    ids=["99", "one too many", "negative", "short", "an address", "long", "longer by one"],
)
def test_what_is_no_order_ends_it_and_leads_nowhere(server: socket.socket, order: bytes) -> None:
    with dialler(here(server)) as made:
        made.channel.send(order)
        assert made.process.wait(10) == 1
        assert made.channel.recv(100) == b""
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()


def test_of_too_many_orders_at_once_some_are_refused_and_it_lives_on(server: socket.socket) -> None:
    with socket.socket() as silent, contextlib.ExitStack() as opened:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for _ in range(3):  # they fill the backlog, so that further connections hang
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        with dialler(here(silent), here(server)) as made:
            for _ in range(AT_ONCE + 50):
                made.order(0)
            answers = [made.answer() for _ in range(50)]
            assert answers == [(0, "too many connections are being opened", None)] * 50
            made.order(1)
            index, _, connection = made.answer()
            assert index == 1
            assert connection
            connection.close()


@pytest.mark.parametrize("first", ["stdin", "channel"])
def test_it_ends_with_the_gateway_and_with_the_outlet(server: socket.socket, first: str) -> None:
    with dialler(here(server)) as made:
        assert made.process.stdin
        made.process.stdin.close() if first == "stdin" else made.channel.close()
        assert made.process.wait(10) == 0


def test_the_kernel_says_that_it_is_sealed(server: socket.socket) -> None:
    with dialler(here(server)) as made:
        assert made.said["missing"] == []
        assert "landlock tcp" in made.said["holds"]
        made.order(0)
        made.answer()
        threads = evidence(made.process.pid)
        assert {(t.seccomp, t.no_new_privileges, t.capabilities) for t in threads} == {(2, 1, 0)}
        mounts = Path(f"/proc/{made.process.pid}/ns/mnt").stat().st_ino
        assert mounts != Path("/proc/self/ns/mnt").stat().st_ino


PRIVATE = ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
PUBLIC = ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"]
NEITHER = [
    "169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "240.0.0.1", "255.255.255.255",  # noqa: S104 - not listened on
    "198.18.0.1", "192.0.2.1", "224.0.0.1", "ff02::1", "64:ff9b::a00:1", "2002:a00:1::1", "fec0::1",
]  # fmt: skip


@pytest.mark.parametrize("address", [*PRIVATE, *PUBLIC, *NEITHER])
def test_an_address_is_of_the_house_or_outside_or_nothing_to_connect_to(address: str) -> None:
    for kind, right in (("in-house", address in PRIVATE), ("provider", address in PUBLIC)):
        wanted = destination(address, 443, kind)  # type: ignore[arg-type]
        if right:
            assert [found[0] for _, found in look_up(wanted)] == [address]
        else:
            with pytest.raises(PermissionError, match=r"is not a (private|public) address"):
                look_up(wanted)


@pytest.fixture(scope="module", params=PEOPLE)
def outside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with Outside(tmp_path_factory.mktemp("street"), user=request.param) as outside:
        yield outside


def ordered(outside: Outside, host: str, port: int, kind: str) -> tuple[str, set[tuple[str, int | None]]]:
    """What came of it, and the (address, port) of each TCP connection that was tried."""
    before = len(outside.packets())
    run = outside.run([PYTHON, "-m", "tests.fakes.orders", host, str(port), kind], capture_output=True, timeout=60)
    assert run.returncode == 0, run.stderr
    outside.control()
    ours = {"192.0.2.77", "2001:db8::77"}
    seen = outside.packets()[before:]
    tried = {(each.destination, each.port) for each in seen if each.kind == "tcp" and each.destination not in ours}
    assert host in {each.name for each in seen}
    return run.stdout.strip(), tried


STREET = {("10.77.0.1", 80), ("fd77::1", 80)}


def test_a_name_leads_where_it_should(outside: Outside) -> None:
    said, tried = ordered(outside, "gpu.house.test", 80, "in-house")
    assert said == "connected"
    assert tried <= STREET
    assert tried
    said, tried = ordered(outside, "at-8-8-8-8.test", 443, "provider")
    assert (said, tried) == ("connected", {("8.8.8.8", 443)})


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("at-8-8-8-8.test", "in-house"),
        ("at-169-254-169-254.test", "in-house"),
        ("api.provider.test", "provider"),
        ("at-127-0-0-1.test", "provider"),
        ("at-169-254-169-254.test", "provider"),
    ],
)
def test_a_name_that_somebody_points_elsewhere_leads_nowhere(outside: Outside, host: str, kind: str) -> None:
    said, tried = ordered(outside, host, 80, kind)
    assert "address" in said
    assert host in said
    assert tried == set()
