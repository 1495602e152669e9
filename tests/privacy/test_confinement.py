"""Template, gate and detectors stand under seals of their own, and get at no more than they need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

from appliance.egress.canary import Canary
from appliance.seal import probes
from appliance.seal.evidence import evidence
from tests.fakes.guards import asked, configured, guarded, process, secret_file, soon, workers
from tests.fakes.house import ROOT, House
from tests.fakes.people import EVERYBODYS, SOMEBODY, as_somebody


async def test_each_stands_under_a_seal(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch, processes=2) as guard:
        assert guard.seals["gate"].missing == ()
        template, gate = process(guard, "template"), process(guard, "gate")
        detectors = await soon(lambda: len(found := workers(guard)) == 2 and found)
        await soon(lambda: all(evidence(each.pid)[0].filters > evidence(gate.pid)[0].filters for each in detectors))
        here = evidence()[0].network
        for each in (template, gate, *detectors):
            (thread,) = evidence(each.pid)
            assert (thread.seccomp, thread.no_new_privileges, thread.capabilities) == (2, 1, 0)
            assert thread.network != here
        assert gate.ppid() == template.pid


async def test_code_that_runs_under_their_seal_reaches_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its unsealed twin is in tests/seal/test_seal.py: there, every attempt arrives."""
    with Canary() as canary:
        async with guarded(house, monkeypatch) as guard:
            canary.hand_out(house.state / "run" / "gate" / "accepted")
            outcome = await guard.probe(canary.order | {"interpreter": "/bin/true"})
        assert outcome.keys() >= probes.SENDING
        assert {attempt for attempt, became in outcome.items() if became == "done"} == set()
        assert canary.arrived() == set()


async def test_a_detector_gets_at_nothing_and_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch, processes=2) as guard:
        key = secret_file(house)
        await soon(lambda: len(workers(guard)) == 2)
        gate, template = process(guard, "gate").pid, process(guard, "template").pid
        told = await guard.explain(asked(f"ATTEMPTS {key} {template} {gate} and some words more"))
        outcome = dict(span.source.split(": ") for text in told.texts for span in text.spans)
        assert outcome.pop("nothing") == "done"
        assert len(outcome) == 11
        assert {attempt for attempt, became in outcome.items() if became == "done"} == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into another's mount namespace")
async def test_none_of_them_sees_the_state_the_settings_or_the_site(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch) as guard:
        secret_file(house)
        (worker,) = await soon(lambda: workers(guard))
        for each in (process(guard, "template"), process(guard, "gate"), worker):
            root = Path(f"/proc/{each.pid}/root")
            seen = {path.name for path in (root / house.folder.relative_to("/")).rglob("*")}
            assert seen == {"state", "run", "gate"}
            assert not list((root / "etc").iterdir())
            assert not (root / "home").exists() or not list((root / "home").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into another's memory")
async def test_what_new_detectors_are_forked_from_never_sees_a_text(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(house, monkeypatch) as guard:
        assert (await guard.protect(asked("Person-4711"))).held is None
        assert holds(process(guard, "gate"), b"Person-4711")
        assert not holds(process(guard, "template"), b"Person-4711")


def holds(each: psutil.Process, wanted: bytes) -> bool:
    """Whether these bytes are anywhere in what the process may write to."""
    for line in Path(f"/proc/{each.pid}/maps").read_text().splitlines():
        ends, rights, *_ = line.split()
        start, end = (int(part, 16) for part in ends.split("-"))
        if rights.startswith("rw"):
            with open(f"/proc/{each.pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
                memory.seek(start)
                try:
                    if wanted in memory.read(end - start):
                        return True
                except OSError:
                    continue
    return False


def descriptors(each: psutil.Process) -> list[str]:
    return [str(descriptor.readlink()) for descriptor in Path(f"/proc/{each.pid}/fd").iterdir()]


async def test_they_hold_no_descriptor_that_is_not_theirs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(house, monkeypatch) as guard:
        assert (await guard.protect(asked("Guten Tag"))).held is None
        (worker,) = workers(guard)
        assert sorted(each.split(":")[0] for each in descriptors(worker)) == [
            "/dev/null",
            "/dev/null",
            "/dev/null",
            "socket",
        ]


ORDINARY = """
import asyncio, json, sys
from pathlib import Path
from appliance import config
from appliance.egress.canary import Canary
from appliance.privacy import guard as guards
from appliance.seal.evidence import evidence
from tests.fakes import detector
from tests.fakes.guards import asked, soon, workers

# the packages of this environment, which a Python that everybody may run doesn't have
packages = sys.argv[2]
detector.COMMAND[1] = (
    f"import sys; sys.path.insert(0, {packages!r}); from pathlib import Path; from appliance.seal import view; "
    f"usual = view.interpreter(); view.interpreter = lambda: [*usual, Path({packages!r})]; "
) + detector.COMMAND[1]
guards._COMMAND = detector.COMMAND
made = config.load(Path(sys.argv[1]))
guard = guards.Guard.start(made)

async def run():
    verdict = await guard.protect(asked("Anna Weber"))
    detectors = await soon(lambda: workers(guard))
    with Canary() as canary:
        canary.hand_out(made.state / "run" / "gate" / "accepted")
        outcome = await guard.probe(canary.order)
    threads = [thread for pid in [*guard.pids, *(each.pid for each in detectors)] for thread in evidence(pid)]
    print(json.dumps({"held": verdict.held, "missing": guard.seals["gate"].missing, "tried": len(outcome),
        "done": [attempt for attempt, became in outcome.items() if became == "done"],
        "sealed": [[t.seccomp, t.no_new_privileges, t.capabilities] for t in threads]}))

asyncio.run(run())
guard.close()
"""


@as_somebody
def test_an_ordinary_user_has_the_same_seals(house: House) -> None:
    made = configured(house)
    for each in (house.folder, *house.folder.rglob("*")):
        os.chown(each, SOMEBODY, SOMEBODY, follow_symlinks=False)
    packages = sysconfig.get_paths()["purelib"]
    command = [EVERYBODYS, "-c", ORDINARY, str(made.file), packages]
    environment = {"PATH": os.defpath, "PYTHONPATH": f"{ROOT}:{packages}"}
    told = subprocess.check_output(
        command, cwd=ROOT, env=environment, user=SOMEBODY, group=SOMEBODY, extra_groups=[], timeout=60
    )
    found = json.loads(told)
    assert found.pop("tried") >= len(probes.SENDING)
    assert found == {"held": None, "missing": [], "done": [], "sealed": [[2, 1, 0]] * 3}


TAKEN_OVER = """
import json, os, sys
from pathlib import Path
from appliance import config
from appliance.privacy import guard as guards
from appliance.seal import probes, view
from appliance.seal.gateway import seal_gateway
from tests.fakes import detector
from tests.fakes.guards import workers
from tests.fakes.house import until

guards._COMMAND = detector.COMMAND
made = config.load(Path(sys.argv[1]))
guard = guards.Guard.start(made)
(worker,) = until(lambda: workers(guard))
if sys.argv[2] == "sealed":
    seal_gateway(view.interpreter(), [made.state])
tried = {}
for pid, name in {**guard.pids, worker.pid: "detector"}.items():
    tried |= {
        f"memory of the {name}": lambda pid=pid: open(f"/proc/{pid}/mem", "r+b").close(),
        f"a descriptor of the {name}": lambda pid=pid: os.close(os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)),
        f"root of the {name}": lambda pid=pid: os.listdir(f"/proc/{pid}/root/"),
        f"signal to the {name}": lambda pid=pid: os.kill(pid, 0),
    }
print(json.dumps(probes.run(tried)))
guard.close()
"""


def lays_hands_on(house: House, gateway: str) -> tuple[set[str], int]:
    """What a gateway gets done to the template, the gate and a detector, and of how many attempts."""
    command = [sys.executable, "-c", TAKEN_OVER, str(configured(house).file), gateway]
    outcome = json.loads(subprocess.check_output(command, cwd=ROOT, timeout=60))
    return {attempt for attempt, became in outcome.items() if became == "done"}, len(outcome)


def test_a_gateway_that_was_taken_over_lays_hands_on_none_of_them(house: House) -> None:
    assert lays_hands_on(house, "sealed") == (set(), 12)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's process can't reach into another user namespace")
def test_a_gateway_without_its_seal_would(house: House) -> None:
    done, attempts = lays_hands_on(house, "unsealed")
    assert len(done) == attempts
