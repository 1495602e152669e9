"""What a sealed process can't reach, each beside the same attempt unsealed, which must reach."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.engines.nursery import program
from appliance.engines.seal import evidence
from tests.engines.attempts import MPTCP

ROOT = Path(__file__).parents[2]
ATTEMPTS = Path(__file__).parent / "attempts.py"
PYTHON = [Path(sys.prefix), Path(sys.base_prefix), ROOT]
OPENS_ONLY = {"io_uring", "request_key", "raw", "packet", "vsock", "foreign architecture"}


class Sink:
    """Listens in the test's own namespaces, on everything that an attempt may send to."""

    def __init__(self, folder: Path) -> None:
        self.targets: dict[str, Any] = {}
        self._sockets: list[socket.socket] = []
        path, abstract = str(folder / "sink"), f"\0appliance-test-{os.getpid()}"
        self._listen("tcp4", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        self._listen("tcp6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0))
        self._listen("udp4", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self._listen("udp6", socket.AF_INET6, socket.SOCK_DGRAM, ("::1", 0))
        self._listen("unix path", socket.AF_UNIX, socket.SOCK_STREAM, path)
        self._listen("unix abstract", socket.AF_UNIX, socket.SOCK_STREAM, abstract)

    def _listen(self, name: str, family: int, kind: int, address: Any) -> None:
        listener = socket.socket(family, kind)
        listener.bind(address)
        if kind == socket.SOCK_STREAM:
            listener.listen(64)
        listener.setblocking(False)
        self._sockets.append(listener)
        self.targets[name] = address if family == socket.AF_UNIX else listener.getsockname()[:2]

    def received(self) -> set[str]:
        """Every name that has come. Whoever sent has ended, so all of it is here."""
        names = set()
        for listener in self._sockets:
            while True:
                try:
                    if listener.type == socket.SOCK_DGRAM:
                        names.add(listener.recv(100).decode())
                        continue
                    connection, _ = listener.accept()
                except BlockingIOError:
                    break
                with connection:
                    names.add(connection.recv(100).decode())
        return names

    def close(self) -> None:
        for listener in self._sockets:
            listener.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    # /tmp itself, since a path under pytest's folder may be too long for a socket.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        made = Sink(Path(folder))
        yield made
        made.close()


Run = Callable[[list[str]], dict[str, Any]]


@pytest.fixture
def in_engine_seal(tmp_path: Path) -> Run:
    def run(command: list[str]) -> dict[str, Any]:
        log = tmp_path / "engine.log"
        options = [f"--log={log}", *(f"--readable={path}" for path in PYTHON)]
        keeper = program("keeper", *options, "--", *command)
        told = subprocess.run(keeper, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
        assert told.returncode == 0, (told.stdout, log.read_text())
        result: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
        return result | {"seal": json.loads(told.stdout)}

    return run


def unsealed(command: list[str]) -> dict[str, str]:
    result: dict[str, str] = json.loads(subprocess.check_output(command, timeout=60))
    return result


def attempts(sink: Sink) -> list[str]:
    return [sys.executable, str(ATTEMPTS), json.dumps(sink.targets)]


def test_unsealed_every_attempt_reaches_the_sink(sink: Sink) -> None:
    outcome = unsealed(attempts(sink))
    assert outcome == dict.fromkeys(outcome, "done")
    assert sink.received() == outcome.keys() - OPENS_ONLY


def test_out_of_the_engine_seal_nothing_reaches_the_sink(sink: Sink, in_engine_seal: Run) -> None:
    outcome = in_engine_seal(attempts(sink))
    seal = outcome.pop("seal")
    # Inside its own, empty network it may open and send; what counts is what came.
    inside = {"udp4", "udp6", "fast open connect"}
    assert {name for name, result in outcome.items() if result == "done"} <= inside
    assert sink.received() == set()
    assert seal["missing"] == []
    (thread,) = seal["evidence"]
    assert (thread["seccomp"], thread["no_new_privileges"], thread["capabilities"]) == (2, 1, 0)
    assert thread["network"] != evidence(os.getpid())[0].network


def test_loopback_works_inside_the_engine_seal(in_engine_seal: Run) -> None:
    code = (
        "import socket, json\n"
        "got = {}\n"
        "for host in ('127.0.0.1', '::1'):\n"
        "    server = socket.create_server((host, 0), family=socket.AF_INET6 if ':' in host else socket.AF_INET)\n"
        "    client = socket.create_connection(server.getsockname()[:2])\n"
        "    client.sendall(host.encode()); got[host] = server.accept()[0].recv(99).decode()\n"
        "print(json.dumps(got))"
    )
    outcome = in_engine_seal([sys.executable, "-c", code])
    assert outcome["127.0.0.1"] == "127.0.0.1"
    assert outcome["::1"] == "::1"


def test_the_engine_sees_and_writes_only_what_it_was_promised(tmp_path: Path) -> None:
    for name in ("shown", "kept", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    code = (
        "import pathlib, json, os, sys\n"
        "def writes(path):\n"
        "    try: path.write_text('x')\n"
        "    except OSError: return False\n"
        "    return True\n"
        "def opens(path):\n"
        "    try: os.close(os.open(path, os.O_WRONLY))\n"
        "    except OSError: return False\n"
        "    return True\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "print(json.dumps([sorted(os.listdir(root)), [writes(root / n / 'new') for n in ('shown', 'kept')],\n"
        "    writes(pathlib.Path('/etc/appliance-test')), writes(pathlib.Path('/tmp/new')),\n"
        "    opens('/proc/sys/kernel/core_pattern'),\n"
        "    [p for p in os.listdir('/proc') if p.isdigit()], os.getcwd()]))"
    )
    log = tmp_path / "log"
    options = [f"--log={log}", *(f"--readable={path}" for path in [*PYTHON, tmp_path / "shown"])]
    command = program("keeper", *options, f"--writable={tmp_path / 'kept'}", "--", sys.executable, "-c", code)
    subprocess.run([*command, str(tmp_path)], check=True, stdout=subprocess.DEVNULL, timeout=60)
    listed, written, etc, tmp, pattern, processes, folder = json.loads(log.read_text())
    assert listed == ["kept", "shown"]
    assert written == [False, True]
    assert (etc, tmp, pattern) == (False, True, False)
    assert processes == ["1", "2"]
    assert folder == "/"
    assert (tmp_path / "kept" / "new").exists()
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_engine_sees_no_folder_at_the_root_but_the_systems_own(tmp_path: Path) -> None:
    checkout = Path(__file__).parents[2]
    code = "import json, os, sys; print(json.dumps([os.path.exists(path) for path in sys.argv[1:]]))"
    paths = [str(checkout / "README.md"), str(checkout / "models"), "/usr/bin/env"]
    assert json.loads(subprocess.check_output([sys.executable, "-c", code, *paths])) == [True, True, True]
    log = tmp_path / "log"
    options = [f"--log={log}", *(f"--readable={path}" for path in PYTHON[:2])]  # without the checkout
    command = program("keeper", *options, "--", sys.executable, "-c", code, *paths)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert json.loads(log.read_text()) == [False, False, True]


GATEWAY = """
import asyncio, json, os, socket, struct, sys
from appliance.engines.seal import evidence, seal_gateway
from tests.engines import attempts

targets, sealed = json.loads(sys.argv[1]), sys.argv[2] == "sealed"
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
seal = seal_gateway() if sealed else None
accepted = [listener.accept()[0] for _ in range(5)]

def uvloop_connect():
    import uvloop
    async def connect():
        _, writer = await asyncio.open_connection(*targets["tcp4"])
        writer.write(b"uvloop")
        writer.close()
        await writer.wait_closed()
    uvloop.run(connect())

def smc():
    # Either the kernel has the layer, or says that it hasn't; a filter says EPERM.
    try:
        accepted[4].setsockopt(6, attempts.TCP_ULP, b"smc")
    except FileNotFoundError:
        pass

def listen_elsewhere():
    with socket.socket(socket.AF_INET) as other:
        other.bind(("127.0.0.1", 0))

tried = attempts.attempts(targets) | attempts.reuses(accepted, tuple(targets["tcp4"])) | {
    "uvloop": uvloop_connect,
    "bind": listen_elsewhere,
    "smc": smc,
    "signal to a stranger": lambda: os.kill(os.getppid(), 0),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
}
outcome = attempts.run(tried)

async def loop_works():
    server = await asyncio.start_server(lambda r, w: w.close(), sock=listener.dup())
    server.close()
    process = await asyncio.create_subprocess_exec("true")
    return await asyncio.to_thread(lambda: 1) + await process.wait()

import uvloop
loops = [asyncio.run(loop_works()), uvloop.run(loop_works())]
print(json.dumps({"outcome": outcome, "loops": loops, "missing": seal.missing if seal else [],
    "evidence": [[t.seccomp, t.no_new_privileges, t.capabilities] for t in evidence(os.getpid())]}))
"""
GATEWAY_OPENS_ONLY = OPENS_ONLY | {"bind", "smc", "signal to a stranger", "netlink"}


def gateway(sink: Sink, mode: str) -> dict[str, Any]:
    pytest.importorskip("uvloop")
    command = [sys.executable, "-c", GATEWAY, json.dumps(sink.targets), mode]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        result: dict[str, Any] = json.loads(process.stdout.readline())
        for caller in callers:
            caller.close()
    return result


def test_an_unsealed_gateway_reaches_the_sink_every_way(sink: Sink) -> None:
    outcome = gateway(sink, "unsealed")["outcome"]
    assert outcome == dict.fromkeys(outcome, "done")
    assert sink.received() == outcome.keys() - GATEWAY_OPENS_ONLY


def test_out_of_the_gateway_seal_only_unix_paths_reach_the_sink(sink: Sink) -> None:
    result = gateway(sink, "sealed")
    assert result["missing"] == []
    assert {name for name, said in result["outcome"].items() if said == "done"} == {"unix path"}
    assert sink.received() == {"unix path"}
    assert result["loops"] == [1, 1]
    assert all(thread == [2, 1, 0] for thread in result["evidence"])


REFUSALS = {
    "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()": "one thread",
    "import socket; kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)": "no open socket",
    f"import socket; kept = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {MPTCP}); "
    "kept.bind(('127.0.0.1', 0)); kept.listen()": "no open socket",
}


@pytest.mark.parametrize("before", REFUSALS)
def test_the_gateway_seal_refuses_what_it_could_not_hold(before: str) -> None:
    code = f"{before}\nfrom appliance.engines.seal import seal_gateway\n"
    refused = subprocess.run(
        [sys.executable, "-c", f"{code}seal_gateway()"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert f"SealUnavailable: the seal lacks {REFUSALS[before]}" in refused.stderr
    shown = subprocess.check_output(
        [sys.executable, "-c", f"{code}print(seal_gateway(best_effort=True).missing, flush=True)"],
        cwd=ROOT,
        text=True,
    )
    assert REFUSALS[before] in shown
