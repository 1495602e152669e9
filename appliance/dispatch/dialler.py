"""The one process that opens connections, and all that it can be told is which one of a fixed list.

The list comes once, from the gateway before that seals itself. The outlet then orders by a number in that list
and gets back a connected socket, or a reason; the dialler looks the name up, checks every address that it leads
to, and connects to one that was checked. It never sees a byte that a caller wrote, nor a key.

It is sealed too (appliance/seal/dialler.py). What remains open to it is UDP, for looking up names: the dialler
knows no secret, so there is nothing to tunnel. It uses /etc/hosts and plain DNS; services that answer for names
over a Unix socket are out of its reach.

    python -S -m appliance.dispatch.dialler CHANNEL     the list as a line of JSON on standard input

It ends when standard input or the channel closes. Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Literal

from appliance.addresses import is_private, is_public
from appliance.errors import SealUnavailable
from appliance.seal.dialler import seal_dialler
from appliance.seal.evidence import as_json, evidence

ORDER = struct.Struct("=I")
"""A place in the list. The answer begins with the same; a reason in UTF-8 follows, or a socket comes with it."""
LONGEST_ANSWER = 512
AT_ONCE = 64
"""Orders for one destination that may be open; more are refused."""
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Destination:
    """A place that may be connected to: a server in the house, or a provider outside."""

    name: str
    """Of the model or the provider in the config; of the appliance's own servers, what they are for."""
    host: str
    port: int
    kind: Literal["in-house", "provider"]
    tls: bool

    def admits(self, address: str) -> bool:
        """Whether it may have that address: one in the house only private ones, one outside no such."""
        return is_private(address) if self.kind == "in-house" else is_public(address)


def look_up(destination: Destination) -> list[tuple[socket.AddressFamily, Any]]:
    """The addresses of `destination`, as sockets take them.

    Raises `PermissionError` when one of them isn't admitted: a name that somebody points elsewhere leads nowhere.
    """
    found = socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
    for *_, address in found:
        if not destination.admits(str(address[0])):
            wanted = "private" if destination.kind == "in-house" else "public"
            raise PermissionError(f"{destination.host} is {address[0]}, which is not a {wanted} address")
    return [(family, address) for family, _, _, _, address in found]


def connect(destination: Destination, seconds: float = _SECONDS) -> socket.socket:
    """A connection to the first of its addresses that answers. Raises `OSError` with the reason."""
    # the addresses that were checked are the ones dialled: a second look-up could answer otherwise
    deadline = time.monotonic() + seconds
    refusal = OSError("it has no address")
    for family, address in look_up(destination):
        connection = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            connection.connect(address)
        except OSError as why:
            connection.close()
            refusal = why
        else:
            return connection
    raise refusal


class _Dialler:
    def __init__(self, channel: socket.socket, destinations: list[Destination]) -> None:
        self._channel = channel
        self._destinations = destinations
        self._free = [threading.BoundedSemaphore(AT_ONCE) for _ in destinations]

    def serve(self) -> int:
        """Until the gateway or the outlet has gone, 0; 1 at an order that our outlet never gives."""
        while True:
            ready, _, _ = select.select([0, self._channel.fileno()], [], [])
            order = b"" if 0 in ready else self._channel.recv(64)
            if not order:
                return 0
            if len(order) != ORDER.size or ORDER.unpack(order)[0] >= len(self._destinations):
                _note("what came in is no order: the outlet is not itself any more")
                return 1
            (index,) = ORDER.unpack(order)
            if self._free[index].acquire(blocking=False):
                threading.Thread(target=self._dial, args=[index], daemon=True).start()
            else:
                self._answer(index, "too many connections are being opened")

    def _dial(self, index: int) -> None:
        connection, reason = None, ""
        try:
            connection = connect(self._destinations[index])
        except (OSError, UnicodeError) as why:
            reason = str(why) or type(why).__name__
        self._free[index].release()
        self._answer(index, reason, connection)

    def _answer(self, index: int, reason: str, connection: socket.socket | None = None) -> None:
        answer = (ORDER.pack(index) + reason.encode())[:LONGEST_ANSWER]
        with contextlib.suppress(OSError), connection or contextlib.nullcontext():  # the outlet has gone: so will this
            socket.send_fds(self._channel, [answer], [connection.fileno()] if connection else [])


def _note(what: str) -> None:
    print(f"dialler: {what}", file=sys.stderr, flush=True)  # noqa: T201 - the process' own log


def main(arguments: list[str]) -> int:
    """Seal this process, say on standard output how, and carry out orders from the descriptor ARGUMENTS[0]."""
    channel = socket.socket(fileno=int(arguments[0]))
    told = json.loads(sys.stdin.readline() or "null")
    if told is None:  # the gateway ended before it could say anything
        return 0
    destinations = [Destination(**destination) for destination in told["destinations"]]
    try:
        seal = seal_dialler({each.port for each in destinations}, best_effort=told["best_effort"])
    except SealUnavailable as error:
        os.write(1, json.dumps({"error": f"dialler: {error}"}).encode() + b"\n")
        return 1
    os.write(1, json.dumps(as_json(seal, evidence())).encode() + b"\n")
    # not by way of the interpreter's end, which a thread in the middle of a look-up could hold up
    os._exit(_Dialler(channel, destinations).serve())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
