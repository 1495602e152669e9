"""The rule on probes: everything was tried from everywhere and refused, and the same is done without a seal."""

from __future__ import annotations

import errno

from appliance.egress.findings import Check, Findings, Probe
from appliance.egress.judge.words import RESTART, TELL_MAKERS, Wrong, check, count, engines, is_engine
from appliance.seal.probes import INSIDE, NEEDS_ROOT, OPENINGS, REUSES, SENDING

EVERYWHERE = SENDING.union(
    OPENINGS,
    (
        "io_uring",
        "request_key",
        "bind",
        "handing on a socket",
        "borrowing a descriptor",
        "taking in a socket",
        "borrowing from the other end",
        "limiting another process",
    ),
).difference(REUSES)
"""Attempts that each place is probed with."""
ON_CONNECTIONS = frozenset({*REUSES, "smc", "listening anew", "another route"})
"""Those that begin with a caller's connection, which an engine never holds."""
FOREIGN = "foreign architecture"
"""One that only x86-64 has."""

_REFUSALS = frozenset(errno.errorcode.values()) - {"ETIMEDOUT", "EINPROGRESS", "EAGAIN", "EALREADY", "EINTR"}
"""What a refusal looks like. That time ran out doesn't say that anything refused."""
_LACKING = frozenset({"EAFNOSUPPORT", "ENOSYS", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENOPROTOOPT", "EOPNOTSUPP"})
"""Errors of a kernel that doesn't have something, or in which it is switched off."""
_NEVER_LACKING = frozenset({"tcp4", "udp4", "dns", "ctypes", "a spawned program", "unix path", "unix datagram"})
"""Attempts that every host admits; one where they fail would prove nothing."""
_KILLED = frozenset({"SIGSYS", "SIGSEGV"})
_FORBIDDEN = frozenset({"EPERM", "EACCES"})
_KEPT_FROM_ALL = {
    **dict.fromkeys(NEEDS_ROOT, _FORBIDDEN),
    # switched off by a sysctl, by Yama, or by the filter of the container around it all
    **dict.fromkeys(
        ("io_uring", "borrowing a descriptor", "borrowing from the other end", "request_key", "vsock"), _FORBIDDEN
    ),
    **dict.fromkeys(("tcp6", "udp6"), frozenset({"EADDRNOTAVAIL", "ENETUNREACH"})),
    # a filter of systemd's kills for it, and so does a kernel that was built without that table
    FOREIGN: _KILLED | _FORBIDDEN,
}
"""Errors by which a host keeps an attempt from everyone without privileges, beside `_LACKING`."""


def probes(findings: Findings) -> Check:
    """Nothing arrived from any place, everything was refused, and each attempt is known to work without a seal."""
    done = sum(map(_controlled, findings.probes))
    absent = sorted({probe.attempt for probe in findings.probes if not _controlled(probe) and _kept_from_all(probe)})
    places = {probe.place for probe in findings.probes}
    seen = (
        f"{count(len(findings.probes), 'attempt')} from {count(len(places), 'place')}: "
        f"{sum(probe.arrived for probe in findings.probes)} arrived; {done} of them work without a seal"
    )
    if absent:
        seen += f"; refused to whoever verifies, too: {', '.join(absent)}"

    def wrong() -> Wrong:
        for probe in findings.probes:
            yield from _against(probe)
        yield from _left_out(findings)

    return check("probes", "Every attempt to send from inside failed, and works outside", seen, wrong())


def _against(probe: Probe) -> Wrong:
    what = f"{probe.place}: the attempt `{probe.attempt}`"
    if probe.arrived:
        yield f"{what} got out of the seal; {RESTART}"
    elif probe.outcome == "done":
        if not (is_engine(probe.place) and probe.attempt in INSIDE):
            yield f"{what} was let, though nothing arrived; {RESTART}"
    elif probe.outcome not in (_REFUSALS | _KILLED if probe.attempt == FOREIGN else _REFUSALS):
        yield f"{what} was not refused but ended in {probe.outcome}; verify again; if it stays so, {TELL_MAKERS}"
    elif probe.attempt == "a spawned program" and probe.outcome == "ENOENT":
        yield f"{what} found no program to spawn, so nothing was tried; {TELL_MAKERS}"
    if not (_controlled(probe) or _kept_from_all(probe)):
        how = "was done but not heard" if probe.control == "done" else f"ended in {probe.control}"
        yield (
            f"{what}: the same without a seal {how}, so the refusal proves nothing; look for a firewall on this "
            "host's loopback or another confinement of whoever verifies, and verify again"
        )


def _controlled(probe: Probe) -> bool:
    return probe.control == "done" and (probe.control_arrived or probe.attempt not in SENDING)


def _kept_from_all(probe: Probe) -> bool:
    if probe.control in _LACKING:
        return probe.attempt not in _NEVER_LACKING
    return probe.control in _KEPT_FROM_ALL.get(probe.attempt, frozenset())


def _left_out(findings: Findings) -> Wrong:
    tried = {(probe.place, probe.attempt) for probe in findings.probes}
    foreign = "x86_64" in findings.kernel or any(attempt == FOREIGN for _, attempt in tried)
    others = [process.place for process in findings.processes if process.role in ("outlet", "gate")]
    for place in dict.fromkeys(["gateway", *engines(findings), *others]):
        wanted = EVERYWHERE | ({FOREIGN} if foreign else set()) | (set() if is_engine(place) else ON_CONNECTIONS)
        if left := sorted(attempt for attempt in wanted if (place, attempt) not in tried):
            yield f"{place}: {count(len(left), 'attempt')} not tried ({', '.join(left)}); verify again"
