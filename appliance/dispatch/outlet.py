"""The process through which requests leave the appliance, which itself can't open a connection.

Every `endpoint:` on the network and every provider of the config has a Unix socket here, and so have the PostgreSQL
of keys and books, the identity provider, and whoever is told of the audit log. What comes in there goes, over TLS where
the URL says so, to that one destination: bytes as they are to a server in the house, cleared requests
(appliance/dispatch/cleared.py) to a provider. The connections are opened by another process, the dialler, which can be
told nothing but which one of the configured destinations is meant. So a caller's bytes are only where nothing can be
dialled, and what dials sees none of them.

The outlet is sealed like the gateway before it reads a byte of a caller's. It takes its orders once, before that;
a gateway that was taken over can't widen them.

    python -m appliance.dispatch.outlet CHANNEL LISTENER...

Standard input and output are as appliance/seal/child.py says.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path

from appliance.dispatch.dialler import Destination
from appliance.dispatch.way import Dials, Route, Way, refusal
from appliance.errors import SealUnavailable
from appliance.seal import view
from appliance.seal.child import read_orders, start_probe, tell, tell_sealed
from appliance.seal.gateway import listen_no_more, seal_gateway
from appliance.seal.parts import Seal

_CHUNK = 64 * 1024

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


async def _pass_on(way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes to a server in the house and back, until one side has done."""
    try:
        # nothing is dialled for whoever says nothing, and no answer comes before the question
        if not (first := await reader.read(_CHUNK)):
            return
        async with way.open() as (far_reader, far_writer):
            far_writer.write(first)
            pumps = [asyncio.create_task(_pump(reader, far_writer)), asyncio.create_task(_pump(far_reader, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
    except OSError as why:
        note(way, why)
        if not way.route.end_to_end:  # else it may not be HTTP that is spoken here
            writer.write(refusal(HTTPStatus.BAD_GATEWAY, "the endpoint can't be reached"))
    finally:
        writer.close()


def note(way: Way, why: Exception) -> None:
    """Say on standard error why a destination could not be reached."""
    destination = way.route.destination
    told = f"outlet: {destination.host}:{destination.port}: {why or type(why).__name__}"
    print(told, file=sys.stderr, flush=True)  # noqa: T201 - the process' own log


def _probe(line: bytes) -> None:
    child = start_probe(line)
    life = os.pidfd_open(child)

    def reap() -> None:
        asyncio.get_running_loop().remove_reader(life)
        os.close(life)
        os.waitpid(child, 0)

    asyncio.get_running_loop().add_reader(life, reap)


async def _serve(
    routes: list[Route], contexts: list[ssl.SSLContext | None], clearance_key: str | None,
    channel: socket.socket, listeners: list[socket.socket], seal: Seal,
) -> None:  # fmt: skip
    dials = Dials(channel, [route.destination for route in routes])
    servers = []
    for index, (route, context, listener) in enumerate(zip(routes, contexts, listeners, strict=True)):
        way = Way(route, index, dials, context)
        accept: Accept = partial(_pass_on, way) if route.destination.kind == "in-house" else _gate(way, clearance_key)
        servers.append(await asyncio.start_unix_server(accept, sock=listener))
    if "seccomp" in seal.holds:
        listen_no_more()
    orders = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(orders)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await orders.readline():
        _probe(line)
    os._exit(0)  # what is in flight has nobody to go back to


def _gate(way: Way, clearance_key: str | None) -> Accept:
    # only where there is a provider: it brings a cryptographic library along
    from appliance.dispatch.cleared import Gate

    return Gate(way, bytes.fromhex(clearance_key) if clearance_key else None, note).accept


def main(arguments: list[str]) -> int:
    """Read the orders, seal this process, say how on standard output, and serve the descriptors in ARGUMENTS."""
    channel, *listeners = [socket.socket(fileno=int(number)) for number in arguments]
    if (told := read_orders()) is None:
        return 0
    routes = [Route(Destination(**route.pop("destination")), **route) for route in told["routes"]]
    # authorities are read now: under the seal their files are out of sight
    contexts = [
        ssl.create_default_context(cafile=each.ca) if each.destination.tls and not each.end_to_end else None
        for each in routes
    ]
    try:
        seal = seal_gateway([*view.interpreter(), Path(told["folder"])], best_effort=told["best_effort"])
    except SealUnavailable as error:
        tell({"error": f"outlet: {error}"})
        return 1
    tell_sealed(seal)
    asyncio.run(_serve(routes, contexts, told["clearance_key"], channel, listeners, seal))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
