"""The one process that may open connections, and only to the endpoints it was started with.

The gateway is sealed and can't dial. For each `endpoint:` of the config this process holds a Unix socket;
what comes in there goes, over TLS where the URL says so, to that endpoint's address and nowhere else. It
takes its orders once, from standard input, before anything a caller wrote can reach it; a gateway that was
taken over can't widen them. Addresses that are not private are refused at every connection, so a name that
someone points elsewhere leads nowhere. It isn't started when no endpoint is configured.

    python -m appliance.dispatch.outlet LISTENER...
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from appliance.config import RemoteModel, may_be_private

_CONNECT_SECONDS = 10.0
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """One endpoint: the Unix socket to listen on, and where its bytes go."""

    socket: str
    host: str
    port: int
    tls: bool
    ca: str | None

    @classmethod
    def of(cls, model: RemoteModel, socket_path: Path, ca: Path | None) -> Order:
        """The order for an endpoint's URL."""
        parts = urlsplit(model.endpoint)
        tls = parts.scheme == "https"
        return cls(
            str(socket_path), parts.hostname or "", parts.port or (443 if tls else 80), tls, str(ca) if ca else None
        )


def start(orders: list[Order]) -> subprocess.Popen[bytes]:
    """Start the outlet; call it before the gateway seals itself. It ends when the returned `stdin` closes.

    The sockets are bound here, so that a request that comes before the outlet is up waits and doesn't fail.
    """
    listeners = [_listen(order.socket) for order in orders]
    numbers = [listener.fileno() for listener in listeners]
    outlet = subprocess.Popen(
        [sys.executable, "-m", "appliance.dispatch.outlet", *map(str, numbers)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2])},
        pass_fds=numbers,
    )
    for listener in listeners:
        listener.close()
    assert outlet.stdin is not None  # noqa: S101 - asked for above
    outlet.stdin.write(json.dumps([asdict(order) for order in orders]).encode() + b"\n")
    outlet.stdin.flush()
    return outlet


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    Path(path).chmod(0o600)  # before listen(): nobody connects under the wider mode
    listener.listen(1024)
    return listener


async def private_addresses(host: str, port: int) -> list[str]:
    """The addresses of `host`. Raises `PermissionError` when one of them isn't private."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not may_be_private(address):
            raise PermissionError(f"{host} is {address}, which is not a private address")
    return addresses


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


async def _relay(
    order: Order, context: ssl.SSLContext | None, near: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    far_writer = None
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            # the address that was checked is the one dialled: a second look-up could answer otherwise
            address = (await private_addresses(order.host, order.port))[0]
            far_reader, far_writer = await asyncio.open_connection(
                address, order.port, ssl=context, server_hostname=order.host if context else None
            )
        pumps = [asyncio.create_task(_pump(near[0], far_writer)), asyncio.create_task(_pump(far_reader, near[1]))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
    except (OSError, TimeoutError) as why:
        print(f"outlet: {order.host}:{order.port}: {why}", file=sys.stderr)  # noqa: T201 - the process' own log
    finally:
        for writer in (near[1], far_writer):
            if writer is not None:
                writer.close()


async def _serve(orders: list[Order], listeners: list[int]) -> None:
    servers = []
    for order, listener in zip(orders, listeners, strict=True):
        context = ssl.create_default_context(cafile=order.ca) if order.tls else None

        async def accept(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            order: Order = order,
            context: ssl.SSLContext | None = context,
        ) -> None:
            await _relay(order, context, (reader, writer))

        servers.append(await asyncio.start_unix_server(accept, sock=socket.socket(fileno=listener)))
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), gone.set)
    await gone.wait()
    os._exit(0)  # relays in flight have nobody to relay for


def main() -> None:
    """Serve the orders of the first line of standard input until that closes, as it does when the gateway ends.

    The kernel's signal at a parent's death wouldn't come: the gateway's seal keeps it from signalling whoever
    isn't under that seal, and that is held against it even while it dies.
    """
    if line := sys.stdin.readline():
        asyncio.run(_serve([Order(**order) for order in json.loads(line)], [int(number) for number in sys.argv[1:]]))


if __name__ == "__main__":
    main()
