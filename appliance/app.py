"""Puts the appliance together: config -> objects -> servers. The only file that may import everything."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from typing import Any

import uvloop

from appliance import __version__, console, control, observe, state
from appliance.accounts.keys import Keys
from appliance.administration import Appliance
from appliance.api import routes, wire
from appliance.api.exchange import House
from appliance.config import Config, Settings
from appliance.dispatch.endpoints import Endpoints
from appliance.engines.command import Launch, Spec
from appliance.engines.engine import Engine, State
from appliance.engines.fleet import Fleet, Machine, specs
from appliance.engines.process import Nursery
from appliance.engines.seal import seal_gateway
from appliance.errors import ApplianceError, ConfigInvalid, Problem, SealUnavailable
from appliance.pipeline import Pipeline


def serve(config: Config) -> int:
    """Run the appliance until SIGTERM or SIGINT; return the exit status.

    Raises `ApplianceError` for all that keeps it from starting.
    """
    settings = config.settings
    # until there is an appliance to apply something to; a terminal that closes is told of later, too
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lock = state.claim(config)
    observe.log_to(config.state / "logs")
    _make_room_for_connections(settings)
    show = console.Progress()
    show.say("checking model weights")
    wanted = specs(config, Machine.here())
    endpoints = Endpoints(config)
    certificate = _certificate(config)
    try:
        public = wire.listen_tcp(settings.listen.host, settings.listen.port)
    except OSError as cause:
        where = f"{settings.listen.host}:{settings.listen.port}"
        problem = Problem(
            "listen", f"can't listen on {where}: {os.strerror(cause.errno or 0)}; is another program there?"
        )
        raise ConfigInvalid(str(config.file), [problem]) from cause
    local = wire.listen_unix(config.state / "run" / "control.sock", 0o600)
    nursery = Nursery.start(settings.egress.seal)
    endpoints.open()
    seal = seal_gateway(best_effort=settings.egress.seal == "best-effort")
    # from here on this process can't open a connection, whatever runs in it

    async def run() -> int:
        fleet = Fleet(config, _spawner(nursery, settings), endpoints.connect)
        metrics = observe.Metrics()
        access_log = observe.AccessLog(config.state / "logs")
        keys = Keys(config.state)
        pipeline = Pipeline(fleet, metrics, access_log)
        house = House(keys, fleet, pipeline, metrics, settings.limits)
        appliance = Appliance(config, house, fleet, access_log, seal, endpoints.models)
        metrics.watch(appliance)
        appliance.base_url = _base_url(public, tls=certificate is not None)
        await _require_engine_seal(nursery, config)
        return await _serve(appliance, wanted, public, local, certificate, (nursery, endpoints), show)

    try:
        return uvloop.run(run())
    finally:
        endpoints.close()
        lock.close()  # the nursery ends with this process: the kernel sees to it


async def _serve(
    appliance: Appliance,
    wanted: dict[str, Spec],
    public: socket.socket,
    local: socket.socket,
    certificate: wire.Certificate | None,
    helpers: tuple[Nursery, Endpoints],
    show: console.Progress,
) -> int:
    settings = appliance.config.settings
    drain = int(settings.listen.shutdown_seconds)
    app = routes.build(appliance.house, __version__)
    limits = wire.WireLimits.of(settings.limits)
    server = wire.build_server(app, limits, certificate=certificate, drain_seconds=drain)
    controls = wire.build_server(control.build(appliance), limits, drain_seconds=1)
    loop = asyncio.get_running_loop()
    on_terminal = sys.stdin is not None and sys.stdin.isatty()

    def stop() -> None:
        if appliance.stopping.is_set():  # asked twice: whoever asks doesn't want to wait
            server.force_exit = True
        appliance.stopping.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    applying: set[asyncio.Task[None]] = set()

    def hang_up() -> None:
        if on_terminal:  # which has closed
            stop()
            return
        task = loop.create_task(_apply_on_signal(appliance))
        applying.add(task)
        task.add_done_callback(applying.discard)

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    await appliance.fleet.start(wanted)
    serving = [
        asyncio.create_task(server.serve(sockets=[public])),
        asyncio.create_task(controls.serve(sockets=[local])),
    ]
    welcome = asyncio.create_task(_welcome(appliance, show))
    stopped = asyncio.create_task(appliance.stopping.wait())
    # sealed, it can't start them again; whatever started the appliance can
    nursery, endpoints = helpers
    lost = {
        asyncio.create_task(nursery.ended()): "the process that starts engines has ended",
        asyncio.create_task(endpoints.ended()): "the process that reaches endpoints has ended",
    }
    await asyncio.wait({stopped, *serving, *lost}, return_when=asyncio.FIRST_COMPLETED)
    for task, what in lost.items():
        if task.done():
            logging.getLogger("appliance").error("%s; the appliance has to be started again", what)
        task.cancel()
    await asyncio.gather(*lost, return_exceptions=True)
    welcome.cancel()
    show.say("finishing the requests in flight")
    server.stop()
    await asyncio.wait(serving[:1])
    show.say("stopping the engines")
    await appliance.fleet.stop(0)
    controls.stop()  # last, so that `appliance status` can tell how far it is
    await asyncio.wait(serving)
    appliance.access_log.close()
    show.done("stopped")
    return 0 if appliance.stopping.is_set() else 1


async def _apply_on_signal(appliance: Appliance) -> None:
    log = logging.getLogger("appliance")
    try:
        await appliance.apply(log.info)
    except ApplianceError as refusal:
        log.error("SIGHUP: nothing was changed: %s", refusal)
    except Exception:
        log.exception("SIGHUP: apply failed")


async def _welcome(appliance: Appliance, show: console.Progress) -> None:
    """Say what is being waited for, then the address, the first key and a line to paste."""
    while True:
        engines = [served.engine for served in appliance.fleet.served.values() if served.engine]
        waiting = [engine for engine in engines if engine.state is not State.READY]
        if not waiting:
            break
        show.say("; ".join(_waiting_for(engine) for engine in waiting))
        await asyncio.sleep(0.2)
    show.done("ready")
    keys = appliance.house.keys
    chat = next((name for name, served in appliance.fleet.served.items() if served.task == "chat"), None)
    console.welcome(
        appliance.base_url,
        keys.create() if keys.empty else None,
        chat,
        [*appliance.seal.missing, *_missing_around_engines(appliance)],
        str(appliance.config.state / "keys.json"),
    )


def _waiting_for(engine: Engine) -> str:
    again = f" again, since {engine.reason}" if engine.reason else ""
    return f"{engine.spec.name}: {engine.stage}{again}"


def _missing_around_engines(appliance: Appliance) -> set[str]:
    engines = [served.engine for served in appliance.fleet.served.values() if served.engine]
    return {part for engine in engines if engine.process for part in engine.process.seal.missing}


def _spawner(nursery: Nursery, settings: Settings) -> Any:
    async def spawn(launch: Launch) -> Any:
        return await nursery.spawn(
            launch.argv, launch.env, launch.log, launch.readable, launch.writable, settings.egress.seal
        )

    return spawn


async def _require_engine_seal(nursery: Nursery, config: Config) -> None:
    """Try the engines' seal on a process that does nothing, so that a host without it is told at once."""
    command = [sys.executable, "-I", "-S", "-c", ""]
    probe = await nursery.spawn(command, {}, config.state / "logs" / "seal.log", [], [], config.settings.egress.seal)
    if await probe.wait() != 0:
        raise SealUnavailable(f"a sealed process can't run here; see {config.state / 'logs' / 'seal.log'}")


def _make_room_for_connections(settings: Settings) -> None:
    """Raise the limit on open files to what the kernel grants; say so when that is too little."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    needed = 2 * settings.limits.connections + 64  # each has a connection to its engine beside it
    if most < needed:
        logging.getLogger("appliance").warning(
            "limits.connections is %d, for which %d open files are needed; this process may open %d. "
            "Raise the limit (ulimit -n, LimitNOFILE) or lower limits.connections.",
            settings.limits.connections, needed, most,
        )  # fmt: skip


def _certificate(config: Config) -> wire.Certificate | None:
    tls = config.settings.listen.tls
    if tls is None:
        return None
    try:
        return wire.Certificate(config.path(tls.certificate), config.path(tls.key))
    except OSError as cause:
        problem = Problem("listen.tls", f"the certificate or its key can't be used: {cause}")
        raise ConfigInvalid(str(config.file), [problem]) from cause


def _base_url(public: socket.socket, *, tls: bool) -> str:
    host, port = public.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"  # every address of this host; this one works as pasted on it
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
