"""What the appliance noted about itself before it sealed itself, where the sealed part can't change it.

`state/egress/started.json` lies in a folder that the gateway and its engines see empty. So a gateway that was
taken over can't declare a process of its own to be trusted, nor an address to be allowed.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path

from appliance.egress.findings import Destination
from appliance.errors import NotRunning
from appliance.seal import kernel
from appliance.seal.evidence import running

FILE = "started.json"


@dataclass(frozen=True, slots=True)
class Known:
    """A process that was started before the seal. With the ticks since boot at its start, the pid is one for good."""

    pid: int
    ticks: int
    does: str
    """`nursery`, `witness`, `dialler`, `outlet`, `template`, `gate`, `gateway`."""


@dataclass(frozen=True, slots=True)
class Started:
    """The facts of one start."""

    gateway: Known
    mode: str
    seal: str
    listening: list[str]
    """address:port, or a path."""
    network: int | None
    """The network namespace in which it listens; None where a socket was passed that belongs to another."""
    host_sockets: list[str]
    """Unix sockets that the config names as endpoints."""
    helpers: list[Known]
    destinations: list[Destination] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Replace the file in `folder`."""
        draft = folder / f"{FILE}.new"
        draft.write_text(json.dumps(asdict(self), indent=1))
        draft.chmod(0o600)
        draft.replace(folder / FILE)


def known(pid: int, does: str) -> Known:
    """The process `pid` as it runs now. Raises FileNotFoundError when it doesn't."""
    return Known(pid, ticks(pid), does)


def ticks(pid: int) -> int:
    """When the process `pid` was started. Raises FileNotFoundError when there is none."""
    return running(pid).started


def network_of(listener: socket.socket) -> int | None:
    """The network namespace of `listener`, where that is this process's own; else None."""
    with socket.socket(socket.AF_UNIX) as ours:
        same = kernel.network_cookie(listener) == kernel.network_cookie(ours)
    return Path("/proc/self/ns/net").stat().st_ino if same else None


def read(folder: Path) -> Started:
    """What the last start left in `folder`. Raises `NotRunning` when there was none, or its gateway has ended."""
    try:
        raw = json.loads((folder / FILE).read_text())
        started = Started(**raw | {
            "gateway": Known(**raw["gateway"]),
            "helpers": [Known(**helper) for helper in raw["helpers"]],
            "destinations": [Destination(**destination) for destination in raw["destinations"]],
        })  # fmt: skip
        if ticks(started.gateway.pid) != started.gateway.ticks:
            raise ProcessLookupError
    except PermissionError:
        who = os.stat(folder.parent).st_uid  # noqa: PTH116 - not below a folder that may not be entered
        raise NotRunning(
            f"{folder} may be read only by user {who}, or by root with all its privileges, outside the gateway's own "
            "seal; run this as one of them (in a container, process 1 has to be an init such as tini)"
        ) from None
    except (OSError, ValueError, LookupError, TypeError) as cause:
        raise NotRunning(
            f"no appliance runs on {folder.parent}; `make serve` starts one, and one in a container is verified there"
        ) from cause
    return started
