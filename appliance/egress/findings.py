"""The nouns of a verification: what was found on the running system, and what is said about it.

Everything here is plain data, so that `judge` can be tested without a process and a report can be read by a machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from appliance.seal.evidence import ThreadEvidence

Role = Literal["gateway", "engine", "outlet", "gate", "trusted", "prober", "stray"]
"""What a process is: `gateway` also for what the gateway starts; `gate` looks through requests that might leave;
`trusted` runs outside a seal and is named with its reason; `prober` are this verification's own; `stray` is everything
below the appliance that nothing accounts for."""
SEALED: tuple[Role, ...] = ("gateway", "engine", "outlet", "gate")
"""Roles that live under a seal."""
TEMPLATE = "template"
"""What the process is, of the place `gate`, that starts the detectors."""
DIALLER = "dialler"
"""The place of the trusted process that connects for the outlet. It has a seal of its own."""
WAITING = "witness at work"
"""The place of a child of the witness's that isn't this verification."""
KEEPER = "keeper of "
"""Begins the place of a trusted process that keeps an engine: `keeper of engine chat`."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One open socket of one process."""

    descriptor: int
    inode: int
    family: str
    """As the kernel's tables name it: tcp, tcp6, udp, ..., unix, netlink, packet; `unknown` for vsock, MPTCP and
    whatever else has no table. `state` is then the kernel's name of its protocol."""
    namespace: int | None
    """Inode of the network namespace that it belongs to, or of its table of sockets where that one is hidden; None
    where it can't be told."""
    state: str
    """listening, established, closing, unconnected, or the kernel's number."""
    local: str
    """address:port, or the path of a Unix socket; empty where it has none."""
    remote: str
    waiting: int = 0
    """Descriptors that were sent to it and wait to be taken, which no table of descriptors shows."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the appliance."""

    pid: int
    parent: int
    started: int
    """Clock ticks since boot: with the pid it names a process for good."""
    role: Role
    place: str
    """Whose seal it should be under: `gateway`, `engine chat`, `outlet`, `gate`; for trusted ones what it does."""
    command: str
    user: int
    namespaces: dict[str, int]
    """Inodes by kind: net, mnt, pid, ipc, user. A kind that may not be read is absent."""
    threads: list[ThreadEvidence]
    sockets: list[Socket]


@dataclass(frozen=True, slots=True)
class Network:
    """One network namespace that a sealed process lives in."""

    inode: int
    place: str
    interfaces: dict[str, int]
    """Bytes sent on each interface since it is there."""
    routes: list[str]
    """Routes that lead to any interface but loopback, as the kernel lists them."""
    strangers: list[str] = field(default_factory=list)
    """Sockets there that no process of the appliance holds, with who does."""


@dataclass(frozen=True, slots=True)
class HostSocket:
    """A listening Unix socket of something else on this host that a sealed process can reach by a path."""

    place: str
    path: str
    """As the sealed process sees it."""
    owner: str
    """Who listens, where that can be told: `dockerd (812)`."""
    configured: bool
    """Whether the config names it as an endpoint."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A part of this host's file system that a sealed process sees, and that the seal never shows."""

    place: str
    path: str
    """As the sealed process sees it."""
    source: str
    """What it is: `this host's /run/docker.sock`."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt to get out from one place, beside the same attempt by a process without a seal."""

    place: str
    attempt: str
    outcome: str
    """`done`, or the error's name."""
    arrived: bool
    """Whether the canary heard it."""
    control: str
    control_arrived: bool


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the outlet may connect to, by the orders that it was started with."""

    name: str
    """Of the model or provider in the config; of the appliance's own servers, what they are for."""
    address: str
    """host:port."""
    kind: Literal["in-house", "provider"]
    tls: bool
    resolved: list[str]
    """Addresses that the name leads to at this moment."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All that one verification saw."""

    mode: str
    """`egress.mode` of the config."""
    seal: str
    """`egress.seal` of the config."""
    kernel: str
    landlock: int
    """Version of the kernel's Landlock interface; 0: none."""
    host_network: int
    """Inode of the network namespace in which callers arrive."""
    listening: list[str]
    """The public addresses, as address:port or path, that the gateway was told to listen on."""
    processes: list[Process]
    networks: list[Network]
    host_sockets: list[HostSocket]
    probes: list[Probe]
    destinations: list[Destination]
    missing: dict[str, list[str]]
    """Parts of the seal that the appliance itself reports as missing, by place."""
    host_namespaces: dict[str, int] = field(default_factory=dict)
    """Inodes of the host's own namespaces by kind, as `Process.namespaces`."""
    mounts: list[Mount] = field(default_factory=list)
    remote: list[Mount] = field(default_factory=list)
    """File systems that aren't known to be local, and that can only be read."""
    sharers: list[str] = field(default_factory=list)
    """Who else holds a socket at which the gateway meets its callers, as `name (pid)`."""
    trouble: list[str] = field(default_factory=list)
    """What could not be looked at, and why. Any line here means that not all holds."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to hold, and whether it does."""

    name: str
    """A short stable word for programs: `threads`, `sockets`, `probes`, ..."""
    title: str
    """The same for people: a statement that is true when it holds."""
    holds: bool
    seen: str
    """What was looked at, with numbers: `61 threads of 9 processes`."""
    violations: list[str]
    """One line for each thing that is wrong: what, where, and what to do."""
