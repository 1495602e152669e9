"""The template of the processes that look through requests: it loads the detectors once, and forks.

    python -m appliance.privacy.process CHANNEL

Its forks are the gate (appliance/privacy/gatehouse.py), which has the CHANNEL to the gateway, and the detectors
(appliance/privacy/worker.py), which come to the gate over a socket that exists in their own sealed network only. A
detector that ended is forked anew; no request ever comes here, so a fork knows nothing of earlier ones.

All of them are under one seal: no network, nothing to write to, and nothing to read but the interpreter, with what it
is made of, and one empty folder. Each detector shuts itself off from the others, too (appliance/seal/detector.py).

Standard input and output are as appliance/seal/child.py says. It ends when the gate ends.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path

from appliance.config import Privacy, Provider
from appliance.errors import ListsFailed, SealUnavailable
from appliance.privacy import gatehouse
from appliance.privacy.notes import note, where
from appliance.privacy.site.lists import Lists
from appliance.privacy.worker import Detects, limit_memory, work
from appliance.seal import view
from appliance.seal.child import read_orders, start_probe, tell, tell_sealed
from appliance.seal.detector import seal_detector
from appliance.seal.gateway import listen_no_more, seal_gateway

_PACE = 0.2
"""Seconds from one start of a detector to the next that takes its place: one that fails at once is no storm."""
_KEY_BYTES = 32
_MASKED = (Path("/etc"), Path("/sys"))
"""Folders of the system that a gateway sees; nothing here looks up anything."""


def main(arguments: list[str]) -> int:
    """Read the orders, load the detectors, seal this process, say so, and fork."""
    from appliance.privacy.detect.detector import Detector

    channel = socket.socket(fileno=int(arguments[0]))
    if (told := read_orders()) is None:
        return 0
    privacy = Privacy.model_validate(told["privacy"])
    providers = {name: Provider.model_validate(provider) for name, provider in told["providers"].items()}
    try:
        detector = Detector(privacy.detectors, Lists(Path(told["lists"])).every())
        seal = seal_gateway(
            [*view.interpreter(), Path(told["folder"])], [], _MASKED, scratch=False, best_effort=told["best_effort"]
        )  # fmt: skip
    except SealUnavailable as error:
        tell({"error": f"gate: {error}"})
        return 1
    except ListsFailed as error:
        tell({"failed": str(error)})
        return 1
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")  # the kernel names it, in this network alone
    listener.listen(64)
    if "seccomp" in seal.holds:
        listen_no_more()
    gc.collect()
    gc.freeze()  # what all forks share is looked through by none, and so stays shared
    told_key, tells_key = os.pipe()
    template = os.getpid()
    gate = _fork(
        {2, channel.fileno(), listener.fileno(), tells_key},
        lambda: gatehouse.keep(channel, listener, template, privacy, providers, partial(os.write, tells_key)),
    )
    address = listener.getsockname()
    for each in (channel, listener):
        each.close()
    os.close(tells_key)
    key = os.read(told_key, _KEY_BYTES)
    if len(key) < _KEY_BYTES:
        return 1
    tell_sealed(seal, public_key=key.hex(), gate=gate)
    try:
        _Template(
            detector, address, privacy.detectors.processes, gate, best_effort=told["best_effort"]
        ).serve()  # fmt: skip
    finally:
        os._exit(0)


class _Template:
    def __init__(self, detector: Detects, address: bytes, processes: int, gate: int, *, best_effort: bool) -> None:
        self._detector = detector
        self._address = address
        self._due = [0.0] * processes
        """When each detector that is missing may be started."""
        self._lives: dict[int, int] = {}
        """Process id by descriptor, of all children."""
        self._started: dict[int, float] = {}
        """When each detector was, by process id."""
        self._gate = gate
        self._best_effort = best_effort
        self._poll = select.poll()

    def serve(self) -> None:
        """Until the gateway or the gate ends; then all end."""
        self._poll.register(0, select.POLLIN)
        self._keep(self._gate)
        try:
            orders = b""
            while True:
                self._start_due()
                for descriptor, _ in self._poll.poll(self._patience()):
                    if descriptor in self._lives:
                        if self._reap(descriptor) == self._gate:
                            return
                    elif not (data := os.read(0, 1 << 16)):
                        return
                    else:
                        *lines, orders = (orders + data).split(b"\n")
                        for line in lines:
                            self._keep(start_probe(line))
        finally:
            for pid in self._lives.values():  # none of them is reaped, so each still is who it was
                os.kill(pid, signal.SIGKILL)
            for pid in self._lives.values():
                os.waitpid(pid, 0)

    def _start_due(self) -> None:
        now = time.monotonic()
        for _ in [due for due in self._due if due <= now]:
            pid = _fork({2}, self._detect)
            self._started[pid] = now
            self._keep(pid)
        self._due = [due for due in self._due if due > now]

    def _patience(self) -> float | None:
        """Milliseconds until the next start is due; None: none is."""
        return max(0.0, min(self._due) - time.monotonic()) * 1000 + 1 if self._due else None

    def _keep(self, pid: int) -> None:
        life = os.pidfd_open(pid)
        self._lives[life] = pid
        self._poll.register(life, select.POLLIN)

    def _reap(self, life: int) -> int:
        pid = self._lives.pop(life)
        self._poll.unregister(life)
        os.close(life)
        os.waitpid(pid, 0)
        if (started := self._started.pop(pid, None)) is not None:
            self._due.append(started + _PACE)
        return pid

    def _detect(self) -> None:
        with socket.socket(socket.AF_UNIX) as channel:
            try:
                channel.connect(self._address)
            except ConnectionRefusedError:  # the gate has ended, and so will all of this
                return
            seal_detector(best_effort=self._best_effort)
            limit_memory()
            _silence(2)  # what a library says of a text is for nobody to read
            work(self._detector, channel)


def _fork(kept: Collection[int], act: Callable[[], object]) -> int:
    """Have a child do `act` with the descriptors `kept` alone, and end. Its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        _silence(*{0, 1, 2}.difference(kept))
        for descriptor in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
            if descriptor > 2 and descriptor not in kept:
                with suppress(OSError):  # that of the listing
                    os.close(descriptor)
        act()
        status = 0
    except BaseException as error:
        note(where(error))
    finally:
        os._exit(status)


def _silence(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
