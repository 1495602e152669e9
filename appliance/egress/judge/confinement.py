"""Rules on what the kernel holds processes to: the seal, threads, namespaces, networks."""

from __future__ import annotations

from collections import Counter

from appliance.egress.findings import Check, Findings, Process
from appliance.egress.judge.words import (
    RESTART,
    Wrong,
    check,
    count,
    engines,
    is_dialler,
    is_engine,
    is_keeper,
    sealed,
    who,
)
from appliance.seal.evidence import ThreadEvidence

_APART = ("net", "ipc", "mnt")
"""Kinds of namespaces that each sealed place has to itself; an engine its process ids, too."""
_WITHOUT = ("landlock scope: ",)
"""Parts of the seal that a kernel may lack: what they refuse is out of reach by the namespaces, too."""


def seal(findings: Findings) -> Check:
    """The whole seal is asked for, and nothing of it is missing."""
    lacking = {place: [part for part in parts if not part.startswith(_WITHOUT)]
               for place, parts in findings.missing.items()}  # fmt: skip
    seen = (
        f"egress.mode {findings.mode}, egress.seal {findings.seal}, {count(sum(map(len, lacking.values())), 'part')} "
        f"missing; kernel {findings.kernel}, Landlock {findings.landlock}"
    )

    def wrong() -> Wrong:
        if findings.seal != "required":
            yield f"egress.seal is {findings.seal}: parts of the seal may be missing; set `egress: {{seal: required}}`"
        for place, parts in lacking.items():
            for part in parts:
                yield f"{place}: the seal lacks {part}"

    return check("seal", "The whole seal is required and in place", seen, wrong())


def processes(findings: Findings) -> Check:
    """Nothing runs that isn't accounted for, and nothing is missing."""
    roles = Counter(process.role for process in findings.processes)
    trusted = [f"{process.place} ({process.pid})" for process in findings.processes if process.role == "trusted"]
    seen = (
        f"{count(len(findings.processes), 'process')}: "
        f"{', '.join(f'{number} {role}' for role, number in sorted(roles.items()))}; "
        f"outside every seal: {', '.join(trusted) or 'none'}"
    )

    def wrong() -> Wrong:
        for process in findings.processes:
            if process.role == "stray":
                yield f"{who(process)} belongs to no part of the appliance; {RESTART}"
        places = {process.place for process in sealed(findings)}
        if "gateway" not in places:
            yield "the gateway was not found; start the appliance again"
        for place in engines(findings):
            if place not in places:
                yield f"{place}: no process of it was found; verify again once it runs"

    return check("processes", "Every process is accounted for", seen, wrong())


def threads(findings: Findings) -> Check:
    """Each thread is under the filters of its place, and can neither gain nor use a privilege."""
    confined = sealed(findings)
    number = sum(len(process.threads) for process in confined)
    seen = f"{count(number, 'thread')} of {count(len(confined), 'sealed process')}"

    def wrong() -> Wrong:
        for process in confined:
            least = max(_inherited(findings) + 1, _filters_of(process.place, confined))
            for thread in process.threads:
                if lacks := _lacks(thread, least):
                    yield f"{who(process)}, thread {thread.thread}: {', '.join(lacks)}; {RESTART}"
        for process in filter(is_dialler, findings.processes):
            for thread in process.threads:
                if lacks := _lacks(thread, _inherited(findings) + 1):
                    yield f"{who(process)}, thread {thread.thread}: {', '.join(lacks)}; {RESTART}"
        for process in filter(is_keeper, findings.processes):
            for thread in process.threads:
                if thread.capabilities:
                    yield f"{who(process)}, thread {thread.thread}: {_powers(thread)}; {RESTART}"

    return check("threads", "Every thread of a sealed process is confined for good", seen, wrong())


def _inherited(findings: Findings) -> int:
    """How many filters are a service manager's or a container's: those under which what starts engines runs, too."""
    of = [thread.filters for each in findings.processes if each.place == "nursery" for thread in each.threads]
    return max(of, default=0)


def _filters_of(place: str, confined: list[Process]) -> int:
    """Under how many filters the first thread of a place's first process runs: all others descend from it."""
    first = min((process for process in confined if process.place == place), key=lambda each: (each.started, each.pid))
    return min(first.threads, key=lambda each: each.thread != first.pid).filters


def _lacks(thread: ThreadEvidence, least: int) -> list[str]:
    lacks = []
    if thread.seccomp != 2 or thread.filters < least:
        lacks.append(f"runs under {thread.filters} of {least} system call filters (mode {thread.seccomp})")
    if thread.no_new_privileges != 1:
        lacks.append("may gain privileges by executing a file")
    if thread.capabilities:
        lacks.append(_powers(thread))
    return lacks


def _powers(thread: ThreadEvidence) -> str:
    return f"has the capabilities {thread.capabilities:#x}"


def namespaces(findings: Findings) -> Check:
    """Each sealed place has namespaces to itself, and every thread of it lives there."""
    confined = sealed(findings)
    own = {space for process in confined for space in process.namespaces.items() if space[0] in (*_APART, "pid")}
    own -= set(findings.host_namespaces.items())
    seen = f"{count(len(own), 'namespace')} of {count(len({process.place for process in confined}), 'place')}"

    def wrong() -> Wrong:
        homes: dict[tuple[str, int], str] = {}
        for kind in (*_APART, "pid"):
            if kind in findings.host_namespaces:
                homes[kind, findings.host_namespaces[kind]] = "the host"
            else:
                yield f"the host's own {kind} namespace may not be read; verify as root"
        for process in [*confined, *filter(is_dialler, findings.processes)]:
            for kind in _kinds(process):
                inode = process.namespaces.get(kind)
                if inode is None:
                    yield f"{who(process)}: its {kind} namespace may not be read; verify as root"
                elif (home := homes.setdefault((kind, inode), process.place)) != process.place:
                    yield f"{who(process)}: shares its {kind} namespace with {home}; {RESTART}"
            for thread in process.threads:
                if thread.network != process.namespaces.get("net"):
                    yield f"{who(process)}, thread {thread.thread}: is not in the network of its process; {RESTART}"

    return check("namespaces", "Sealed processes live apart from the host and from each other", seen, wrong())


def _kinds(process: Process) -> tuple[str, ...]:
    """The kinds of namespaces that a process's place has to itself; the dialler connects from the host's network."""
    if is_dialler(process):
        return tuple(kind for kind in _APART if kind != "net")
    return (*_APART, "pid") if process.role == "engine" else _APART


def networks(findings: Findings) -> Check:
    """The networks of sealed places hold a loopback only, and the gateway's is not even used."""
    interfaces = sum(len(network.interfaces) for network in findings.networks)
    routes = sum(len(network.routes) for network in findings.networks)
    seen = (
        f"{count(len(findings.networks), 'network')} with {count(interfaces, 'interface')} "
        f"and {count(routes, 'route')} out"
    )

    def wrong() -> Wrong:
        looked_at = {network.inode for network in findings.networks}
        for process in sealed(findings):
            if process.namespaces.get("net") not in looked_at:
                yield f"{who(process)}: its network could not be looked at; verify again"
        for network in findings.networks:
            for interface, sent in network.interfaces.items():
                if interface != "lo":
                    yield f"{network.place}: its network has the interface {interface} ({sent} bytes sent); {RESTART}"
                elif sent and not is_engine(network.place):
                    yield f"{network.place}: {sent} bytes were sent on a loopback that is never used; {RESTART}"
            for stranger in network.strangers:
                yield f"{network.place}: {stranger} holds a socket of its network, and is not of it; {RESTART}"
            for route in network.routes:
                yield f"{network.place}: its network has a route out ({route}); {RESTART}"

    return check("networks", "The networks of sealed processes lead nowhere", seen, wrong())
