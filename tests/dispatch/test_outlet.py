"""The outlet and the dialler together: what gets through, what doesn't, and that neither outlives the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from appliance.dispatch.dialler import Destination
from appliance.dispatch.pair import Pair
from appliance.dispatch.way import Route
from appliance.egress.canary import Canary
from appliance.errors import OutletFailed, SealUnavailable
from appliance.seal import probes
from appliance.seal.evidence import evidence
from tests.fakes.certificates import Authority
from tests.fakes.endpoint import Endpoint, endpoint
from tests.fakes.house import ROOT, over, until
from tests.fakes.people import as_somebody

REQUEST = b'POST /v1/chat/completions HTTP/1.1\r\nhost: far\r\ncontent-length: 13\r\n\r\n{"model":"m"}'


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="outlet-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def pair(folder: Path, *routes: Route) -> Iterator[Pair]:
    sockets = {folder / f"{number}.sock": route for number, route in enumerate(routes)}
    made = Pair(sockets, folder, clearance_key=None, best_effort=False)
    try:
        yield made
    finally:
        made.close()


def to(
    port: int, *, tls: bool = False, ca: str | None = None, host: str = "127.0.0.1", end_to_end: bool = False
) -> Route:
    return Route(Destination("far", host, port, "in-house", tls), ca, end_to_end=end_to_end)


def ask(folder: Path, number: int = 0, request: bytes = REQUEST) -> tuple[int, bytes]:
    """Send a request to a socket of the outlet's: the status and the body of the answer."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(30)
        caller.connect(str(folder / f"{number}.sock"))
        caller.sendall(request)
        answer = http.client.HTTPResponse(caller)
        answer.begin()
        return answer.status, answer.read()


def started(made: Pair) -> dict[str, int]:
    return {name: pid for pid, name in made.pids.items()}


def gone(*pids: int) -> bool:
    return all(not psutil.pid_exists(pid) or over(psutil.Process(pid)) for pid in pids)


@pytest.fixture
def far() -> Iterator[Endpoint]:
    with endpoint() as far:
        yield far


def test_bytes_reach_the_destination_of_their_socket_and_no_other(folder: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "right")
    with endpoint() as plain, endpoint(authority.issue("far")) as secret:
        routes = [to(plain.server_port), to(secret.server_port, tls=True, ca=str(authority.file))]
        with pair(folder, *routes):
            for number, server in enumerate((plain, secret)):
                assert ask(folder, number)[0] == 200
                assert len(server.heard) == 1


def test_each_stands_under_its_own_seal(folder: Path, far: Endpoint) -> None:
    with pair(folder, to(far.server_port)) as made:
        assert [seal.missing for seal in made.seals.values()] == [(), ()]
        pids = started(made)
        for pid in pids.values():
            threads = evidence(pid)
            assert {(t.seccomp, t.no_new_privileges, t.capabilities) for t in threads} == {(2, 1, 0)}
        here = evidence()[0].network
        assert evidence(pids["outlet"])[0].network != here
        assert evidence(pids["dialler"])[0].network == here


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into another's mount namespace")
def test_they_see_nothing_of_the_state_but_the_outlets_own_folder(folder: Path, far: Endpoint) -> None:
    (folder / "secret").touch()
    (folder / "outlet").mkdir()
    sockets = {folder / "outlet" / "0.sock": to(far.server_port)}
    made = Pair(sockets, folder / "outlet", clearance_key=None, best_effort=False)
    try:
        pids = started(made)
        roots = {name: Path(f"/proc/{pid}/root") for name, pid in pids.items()}
        assert [path.name for path in (roots["outlet"] / folder.relative_to("/")).iterdir()] == ["outlet"]
        assert not list((roots["dialler"] / "tmp").iterdir())
        for root in roots.values():
            assert not (root / "run" / "dbus").exists()
            assert not (root / "var" / "lib").exists()
    finally:
        made.close()


def probe(folder: Path, port: int) -> tuple[dict[str, str], set[str]]:
    with Canary() as canary, pair(folder, to(port)) as made:
        canary.hand_out(folder / "accepted")
        # the outlet starts no program that the gateway names; this one would succeed
        return asyncio.run(made.probe(canary.order | {"interpreter": "/bin/true"})), canary.arrived()


def test_code_that_runs_in_the_outlet_reaches_nothing(folder: Path, far: Endpoint) -> None:
    """Its unsealed twin is in tests/seal/test_seal.py: there, every attempt arrives."""
    outcome, arrived = probe(folder, far.server_port)
    assert outcome.keys() >= probes.SENDING
    assert {attempt for attempt, became in outcome.items() if became == "done"} == set()
    assert arrived == set()


def test_probes_can_be_repeated_and_broken_ones_are_told(folder: Path, far: Endpoint) -> None:
    async def repeat(made: Pair, order: dict[str, Any]) -> None:
        both = await asyncio.gather(made.probe(order), made.probe(order))
        assert both[0] == both[1]
        with pytest.raises(OutletFailed, match="could not be tried"):
            await made.probe(order | {"accepted": "/nowhere"})
        assert (await made.probe(order))["tcp4"] == both[0]["tcp4"]

    with Canary() as canary, pair(folder, to(far.server_port)) as made:
        asyncio.run(repeat(made, canary.order))
        assert ask(folder)[0] == 200


def test_a_destination_that_is_down_is_a_502_with_a_reason(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pair(folder, to(port)):
        status, body = ask(folder)
    assert status == 502
    assert json.loads(body)["error"]["message"] == "the endpoint can't be reached"
    assert f"outlet: 127.0.0.1:{port}: [Errno 111] Connection refused" in capfd.readouterr().err


def test_without_its_dialler_the_outlet_answers_502_and_the_end_is_told(folder: Path, far: Endpoint) -> None:
    async def told(made: Pair) -> None:
        ended = asyncio.create_task(made.ended())
        done, _ = await asyncio.wait([ended], timeout=0.05)
        assert not done
        os.kill(started(made)["dialler"], signal.SIGKILL)
        async with asyncio.timeout(10):
            await ended

    with pair(folder, to(far.server_port)) as made:
        asyncio.run(told(made))
        assert ask(folder)[0] == 502
        assert not far.heard
        assert not gone(started(made)["outlet"])


def test_many_at_once_all_arrive(folder: Path) -> None:
    count = 300
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as server,
        pair(folder, to(server.getsockname()[1])),
        contextlib.ExitStack() as opened,
    ):
        for number in range(count):
            caller = opened.enter_context(socket.socket(socket.AF_UNIX))
            caller.connect(str(folder / "0.sock"))
            caller.sendall(b"%4d" % number)
        server.settimeout(30)
        heard = set()
        for _ in range(count):
            connection, _ = server.accept()
            with connection:
                connection.settimeout(30)
                heard.add(int(connection.recv(4)))
    assert heard == set(range(count))


def test_tls_may_be_spoken_end_to_end_by_whoever_comes(folder: Path, tmp_path: Path) -> None:
    """As PostgreSQL does it: a few bytes in clear, then TLS on the same connection, and hours of it."""
    authority = Authority(tmp_path, "right")
    issued = authority.issue("store.test")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(issued.certificate, issued.key)

    def serve(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        assert accepted.recv(8) == b"upgrade?"
        accepted.sendall(b"S")
        with server_side.wrap_socket(accepted, server_side=True) as spoken:
            while data := spoken.recv(1 << 16):
                spoken.sendall(data[::-1])

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve, listener)
        route = to(listener.getsockname()[1], tls=True, end_to_end=True)
        with pair(folder, route), socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(30)
            caller.connect(str(folder / "0.sock"))
            caller.sendall(b"upgrade?")
            assert caller.recv(1) == b"S"
            context = ssl.create_default_context(cafile=authority.file)
            with context.wrap_socket(caller, server_hostname="store.test") as spoken:
                for number in range(200):
                    spoken.sendall(b"%6d" % number)
                    assert spoken.recv(6)[::-1] == b"%6d" % number
        serving.result(30)


def test_whoever_speaks_no_http_is_told_of_a_failure_by_the_end_alone(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pair(folder, to(port, end_to_end=True)), socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(30)
        caller.connect(str(folder / "0.sock"))
        caller.sendall(b"hello")
        assert caller.recv(100) == b""
    assert f"outlet: 127.0.0.1:{port}: [Errno 111] Connection refused" in capfd.readouterr().err


def test_a_silent_connection_is_left_open_and_bursts_come_through_beside_it(folder: Path) -> None:
    bursts = 400

    def serve(listener: socket.socket) -> None:
        for _ in range(bursts):
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(accepted.recv(16)[::-1])

    with (
        socket.create_server(("127.0.0.1", 0), backlog=512) as listener,
        pair(folder, to(listener.getsockname()[1], end_to_end=True)),
        socket.socket(socket.AF_UNIX) as long,
        ThreadPoolExecutor(8) as pool,
    ):
        listener.settimeout(30)
        long.settimeout(30)
        long.connect(str(folder / "0.sock"))
        long.sendall(b"long")
        silent, _ = listener.accept()
        serving = pool.submit(serve, listener)

        def burst(number: int) -> bytes:
            with socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(30)
                caller.connect(str(folder / "0.sock"))
                caller.sendall(b"%6d" % number)
                return caller.recv(16)[::-1]

        assert list(pool.map(burst, range(bursts))) == [b"%6d" % number for number in range(bursts)]
        serving.result(30)
        with silent:
            silent.sendall(b"still here" + silent.recv(4))
            assert long.recv(14) == b"still herelong"


def test_callers_that_leave_while_it_dials_hold_up_nobody(folder: Path, far: Endpoint) -> None:
    with socket.socket() as silent, contextlib.ExitStack() as opened:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        with pair(folder, to(silent.getsockname()[1]), to(far.server_port)):
            for _ in range(100):
                caller = opened.enter_context(socket.socket(socket.AF_UNIX))
                caller.connect(str(folder / "0.sock"))
                caller.sendall(REQUEST)
            opened.close()
            assert ask(folder, 1)[0] == 200


def test_the_gateway_holds_no_end_of_the_channel(folder: Path, far: Endpoint) -> None:
    def sequenced() -> int:
        found = 0
        for entry in list(Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
                if stat.S_ISSOCK(entry.stat().st_mode):
                    with socket.socket(fileno=os.dup(int(entry.name))) as held:
                        found += held.type == socket.SOCK_SEQPACKET
        return found

    before = sequenced()
    with pair(folder, to(far.server_port)):
        assert sequenced() == before


@pytest.mark.parametrize("name", ["outlet", "dialler"])
def test_a_start_without_the_seal_is_refused(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that was installed before forbids them what they need to seal themselves."""
    from appliance.dispatch import pair as pairs

    forbid = (
        "from appliance.seal import kernel; import runpy, sys; kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1); "
        f"kernel.seccomp([kernel.never('landlock_restrict_self')]); runpy.run_module('appliance.dispatch.{name}', "
        "run_name='__main__')"
    )
    monkeypatch.setitem(pairs._MODULES, name, ["-c", forbid])
    with pytest.raises(SealUnavailable, match=f"{name}: the seal lacks landlock tcp"), pair(folder, to(9)):
        pass
    children = [each for each in psutil.Process().children() if "appliance.dispatch" in " ".join(each.cmdline())]
    assert not children


GATEWAY = """
import sys, threading
from pathlib import Path
from appliance.dispatch.dialler import Destination
from appliance.dispatch.pair import Pair
from appliance.dispatch.way import Route

folder = Path(sys.argv[1])
route = Route(Destination("far", "127.0.0.1", int(sys.argv[2]), "in-house", False))
pair = Pair({folder / "0.sock": route}, folder, clearance_key=None, best_effort=False)
print(*(pid for pid, _ in sorted(pair.pids.items(), key=lambda item: item[1])), flush=True)
threading.Event().wait()
"""
NAMES = ("gateway", "outlet", "dialler")
ORDERS = [order for length in (1, 2, 3) for order in itertools.permutations(NAMES, length) if order[-1] == "gateway"]


@pytest.mark.parametrize("order", ORDERS, ids=" then ".join)
def test_nothing_outlives_the_gateway_in_whatever_order_they_are_killed(
    folder: Path, far: Endpoint, order: tuple[str, ...]
) -> None:
    command = [sys.executable, "-c", GATEWAY, str(folder), str(far.server_port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        dialler, outlet = map(int, process.stdout.readline().split())
        pids = {"gateway": process.pid, "outlet": outlet, "dialler": dialler}
        # with a request in flight
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(str(folder / "0.sock"))
        waiting.sendall(REQUEST)
        for name in order:
            os.kill(pids[name], signal.SIGKILL)
        until(lambda: gone(outlet, dialler), patience=10)
        waiting.close()


ORDINARY = """
import asyncio, http.client, json, socket, sys
from pathlib import Path
from appliance.dispatch.dialler import Destination
from appliance.dispatch.pair import Pair
from appliance.dispatch.way import Route
from appliance.egress.canary import Canary

folder, request = Path(sys.argv[1]), sys.argv[3].encode()
route = Route(Destination("far", "127.0.0.1", int(sys.argv[2]), "in-house", False))
pair = Pair({folder / "0.sock": route}, folder, clearance_key=None, best_effort=False)
with socket.socket(socket.AF_UNIX) as caller, Canary() as canary:
    caller.connect(str(folder / "0.sock"))
    caller.sendall(request)
    answer = http.client.HTTPResponse(caller)
    answer.begin()
    canary.hand_out(folder / "accepted")
    outcome = asyncio.run(pair.probe(canary.order))
    done = [attempt for attempt, became in outcome.items() if became == "done"]
    print(json.dumps({"status": answer.status, "done": done, "arrived": sorted(canary.arrived()),
        "tried": len(outcome), "missing": [seal.missing for seal in pair.seals.values()]}))
pair.close()
"""


@as_somebody
def test_an_ordinary_user_has_the_same_seals(folder: Path, far: Endpoint) -> None:
    os.chown(folder, 1000, 1000)
    python = shutil.which("python3", path=os.defpath) or ""  # one that every user can read
    command = [python, "-c", ORDINARY, str(folder), str(far.server_port), REQUEST.decode()]
    told = subprocess.check_output(command, cwd=ROOT, user=1000, group=1000, extra_groups=[], timeout=60)
    told = json.loads(told)
    assert told.pop("tried") >= len(probes.SENDING)
    assert told == {"status": 200, "done": [], "arrived": [], "missing": [[], []]}


TAKEN_OVER = """
import json, os, sys
from pathlib import Path
from appliance.dispatch.dialler import Destination
from appliance.dispatch.pair import Pair
from appliance.dispatch.way import Route
from appliance.seal import probes
from appliance.seal.gateway import seal_gateway

folder = Path(sys.argv[1])
route = Route(Destination("far", "127.0.0.1", 9, "in-house", False))
pair = Pair({folder / "0.sock": route}, folder, clearance_key=None, best_effort=False)
if sys.argv[2] == "sealed":
    seal_gateway([Path(sys.prefix), Path(sys.base_prefix)], [folder])
tried = {}
for pid, name in pair.pids.items():
    tried |= {
        f"memory of the {name}": lambda pid=pid: open(f"/proc/{pid}/mem", "r+b").close(),
        f"pipe of the {name}": lambda pid=pid: os.close(os.open(f"/proc/{pid}/fd/0", os.O_RDONLY)),
        f"root of the {name}": lambda pid=pid: os.listdir(f"/proc/{pid}/root/"),
        f"signal to the {name}": lambda pid=pid: os.kill(pid, 0),
    }
print(json.dumps(probes.run(tried)))
"""


def lays_hands_on(folder: Path, gateway: str) -> tuple[set[str], int]:
    """What a gateway gets done to the outlet and the dialler, and of how many attempts."""
    command = [sys.executable, "-c", TAKEN_OVER, str(folder), gateway]
    outcome = json.loads(subprocess.check_output(command, cwd=ROOT, timeout=60))
    return {attempt for attempt, became in outcome.items() if became == "done"}, len(outcome)


def test_a_gateway_that_was_taken_over_lays_hands_on_neither(folder: Path) -> None:
    assert lays_hands_on(folder, "sealed") == (set(), 8)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's process can't reach into another user namespace")
def test_a_gateway_without_its_seal_would(folder: Path) -> None:
    done, attempts = lays_hands_on(folder, "unsealed")
    assert len(done) == attempts


def test_a_dialler_ends_with_its_outlet(folder: Path, far: Endpoint) -> None:
    with pair(folder, to(far.server_port)) as made:
        pids = started(made)
        os.kill(pids["outlet"], signal.SIGKILL)
        until(lambda: gone(*pids.values()), patience=10)
