"""Findings of a sound appliance hold in every check; each thing that is wrong fails the one that is about it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.egress.canary import Canary
from appliance.egress.findings import (
    WAITING,
    Check,
    Destination,
    Findings,
    HostSocket,
    Mount,
    Network,
    Probe,
    Process,
    Socket,
)
from appliance.egress.judge import judge
from appliance.egress.judge.attempts import EVERYWHERE, FOREIGN, ON_CONNECTIONS
from appliance.seal.evidence import ThreadEvidence
from appliance.seal.probes import INSIDE, SENDING, attempts

HOST = {"net": 1, "mnt": 2, "pid": 3, "ipc": 4, "user": 5}
DOOR = Socket(5, 50, "tcp", 1, "listening", "10.0.0.5:8443", "")
CALLER = Socket(9, 90, "tcp", 1, "established", "10.0.0.5:8443", "10.0.0.9:50000")
INNER = Socket(7, 70, "unix", 11, "established", "", "")
OWN = Socket(11, 110, "tcp", 21, "listening", "127.0.0.1:29500", "")
FAR = Socket(12, 120, "tcp", 1, "established", "10.0.0.5:40000", "10.0.0.7:8000")
BY_HAND = Destination("big", "big.corp:8000", "in-house", tls=True, resolved=["10.0.0.7"])
PROVIDER = Destination("cloud", "api.example.com:443", "provider", tls=True, resolved=["93.184.216.34"])


def thread(number: int, network: int, **changed: int) -> ThreadEvidence:
    usual: dict[str, Any] = {"seccomp": 2, "filters": 1, "no_new_privileges": 1, "capabilities": 0, "network": network}
    return ThreadEvidence(number, **usual | changed)


def process(pid: int, role: Any, place: str, spaces: dict[str, int], *sockets: Socket) -> Process:
    threads = [thread(pid, spaces["net"])]
    return Process(pid, 1, 1000 + pid, role, place, "python", 0, spaces, threads, list(sockets))


def spaces(start: int, **changed: int) -> dict[str, int]:
    return {kind: start + number for number, kind in enumerate(HOST)} | changed


GATEWAY = process(100, "gateway", "gateway", spaces(11, pid=3), DOOR, CALLER, INNER)
ENGINE = process(130, "engine", "engine chat", spaces(21), OWN, INNER)
KEEPER = process(120, "trusted", "keeper of engine chat", HOST | {"net": 21, "ipc": 24})
NURSERY = replace(process(110, "trusted", "nursery", HOST), threads=[thread(110, 1, seccomp=0, filters=0)])
OUTLET = process(140, "outlet", "outlet", spaces(31, pid=3), FAR)
GATE = process(160, "gate", "gate", spaces(51, pid=3))
DETECTOR = process(161, "gate", "gate", spaces(51, pid=3))
OTHER = process(150, "engine", "engine other", spaces(41))


def probes(place: str) -> list[Probe]:
    engine = place.startswith("engine ")
    return [
        Probe(
            place, attempt, "done" if engine and attempt in INSIDE else "EPERM", False, "done", attempt in SENDING
        )
        for attempt in sorted(EVERYWHERE | {FOREIGN} | (set() if engine else ON_CONNECTIONS))
    ]  # fmt: skip


SOUND = Findings(
    mode="deny",
    seal="required",
    kernel="6.18.0",
    landlock=7,
    host_network=1,
    listening=["10.0.0.5:8443"],
    processes=[GATEWAY, NURSERY, KEEPER, ENGINE],
    networks=[Network(11, "gateway", {"lo": 0}, []), Network(21, "engine chat", {"lo": 4711}, [])],
    host_sockets=[],
    probes=[*probes("gateway"), *probes("engine chat")],
    destinations=[],
    missing={},
    host_namespaces=HOST,
)
IN_ENGINES = len(EVERYWHERE) + 1
Change = Callable[[Findings], Findings]


def with_process(*changed: Process) -> Change:
    """Processes in the place of those with the same pid, or beside all others."""
    by_pid = {each.pid: each for each in changed}

    def change(found: Findings) -> Findings:
        kept = [by_pid.pop(each.pid, each) for each in found.processes]
        added = [each for each in changed if each not in kept]
        return replace(found, processes=[*kept, *added])

    return change


def holding(holder: Process, **changed: Any) -> Change:
    base = Socket(33, 330, "tcp", 1, "established", "10.0.0.5:41000", "93.184.216.34:443")
    return with_process(replace(holder, sockets=[*holder.sockets, replace(base, **changed)]))


def with_probe(place: str, attempt: str, **changed: Any) -> Change:
    return lambda found: replace(
        found,
        probes=[
            replace(each, **changed) if (each.place, each.attempt) == (place, attempt) else each
            for each in found.probes
        ],
    )  # fmt: skip


def with_outlet(found: Findings) -> Findings:
    """The same with an in-house server, and the outlet that leads there."""
    return replace(
        found,
        processes=[*found.processes, OUTLET],
        networks=[*found.networks, Network(31, "outlet", {"lo": 0}, [])],
        probes=[*found.probes, *probes("outlet")],
        destinations=[BY_HAND],
    )


def with_gate(found: Findings) -> Findings:
    """The same with a privacy gate and a detector of its."""
    return replace(
        found,
        processes=[*found.processes, GATE, DETECTOR],
        networks=[*found.networks, Network(51, "gate", {"lo": 0}, [])],
        probes=[*found.probes, *probes("gate")],
    )


def also(*changes: Change) -> Change:
    def change(found: Findings) -> Findings:
        for each in changes:
            found = each(found)
        return found

    return change


def failed(found: Findings) -> dict[str, list[str]]:
    return {check.name: check.violations for check in judge(found) if not check.holds}


def named(checks: list[Check], name: str) -> Check:
    (check,) = (each for each in checks if each.name == name)
    return check


def test_a_sound_appliance_holds_in_every_check() -> None:
    checks = judge(SOUND)
    assert failed(SOUND) == {}
    assert [check.name for check in checks] == [
        "seal", "processes", "threads", "namespaces", "networks", "sockets", "host_sockets", "mounts", "probes",
        "destinations", "trouble",
    ]  # fmt: skip
    assert named(checks, "threads").seen == "2 threads of 2 sealed processes"
    assert named(checks, "sockets").seen == "5 sockets of 4 processes: 3 tcp, 2 unix"
    assert "4 processes: 1 engine, 1 gateway, 2 trusted" in named(checks, "processes").seen
    assert "nursery (110), keeper of engine chat (120)" in named(checks, "processes").seen
    assert f"{len(SOUND.probes)} attempts from 2 places: 0 arrived" in named(checks, "probes").seen


LEAD, LATER = thread(100, 11), thread(101, 11)
DIALLER = process(160, "trusted", "dialler", HOST | {"mnt": 52, "ipc": 54})
WITNESS = process(170, "trusted", "witness", HOST)
AT_WORK = process(172, "trusted", WAITING, HOST)
SOUND_TOO: dict[str, Change] = {
    "an outlet and its connection": with_outlet,
    "a gate and its detector": with_gate,
    "a gate with Unix sockets": also(with_gate, with_process(replace(GATE, sockets=[INNER]))),
    "another engine": lambda found: replace(
        found,
        processes=[*found.processes, OTHER],
        networks=[*found.networks, Network(41, "engine other", {"lo": 0}, [])],
        probes=[*found.probes, *probes("engine other")],
    ),
    "a kernel without scopes, which namespaces make up for": lambda found: replace(
        found, missing={"gateway": ["landlock scope: not here (ENOSYS); needs Linux 6.12"]}
    ),
    "more threads": with_process(replace(GATEWAY, threads=[LEAD, LATER])),
    "a thread under one more filter": with_process(replace(GATEWAY, threads=[LEAD, replace(LATER, filters=2)])),
    "listening on all addresses": also(
        lambda found: replace(found, listening=["0.0.0.0:8443"]),
        with_process(replace(GATEWAY, sockets=[replace(DOOR, local="0.0.0.0:8443"), CALLER])),
    ),
    "listening on all addresses of both kinds": also(
        lambda found: replace(found, listening=[":::8443"]),
        with_process(
            replace(
                GATEWAY,
                sockets=[
                    replace(DOOR, family="tcp6", local="[::]:8443"),
                    replace(CALLER, family="tcp6", local="[::ffff:10.0.0.5]:8443"),
                ],
            )
        ),
    ),
    "a caller who has hung up": holding(GATEWAY, state="closing", local="10.0.0.5:8443"),
    "a caller who has reset": holding(GATEWAY, state="unconnected", local="10.0.0.5:8443", remote=""),
    "a datagram inside an engine": holding(ENGINE, family="udp", namespace=21, state="unconnected", remote=""),
    "a dialler on its way": also(
        with_outlet, with_process(replace(DIALLER, sockets=[replace(FAR, state="2")])),
    ),
    "a dialler that looks up a name": with_process(
        replace(DIALLER, sockets=[Socket(3, 30, "udp", 1, "established", "10.0.0.5:5000", "10.0.0.2:53")])
    ),
    "a dialler's new socket, of which no more can be told": with_process(
        replace(DIALLER, sockets=[Socket(3, 30, "tcp", None, "unconnected", "", "")])
    ),
    "a witness with the journal's socket": with_process(replace(WITNESS, sockets=[replace(INNER, descriptor=2)])),
    "a witness that waits for the administrator's verification": with_process(
        WITNESS, replace(AT_WORK, sockets=[replace(INNER, descriptor=9), replace(FAR, remote="10.0.0.2:53")])
    ),
    "a folder on a server that can only be read": lambda found: replace(
        found, remote=[Mount("engine chat", "/srv/models", "a nfs4 file system")]
    ),
    "a probe of ours": with_process(process(171, "prober", "witness", HOST, replace(FAR, family="unknown"))),
    "a service that the config names": lambda found: replace(
        found, host_sockets=[HostSocket("gateway", "/srv/llm.sock", "llm (7)", configured=True)]
    ),
    "an ordinary user's host": also(
        with_probe("gateway", "raw", control="EPERM"), with_probe("gateway", "packet", control="EPERM")
    ),
    "a kernel without vsock": with_probe("gateway", "vsock", control="EAFNOSUPPORT", outcome="EPERM"),
    "io_uring switched off": with_probe("engine chat", "io_uring", control="EPERM"),
    "a host without IPv6": with_probe("gateway", "tcp6", control="EADDRNOTAVAIL", control_arrived=False),
    "providers where they are allowed": lambda found: replace(found, mode="anonymized", destinations=[PROVIDER]),
}  # fmt: skip


@pytest.mark.parametrize("what", SOUND_TOO)
def test_what_is_in_order_holds(what: str) -> None:
    assert failed(SOUND_TOO[what](SOUND)) == {}


WRONG: dict[str, tuple[Change, str, str]] = {
    "best effort": (lambda found: replace(found, seal="best-effort"), "seal", "set `egress: {seal: required}`"),
    "a missing part": (
        lambda found: replace(found, missing={"engine chat": ["fresh proc: refused (EPERM)"]}),
        "seal", "engine chat: the seal lacks fresh proc",
    ),
    "a stray": (
        with_process(process(180, "stray", "below process 1", HOST)),
        "processes", "below process 1, process 180 (python) belongs to no part of the appliance",
    ),
    "no gateway": (
        lambda found: replace(found, processes=found.processes[1:]), "processes", "the gateway was not found",
    ),
    "a keeper without its engine": (
        lambda found: replace(found, processes=found.processes[:-1]), "processes", "engine chat: no process of it",
    ),
    "a thread without filter": (
        with_process(replace(GATEWAY, threads=[LEAD, replace(LATER, seccomp=0, filters=0)])),
        "threads", "gateway, process 100 (python), thread 101: runs under 0 of 1 system call filters (mode 0)",
    ),
    "a thread under fewer filters than the first": (
        with_process(replace(GATEWAY, threads=[replace(LEAD, filters=2), LATER])), "threads", "under 1 of 2",
    ),
    "a process under fewer filters than the first": (
        with_process(
            replace(GATEWAY, threads=[replace(LEAD, filters=2)]),
            replace(GATEWAY, pid=190, started=9000, sockets=[], threads=[thread(190, 11)]),
        ),
        "threads", "process 190 (python), thread 190: runs under 1 of 2",
    ),
    "an engine's thread with a capability": (
        with_process(replace(ENGINE, threads=[thread(130, 21, capabilities=1 << 21)])),
        "threads", "engine chat, process 130 (python), thread 130: has the capabilities 0x200000",
    ),
    "a thread that may gain privileges": (
        with_process(replace(ENGINE, threads=[thread(130, 21, no_new_privileges=0)])), "threads", "may gain privileges",
    ),
    "a keeper with a capability": (
        with_process(replace(KEEPER, threads=[thread(120, 21, capabilities=1)])), "threads", "keeper of engine chat",
    ),
    "an engine in the host's network": (
        with_process(replace(ENGINE, namespaces=spaces(21, net=1), threads=[thread(130, 1)])),
        "namespaces", "engine chat, process 130 (python): shares its net namespace with the host",
    ),
    "an engine among the host's processes": (
        with_process(replace(ENGINE, namespaces=spaces(21, pid=3))), "namespaces", "its pid namespace with the host",
    ),
    "a gateway that sees the host's files": (
        with_process(replace(GATEWAY, namespaces=spaces(11, mnt=2))), "namespaces", "its mnt namespace with the host",
    ),
    "engines that share memory": (
        with_process(replace(OTHER, namespaces=spaces(41, ipc=24))),
        "namespaces", "engine other, process 150 (python): shares its ipc namespace with engine chat",
    ),
    "an engine in the gateway's network": (
        with_process(replace(ENGINE, namespaces=spaces(21, net=11), threads=[thread(130, 11)])),
        "namespaces", "shares its net namespace with gateway",
    ),
    "a thread in another network": (
        with_process(replace(GATEWAY, threads=[LEAD, replace(LATER, network=1)])),
        "namespaces", "thread 101: is not in the network of its process",
    ),
    "a namespace that may not be read": (
        with_process(replace(GATEWAY, namespaces={"net": 11, "mnt": 12})),
        "namespaces", "its ipc namespace may not be read; verify as root",
    ),
    "a host whose namespaces may not be read": (
        lambda found: replace(found, host_namespaces={}), "namespaces", "the host's own net namespace may not be read",
    ),
    "a network card": (
        lambda found: replace(found, networks=[found.networks[0], Network(21, "engine chat", {"eth0": 9}, [])]),
        "networks", "engine chat: its network has the interface eth0 (9 bytes sent)",
    ),
    "a route": (
        lambda found: replace(found, networks=[found.networks[0], Network(21, "engine chat", {"lo": 0}, ["route: x"])]),
        "networks", "engine chat: its network has a route out (route: x)",
    ),
    "a gateway that talks to itself": (
        lambda found: replace(found, networks=[Network(11, "gateway", {"lo": 5}, []), found.networks[1]]),
        "networks", "gateway: 5 bytes were sent on a loopback",
    ),
    "a network that nobody looked at": (
        lambda found: replace(found, networks=found.networks[:1]), "networks", "could not be looked at",
    ),
    "the gateway on a datagram socket": (
        holding(GATEWAY, family="udp"), "sockets", "descriptor 33: a socket of family udp",
    ),
    "the gateway on an unknown socket": (
        holding(GATEWAY, family="unknown", namespace=None, state="AF_VSOCK", local="", remote=""),
        "sockets", "a socket of family unknown (AF_VSOCK) is none that it may have",
    ),
    "the gateway on netlink": (holding(GATEWAY, family="netlink"), "sockets", "family netlink"),
    "the gateway connected elsewhere": (
        holding(GATEWAY), "sockets",
        "a socket of family tcp (established 10.0.0.5:41000 to 93.184.216.34:443) neither listens where it should",
    ),
    "the gateway connecting from its own port": (
        holding(GATEWAY, local="10.0.0.5:8443", state="2"), "sockets", "neither listens",
    ),
    "the gateway listening elsewhere": (
        holding(GATEWAY, state="listening", local="10.0.0.5:9000", remote=""), "sockets", "listening 10.0.0.5:9000",
    ),
    "the gateway listening on more addresses than it was told": (
        holding(GATEWAY, state="listening", local="0.0.0.0:8443", remote=""), "sockets", "listening 0.0.0.0:8443",
    ),
    "an accepted connection of another network": (
        holding(GATEWAY, namespace=77, local="10.0.0.5:8443"), "sockets", "not in the network in which callers arrive",
    ),
    "a connection of which nobody knows where it belongs": (
        holding(GATEWAY, namespace=None, state="unconnected", local="", remote=""), "sockets", "not in the network",
    ),
    "an engine with a Unix socket of nowhere": (
        holding(ENGINE, family="unix", namespace=None), "sockets", "is not in the engine's own network",
    ),
    "an engine with a host's socket": (
        holding(ENGINE, family="udp"), "sockets", "engine chat, process 130 (python), descriptor 33",
    ),
    "an engine with a host's Unix socket": (
        holding(ENGINE, family="unix", namespace=1), "sockets", "is not in the engine's own network",
    ),
    "an engine with a packet socket": (
        holding(ENGINE, family="packet", namespace=21), "sockets", "is none that an engine may have",
    ),
    "an engine with a socket of nowhere": (
        holding(ENGINE, family="unknown", namespace=None), "sockets", "is none that an engine may have",
    ),
    "an outlet that leads elsewhere": (
        also(with_outlet, holding(OUTLET)), "sockets", "leads to no destination of the config",
    ),
    "an outlet at another port": (
        also(with_outlet, holding(OUTLET, remote="10.0.0.7:22")), "sockets", "leads to no destination",
    ),
    "an outlet that listens": (
        also(with_outlet, holding(OUTLET, state="listening", remote="")), "sockets", "leads to no destination",
    ),
    "an outlet on a datagram socket": (also(with_outlet, holding(OUTLET, family="udp")), "sockets", "family udp"),
    "a gate with a caller's connection": (
        also(with_gate, with_process(replace(GATE, sockets=[CALLER]))), "sockets", "none that it may have",
    ),
    "a detector in another network": (
        also(with_gate, with_process(replace(DETECTOR, namespaces=spaces(1, pid=3)))), "namespaces", "with the host",
    ),
    "a detector without a filter": (
        also(with_gate, with_process(replace(DETECTOR, threads=[replace(DETECTOR.threads[0], filters=0, seccomp=0)]))),
        "threads", "gate, process 161",
    ),
    "a gate that was left out": (
        with_process(GATE), "probes", f"gate: {IN_ENGINES + len(ON_CONNECTIONS)} attempts not tried",
    ),
    "a dialler that leads elsewhere": (
        with_process(replace(DIALLER, sockets=[FAR])), "sockets", "leads to no destination of the config",
    ),
    "a dialler that listens": (
        with_process(replace(DIALLER, sockets=[replace(DOOR, local="0.0.0.0:53")])), "sockets", "none that it may have",
    ),
    "a dialler without a filter": (
        with_process(replace(DIALLER, threads=[thread(160, 1, filters=0)])),
        "threads", "dialler, process 160 (python), thread 160: runs under 0 of 1 system call filters",
    ),
    "a dialler with capabilities": (
        with_process(replace(DIALLER, threads=[thread(160, 1, capabilities=1)])), "threads", "has the capabilities 0x1",
    ),
    "a dialler that may gain privileges": (
        with_process(replace(DIALLER, threads=[thread(160, 1, no_new_privileges=0)])), "threads", "may gain privileges",
    ),
    "a dialler under the layer's filters only": (
        also(
            with_process(replace(DIALLER, threads=[thread(160, 1, filters=1)])),
            with_process(replace(NURSERY, threads=[thread(110, 1, filters=1)])),
        ),
        "threads", "dialler, process 160 (python), thread 160: runs under 1 of 2 system call filters",
    ),
    "a dialler that sees the host's files": (
        with_process(replace(DIALLER, namespaces=HOST | {"ipc": 54})),
        "namespaces", "dialler, process 160 (python): shares its mnt namespace with the host",
    ),
    "a dialler among the host's messages": (
        with_process(replace(DIALLER, namespaces=HOST | {"mnt": 52})), "namespaces", "its ipc namespace with the host",
    ),
    "a witness with a connection": (
        with_process(replace(WITNESS, sockets=[FAR])), "sockets", "witness, process 170 (python), descriptor 12",
    ),
    "a witness with a service's socket": (
        with_process(replace(WITNESS, sockets=[INNER])), "sockets", "is one, and it has none",
    ),
    "a child of the witness's with a connection": (
        with_process(replace(AT_WORK, sockets=[FAR])), "sockets", "witness at work, process 172 (python)",
    ),
    "a socket that waits in another's queue": (
        with_process(replace(GATEWAY, sockets=[DOOR, replace(INNER, waiting=1)])),
        "sockets", "gateway, process 100 (python), descriptor 7: 1 open file that nobody can look at",
    ),
    "somebody else at the door": (
        lambda found: replace(found, sharers=["nc (812)"]), "sockets", "nc (812), which is not the appliance's",
    ),
    "a stranger's socket in an engine's network": (
        lambda found: replace(
            found, networks=[found.networks[0], Network(21, "engine chat", {"lo": 0}, [], ["nc (812)"])]
        ),
        "networks", "engine chat: nc (812) holds a socket of its network",
    ),
    "a nursery with a connection": (
        with_process(replace(NURSERY, sockets=[FAR])), "sockets", "nursery, process 110 (python), descriptor 12",
    ),
    "a keeper with a socket": (
        with_process(replace(KEEPER, sockets=[INNER])), "sockets", "is one, and keepers have none",
    ),
    "a service within reach": (
        lambda found: replace(found, host_sockets=[HostSocket("gateway", "/srv/x", "dockerd (812)", configured=False)]),
        "host_sockets", "gateway can reach /srv/x, where dockerd (812) listens",
    ),
    "a configured service within an engine's reach": (
        lambda found: replace(found, host_sockets=[HostSocket("engine chat", "/srv/x", "", configured=True)]),
        "host_sockets", "engine chat can reach /srv/x, where another process listens",
    ),
    "a mount": (
        lambda found: replace(found, mounts=[Mount("engine chat", "/mnt", "this host's /")]),
        "mounts", "engine chat: /mnt is this host's /",
    ),
    "something that got out": (
        with_probe("engine chat", "udp4", arrived=True), "probes", "engine chat: the attempt `udp4` got out",
    ),
    "something that was let": (
        with_probe("gateway", "netlink", outcome="done"), "probes", "gateway: the attempt `netlink` was let",
    ),
    "something that an engine was let": (
        with_probe("engine chat", "vsock", outcome="done"), "probes", "the attempt `vsock` was let",
    ),
    "an attempt that ran out of time": (
        with_probe("gateway", "tcp4", outcome="EINPROGRESS"), "probes", "was not refused but ended in EINPROGRESS",
    ),
    "a probe that broke": (with_probe("gateway", "tcp4", outcome="KeyError"), "probes", "ended in KeyError"),
    "a program that was not there": (
        with_probe("engine chat", "a spawned program", outcome="ENOENT"), "probes", "found no program to spawn",
    ),
    "a control that nobody heard": (
        with_probe("gateway", "tcp4", control_arrived=False), "probes", "without a seal was done but not heard",
    ),
    "a control that failed": (
        with_probe("gateway", "udp4", control="EPERM"), "probes", "without a seal ended in EPERM",
    ),
    "a control that can't be missing": (
        with_probe("gateway", "tcp4", control="EAFNOSUPPORT"), "probes", "without a seal ended in EAFNOSUPPORT",
    ),
    "an attempt that was left out": (
        lambda found: replace(
            found, probes=[each for each in found.probes if (each.place, each.attempt) != ("gateway", "mptcp")]
        ),
        "probes", "gateway: 1 attempt not tried (mptcp)",
    ),
    "a place that was left out": (
        lambda found: replace(found, probes=probes("gateway")),
        "probes", f"engine chat: {IN_ENGINES} attempts not tried",
    ),
    "an outlet that was left out": (
        with_process(OUTLET), "probes", f"outlet: {IN_ENGINES + len(ON_CONNECTIONS)} attempts not tried",
    ),
    "an attempt that this machine must know": (
        lambda found: replace(
            found, kernel="6.18.0 x86_64", probes=[each for each in found.probes if each.attempt != FOREIGN]
        ),
        "probes", "gateway: 1 attempt not tried (foreign architecture)",
    ),
    "a provider in mode deny": (
        lambda found: replace(found, destinations=[PROVIDER]), "destinations", "leads to the provider",
    ),
    "a provider without TLS": (
        lambda found: replace(found, mode="anonymized", destinations=[replace(PROVIDER, tls=False)]),
        "destinations", "without TLS",
    ),
    "an in-house server on a public address": (
        lambda found: replace(found, destinations=[replace(BY_HAND, resolved=["10.0.0.7", "93.184.216.34"])]),
        "destinations", "big.corp:8000 is 93.184.216.34, a public address",
    ),
    "something that could not be looked at": (
        lambda found: replace(found, trouble=["process 7 may not be read"]), "trouble", "process 7 may not be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_fails_the_check_that_is_about_it(what: str) -> None:
    change, name, expected = WRONG[what]
    violations = failed(change(SOUND)).get(name, [])
    assert any(expected in line for line in violations), violations


def test_every_attempt_that_there_is_is_asked_for() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, Canary() as canary:
        canary.hand_out(Path(folder, "accepted"))
        canary.stand_beside(Path(folder, "beside"))
        known = attempts(canary.order | {"interpreter": sys.executable}).keys()
    assert known | {FOREIGN} == EVERYWHERE | ON_CONNECTIONS | {FOREIGN}


def test_what_can_be_had_by_nobody_is_said() -> None:
    found = SOUND_TOO["an ordinary user's host"](SOUND)
    assert named(judge(found), "probes").seen.endswith("refused to whoever verifies, too: packet, raw")
