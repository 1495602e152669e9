"""Findings as a live system gives them: a gateway and two engines, all in order or with more than ten things wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from appliance.egress import report
from appliance.egress.findings import Check, Destination, Findings, HostSocket, Mount, Network, Probe, Process, Socket
from appliance.egress.judge import judge
from appliance.egress.judge.attempts import ON_CONNECTIONS
from appliance.egress.report import ATTEMPTS
from appliance.seal.evidence import ThreadEvidence
from appliance.seal.probes import INSIDE, SENDING

HOST, GATEWAY = 4026531840, 4026532301
ENGINES = {"engine chat": 4026532412, "engine embeddings": 4026532523}


def threads(first: int, count: int, network: int, **different: int) -> list[ThreadEvidence]:
    usual = {"seccomp": 2, "filters": 1, "no_new_privileges": 1, "capabilities": 0, "network": network}
    return [ThreadEvidence(thread=first + number, **(usual | different)) for number in range(count)]


def process(pid: int, role: Any, place: str, command: str, network: int, count: int, **different: int) -> Process:
    namespaces = {"net": network, "mnt": network + 1, "pid": network + 2, "ipc": network + 3, "user": network + 4}
    seen = threads(pid, count, network, **different)
    return Process(pid, pid - 1, 81_000 + pid, role, place, command, 990, namespaces, seen, [])


def unix(descriptor: int, namespace: int, state: str = "established", local: str = "") -> Socket:
    return Socket(descriptor, 70_000 + descriptor, "unix", namespace, state, local, "")


def tcp(descriptor: int, port: int) -> Socket:
    return Socket(descriptor, 90_000 + port, "tcp", HOST, "established", "10.20.0.5:8443", f"10.20.7.31:{port}")


def gateway() -> Process:
    listening = Socket(7, 88_001, "tcp", HOST, "listening", "10.20.0.5:8443", "")
    sockets = [listening, unix(8, HOST, "listening", "/var/lib/appliance/run/control.sock")]
    sockets += [tcp(12 + number, 50_210 + 7 * number) for number in range(23)]
    sockets += [unix(descriptor, GATEWAY) for descriptor in (3, 4, 5, 40, 41, 42)]
    command = "/opt/appliance/.venvs/gateway/bin/python -P -m appliance serve --config /etc/appliance/appliance.yaml"
    return replace(process(1201, "gateway", "gateway", command, GATEWAY, 9), sockets=sockets)


def engine(place: str, first: int) -> list[Process]:
    network = ENGINES[place]
    python = "/opt/appliance/.venvs/engine/bin/python"
    server = process(first, "engine", place, f"{python} -m vllm.entrypoints.openai.api_server", network, 12)
    path = f"/var/lib/appliance/run/e{first}/engine.sock"
    sockets = [unix(11, network, "listening", path), unix(14, network), unix(15, network)]
    core = process(first + 40, "engine", place, "VLLM::EngineCore", network, 5)
    gloo = Socket(21, 66_000 + first, "tcp", network, "listening", "127.0.0.1:41217", "")
    return [
        process(first - 2, "engine", place, f"{python} -m appliance.engines.nursery", network, 1),
        replace(server, sockets=sockets),
        replace(core, sockets=[gloo, *(unix(descriptor, network) for descriptor in (30, 31))]),
        process(first + 60, "engine", place, "VLLM::Worker", network, 9),
    ]


def trusted() -> list[Process]:
    python = "/opt/appliance/.venvs/gateway/bin/python -P -m"
    bare = {"seccomp": 0, "filters": 0, "no_new_privileges": 0}
    return [
        process(1203, "trusted", "nursery", f"{python} appliance.engines.nursery", HOST, 1, **bare),
        process(1204, "trusted", "witness", f"{python} appliance.witness", HOST, 1, **bare),
        *(
            process(
                1210 + number, "trusted", f"keeper of {place}", f"{python} appliance.engines.nursery", HOST, 1, **bare
            )
            for number, place in enumerate(ENGINES)
        ),
    ]


def probes(place: str) -> list[Probe]:
    made = []
    for attempt in ATTEMPTS:
        if place != "gateway" and attempt in ON_CONNECTIONS:
            continue
        outcome = "done" if place != "gateway" and attempt in INSIDE else "EPERM"
        if place != "gateway" and attempt in ("tcp4", "tcp6", "ctypes"):
            outcome = "ENETUNREACH"
        control = "EPERM" if attempt in ("raw", "packet") else "done"
        made.append(
            Probe(
                place,
                attempt,
                outcome,
                arrived=False,
                control=control,
                control_arrived=control == "done" and attempt in SENDING,
            )
        )
    return made


def holding() -> tuple[Findings, list[Check]]:
    places = ["gateway", *ENGINES]
    findings = Findings(
        mode="deny",
        seal="required",
        kernel="6.18.4-amd64",
        landlock=7,
        host_network=HOST,
        listening=["10.20.0.5:8443"],
        processes=[gateway(), *trusted(), *engine("engine chat", 1302), *engine("engine embeddings", 1502)],
        networks=[Network(GATEWAY, "gateway", {"lo": 0}, []),
                  *(Network(inode, place, {"lo": 48_211}, []) for place, inode in ENGINES.items())],
        host_sockets=[],
        probes=[probe for place in places for probe in probes(place)],
        destinations=[],
        missing={},
        host_namespaces={kind: HOST + number for number, kind in enumerate(("net", "mnt", "pid", "ipc", "user"))},
    )  # fmt: skip
    return findings, judge(findings)


def violated() -> tuple[Findings, list[Check]]:
    """More than ten violations, one of them by a process whose name is an attack on whoever reads of it."""
    findings, _ = holding()
    hostile = '<script>alert("x")</script>\x1b[2J\u202e"><img src=x onerror=alert(1)>'
    stray = process(1777, "stray", "below process 1502", hostile, HOST, 2, seccomp=0, filters=0, no_new_privileges=0)
    chat = findings.processes[6]
    naked = replace(chat, threads=[*chat.threads[:-1], replace(chat.threads[-1], seccomp=0, filters=0)])
    leak = Socket(55, 77_123, "tcp", HOST, "established", "10.20.0.5:51514", "203.0.113.9:443")
    strange = Socket(56, 77_124, "unknown", None, "1", "", "")
    naked = replace(naked, sockets=[*naked.sockets, leak, strange])
    processes = [naked if each is chat else each for each in findings.processes] + [stray]
    out = {("engine chat", "tcp4"), ("engine chat", "unix path")}
    tried = [
        replace(probe, outcome="done", arrived=True) if (probe.place, probe.attempt) in out else probe
        for probe in findings.probes
    ]
    tried = [
        replace(probe, control_arrived=False) if probe.attempt == "mptcp" and probe.control_arrived else probe
        for probe in tried
    ]
    network = Network(ENGINES["engine chat"], "engine chat", {"lo": 48_211, "eth1": 991_004}, ["0.0.0.0/0 by eth1"])
    findings = replace(
        findings,
        mode="anonymized",
        processes=processes,
        networks=[findings.networks[0], network, findings.networks[2]],
        host_sockets=[HostSocket("engine chat", "/run/docker.sock", "dockerd (812)", configured=False)],
        mounts=[Mount("engine chat", "/run/docker.sock", "this host's /run/docker.sock")],
        probes=tried,
        destinations=[
            Destination("archive", "llm.intern.example:443", "in-house", True, ["10.20.0.77"]),
            Destination("legacy", "10.20.0.91:8080", "in-house", False, ["10.20.0.91"]),
        ],
        missing={"engine embeddings": ["landlock scope: Landlock has no scopes here (ENOSYS); needs Linux 6.12"]},
        trouble=["process 1801 (bash): its open descriptors may not be read; verify as root, or as user 0"],
    )
    return findings, judge(findings)


def built(findings: Findings, checks: list[Check], host: str = "inference-2.example") -> dict[str, Any]:
    began = datetime(2026, 11, 22, 10, 5, 0, tzinfo=UTC)
    return report.build(findings, checks, host=host, began=began, milliseconds=1840)
