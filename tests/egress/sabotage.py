"""Runs the appliance with one violation built in, each of which a verification has to find.

python -m tests.egress.sabotage VIOLATION serve --config FILE
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import appliance
from appliance import app, probing
from appliance.engines import keeper, nursery, process
from appliance.seal import engine, filters, gateway, kernel, view

DAEMON = Path("/tmp/appliance-test-daemon/socket")  # noqa: S108
"""Somebody else's service on this host."""
KEPT: list[Any] = []
"""What has to live as long as the process."""


def put(module: Any, name: str, value: Any) -> None:
    """Replace what has to be there: a violation that misses its place would be none."""
    assert hasattr(module, name), f"{module} has no {name}"
    setattr(module, name, value)


def before_the_seal(act: Callable[[], None]) -> None:
    """Do `act` in the gateway just before it seals itself, and have the seal not mind."""
    seal = app.seal_gateway

    def sealed(*arguments: Any, **options: Any) -> Any:
        act()
        for demand in ("require_one_thread", "_require_no_open_socket"):
            put(gateway, demand, lambda: None)
        return seal(*arguments, **options)

    put(app, "seal_gateway", sealed)


def in_the_nursery(name: str) -> None:
    """Have the nursery, which forks the keepers, start with the violation, too."""
    plain = process.program

    def program(module: str, *arguments: str) -> list[str]:
        if module != "engines.nursery":
            return plain(module, *arguments)
        root = Path(appliance.__file__).parents[1]
        start = (
            f"import sys; sys.path.append({str(root)!r}); from tests.egress import sabotage; sabotage.nurse({name!r})"
        )
        return [sys.executable, "-c", start, *arguments]

    put(process, "program", program)


def nurse(name: str) -> None:
    IN_KEEPERS[name]()
    sys.exit(nursery.main(sys.argv[1:]))


def a_thread() -> None:
    before_the_seal(lambda: threading.Thread(target=threading.Event().wait, daemon=True).start())


def a_udp_socket() -> None:
    before_the_seal(lambda: KEPT.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))


def a_connection_elsewhere() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    KEPT.append(server)
    before_the_seal(lambda: KEPT.append(socket.create_connection(server.getsockname())))


def a_process_beside() -> None:
    before_the_seal(lambda: KEPT.append(subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL)))


def a_process_that_hides() -> None:
    """Its parent has ended. It ends with the gateway, which alone has the pipe that it reads."""

    def act() -> None:
        reading, writing = os.pipe()
        KEPT.append(writing)
        subprocess.run(["sh", "-c", f"cat <&{reading} &"], pass_fds=[reading], check=True)
        os.close(reading)

    before_the_seal(act)


def an_engine_by_another_name() -> None:
    put(probing, "_place", lambda name: "gateway")


def no_seccomp() -> None:
    put(kernel, "seccomp", lambda rules, every_thread=False: None)


def no_landlock() -> None:
    put(gateway, "landlock_tcp", lambda: None)


def a_daemon_of_the_host() -> None:
    """The folder of a daemon's socket, shown to the gateway under another name."""
    shown, hide = Path("/tmp/violation"), view.hide  # noqa: S108

    def hidden(*arguments: Any) -> None:
        handle = os.open(DAEMON.parent, os.O_PATH)
        hide(*arguments)
        shown.mkdir()
        kernel.mount(f"/proc/self/fd/{handle}", str(shown), None, kernel.MS_BIND)

    put(view, "hide", hidden)


def rules_that_let_an_engine_do_all() -> None:
    put(filters, "engine", lambda *, alone: [])


def a_network_with_a_way_out() -> None:
    put(engine, "new_network", lambda: None)


def capabilities() -> None:
    put(kernel, "drop_capabilities", lambda: None)


def a_socket_from_outside() -> None:
    kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    KEPT.append(kept)
    close = keeper._close_inherited
    put(keeper, "_close_inherited", lambda spared: close(spared | {kept.fileno()}))
    execute = os.execvpe

    def passed_on(*arguments: Any) -> None:
        kept.set_inheritable(True)
        execute(*arguments)

    put(os, "execvpe", passed_on)


def a_daemon_of_the_host_for_engines() -> None:
    hide = view.hide
    put(view, "hide", lambda hidden, kept: hide(hidden, {*kept, DAEMON}))


IN_THE_GATEWAY: dict[str, Callable[[], None]] = {
    "a thread without the seal": a_thread,
    "an extra socket": a_udp_socket,
    "a connection elsewhere": a_connection_elsewhere,
    "a process beside the seal": a_process_beside,
    "a process whose parent has ended": a_process_that_hides,
    "an engine that is called the gateway": an_engine_by_another_name,
    "no filter on system calls": no_seccomp,
    "no landlock": no_landlock,
    "a host daemon's socket": a_daemon_of_the_host,
}
IN_KEEPERS: dict[str, Callable[[], None]] = {
    "an engine's filter without rules": rules_that_let_an_engine_do_all,
    "an engine in the host's network": a_network_with_a_way_out,
    "an engine with capabilities": capabilities,
    "an engine with a socket from outside": a_socket_from_outside,
    "a host daemon's socket in an engine": a_daemon_of_the_host_for_engines,
}


def main() -> int:
    name = sys.argv.pop(1)
    if name in IN_THE_GATEWAY:
        IN_THE_GATEWAY[name]()
    else:
        in_the_nursery(name)
    from appliance.__main__ import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
