"""Starts keepers for a gateway that has sealed itself.

Children inherit both of the gateway's confinements for good, and engines need inside their seal what
the gateway's forbids (a loopback connection). So one small process is started before the gateway
seals itself, never opens a socket, and does one thing only: it forks keepers, under at least the seal
it was started with, so that whoever takes over the gateway gets nothing started here that could send.
It forks rather than executes them: a gateway that chose the loader's environment (LD_PRELOAD), or
wrote over the program's files, would run its own code before the seal.

The alternative, a gateway filter that admits internet sockets and leaves connect to Landlock, would
hand that same Landlock to the engines, and let UDP through besides.

It and the gateway speak lines of JSON over a Unix socket pair; `id` is the gateway's choice:

    {"id": 1, "spawn": {"command", "env", "log", "readable", "writable", "best_effort", "grace"}}
    {"id": 1, "signal": 15}
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
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import appliance
from appliance.engines.keeper import (
    SEAL_UNAVAILABLE,
    children,
    die_with_parent,
    exit_status,
    kill_descendants,
)
from appliance.engines.keeper import main as run_keeper
from appliance.seal import kernel

_LONGEST_LINE = 1 << 16


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
    def __init__(self, gateway: socket.socket, *, best_effort: bool) -> None:
        self._gateway = gateway
        self._best_effort = best_effort
        self._keepers: dict[int, _Keeper] = {}
        self._received = b""
        self._selector = selectors.DefaultSelector()
        self._watch(gateway.fileno(), self._on_request)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                # An event of this round may have closed what a later one is about.
                if key.fd in self._selector.get_map():
                    key.data()

    def _watch(self, descriptor: int, act: Callable[[], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, act)

    def _send(self, message: dict[str, Any]) -> None:
        self._gateway.sendall(json.dumps(message).encode() + b"\n")

    def _on_request(self) -> None:
        data = self._gateway.recv(1 << 16)
        if not data:
            raise SystemExit(0)
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "spawn" in request:
                self._spawn(request["id"], request["spawn"])
            elif keeper := self._keepers.get(request["id"]):
                if "signal" in request:
                    os.kill(keeper.pid, request["signal"])
                else:
                    self._order(keeper, request["probe"])

    def _order(self, keeper: _Keeper, order: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it has ended, or is stuck: whoever asked doesn't wait for ever
            os.write(keeper.orders, json.dumps(order).encode() + b"\n")

    def _spawn(self, number: int, wanted: dict[str, Any]) -> None:
        if wanted["best_effort"] and not self._best_effort:
            self._send({"id": number, "error": "this nursery starts nothing without the whole seal"})
            return
        told, tell = os.pipe()
        ordered, order = os.pipe()
        parent = os.getpid()
        options = [f"--log={wanted['log']}", f"--grace={wanted['grace']}"]
        options += [f"--status={tell}", f"--orders={ordered}", f"--parent={parent}"]
        options += [f"--readable={path}" for path in wanted["readable"]]
        options += [f"--writable={path}" for path in wanted["writable"]]
        options += ["--best-effort"] * wanted["best_effort"]
        pid = os.fork()
        if pid == 0:
            _become_keeper([*options, "--", *wanted["command"]], wanted["env"])
        os.close(tell)
        os.close(ordered)
        os.set_blocking(told, False)
        os.set_blocking(order, False)
        self._keepers[number] = keeper = _Keeper(pid, os.pidfd_open(pid), told, order)
        self._send({"id": number, "pid": pid})
        self._watch(keeper.status, partial(self._on_status, number))
        self._watch(keeper.exited, partial(self._on_exit, number))

    def _on_status(self, number: int) -> None:
        keeper = self._keepers[number]
        while True:
            try:
                data = os.read(keeper.status, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                break
            keeper.told += data
            *lines, keeper.told = keeper.told.split(b"\n")
            for line in lines:
                self._pass_on(number, bytes(line))
            del keeper.told[_LONGEST_LINE:]
        self._unwatch(keeper.status)

    def _pass_on(self, number: int, line: bytes) -> None:
        try:
            message = json.loads(line)
            told = {key: message[key] for key in ("error", "probe") if key in message} or {"seal": message}
        except (ValueError, TypeError):  # an engine can reach its prober; what it makes it say may be anything
            return
        self._send({"id": number, **told})

    def _on_exit(self, number: int) -> None:
        keeper = self._keepers[number]
        _, ended = os.waitpid(keeper.pid, 0)
        running = {other.pid for other in self._keepers.values()} - {keeper.pid}
        # What has no keeper was left by one that was killed.
        while orphans := children() - running:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        if keeper.status in self._selector.get_map():
            self._on_status(number)
        self._unwatch(keeper.exited)
        os.close(keeper.orders)
        del self._keepers[number]
        self._send({"id": number, "exit": exit_status(ended)})

    def _unwatch(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)


def _become_keeper(arguments: list[str], environment: dict[str, str]) -> NoReturn:
    status = SEAL_UNAVAILABLE
    try:
        os.setsid()
        status = run_keeper(arguments, environment)
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def _stop(*_: object) -> None:
    raise SystemExit(0)


def main(arguments: list[str]) -> int:
    """Serve the socket at descriptor ARGUMENTS[0] until it closes or process ARGUMENTS[1] ends.

    ARGUMENTS[2] is `required` or `best-effort`: the least seal under which a keeper may run.
    """
    gateway = socket.socket(fileno=int(arguments[0]))
    gateway.set_inheritable(False)
    signal.signal(signal.SIGTERM, _stop)
    try:
        die_with_parent(int(arguments[1]), signal.SIGTERM)
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        _Nursery(gateway, best_effort=arguments[2] == "best-effort").run()
    except (BrokenPipeError, ConnectionResetError):  # the gateway has gone
        return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kill_descendants()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
