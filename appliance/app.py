"""Puts the appliance together: config -> objects -> servers. The only file that may import everything."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from appliance import __version__, console, control, observe
from appliance import config as configuration
from appliance.accounts.keys import Keys
from appliance.api import routes, wire
from appliance.api.exchange import House
from appliance.config import Config, RemoteModel, Settings
from appliance.dispatch import outlet
from appliance.engines.command import Launch, Spec
from appliance.engines.engine import State, describe
from appliance.engines.fleet import Fleet, Machine, Tell, specs
from appliance.engines.process import Nursery
from appliance.engines.seal import Seal, seal_gateway
from appliance.engines.upstream import Upstream
from appliance.errors import ApplianceError, ConfigInvalid, Problem, SealUnavailable
from appliance.pipeline import Pipeline

_LONGEST_SOCKET_PATH = 107
_KEPT_BY_RESTART = ("listen", "egress", "state")


@dataclass(slots=True)
class Appliance:
    """A running appliance, as the control socket and the signals see it."""

    config: Config
    house: House
    fleet: Fleet
    access_log: observe.AccessLog
    seal: Seal
    endpoints: dict[str, RemoteModel]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    base_url: str = ""

    async def apply(self, tell: Tell) -> list[str]:
        """Read the config again and make it so; return what changed, in words.

        Raises `ApplianceError` when anything about it is wrong: then nothing has changed.
        """
        new = configuration.load(self.config.file)
        _refuse_what_needs_a_restart(self.config.settings, new.settings, self.endpoints, str(new.file))
        tell("the config is right; checking weights")
        wanted = await asyncio.to_thread(specs, new, Machine.here())
        changes = await self.fleet.change(new, wanted, tell)
        for name in ("limits", "objectives", "engines"):
            if getattr(new.settings, name) != getattr(self.config.settings, name):
                changes.append(f"{name}: taken over")
        self.config = new
        self.house.limits = new.settings.limits
        logging.getLogger("appliance").info("applied %s: %s", new.file, "; ".join(changes) or "no change")
        return changes

    def status(self) -> dict[str, Any]:
        """What `appliance status` shows."""
        models = {
            name: dict(describe(served.engine)) if served.engine else {"state": "endpoint"}
            for name, served in self.fleet.served.items()
        }
        egress = self.config.settings.egress
        return {
            "address": self.base_url,
            "config": str(self.config.file),
            "pid": os.getpid(),
            "egress": {
                "mode": egress.mode, "seal": egress.seal, "holds": self.seal.holds, "missing": self.seal.missing
            },
            "models": models,
        }  # fmt: skip

    def states(self) -> Iterable[tuple[str, str, int, int]]:
        """For metrics: (model, state, starts, requests in flight)."""
        for name, served in self.fleet.served.items():
            if served.engine is not None:
                yield name, served.engine.state, served.engine.starts, served.engine.leases


def serve(config: Config) -> int:
    """Run the appliance until SIGTERM or SIGINT; return the exit status.

    Raises `ApplianceError` for all that keeps it from starting.
    """
    settings = config.settings
    lock = _claim(config)
    show = console.Progress()
    show.say("checking model weights")
    wanted = specs(config, Machine.here())
    endpoints = {name: model for name, model in settings.models.items() if isinstance(model, RemoteModel)}
    headers = {name: _authorization(model, config) for name, model in endpoints.items()}
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
    ca = {name: config.path(model.ca) if model.ca else None for name, model in endpoints.items()}
    orders = outlet.orders({name: (model, ca[name]) for name, model in endpoints.items()}, config.state / "run")
    if orders:
        outlet.start(list(orders.values()))
    seal = seal_gateway(best_effort=settings.egress.seal == "best-effort")
    # from here on this process can't open a connection, whatever runs in it

    async def connect(name: str, model: RemoteModel) -> Upstream:
        order = orders.get(name)
        path = Path(order.socket) if order else Path(model.endpoint.removeprefix("unix:"))
        return Upstream(path, prefix=_prefix(model), headers=headers[name], patience=model.stall_seconds)

    async def run() -> int:
        fleet = Fleet(config, _spawner(nursery, settings), connect)
        metrics = observe.Metrics()
        access_log = observe.AccessLog(config.state / "logs")
        keys = Keys(config.state)
        pipeline = Pipeline(fleet, metrics, access_log)
        house = House(keys, fleet, pipeline, metrics, settings.limits)
        appliance = Appliance(config, house, fleet, access_log, seal, endpoints)
        metrics.watch(appliance)
        appliance.base_url = _base_url(public, tls=certificate is not None)
        await _require_engine_seal(nursery, config)
        return await _serve(appliance, wanted, public, local, certificate, show)

    try:
        return uvloop.run(run())
    finally:
        lock.close()  # the nursery and the outlet end with this process: the kernel sees to it


async def _serve(
    appliance: Appliance,
    wanted: dict[str, Spec],
    public: socket.socket,
    local: socket.socket,
    certificate: wire.Certificate | None,
    show: console.Progress,
) -> int:
    settings = appliance.config.settings
    drain = int(settings.listen.shutdown_seconds)
    app = routes.build(appliance.house, __version__)
    limits = _wire_limits(settings)
    server = wire.build_server(app, limits, certificate=certificate, drain_seconds=drain)
    controls = wire.build_server(control.build(appliance), limits, drain_seconds=1)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, appliance.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(_apply_on_signal(appliance)))
    await appliance.fleet.start(wanted)
    serving = [
        asyncio.create_task(server.serve(sockets=[public])),
        asyncio.create_task(controls.serve(sockets=[local])),
    ]
    welcome = asyncio.create_task(_welcome(appliance, show))
    stopped = asyncio.create_task(appliance.stopping.wait())
    await asyncio.wait({stopped, *serving}, return_when=asyncio.FIRST_COMPLETED)
    welcome.cancel()
    show.say("finishing the requests in flight")
    server.stop()
    controls.stop()
    await asyncio.wait(serving)
    show.say("stopping the engines")
    await appliance.fleet.stop(0)
    appliance.access_log.close()
    show.done("stopped")
    return 0 if appliance.stopping.is_set() else 1


async def _apply_on_signal(appliance: Appliance) -> None:
    log = logging.getLogger("appliance")
    try:
        await appliance.apply(log.info)
    except ApplianceError as refusal:
        log.error("SIGHUP: nothing was changed: %s", refusal)


async def _welcome(appliance: Appliance, show: console.Progress) -> None:
    """Say what is being waited for, then the address, the first key and a line to paste."""
    failed: dict[str, str] = {}
    while True:
        engines = {name: served.engine for name, served in appliance.fleet.served.items() if served.engine}
        waiting = {name: engine for name, engine in engines.items() if engine.state is not State.READY}
        if not waiting:
            break
        for name, engine in waiting.items():
            if engine.state is State.FAILED and engine.reason and failed.get(name) != engine.reason:
                failed[name] = engine.reason
        show.say("; ".join(f"{name}: {engine.stage}" for name, engine in waiting.items()))
        await asyncio.sleep(0.2)
    show.done("ready")
    keys = appliance.house.keys
    chat = next((name for name, served in appliance.fleet.served.items() if served.task == "chat"), None)
    console.welcome(
        appliance.base_url,
        keys.create() if keys.empty else None,
        chat,
        appliance.seal.missing,
        str(appliance.config.state / "keys.json"),
    )


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


def _claim(config: Config) -> Any:
    """Make the private state folder and hold its lock, so that two appliances don't share it."""
    state = config.state
    longest = state / "run" / "e9999" / "engine.sock"
    if len(os.fsencode(longest)) > _LONGEST_SOCKET_PATH:
        what = f"{state} is too long: the path of a Unix socket below it would be over {_LONGEST_SOCKET_PATH} bytes"
        raise ConfigInvalid(str(config.file), [Problem("state", what)])
    try:
        for folder in (state, state / "run", state / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        lock = (state / "lock").open("w")
    except OSError as cause:
        raise ConfigInvalid(str(config.file), [Problem("state", f"{state}: {cause.strerror}")]) from cause
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        what = f"{state} is in use by another appliance; stop it, or name another folder"
        raise ConfigInvalid(str(config.file), [Problem("state", what)]) from cause
    for leftover in (state / "run").iterdir():
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    observe.log_to(state / "logs")
    return lock


def _certificate(config: Config) -> wire.Certificate | None:
    tls = config.settings.listen.tls
    if tls is None:
        return None
    try:
        return wire.Certificate(config.path(tls.certificate), config.path(tls.key))
    except OSError as cause:
        problem = Problem("listen.tls", f"the certificate or its key can't be used: {cause}")
        raise ConfigInvalid(str(config.file), [problem]) from cause


def _authorization(model: RemoteModel, config: Config) -> dict[str, str]:
    return {"authorization": f"Bearer {model.key.read(config.file.parent)}"} if model.key else {}


def _prefix(model: RemoteModel) -> str:
    """What goes before our own paths, which begin with /v1 as the endpoint's URL usually ends."""
    if model.endpoint.startswith("unix:"):
        return ""
    path = "/" + model.endpoint.split("://", 1)[1].partition("/")[2]
    return path.rstrip("/").removesuffix("/v1")


def _wire_limits(settings: Settings) -> wire.WireLimits:
    limits = settings.limits
    return wire.WireLimits(
        header_seconds=limits.header_seconds,
        body_seconds=limits.body_seconds,
        body_bytes_per_second=limits.body_bytes_per_second,
        idle_seconds=limits.idle_seconds,
        write_seconds=limits.write_seconds,
        header_bytes=limits.header_bytes,
        header_count=limits.header_count,
        body_bytes=limits.body_bytes,
        connections=limits.connections,
    )


def _base_url(public: socket.socket, *, tls: bool) -> str:
    host, port = public.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _refuse_what_needs_a_restart(old: Settings, new: Settings, endpoints: dict[str, RemoteModel], file: str) -> None:
    problems = [
        Problem(name, "changes only with a restart: stop the appliance and start it again")
        for name in _KEPT_BY_RESTART
        if getattr(old, name) != getattr(new, name)
    ]
    problems += [
        Problem(
            f"models.{name}.endpoint",
            "a running appliance can't be made to reach another address; restart it to add or change an endpoint",
        )
        for name, model in new.models.items()
        if isinstance(model, RemoteModel) and endpoints.get(name) != model
    ]
    if problems:
        raise ConfigInvalid(file, problems)
