"""uvicorn on sockets bound beforehand, with a sweep over late connections."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from appliance.api.wire.certificate import Certificate
from appliance.api.wire.connection import WireProtocol
from appliance.api.wire.limits import WireLimits


class WireServer(uvicorn.Server):
    """uvicorn on sockets bound beforehand: `await server.serve(sockets=[...])`, `server.stop()`.

    Signals stay with the caller. `serve` returns once requests in flight are answered or the drain time
    given to `build_server` is over; the sockets are closed then.
    """

    def __init__(self, config: uvicorn.Config, limits: WireLimits, certificate: Certificate | None) -> None:
        super().__init__(config)
        self.limits = limits
        self.listening = asyncio.Event()
        self._certificate = certificate
        self._lingering: set[WireProtocol] = set()
        self._swept_at = math.inf
        shortest = min(limits.header_seconds, limits.body_seconds, limits.idle_seconds, limits.write_seconds)
        self._sweep_ticks = min(10, max(1, int(shortest * 10 / 4)))  # of uvicorn's main loop, 0.1 s each

    def stop(self) -> None:
        """Accepts no more, lets requests in flight finish, then makes `serve` return."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, then listens. Raises SystemExit if the application does not start."""
        if not sockets:
            raise ValueError("serve() needs sockets bound beforehand")
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(STARTUP_FAILURE)
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        if self._certificate is not None:
            tls = {
                "ssl": self._certificate.context,
                "ssl_handshake_timeout": self.limits.header_seconds,
                "ssl_shutdown_timeout": self.limits.linger_seconds,
            }

        def connection() -> WireProtocol:
            return WireProtocol(
                self.config,
                self.server_state,
                self.lifespan.state,
                loop,
                limits=self.limits,
                lingering=self._lingering,
            )

        self.servers = []
        for sock in sockets:
            listen = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
            self.servers.append(await listen(connection, sock=sock, backlog=self.config.backlog, **tls))
        self._swept_at = loop.time()
        self.started = True
        self.listening.set()

    async def on_tick(self, counter: int) -> bool:
        """Every 0.1 s: now and then ends what is late and looks for a new certificate."""
        if counter % self._sweep_ticks == 0:
            now = asyncio.get_running_loop().time()
            elapsed, self._swept_at = now - self._swept_at, now
            for connection in list(self.server_state.connections):
                if isinstance(connection, WireProtocol):
                    connection.sweep(now, elapsed)
            if self._certificate is not None:
                self._certificate.refresh()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains; then drops whoever is still there."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone: the composition root also has engines to stop."""
        yield


def build_server(
    app: ASGIApp,
    limits: WireLimits,
    *,
    certificate: Certificate | None = None,
    drain_seconds: int = 30,
) -> WireServer:
    """The server for `app`; give `serve` its sockets. With a certificate every socket speaks TLS."""
    config = uvicorn.Config(
        app,
        http=WireProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        interface="asgi3",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=drain_seconds,
    )
    return WireServer(config, limits, certificate)
