"""What a process under the detectors' seal can't do to those beside it, and what it still can."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.fakes.house import ROOT

# A child, since each detector is one, of a process that stays as it is.
TRIED = """
import json, os, socket, subprocess, sys, threading
from appliance.seal import probes
from appliance.seal.detector import seal_detector
from appliance.seal.evidence import evidence

def fork():
    if os.fork() == 0:
        os._exit(0)

def thread():
    try:
        threading.Thread(target=int).start()
    except RuntimeError as error:
        raise PermissionError(1, str(error))

told, tells = os.pipe()
listener = socket.socket(socket.AF_UNIX)
listener.bind("")
listener.listen()
inherited = [socket.socket(socket.AF_UNIX) for _ in range(3)]
if os.fork() == 0:
    parts = seal_detector() if sys.argv[1] == "sealed" else None
    parent = os.getppid()
    outcome = probes.run({
        "a socket": lambda: socket.socket(socket.AF_UNIX),
        "a pair of sockets": socket.socketpair,
        "connecting": lambda: inherited[0].connect(listener.getsockname()),
        "binding": lambda: inherited[1].bind(""),
        "listening": lambda: inherited[2].listen() if inherited[2].bind("") is None else None,
        "a fork": fork,
        "a thread": thread,
        "a program": lambda: subprocess.run(["/bin/true"], check=True),
        "a signal": lambda: os.kill(parent, 0),
        "memory": lambda: open(f"/proc/{parent}/mem", "rb").close(),
        "descriptors": lambda: os.readlink(f"/proc/{parent}/fd/0"),
    })
    (found,) = [t for t in evidence() if t.thread == os.getpid()]
    still = [sum(range(1000)), len(bytearray(10**7)), len(open("/proc/self/statm").read()) > 0]
    os.write(tells, json.dumps([outcome, found.filters, found.seccomp, still,
        [parts.holds, parts.missing] if parts else None]).encode())
    os._exit(0)
os.wait()
print(os.read(told, 1 << 16).decode())
"""


def tried(how: str) -> tuple[dict[str, str], int, int, list[int], list[list[str]] | None]:
    output = subprocess.check_output([sys.executable, "-c", TRIED, how], cwd=ROOT, timeout=60)
    outcome, filters, seccomp, still, parts = json.loads(output)
    return outcome, filters, seccomp, still, parts


def test_it_computes_and_does_nothing_else() -> None:
    outcome, filters, seccomp, still, parts = tried("sealed")
    assert {attempt for attempt, became in outcome.items() if became == "done"} == set()
    assert (filters > tried("unsealed")[1], seccomp) == (True, 2)
    assert still == [499500, 10**7, True]
    assert parts == [["landlock domain", "landlock scope", "seccomp"], []]


def test_without_it_all_of_that_is_done() -> None:
    outcome, *_ = tried("unsealed")
    assert {attempt for attempt, became in outcome.items() if became != "done"} == set()
    assert len(outcome) == 11
