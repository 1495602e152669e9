"""Starts keepers for a gateway that has sealed itself.

Children inherit both of the gateway's confinements for good, and engines need inside their seal what
the gateway's forbids (a loopback connection). So one small process is started before the gateway
seals itself, never opens a socket, and does one thing only: it forks keepers, under at least the seal
it was started with, so that whoever takes over the gateway gets nothing started here that could send.
It forks rather than executes them: a gateway that chose the loader's environment (LD_PRELOAD), or
wrote over the program's files, would run its own code before the seal.

The alternative, a gateway filter that admits internet sockets and leaves connect to Landlock, would
hand that same Landlock to the engines, and let UDP through besides.

What an engine may be given of the host's files isn't the gateway's to say: see `appliance.engines.given`.

It and the gateway speak lines of JSON over a Unix socket pair; `id` is the gateway's choice:

    {"id": 1, "spawn": {"command", "env", "log", "readable", "writable", "best_effort", "grace", "gives_way"}}
    {"id": 1, "signal": 15}
    {"id": 1, "hurry": true}
    {"id": 1, "probe": order}
                                {"id": 1, "pid": 4711}
                                {"id": 1, "seal": {"holds", "missing", "evidence"}}
                                {"id": 1, "probe": {attempt: outcome}}
                                {"id": 1, "error": "why it did not start"}
                                {"id": 1, "exit": 137}

`exit` comes when nothing of the engine runs any more. The nursery ends with the gateway, and kills
every keeper and all that a dead keeper left behind. Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import appliance
from appliance.engines.given import Admitted, Given, Refused
from appliance.engines.keeper import (
    SEAL_UNAVAILABLE,
    Order,
    children,
    exit_status,
    keep,
    kill_descendants,
)
from appliance.engines.priority import Ways, stop_giving_way
from appliance.seal import kernel
from appliance.seal.evidence import is_thread

_CLOSED = -1
_LONGEST_ORDER = 1 << 20
LONGEST_LINE = 1 << 15
"""Bytes of one message of a keeper; as many times eight when it is passed on, since JSON escapes what isn't ASCII."""


def program(module: str, *arguments: str) -> list[str]:
    """Command line of `appliance.<module>`, started without site packages to be quick."""
    root = Path(appliance.__file__).parents[1]
    start = (
        f"import sys; sys.path.append({str(root)!r}); from appliance.{module} import main; sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-I", "-S", "-c", start, *arguments]


@dataclass(slots=True)
class _Keeper:
    pid: int
    exited: int
    status: int
    orders: int
    told: bytearray = field(default_factory=bytearray)


class _Nursery:
    def __init__(self, gateway: socket.socket, given: Given, *, best_effort: bool) -> None:
        self._gateway = gateway
        self._given = given
        self._best_effort = best_effort
        self._ways = Ways.here()
        self._keepers: dict[int, _Keeper] = {}
        self._received = b""
        self._selector = selectors.DefaultSelector()
        self._watch(gateway.fileno(), self._on_request)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                # An event of this round may have closed what a later one is about, and its number be another's by now.
                if self._selector.get_map().get(key.fd) == key:
                    key.data()

    def _watch(self, descriptor: int, act: Callable[[], object]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, act)

    def _send(self, message: dict[str, Any]) -> None:
        self._gateway.sendall(json.dumps(message).encode() + b"\n")

    def _on_request(self) -> None:
        data = self._gateway.recv(1 << 16)
        if not data:
            raise SystemExit(0)
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > _LONGEST_ORDER:
            raise SystemExit("an order of the gateway's has no end")
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                self._act(json.loads(line))

    def _act(self, request: object) -> None:
        match request:
            case {"id": int(number), "spawn": dict(wanted)} if number not in self._keepers:
                self._spawn(number, wanted)
            case {"id": int(number), "signal": signal.SIGTERM | signal.SIGKILL as signum} if number in self._keepers:
                os.kill(self._keepers[number].pid, signum)
            case {"id": int(number), "hurry": True} if number in self._keepers:
                stop_giving_way(self._keepers[number].pid)
            case {"id": int(number), "probe": dict(order)} if number in self._keepers:
                self._order(self._keepers[number], order)

    def _order(self, keeper: _Keeper, order: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it has ended, or is stuck: whoever asked doesn't wait for ever
            os.write(keeper.orders, json.dumps(order).encode() + b"\n")

    def _spawn(self, number: int, wanted: dict[str, Any]) -> None:
        with contextlib.ExitStack() as held:
            try:
                engine = self._given.admit(wanted, held)
                if engine.best_effort and not self._best_effort:
                    raise Refused("starts nothing without the whole seal")
            except Refused as refusal:
                self._send({"id": number, "error": f"this nursery {refusal}"})
                return
            self._fork(number, engine)

    def _fork(self, number: int, engine: Admitted) -> None:
        told, tell = os.pipe()
        ordered, order = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_keeper(Order(engine, tell, ordered, parent, self._ways if engine.gives_way else Ways()))
        os.close(tell)
        os.close(ordered)
        os.set_blocking(told, False)
        os.set_blocking(order, False)
        self._keepers[number] = keeper = _Keeper(pid, os.pidfd_open(pid), told, order)
        self._send({"id": number, "pid": pid})
        self._watch(keeper.status, partial(self._on_status, number))
        self._watch(keeper.exited, partial(self._on_exit, number))

    def _on_status(self, number: int) -> bool:
        """Take some of what was told; True while there may be more."""
        keeper = self._keepers[number]
        try:
            data = os.read(keeper.status, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._unwatch(keeper.status)
            keeper.status = _CLOSED
            return False
        keeper.told += data
        *lines, keeper.told = keeper.told.split(b"\n")
        for line in lines:
            if told := _understood(bytes(line)):
                self._send({"id": number, **told})
        del keeper.told[LONGEST_LINE + 1 :]  # more than enough to be refused
        return True

    def _on_exit(self, number: int) -> None:
        keeper = self._keepers[number]
        _, ended = os.waitpid(keeper.pid, 0)
        running = {other.pid for other in self._keepers.values()} - {keeper.pid}
        # What has no keeper was left by one that was killed.
        while orphans := children() - running:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        while keeper.status != _CLOSED and self._on_status(number):
            pass
        if keeper.status != _CLOSED:
            self._unwatch(keeper.status)
        self._unwatch(keeper.exited)
        os.close(keeper.orders)
        del self._keepers[number]
        self._send({"id": number, "exit": exit_status(ended)})

    def _unwatch(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)


def _understood(line: bytes) -> dict[str, Any] | None:
    """A keeper's message. None for what no keeper says: an engine can reach its prober, and make it say anything."""
    if len(line) > LONGEST_LINE:
        return None
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match message:
        case {"error": str(error)}:
            return {"error": error}
        case {"probe": dict(outcome)} if _all_of(str, outcome.values()):
            return {"probe": outcome}
        case {"holds": list(holds), "missing": list(missing), "evidence": list(threads)}:
            if _all_of(str, [*holds, *missing]) and all(map(is_thread, threads)):
                return {"seal": {"holds": holds, "missing": missing, "evidence": threads}}
    return None


def _all_of(kind: type, values: Iterable[object]) -> bool:
    return all(isinstance(value, kind) for value in values)


def _become_keeper(order: Order) -> NoReturn:
    status = SEAL_UNAVAILABLE
    try:
        os.setsid()
        status = keep(order)
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def _stop(*_: object) -> None:
    raise SystemExit(0)


def main(arguments: list[str]) -> int:
    """Serve the socket at descriptor ARGUMENTS[0] until it closes or process ARGUMENTS[1] ends.

    ARGUMENTS[2] is `required` or `best-effort`: the least seal under which a keeper may run; ARGUMENTS[3] is what
    `Given.tell` said.
    """
    gateway = socket.socket(fileno=int(arguments[0]))
    gateway.set_inheritable(False)
    signal.signal(signal.SIGTERM, _stop)
    try:
        kernel.die_with_parent(int(arguments[1]), signal.SIGTERM)
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        _Nursery(gateway, Given.told(arguments[3]), best_effort=arguments[2] == "best-effort").run()
    except (BrokenPipeError, ConnectionResetError):  # the gateway has gone
        return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kill_descendants()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
