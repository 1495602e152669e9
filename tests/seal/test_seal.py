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

from appliance.egress.canary import Canary
from appliance.engines.nursery import program
from appliance.seal import probes
from appliance.seal.evidence import evidence

ROOT = Path(__file__).parents[2]
PYTHON = [Path(sys.prefix), Path(sys.base_prefix), ROOT]
PROBES = [sys.executable, "-m", "appliance.seal.probes"]


@pytest.fixture
def canary() -> Iterator[Canary]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, Canary() as made:
        made.stand_beside(Path(folder) / "beside")
        yield made


Run = Callable[[list[str]], dict[str, Any]]


@pytest.fixture
def in_engine_seal(tmp_path: Path, canary: Canary) -> Run:
    def run(command: list[str]) -> dict[str, Any]:
        log = tmp_path / "engine.log"
        seen = [*PYTHON, Path(canary.order["neighbour"]).parent]
        options = [f"--log={log}", *(f"--readable={path}" for path in seen)]
        keeper = program("engines.keeper", *options, "--", *command)
        told = subprocess.run(keeper, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
        assert told.returncode == 0, (told.stdout, log.read_text())
        result: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
        return result | {"seal": json.loads(told.stdout)}

    return run


def unsealed(order: dict[str, Any]) -> dict[str, str]:
    result: dict[str, str] = json.loads(subprocess.check_output(PROBES, input=json.dumps(order).encode(), timeout=60))
    return result


def expected(outcome: dict[str, str]) -> set[str]:
    """What an unsealed process gets done: all but what the kernel keeps from everyone but root."""
    return outcome.keys() - (probes.NEEDS_ROOT if os.geteuid() else set())


def test_unsealed_every_attempt_reaches_the_canary(canary: Canary, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        canary.hand_out(Path(folder) / "accepted")
        outcome = unsealed(canary.order | {"interpreter": sys.executable})
    assert {name for name, said in outcome.items() if said == "done"} == expected(outcome)
    assert canary.arrived() == outcome.keys() & probes.SENDING
    assert outcome.keys() >= probes.SENDING


def test_out_of_the_engine_seal_nothing_reaches_the_canary(canary: Canary, in_engine_seal: Run) -> None:
    order = json.dumps(canary.order | {"interpreter": sys.executable})
    code = f"import sys, io; sys.path.append({str(ROOT)!r}); sys.stdin = io.StringIO({order!r})\n"
    outcome = in_engine_seal([sys.executable, "-c", f"{code}from appliance.seal.probes import main; main([])"])
    seal = outcome.pop("seal")
    # Inside its own, empty network it may open and send; what counts is what came.
    assert {name for name, result in outcome.items() if result == "done"} <= probes.INSIDE
    assert canary.arrived() == set()
    assert seal["missing"] == []
    (thread,) = seal["evidence"]
    assert (thread["seccomp"], thread["filters"], thread["no_new_privileges"], thread["capabilities"]) == (2, 1, 1, 0)
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
    command = program("engines.keeper", *options, f"--writable={tmp_path / 'kept'}", "--", sys.executable, "-c", code)
    subprocess.run([*command, str(tmp_path)], check=True, stdout=subprocess.DEVNULL, timeout=60)
    listed, written, etc, tmp, pattern, processes, folder = json.loads(log.read_text())
    assert listed == ["kept", "shown"]
    assert written == [False, True]
    assert (etc, tmp, pattern) == (False, True, False)
    assert processes == ["1", "2"]
    assert folder == "/"
    assert (tmp_path / "kept" / "new").exists()
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_engine_moves_files_between_folders_but_mounts_nothing(tmp_path: Path) -> None:
    """Compilers fill their caches by such moves, and Landlock denies them unless asked not to."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "file").write_text("moved")
    code = (
        "import ctypes, os, sys\n"
        "os.rename(sys.argv[1] + '/a/file', sys.argv[1] + '/b/file')\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.unshare(0x10020000) == 0, 'user and mount namespaces of its own give nothing'\n"
        "print(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), ctypes.get_errno())"
    )
    log = tmp_path / "log"
    options = [f"--log={log}", *(f"--readable={path}" for path in PYTHON), f"--writable={tmp_path}"]
    command = program("engines.keeper", *options, "--", sys.executable, "-c", code, str(tmp_path))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert log.read_text() == "-1 1\n"
    assert (tmp_path / "b" / "file").read_text() == "moved"


def test_the_engine_sees_no_folder_at_the_root_but_the_systems_own(tmp_path: Path) -> None:
    checkout = Path(__file__).parents[2]
    code = "import json, os, sys; print(json.dumps([os.path.exists(path) for path in sys.argv[1:]]))"
    paths = [str(checkout / "README.md"), str(checkout / "models"), "/usr/bin/env"]
    assert json.loads(subprocess.check_output([sys.executable, "-c", code, *paths])) == [True, True, True]
    log = tmp_path / "log"
    options = [f"--log={log}", *(f"--readable={path}" for path in PYTHON[:2])]  # without the checkout
    command = program("engines.keeper", *options, "--", sys.executable, "-c", code, *paths)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert json.loads(log.read_text()) == [False, False, True]


GATEWAY = """
import asyncio, json, os, socket, sys, uvloop
from pathlib import Path
from appliance.seal import probes, view
from appliance.seal.evidence import evidence
from appliance.seal.gateway import listen_no_more, seal_gateway

order, sealed = json.loads(sys.argv[1]), sys.argv[2] == "sealed"
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
seen = [*view.interpreter(), Path(order["accepted"]).parent, Path(order["neighbour"]).parent]
seal = seal_gateway(seen) if sealed else None
caller, _ = listener.accept()
caller.sendall(b"accepted")

async def loop_works():
    server = await asyncio.start_server(lambda r, w: w.close(), sock=listener.dup())
    server.close()
    process = await asyncio.create_subprocess_exec("true")
    return await asyncio.to_thread(lambda: 1) + await process.wait()

loops = [asyncio.run(loop_works()), uvloop.run(loop_works())]
if sealed:
    listen_no_more()

def uvloop_connect():
    async def connect():
        _, writer = await asyncio.open_connection(*order["tcp4"])
        writer.write(f"uvloop {order['nonce']}".encode())
        writer.close()
        await writer.wait_closed()
    uvloop.run(connect())

def unix_pair():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.sendto(f"unix pair {order['nonce']}".encode(), order["unix datagram"])

tried = probes.attempts(order | {"interpreter": sys.executable}) | {
    "uvloop": uvloop_connect,
    "unix pair": unix_pair,
    "signal to a stranger": lambda: os.kill(os.getppid(), 0),
    "a stranger's root": lambda: os.listdir(f"/proc/{os.getppid()}/root/"),
    "host sockets": lambda: os.stat("/tmp/" + Path(order["unix path"]).parent.name),
    "writing to a file": lambda: Path(order["accepted"]).parent.joinpath("new").write_text("x"),
    "network card": lambda: next(line for line in open("/proc/self/net/dev") if ":" in line and "lo:" not in line),
}
outcome = probes.run(tried)

print(json.dumps({"outcome": outcome, "loops": loops, "missing": seal.missing if seal else [],
    "evidence": [[t.seccomp, t.filters, t.no_new_privileges, t.capabilities] for t in evidence()]}))
"""
ONLY_HERE = {"signal to a stranger", "a stranger's root", "host sockets", "writing to a file", "network card"}


def gateway(canary: Canary, mode: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        canary.hand_out(Path(folder) / "accepted")
        command = [sys.executable, "-c", GATEWAY, json.dumps(canary.order), mode]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            with socket.create_connection(("127.0.0.1", int(process.stdout.readline()))) as caller:
                assert caller.recv(100) == b"accepted"
                result: dict[str, Any] = json.loads(process.stdout.readline())
    return result


def test_an_unsealed_gateway_reaches_the_canary_every_way(canary: Canary) -> None:
    outcome = gateway(canary, "unsealed")["outcome"]
    assert {name for name, said in outcome.items() if said == "done"} >= expected(outcome) - {"network card"}
    assert canary.arrived() == (probes.SENDING | {"uvloop", "unix pair"})


def test_out_of_the_gateway_seal_nothing_reaches_the_canary(canary: Canary) -> None:
    result = gateway(canary, "sealed")
    assert result["missing"] == []
    assert {name for name, said in result["outcome"].items() if said == "done"} == set()
    assert canary.arrived() == set()
    # it isn't hidden paths alone that keep one end of a pair from sending elsewhere
    assert result["outcome"]["unix pair"] == "EPERM"
    assert result["loops"] == [1, 1]
    assert all(thread == [2, 2, 1, 0] for thread in result["evidence"])


REFUSALS = {
    "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()": "one thread",
    "import socket; kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)": "no open socket",
    "import socket; kept = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); "
    "kept.bind(('127.0.0.1', 0)); kept.listen()": "no open socket",
}


@pytest.mark.parametrize("before", REFUSALS)
def test_the_gateway_seal_refuses_what_it_could_not_hold(before: str) -> None:
    code = f"{before}\nfrom appliance.seal.gateway import seal_gateway\n"
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
