"""Connections as a server accepts them, for sealed processes to try what can be done with a caller's.

They are made in a network of their own, which nothing else is in and nothing leads out of: whoever gets hold of one,
a poisoned engine included, which may connect where the gateway may not, is no step nearer to anywhere.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass

from appliance.seal.parts import may_administrate, new_network, new_user_namespace
from appliance.seal.probes import ACCEPTED


@dataclass(frozen=True, slots=True)
class Handout:
    """Open sockets, for whoever made them to close."""

    accepted: list[socket.socket]
    """One for each address in ACCEPTED."""
    callers: list[socket.socket]
    """Their other ends."""
    listener: socket.socket
    """Hears in their network what is sent there."""


def here(host: str) -> Handout:
    """Made in the network of whoever asks, by servers that listen on `host`, or on ::1 for IPv6."""
    callers, accepted = [], []
    for address in ACCEPTED:
        with contextlib.closing(_server(address, host)) as server:
            callers.append(socket.create_connection((address, server.getsockname()[1])))
            accepted.append(server.accept()[0])
    return Handout(accepted, callers, socket.create_server(("127.0.0.1", 0)))


def _server(address: str, host: str) -> socket.socket:
    if ":" in address:
        return socket.create_server((address, 0), family=socket.AF_INET6)
    return socket.create_server((host, 0))


def apart() -> Handout:
    """Made in a network of their own. Raises OSError where none can be had."""
    near, far = socket.socketpair()
    with near:
        child = os.fork()
        if child == 0:
            _make(far)
        far.close()
        made = [socket.socket(fileno=each) for each in socket.recv_fds(near, 1, 2 * len(ACCEPTED) + 1)[1]]
        os.waitpid(child, 0)
    if not made:
        raise OSError("no network of their own can be had for the connections that are tried")
    return Handout(made[: len(ACCEPTED)], made[len(ACCEPTED) : -1], made[-1])


def _make(far: socket.socket) -> None:
    try:
        if not may_administrate():
            new_user_namespace()
        new_network()
        made = here("127.0.0.1")
        sockets = [*made.accepted, *made.callers, made.listener]
        socket.send_fds(far, [b"."], [each.fileno() for each in sockets])
    finally:
        os._exit(0)
