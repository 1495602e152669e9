"""Runs one engine sealed, and sees to it that nothing of it outlives the appliance.

    python -m appliance.engines.keeper [options] -- COMMAND [ARGUMENT ...]

Three generations, each dying with the one above:

    keeper     outside the seal's process namespace; signals, grace, exit status
    └── init   sealed, process 1 of the namespace; reaps; when it ends, the kernel kills all the rest
        ├── the engine's command, and whatever it starts
        └── prober

The keeper asks the kernel for SIGKILL at its parent's death, init for SIGKILL at the keeper's, so
that no order of SIGKILLs leaves a process behind. Where the seal is best-effort and the kernel
grants no process namespace, the keeper adopts what the engine orphans and kills it all the same;
only its own SIGKILL leaves that to its parent, the nursery.

The prober tries the seal whenever it is asked: each line on the orders' descriptor is an order of
`appliance.seal.probes`, carried out under exactly what the engine inherited.

Exit status: the engine's, 128 + n after signal n, 125 when the seal is not to be had, 126 or 127
when the command is not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from appliance.engines.given import Admitted
from appliance.engines.priority import Ways, join_group, lead_group
from appliance.errors import SealUnavailable
from appliance.seal import kernel, probes
from appliance.seal.engine import EngineSeal
from appliance.seal.evidence import as_json, evidence, process_ids, running

SEAL_UNAVAILABLE, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127

_PARENT_DIED = signal.SIGUSR1
_WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, _PARENT_DIED}


def exit_status(wait_status: int) -> int:
    """A status of wait(2) as a shell shows it: the exit code, or 128 + the signal."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def children() -> set[int]:
    """Process ids of this process's living or unreaped children, adopted ones too."""
    mine: set[int] = set()
    for pid in process_ids():
        with contextlib.suppress(OSError):
            if running(pid).parent == os.getpid():
                mine.add(pid)
    return mine


def kill_descendants() -> None:
    """SIGKILL every child until none is left; a subreaper's grandchildren become children by that."""
    while True:
        for pid in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


@dataclass(frozen=True, slots=True)
class Order:
    """What to run, and all that it may have, as open descriptors."""

    engine: Admitted
    status: int
    """For lines of JSON: the seal, then what became of probes."""
    orders: int | None
    """From which orders to probe the seal come."""
    parent: int
    """The process to die with."""
    ways: Ways = field(default_factory=Ways)
    """How the engine gives way to those that serve, until it has answered."""

    @property
    def descriptors(self) -> set[int | None]:
        """All that the keeper needs."""
        return {self.engine.log, self.status, self.orders, *self.shown}

    @property
    def shown(self) -> set[int]:
        """Those of what the engine will see."""
        return {*self.engine.readable.values(), *self.engine.writable.values()}


def main(arguments: list[str]) -> int:
    """Run the command in this environment under the seal until it ends; returns the exit status."""
    parser = argparse.ArgumentParser(prog="keeper", description="Run one engine sealed.")
    parser.add_argument("--log", type=Path, required=True, help="file for the engine's output, appended to")
    parser.add_argument("--readable", type=Path, action="append", default=[], help="path to leave readable")
    parser.add_argument("--writable", type=Path, action="append", default=[], help="path to leave writable")
    parser.add_argument("--best-effort", action="store_true", help="go on without what the kernel refuses")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds from SIGTERM to SIGKILL")
    parser.add_argument("--status", type=int, default=1, help="descriptor for lines of JSON: the seal, then probes")
    parser.add_argument("--orders", type=int, help="descriptor from which orders to probe the seal come")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process id to die with")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    readable, writable = (
        {path.resolve(): os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths}
        for paths in (options.readable, options.writable)
    )
    engine = Admitted(
        options.command, dict(os.environ), log, readable, writable, options.best_effort, options.grace
    )  # fmt: skip
    return keep(Order(engine, options.status, options.orders, options.parent))


def keep(order: Order) -> int:
    """Run an engine under the seal until it ends; returns the exit status.

    Closes every descriptor but the standard ones and the order's. Call it in a process of its own.
    """
    _close_inherited(order.descriptors)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    seal = EngineSeal(best_effort=order.engine.best_effort)
    try:
        seal.leave()
    except SealUnavailable as error:
        _tell(order.status, {"error": str(error)})
        return SEAL_UNAVAILABLE
    lifeline, held = os.pipe()  # init sees the keeper's end here, from before it can ask the kernel to
    init = os.fork()
    if init == 0:
        os.close(held)
        _init(order, seal, lifeline)
    kernel.drop_capabilities()
    kernel.die_with_parent(order.parent, signal.SIGKILL if seal.alone else _PARENT_DIED)
    for descriptor in order.descriptors - {order.engine.log, None}:
        os.close(descriptor)  # type: ignore[arg-type]
    for standard in (1, 2):  # which may be sockets of the journal
        os.dup2(order.engine.log, standard)
    return _keep(init, order.engine.grace)


def _close_inherited(kept: set[int | None]) -> None:
    # A socket opened outside the seal would still reach outside.
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2 and int(entry.name) not in kept:
            with contextlib.suppress(OSError):  # the listing's own descriptor
                os.close(int(entry.name))
    for descriptor in kept - {None}:
        os.set_inheritable(descriptor, False)  # type: ignore[arg-type]  # noqa: FBT003 - no keyword there


def _keep(init: int, grace: float) -> int:
    deadline: float | None = None
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == init:
            kill_descendants()
            return exit_status(status)
        if pid:
            continue
        left = 3600.0 if deadline is None else max(0.0, deadline - time.monotonic())
        received = signal.sigtimedwait(_WATCHED, left)
        if received is None and deadline is None:
            continue
        if received is None or received.si_signo == _PARENT_DIED:
            os.kill(init, signal.SIGKILL)
            kill_descendants()
            return 128 + signal.SIGKILL
        if received.si_signo != signal.SIGCHLD:
            os.kill(init, signal.SIGTERM)
            deadline = deadline or time.monotonic() + grace


def _init(order: Order, seal: EngineSeal, lifeline: int) -> NoReturn:
    """Process 1 of the namespace: close the seal, start the engine, reap until it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(order.engine.log, 2)
        lead_group(order.ways)
        sealed = seal.close(order.engine.readable, order.engine.writable)
        for descriptor in order.shown:  # through which one would reach past the mounts
            os.close(descriptor)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if select.select([lifeline], [], [], 0)[0]:
            os._exit(128 + signal.SIGKILL)  # process 1 can't be killed from inside
        _tell(order.status, as_json(sealed, evidence()))
        os.dup2(order.engine.log, 1)
        parent = os.getpid()
        engine = os.fork()
        if engine == 0:
            _engine(order.engine.command, order.engine.environment, parent, order.ways)
        if order.orders is not None and os.fork() == 0:
            _probe_when_asked(order, order.orders, parent)
        os.close(order.status)
        signal.signal(signal.SIGTERM, lambda *_: _pass_on(engine))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        while True:
            pid, status = os.wait()
            if pid == engine:
                os._exit(exit_status(status))
    except Exception as error:  # nothing of this copy of the keeper may run on
        _tell(order.status, {"error": str(error)})
    finally:
        os._exit(SEAL_UNAVAILABLE)


def _pass_on(engine: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(engine, signal.SIGTERM)


def _probe_when_asked(order: Order, orders: int, parent: int) -> NoReturn:
    """Try the seal that this process shares with the engine, at each order, in a child that may come to harm."""
    try:
        kernel.die_with_parent(parent, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        with os.fdopen(orders) as lines:
            for line in lines:
                child = os.fork()
                if child == 0:
                    asked = json.loads(line) | {"interpreter": order.engine.command[0]}
                    _tell(order.status, {"probe": probes.run(probes.attempts(asked))})
                    os._exit(0)
                os.waitpid(child, 0)
    finally:
        os._exit(0)


def _engine(command: list[str], environment: Mapping[str, str], parent: int, ways: Ways) -> NoReturn:
    try:
        # else its kill(0) would reach init and the keeper; and where engine and gateway share cores, a refusal or a
        # token shouldn't wait for a step's arithmetic
        join_group(ways)
        kernel.die_with_parent(parent, signal.SIGKILL)
        for inherited in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; its children shouldn't
            signal.signal(inherited, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        os.execvpe(command[0], command, environment)  # noqa: S606 - a list, and no shell is wanted
    except OSError as error:
        os.write(2, f"keeper: {command[0]}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)
    finally:
        os._exit(NOT_EXECUTABLE)


def _tell(status: int, message: dict[str, object]) -> None:
    os.write(status, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
