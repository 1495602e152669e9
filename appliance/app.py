"""Puts the appliance together: config -> objects -> servers. The only file that may import everything."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import anyio.lowlevel
import uvloop

from appliance import __version__, console, control, host, observe, state, walls, witness
from appliance.acceptance import Acceptance
from appliance.accounts.cap import DailyCap
from appliance.accounts.identity import Identity
from appliance.accounts.office import Office
from appliance.accounts.opening import Credentials
from appliance.accounts.prices import nanoeuros
from appliance.administration import Appliance
from appliance.api import routes, wire
from appliance.api.exchange import House
from appliance.audit.archive import Actor, Archive
from appliance.audit.shipping import Shipper
from appliance.audit.timestamps import Stamper, Trusted, trusted
from appliance.burst import Burst
from appliance.config import Config, Settings
from appliance.dispatch.choose import choose
from appliance.dispatch.cloud.cloud import Cloud
from appliance.dispatch.endpoints import Endpoints
from appliance.dispatch.turns import Turns
from appliance.egress.assurance import Assurance
from appliance.engines import memory
from appliance.engines.account import Account
from appliance.engines.command import Launch, Spec
from appliance.engines.fleet import Fleet
from appliance.engines.process import Nursery
from appliance.engines.served import Served
from appliance.engines.specs import Machine, device, require_shares, specs
from appliance.incidents import Watcher
from appliance.pipeline import Pipeline
from appliance.privacy.guard import Guard
from appliance.probing import Probing
from appliance.rollout.decisions import Decisions, effective
from appliance.rollout.rollouts import Rollouts
from appliance.rollout.verdict import Quality
from appliance.seal import kernel
from appliance.seal.gateway import listen_no_more, seal_gateway
from appliance.testimony import Testimony
from appliance.vitals import Vitals
from appliance.welcome import welcome

_BOOKS_SECONDS = 5.0
"""For what is settled to be written at the end, where the store is slow or gone."""


def serve(config: Config) -> int:
    """Run the appliance until SIGTERM or SIGINT; return the exit status.

    Raises `ApplianceError` for all that keeps it from starting.
    """
    settings = config.settings
    # until there is an appliance to apply something to; a terminal that closes is told of later, too
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)  # what hides behind a parent that ended stays ours, and is seen
    lock = state.claim(config)
    decisions, written = Decisions(config.state), settings
    settings = effective(written, decisions.known)
    config = replace(config, settings=settings)
    observe.log_to(config.state / "logs")
    host.make_room_for_connections(settings)
    host.keep_no_core_dumps()
    show = console.Progress()
    show.say("checking model weights")
    wanted = specs(config, machine := Machine.here())
    gpus = memory.gpus() if device(config, machine) == "cuda" else ()
    require_shares(config, wanted, gpus)
    guard = _guard(config, show)
    endpoints = Endpoints(config, guard.public_key if guard else None)
    credentials = Credentials.read(config)
    certificate = host.certificate(config)
    authority = _authority(config)
    public = host.listen(config)
    local = wire.listen_unix(config.state / "run" / "control.sock", 0o600)
    environment = config.path(settings.engines.environment)
    nursery = Nursery.start(config.state, config.models_folder, environment, settings.egress.seal)
    endpoints.open()
    watcher = witness.start(config) if settings.egress.verify.every_seconds else None
    walls.note(config, public, nursery, endpoints, guard, watcher).write(config.state / "egress")
    cloud = _cloud(settings, endpoints)
    seal = seal_gateway(
        walls.seen(config, endpoints), [config.state], walls.masked(config),
        best_effort=settings.egress.seal == "best-effort",
    )  # fmt: skip
    # from here on this process can't open a connection, whatever runs in it

    async def run() -> int:
        acceptance = Acceptance(config)
        account = Account(config.state, settings.engines, gpus)
        fleet = Fleet(config, _spawner(nursery, settings), endpoints.connect, acceptance.accept, account)
        metrics = observe.Metrics()
        archive = await Archive.open(config)
        office = await Office.open(config, credentials, endpoints.store_socket, show.say, archive.subjects)
        access_log = observe.AccessLog(config.state / "logs", office.persons)
        office.identity = identity = await _identity(settings, endpoints)
        assurance = Assurance(settings.egress.verify)
        turns = Turns(settings.queue, settings.accounts, lambda each: choose(each, fleet.arms(each.model)), metrics)
        testimony = Testimony(archive, settings.accounts, config.version)
        burst = _burst(settings, guard, cloud, office, testimony, metrics)
        rollouts = Rollouts(
            written, decisions, fleet, archive.act, Actor.appliance(), metrics, quality=_quality(acceptance)
        )
        pipeline = Pipeline(assurance, fleet, turns, office.bookkeeper, testimony, metrics, access_log, rollouts, burst)
        house = House(
            office.keys, fleet, pipeline, metrics, settings.limits, settings.accounts, office.watch, office.reader,
            archive, settings.audit, settings.privacy, identity, guard,
        )  # fmt: skip
        probing = Probing(nursery, endpoints, guard)
        outward = await _outward(config, archive, endpoints, authority)
        appliance = Appliance(
            config, house, fleet, turns, office, archive, testimony, outward, identity, access_log, seal, wanted,
            endpoints.models, assurance, probing, rollouts, guard, acceptance,
        )  # fmt: skip
        vitals = Vitals(fleet, office, identity, guard, seal, probing, assurance)
        metrics.watch(vitals)
        metrics.watch_queues(turns.standings)
        metrics.watch_books(office.bookkeeper.describe)
        metrics.watch_audit(archive.journal.describe)
        if guard is not None:
            metrics.watch_gate(guard.describe)
        metrics.watch_rollouts(rollouts.figures)
        metrics.watch_outward({name: each.describe for name, each in outward.items()})
        appliance.base_url = wire.base_url(public, tls=certificate is not None)
        await walls.require_engine_seal(nursery, config)
        lost: dict[Callable[[], Coroutine[Any, Any, None]], str] = {
            nursery.ended: "the process that starts engines has ended",
            endpoints.ended: "the process that reaches endpoints has ended",
            partial(witness.ended, watcher): "the process that proves the seal has ended",
        }
        watching = asyncio.create_task(Watcher(vitals.standing, archive.incident).run())
        keeping = asyncio.create_task(appliance.look_after_the_log())
        trying = asyncio.create_task(rollouts.run())
        editing = asyncio.create_task(appliance.watch())
        try:
            await appliance.begin()
            for each in outward.values():
                each.start()
            return await _serve(appliance, wanted, public, local, certificate, lost, show)
        finally:
            watching.cancel()
            keeping.cancel()
            editing.cancel()
            trying.cancel()
            await asyncio.wait([keeping, trying])
            await office.close(_BOOKS_SECONDS)
            for each in outward.values():
                await each.close()
            if identity is not None:
                await identity.close()
            testimony.close()
            appliance.end()
            await archive.close(_BOOKS_SECONDS)  # last, so that all that came before is on record

    try:
        return uvloop.run(run())
    finally:
        if guard is not None:
            guard.close()
        endpoints.close()
        lock.close()  # the nursery ends with this process: the kernel sees to it


def _guard(config: Config, show: console.Progress) -> Guard | None:
    """The privacy gate, where something may leave."""
    if not config.settings.bursts:
        return None
    show.say("loading the detectors of personal data")
    return Guard.start(config)


def _cloud(settings: Settings, endpoints: Endpoints) -> Cloud | None:
    return Cloud(settings.egress.providers, endpoints.providers) if settings.bursts else None


def _burst(
    settings: Settings, guard: Guard | None, cloud: Cloud | None, office: Office, testimony: Testimony,
    metrics: observe.Metrics,
) -> Burst | None:  # fmt: skip
    if guard is None or cloud is None:
        return None
    reader = office.reader
    cap = DailyCap(nanoeuros(settings.egress.euros_per_day), lambda: reader.today().isoformat(), reader.spent)
    providers = settings.egress.providers
    return Burst(settings.privacy, providers, guard, cloud, cap, office.bookkeeper, testimony, metrics)


def _quality(acceptance: Acceptance) -> Callable[[Served, Served], Quality | None]:
    """What the golden set of the gate says of a candidate beside what is stable."""

    def quality(stable: Served, candidate: Served) -> Quality | None:
        if stable.engine is None or candidate.engine is None:
            return None
        new, old = candidate.engine.spec, stable.engine.spec
        percents = acceptance.scored(new, old)
        return None if percents is None else Quality(percents[1], percents[0], new.card.gate.golden_less)

    return quality


def check(config: Config) -> None:
    """Read what a start reads beside cards and weights: secrets and certificates. Raises `ConfigInvalid`."""
    Credentials.read(config)
    host.certificate(config)
    _authority(config)


async def _serve(
    appliance: Appliance,
    wanted: dict[str, Spec],
    public: socket.socket,
    local: socket.socket,
    certificate: wire.Certificate | None,
    ends: Mapping[Callable[[], Coroutine[Any, Any, None]], str],
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
        task = loop.create_task(appliance.apply_unasked("SIGHUP"))
        applying.add(task)
        task.add_done_callback(applying.discard)

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    await appliance.fleet.start(wanted)
    serving = [
        asyncio.create_task(server.serve(sockets=[public])),
        asyncio.create_task(controls.serve(sockets=[local])),
    ]
    for each in (server, controls):
        await asyncio.wait([asyncio.create_task(each.listening.wait()), *serving], return_when=asyncio.FIRST_COMPLETED)
    if "seccomp" in appliance.seal.holds:
        listen_no_more()
    # the rest of it is loaded at its first use: else by the first /admin/usage, which held everybody up for 50 ms
    await anyio.lowlevel.checkpoint()
    # what the start made stays for good: to look through it took 130 ms each time, in which nobody was answered
    gc.collect()
    gc.freeze()
    welcoming = asyncio.create_task(welcome(appliance, show))
    stopped = asyncio.create_task(appliance.stopping.wait())
    # sealed, it can't start them again; whatever started the appliance can
    lost = {asyncio.create_task(end()): what for end, what in ends.items()}
    await asyncio.wait({stopped, *serving, *lost}, return_when=asyncio.FIRST_COMPLETED)
    for task, what in lost.items():
        if task.done():
            logging.getLogger("appliance").error("%s; the appliance has to be started again", what)
        task.cancel()
    await asyncio.gather(*lost, return_exceptions=True)
    welcoming.cancel()
    show.say("finishing the requests in flight")
    appliance.fleet.end_waiting()
    server.stop()
    await asyncio.wait(serving[:1])
    await appliance.house.pipeline.close(_BOOKS_SECONDS)  # asks the engines, so they have to run still
    show.say("stopping the engines")
    await appliance.fleet.stop(0)
    controls.stop()  # last, so that `appliance status` can tell how far it is
    await asyncio.wait(serving)
    appliance.access_log.close()
    show.done("stopped")
    return 0 if appliance.stopping.is_set() else 1


async def _identity(settings: Settings, endpoints: Endpoints) -> Identity | None:
    if settings.accounts.identity is None:
        return None
    identity = Identity(settings.accounts, await endpoints.identity(settings.accounts.identity))
    identity.start()
    return identity


async def _outward(
    config: Config, archive: Archive, endpoints: Endpoints, authority: Trusted | None
) -> dict[str, Shipper | Stamper]:
    """What tells servers in the house of the audit log."""
    settings, journal = config.settings.audit, archive.journal
    made: dict[str, Shipper | Stamper] = {}
    if settings.shipping is not None:
        upstream = await endpoints.collector(settings.shipping)
        made["shipping"] = Shipper(journal, config.state / "audit-work", settings.shipping, upstream)
    if settings.timestamps is not None and authority is not None:
        upstream = await endpoints.timestamp_authority(settings.timestamps)
        made["timestamps"] = Stamper(journal, settings.timestamps, authority, upstream)
    return made


def _spawner(nursery: Nursery, settings: Settings) -> Any:
    async def spawn(launch: Launch) -> Any:
        return await nursery.spawn(
            launch.argv, launch.env, launch.log, launch.readable, launch.writable, settings.egress.seal,
            gives_way=launch.gives_way, name=launch.name,
        )  # fmt: skip

    return spawn


def _authority(config: Config) -> Trusted | None:
    timestamps = config.settings.audit.timestamps
    return None if timestamps is None else trusted(config.path(timestamps.certificate))
