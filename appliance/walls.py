"""What the sealed gateway goes on seeing, and what a verification holds its start to."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from appliance.addresses import with_port
from appliance.config import Config
from appliance.dispatch.endpoints import Endpoints
from appliance.egress import started
from appliance.egress.findings import Destination
from appliance.egress.started import Started
from appliance.engines.process import Nursery
from appliance.errors import SealUnavailable
from appliance.privacy.guard import Guard
from appliance.seal import view


def seen(config: Config, endpoints: Endpoints) -> list[Path]:
    """What the sealed gateway goes on seeing, beside the system's own folders and its state."""
    settings = config.settings
    seen = [*view.interpreter(), config.file.parent, config.models_folder, config.path(settings.engines.environment)]
    if settings.listen.tls is not None:
        files = [config.file.parent / settings.listen.tls.certificate, config.file.parent / settings.listen.tls.key]
        # the folder, since a renewal puts a new file there; and that to which a link in it leads
        seen += [folder for file in files for folder in (file.parent, file.resolve().parent)]
    seen += [path.parent for path in endpoints.sockets]
    store = settings.accounts.store.postgresql
    if store is not None and store.ca is not None:
        seen.append(config.path(store.ca))
    return [path for path in seen if path.exists()]


def masked(config: Config) -> list[Path]:
    """What of its state the gateway has no business with: reports of the proof, and the site's own lists."""
    lists = [config.lists] if config.lists.is_dir() and config.lists.is_relative_to(config.state) else []
    return [config.state / "egress", *lists]


def note(
    config: Config, public: socket.socket, nursery: Nursery, endpoints: Endpoints,
    guard: Guard | None, watcher: subprocess.Popen[bytes] | None,
) -> Started:  # fmt: skip
    """What a verification will hold this start to."""
    egress = config.settings.egress
    gates = guard.pids if guard else {}
    pids = {nursery.pid: "nursery", **gates, **endpoints.pids, **({watcher.pid: "witness"} if watcher else {})}
    return Started(
        gateway=started.known(os.getpid(), "gateway"),
        mode=egress.mode,
        seal=egress.seal,
        listening=[_local(public)],
        network=started.network_of(public),
        host_sockets=[str(path) for path in endpoints.sockets],
        helpers=[started.known(pid, does) for pid, does in pids.items()],
        destinations=[
            Destination(to.name, f"{to.host}:{to.port}", to.kind, to.tls, []) for to in endpoints.destinations
        ],
    )


def _local(public: socket.socket) -> str:
    name = public.getsockname()
    return name if isinstance(name, str) else with_port(*name[:2])


async def require_engine_seal(nursery: Nursery, config: Config) -> None:
    """Try the engines' seal on a process that does nothing, so that a host without it is told at once."""
    python = config.path(config.settings.engines.environment) / "bin" / "python"
    command = [shutil.which("true", path=os.defpath) or str(python), "--version"]  # the one starts at once
    probe = await nursery.spawn(command, {}, config.state / "logs" / "seal.log", [], [], config.settings.egress.seal)
    if await probe.wait() != 0:
        raise SealUnavailable(f"a sealed process can't run here; see {config.state / 'logs' / 'seal.log'}")
