"""One verification of the running appliance: look, try, judge, sign.

Runs outside every seal, as the appliance's own user or as root. It believes the kernel, its own canaries and what
was noted before the seal; of the sealed gateway it takes the outcomes of probes, and itself hears what arrives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance.egress import judge, mounts, processes, report, sockets, started
from appliance.egress.assurance import Verdict
from appliance.egress.canary import Canary
from appliance.egress.findings import KEEPER, Check, Destination, Findings, Probe, Process
from appliance.egress.ledger import Ledger
from appliance.egress.signing import Entry
from appliance.egress.started import Started
from appliance.engines.nursery import program
from appliance.errors import NotRunning
from appliance.seal import kernel

Ask = Callable[[str, str, dict[str, Any] | None], Iterator[dict[str, Any]]]
"""Asks the appliance over its control socket: method, path, body; yields the JSON of each line."""

CONTROL = "control"
_ASIDE = {"outlet": "run/outlet", "gate": "run/gate"}
"""Places beside the gateway's that not every config has, and the folder of the state that each sees."""
_PROBE_SECONDS = 10.0
_LOOK_UP_SECONDS = 2.0
_WAIT_SECONDS = 10.0
_ENGINE_FOLDER = re.compile(r"e\d+")
_SETTLES = 3.0


@dataclass(frozen=True, slots=True)
class Verification:
    """What one verification came to."""

    entry: Entry
    report: dict[str, Any]
    checks: list[Check]

    @property
    def holds(self) -> bool:
        """Whether every check holds, and the chain of reports did when this one was entered."""
        return bool(self.report["holds"])

    @property
    def verdict(self) -> Verdict:
        """The same in a few words, for the gateway."""
        entry = self.entry
        broken = ["ledger"] if entry.broken else []
        failed = tuple(dict.fromkeys([*(check.name for check in self.checks if not check.holds), *broken]))
        moment = datetime.fromisoformat(entry.time).timestamp()
        return Verdict(entry.number, entry.time, moment, self.holds, failed, entry.sha256)


def verify(state: Path, ask: Ask, known: tuple[int, str] | None = None) -> Verification:
    """Verify the appliance that runs on `state`, and write the signed report.

    `known` is the number and SHA-256 of an earlier report, which has to be there still.
    Takes a second or two. Raises `NotRunning` when no appliance runs there, or this user may not look at it.
    """
    noted = started.read(state / "egress")
    folder = os.open(state / "egress", os.O_RDONLY | os.O_DIRECTORY)
    try:
        _wait_for_others(folder)
        return _verify(noted, state, ask, known)
    finally:
        os.close(folder)


def _wait_for_others(folder: int) -> None:
    """Let another verification finish, since each finds the other's canaries; but not one that was stopped for good."""
    ends = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < ends:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.1)


def _verify(noted: Started, state: Path, ask: Ask, known: tuple[int, str] | None) -> Verification:
    began, clock = datetime.now(UTC), time.monotonic()
    findings = find(noted, state, ask)
    ledger = Ledger(state / "egress")
    checks = [*judge.judge(findings), ledger.standing(known=known)]
    milliseconds = int((time.monotonic() - clock) * 1000)
    made = report.build(findings, checks, host=socket.gethostname(), began=began, milliseconds=milliseconds)
    entry = ledger.append(made)
    return Verification(entry, ledger.read(entry.number), checks)


def find(noted: Started, state: Path, ask: Ask) -> Findings:
    """All that can be seen of the running appliance.

    Where an engine came or went meanwhile, as in a swap, it looks again: twice at least, and for _SETTLES seconds. The
    last look is judged as it is, so an appliance that never settles is not taken for a sound one.
    """
    began, looks = time.monotonic(), 0
    while True:
        before = _places(ask)
        findings = _find(noted, state, ask, before)
        looks += 1
        still = before["engines"] == _places(ask)["engines"] and _engines(findings) == before["engines"].keys()
        if still or (looks > 1 and time.monotonic() - began > _SETTLES):
            return findings


def _engines(findings: Findings) -> set[str]:
    """The places of engines that are kept and of which something runs."""
    kept = {each.place.removeprefix(KEEPER) for each in findings.processes if each.place.startswith(KEEPER)}
    return kept & {each.place for each in findings.processes if each.role == "engine"}


def _places(ask: Ask) -> dict[str, Any]:
    (places,) = ask("GET", "/egress/places", None)
    return places


def _find(noted: Started, state: Path, ask: Ask, places: Mapping[str, Any]) -> Findings:
    trouble = []
    keepers = {int(pid): str(place) for place, pid in places["engines"].items()}
    odd = [place for place in places["engines"] if not str(place).startswith("engine ")]
    if odd or len(keepers) < len(places["engines"]):
        trouble.append(f"the gateway names its engines in a way that it never does: {places['engines']!r:.500}")
    answering = _peer(state / "run" / "control.sock")
    if answering != noted.gateway.pid:
        trouble.append(f"process {answering} answers at the control socket; the gateway is {noted.gateway.pid}")
    tried = _try(noted, state, ask, places, trouble)
    seen = processes.look(noted.gateway.pid, keepers, {helper.pid: helper for helper in noted.helpers}, trouble)
    running = {(process.pid, process.started) for process in seen}
    trouble += [
        f"the {helper.does} (process {helper.pid}) doesn't run any more; start the appliance again"
        for helper in noted.helpers
        if (helper.pid, helper.ticks) not in running
    ]
    return Findings(
        mode=noted.mode,
        seal=noted.seal,
        kernel=f"{platform.release()} {platform.machine()}",
        landlock=_landlock(),
        host_network=noted.network or _network_of_callers(seen, noted.listening),
        listening=noted.listening,
        processes=seen,
        networks=sockets.networks(seen, noted.host_sockets),
        host_sockets=sockets.host_sockets(seen, noted.host_sockets, trouble),
        probes=tried,
        destinations=_resolved(noted.destinations),
        host_namespaces=processes.namespaces(),
        mounts=mounts.unexpected(seen, trouble),
        remote=mounts.remote(seen, trouble),
        sharers=sockets.sharers(seen),
        missing={place: list(parts) for place, parts in places["missing"].items() if parts},
        trouble=trouble,
    )


def _network_of_callers(seen: list[Process], listening: list[str]) -> int:
    """The network of a socket that something else made and passed: where the gateway's listener is found; else 0."""
    held = [each for process in seen if process.role == "gateway" for each in process.sockets]
    found = {each.namespace for each in held if each.state == "listening" and each.local in listening}
    return found.pop() or 0 if len(found) == 1 else 0


def _resolved(destinations: list[Destination]) -> list[Destination]:
    """Each with the addresses that its name leads to at this moment."""

    def look_up(destination: Destination) -> list[str]:
        host, port = destination.address.rsplit(":", 1)
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        return sorted({str(entry[4][0]) for entry in found})

    if not destinations:
        return []
    pool = ThreadPoolExecutor(len(destinations))
    asked = [(destination, pool.submit(look_up, destination)) for destination in destinations]
    resolved = []
    for destination, answer in asked:
        try:
            addresses = answer.result(_LOOK_UP_SECONDS)
        except (OSError, TimeoutError):  # nothing can be sent there now: no violation, and the report shows it
            addresses = []
        resolved.append(replace(destination, resolved=addresses))
    pool.shutdown(wait=False, cancel_futures=True)
    return resolved


def _landlock() -> int:
    try:
        return kernel.landlock_version()
    except OSError:
        return 0


def _peer(path: Path) -> int:
    """The process that listens at a Unix socket, by the kernel's word."""
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except OSError as cause:
            raise NotRunning(f"no appliance answers at {path}: {cause.strerror}") from cause
        pid: int = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid


def _folders(state: Path, places: Mapping[str, Any]) -> dict[str, Path]:
    """The folder of each engine's own socket, in which a canary can stand beside it."""
    named = {str(place): str(name) for place, name in places["folders"].items() if place in places["engines"]}
    folders = {place: state / "run" / name for place, name in named.items() if _ENGINE_FOLDER.fullmatch(name)}
    return {place: folder for place, folder in folders.items() if folder.is_dir() and not folder.is_symlink()}


def _try(noted: Started, state: Path, ask: Ask, places: Mapping[str, Any], trouble: list[str]) -> list[Probe]:
    """Try every way out, at once from every place and from an unsealed process beside it."""
    engines = [str(place) for place in places["engines"]]
    sealed = ["gateway", *engines, *(place for place in _ASIDE if any(each.does == place for each in noted.helpers))]
    with ExitStack() as stack:
        canaries = {place: stack.enter_context(Canary()) for place in (CONTROL, *sealed)}
        for place, folder in {"gateway": "run", CONTROL: "run", **_ASIDE}.items():
            if place in canaries:  # engines never get a caller's connection
                canaries[place].hand_out(state / folder / f"v{os.getpid()}-{place[0]}.sock")
                canaries[place].stand_beside(state / folder / f"v{os.getpid()}-{place[0]}b.sock")
        for place, own in _folders(state, places).items():
            canaries[place].stand_beside(own / f"v{os.getpid()}-b.sock")
        control = subprocess.Popen(
            program("seal.probes"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PATH": os.defpath}
        )
        try:
            order = canaries[CONTROL].order | {"interpreter": sys.executable}
            assert control.stdin is not None  # noqa: S101 - asked for above
            control.stdin.write(json.dumps(order).encode())
            control.stdin.close()
            control.stdin = None
            (answers,) = ask("POST", "/egress/probe", {place: canaries[place].order for place in sealed})
            told, _ = control.communicate(timeout=_PROBE_SECONDS)
        finally:
            control.kill()
            control.wait()
        unsealed: dict[str, str] = json.loads(told or b"{}")
        heard = {place: canary.arrived() for place, canary in canaries.items()}
    tried = []
    for place in sealed:
        outcomes = answers.get(place)
        if not isinstance(outcomes, dict):
            trouble.append(f"{place} could not be probed from inside: {outcomes}")
            outcomes = {}
        strange = heard[place] - outcomes.keys()
        tried += [
            Probe(
                place, attempt, str(outcome), attempt in heard[place],
                unsealed.get(attempt, "not tried"), attempt in heard[CONTROL],
            )
            for attempt, outcome in {**outcomes, **dict.fromkeys(sorted(strange), "not told")}.items()
        ]  # fmt: skip
    return tried
