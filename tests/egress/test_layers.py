"""The proof inside the layers of docs/deploy.md: what a service manager or a container around the appliance changes."""

from __future__ import annotations

import json
import os
import platform
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance import control
from appliance.api.wire import listen_tcp
from appliance.egress import verify as verification
from appliance.egress.canary import Canary
from appliance.egress.findings import KEEPER, Findings, Process
from appliance.egress.judge import judge
from appliance.egress.owner import as_owner
from appliance.seal import probes
from tests.egress import found
from tests.egress.test_verify import ROOT, failed, verify
from tests.fakes.house import House, Running, until

Start = Callable[..., Running]
SOMEBODY = 1000
APART = ["unshare", "--user", "--map-current-user", "--net"]
"""A network of one's own, and no way to read the number of the host's: PrivateNetwork=yes for an ordinary user."""
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can verify what another user runs")


# --- A socket that was passed from another network ----------------------------------------------------------------

PASSED = """
import json, os, socket, sys
from appliance.egress import sockets
from appliance.seal import kernel
from appliance.seal.evidence import evidence

between = socket.create_server(("127.0.0.1", 0))  # of a network in which nobody will live any more
kernel.unshare(kernel.CLONE_NEWNET)
inside = socket.create_server(("127.0.0.1", 0))
trouble = []
(seen,) = sockets.opened({os.getpid(): evidence()}, trouble).values()
told = {each.descriptor: [each.namespace, each.state] for each in seen}
print(json.dumps([[told[int(number)] for number in sys.argv[1:]], told[between.fileno()][0], told[inside.fileno()][0],
                  os.stat("/proc/self/ns/net").st_ino, trouble]))
"""


def test_passed_sockets_are_known_to_share_a_network_also_where_its_number_is_hidden() -> None:
    with listen_tcp("127.0.0.1", 0) as listener:
        callers = [socket.create_connection(listener.getsockname()) for _ in range(2)]
        accepted = [listener.accept()[0] for _ in range(2)]
        callers[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        callers[0].close()  # by a reset, which takes the other end out of every table
        with pytest.raises(ConnectionResetError):
            accepted[0].recv(1)
        passed = [each.fileno() for each in (listener, *accepted)]
        line = [*APART, "--keep-caps", sys.executable, "-c", PASSED, *map(str, passed)]
        done = subprocess.run(line, cwd=ROOT, pass_fds=passed, capture_output=True, text=True, timeout=60, check=True)
        for each in (*accepted, callers[1]):
            each.close()
    (of_listener, of_reset, of_caller), between, inside, own, trouble = json.loads(done.stdout)
    assert trouble == []
    assert [of_listener[1], of_reset[1], of_caller[1]] == ["listening", "unconnected", "established"]
    assert isinstance(of_listener[0], int)
    assert of_listener[0] == of_reset[0] == of_caller[0]
    assert inside == own
    assert len({of_listener[0], between, inside}) == 3


def gateway(**of_socket: Any) -> Process:
    """The gateway of sound findings, with one more listener on its address."""
    (sound,) = (process for process in found.holding()[0].processes if process.role == "gateway")
    door = next(each for each in sound.sockets if each.state == "listening" and each.family == "tcp")
    return replace(sound, sockets=[*sound.sockets, replace(door, descriptor=99, **of_socket)])


def test_callers_arrive_in_the_one_network_where_the_gateway_listens_or_nowhere() -> None:
    at = found.holding()[0].listening
    assert verification._network_of_callers([gateway()], at) == found.HOST
    assert verification._network_of_callers([gateway(namespace=found.GATEWAY)], at) == 0
    assert verification._network_of_callers([gateway(namespace=None)], at) == 0
    assert verification._network_of_callers([], at) == 0


# --- The whole appliance ------------------------------------------------------------------------------------------


@pytest.fixture
def small(house: House) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["egress"]["verify"]["every_seconds"] = 0.5
    return house


@pytest.fixture
def journal() -> Iterator[int]:
    """A service's standard output as systemd gives it: a Unix socket at whose other end somebody reads."""
    reader, writer = socket.socketpair()
    with reader, writer, subprocess.Popen(["cat"], stdin=reader.fileno(), stdout=subprocess.DEVNULL) as cat:
        reader.close()
        yield writer.fileno()
        writer.close()
        cat.kill()


def as_a_unit(listener: socket.socket, journal: int, *, instead: list[str] | None = None) -> dict[str, Any]:
    """Options of a start by systemd with PrivateNetwork: a passed socket, and the journal's as standard output."""
    script = (
        f"exec 3<&{listener.fileno()} >&{journal} 2>&1; ip link set lo up; export LISTEN_PID=$$ LISTEN_FDS=1; "
        'exec setpriv --inh-caps=-all --ambient-caps=-all -- "$@"'
    )
    under = [*APART, "--keep-caps", "bash", "-c", script, "bash"]
    options: dict[str, Any] = {"under": under, "passed": [listener.fileno(), journal]}
    return options | ({"instead": instead} if instead else {})


def last(running: Running) -> dict[str, Any] | None:
    """What the witness has told last."""
    verdict: dict[str, Any] | None = running.status()["egress"]["verify"]["last"]
    return verdict


def test_witness_and_administrator_prove_a_service_with_a_passed_socket_and_the_journal(
    small: House, start: Start, journal: int
) -> None:
    with listen_tcp("127.0.0.1", 0) as listener:
        running = start(small, **as_a_unit(listener, journal)).ready()
        first = until(lambda: last(running) or False)
        assert first["failed"] == []
        _, report = verify(small)
        assert failed(report) == {}
        until(lambda: (last(running) or {})["number"] > report["number"])
        assert (last(running) or {})["failed"] == []


def test_the_witness_of_such_a_service_finds_a_socket_too_many(small: House, journal: int) -> None:
    small.write()
    line = [sys.executable, "-m", "tests.egress.sabotage", "an extra socket", "serve", "--config", str(small.config)]
    with listen_tcp("127.0.0.1", 0) as listener:
        running = Running(small, **as_a_unit(listener, journal, instead=line))
        try:
            verdict = until(lambda: last(running.ready()) or False)
        finally:
            running.stop()
    assert "sockets" in verdict["failed"]


def test_a_probe_that_can_not_begin_is_told_as_that(shared: Running) -> None:
    (answer,) = control.ask(shared.house.state, "POST", "/egress/probe", {"gateway": {"no": "address"}})
    assert "ended with status 1" in answer["gateway"]


# --- Filters of a service manager ---------------------------------------------------------------------------------

KILLS = """
import ctypes, json, struct, sys
from appliance.seal import probes
load, equal, end = 0x20, 0x15, 0x06
native, allow, kill = 0xC000003E, 0x7FFF0000, 0x80000000
code = b"".join(struct.pack("=HBBI", *line) for line in [
    (load, 0, 0, 4), (equal, 1, 0, native), (end, 0, 0, kill), (end, 0, 0, allow),
])
buffer = ctypes.create_string_buffer(code, len(code))
header = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer))
no_new_privileges, set_filter = 38, 22
assert ctypes.CDLL(None).prctl(no_new_privileges, 1, 0, 0, 0) == 0
assert ctypes.CDLL(None).prctl(set_filter, 2, ctypes.create_string_buffer(header, len(header))) == 0
name = "foreign architecture"
print(json.dumps(probes.run({name: probes.attempts(json.loads(sys.argv[1]))[name]})))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="no other architecture has a second one beside it")
def test_whoever_is_killed_for_a_foreign_architecture_lives_to_tell() -> None:
    """SystemCallArchitectures=native."""
    with Canary() as canary:
        line = [sys.executable, "-c", KILLS, json.dumps(canary.order)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"foreign architecture": "SIGSYS"}


def test_filters_of_the_layer_are_not_taken_for_the_seal() -> None:
    findings, _ = found.holding()

    def confined(filters: int, own: int) -> bool:
        processes = [
            replace(each, threads=[
                replace(thread, filters=filters + (0 if each.role == "trusted" else own), seccomp=2)
                for thread in each.threads
            ])
            for each in findings.processes
        ]  # fmt: skip
        (check,) = (check for check in judge(replace(findings, processes=processes)) if check.name == "threads")
        return check.holds

    assert confined(13, own=1)
    assert not confined(13, own=0)


# --- Root looks at what another user runs -------------------------------------------------------------------------


@pytest.fixture
def of_somebody() -> Iterator[Path]:
    """A folder of another user's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, SOMEBODY, SOMEBODY)
        yield Path(folder)


@root
def test_connections_that_root_hands_out_can_be_fetched_by_the_user_who_is_probed(of_somebody: Path) -> None:
    with Canary() as canary:
        canary.hand_out(of_somebody / "accepted")
        made = (of_somebody / "accepted").stat()
        assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (SOMEBODY, 0o600)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setuid(SOMEBODY)
                status = 0 if probes.fetch_accepted(str(of_somebody / "accepted")) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@root
def test_a_link_planted_in_the_folder_leads_root_nowhere(of_somebody: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "of root"
    theirs.write_text("precious")
    theirs.chmod(0o600)
    (of_somebody / "link").symlink_to(theirs)
    with as_owner(of_somebody), pytest.raises(PermissionError):
        (of_somebody / "link").write_text("lost")
    with as_owner(of_somebody), pytest.raises(PermissionError):
        (of_somebody / "link").chmod(0o666)
    assert theirs.read_text() == "precious"
    (tmp_path / "after").write_text("root again")


# --- A reload meanwhile -------------------------------------------------------------------------------------------


def looked(monkeypatch: pytest.MonkeyPatch, *lists: set[str]) -> list[set[str]]:
    """The engines that each look found, where the appliance names those of `lists`, two for each look, in turn."""
    looks: list[set[str]] = []
    told = iter(lists)

    def look(noted: Any, state: Any, ask: Any, places: Any) -> Findings:
        looks.append(set(places["engines"]))
        findings, _ = found.holding()
        kept = {f"{KEEPER}{place}" for place in looks[-1]} | looks[-1]
        return replace(findings, processes=[each for each in findings.processes if each.place in kept])

    monkeypatch.setattr(verification, "_find", look)
    monkeypatch.setattr(verification, "_places", lambda ask: {"engines": dict.fromkeys(next(told), 1)})
    some: Any = None
    verification.find(some, some, some)
    return looks


CHAT, OTHER = {"engine chat"}, {"engine embeddings"}


def test_it_looks_again_until_no_engine_comes_or_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(monkeypatch, CHAT, CHAT) == [CHAT]
    swap = [CHAT, CHAT | OTHER, CHAT | OTHER, OTHER, OTHER, OTHER]
    assert looked(monkeypatch, *swap) == [CHAT, CHAT | OTHER, OTHER]


def test_an_engine_that_has_ended_though_the_appliance_names_it_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = {"engine that has ended"}
    assert looked(monkeypatch, gone, gone, CHAT, CHAT) == [gone, CHAT]


def test_an_appliance_that_never_settles_is_judged_by_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_SETTLES", 0.0)
    assert looked(monkeypatch, CHAT, OTHER, OTHER, CHAT, CHAT, CHAT) == [CHAT, OTHER]
