"""The rule on open sockets: which ones a process may hold."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection

from appliance.egress.findings import KEEPER, SEALED, WAITING, Check, Destination, Findings, Process, Socket
from appliance.egress.judge.words import RESTART, Wrong, check, count, who

_TCP, _UDP = ("tcp", "tcp6"), ("udp", "udp6")
_MET = ("established", "closing", "unconnected")
"""States of a connection that was made once; unconnected is one that its peer has reset."""
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - read, not bound
_DNS_PORT = 53
_STANDARD = (0, 1, 2)


def sockets(findings: Findings) -> Check:
    """Each process holds only sockets that it needs, in the network in which it needs them."""
    held = [each for process in findings.processes for each in process.sockets]
    families = Counter(each.family for each in held)
    counted = ", ".join(f"{number} {family}" for family, number in sorted(families.items()))
    seen = f"{count(len(held), 'socket')} of {count(len(findings.processes), 'process')}: {counted or 'none'}"

    def wrong() -> Wrong:
        for process in findings.processes:
            for each in process.sockets:
                if objection := _objection(findings, process, each):
                    yield f"{who(process)}, descriptor {each.descriptor}: {_said(each)} {objection}; {RESTART}"
                if each.waiting and process.role in SEALED:
                    yield (
                        f"{who(process)}, descriptor {each.descriptor}: {count(each.waiting, 'open file')} that nobody "
                        f"can look at, sent to it and not yet taken; {RESTART}"
                    )
        for sharer in findings.sharers:
            yield f"{sharer}, which is not the appliance's, holds a socket on which callers come; {RESTART}"

    return check("sockets", "No process holds a socket that could send elsewhere", seen, wrong())


def _objection(findings: Findings, process: Process, each: Socket) -> str | None:
    """Why a process may not hold a socket; None if it may."""
    match process.role:
        case "stray" | "prober":  # the one is a violation in itself, the other our own
            return None
        case "trusted":
            return _of_trusted(findings, process.place, each)
        case "engine":
            return _of_engine(findings, process, each)
        case "gateway" | "outlet" | "gate" if each.family == "unix":
            return None
        case "gate":
            return "is none that it may have"
    if each.family not in _TCP:
        return "is none that it may have"
    if each.namespace != findings.host_network:
        return "is not in the network in which callers arrive"
    if process.role == "outlet":
        led = each.state in _MET and (not each.remote or _leads_to(findings.destinations, each))
        return None if led else "leads to no destination of the config"
    return None if _answers(findings.listening, each) else "neither listens where it should nor came from there"


def _of_engine(findings: Findings, process: Process, each: Socket) -> str | None:
    networks = {process.namespaces.get("net")}
    if each.family == "unix":  # one that was accepted belongs to the network of the gateway that connected
        networks |= {other.namespaces.get("net") for other in findings.processes if other.role == "gateway"}
    elif each.family not in ("netlink", *_TCP, *_UDP):
        return "is none that an engine may have"
    return None if each.namespace in networks - {None} else "is not in the engine's own network"


def _of_trusted(findings: Findings, place: str, each: Socket) -> str | None:
    if place == "witness":  # its output may be the journal's socket
        return None if each.family == "unix" and each.descriptor in _STANDARD else "is one, and it has none"
    if place == WAITING:
        asks = each.family == "netlink" or (each.family in (*_TCP, *_UDP) and _split(each.remote)[1] == _DNS_PORT)
        return None if asks or each.family == "unix" else "is none that it may have"
    if place.startswith(KEEPER):
        return "is one, and keepers have none"
    if each.family == "unix":
        return None
    if place != "dialler":
        return "is none that it may have"
    if each.family == "netlink":  # the resolver asks the kernel for its own addresses
        return None
    if each.family not in (*_TCP, *_UDP) or each.state == "listening":
        return "is none that it may have"
    asked = not each.remote or _split(each.remote)[1] == _DNS_PORT
    return None if asked or _leads_to(findings.destinations, each) else "leads to no destination of the config"


def _answers(listening: Collection[str], each: Socket) -> bool:
    """Whether it listens on one of these addresses, or is a connection that was accepted there."""
    host, port = _split(each.local)
    doors = [_split(address) for address in listening]
    if each.state == "listening":
        return (host, port) in doors
    return each.state in _MET and any(port == number and door in (host, *_ANYWHERE) for door, number in doors)


def _leads_to(destinations: Collection[Destination], each: Socket) -> bool:
    remote = _split(each.remote)
    return any(remote == (_plain(address), _split(to.address)[1]) for to in destinations for address in to.resolved)


def _said(each: Socket) -> str:
    ends = " to ".join(filter(None, (each.local, each.remote)))
    return f"a socket of family {each.family} ({' '.join(filter(None, (each.state, ends)))})"


def _split(written: str) -> tuple[str, int | None]:
    """Address and port of `address:port`; the port is None where there is none."""
    host, _, port = written.rpartition(":")
    return _plain(host.strip("[]")), int(port) if port.isdigit() else None


def _plain(address: str) -> str:
    """One spelling for each address, of IPv4 inside IPv6 too."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
