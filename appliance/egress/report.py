"""What a verification found, as one document that a machine checks and a person reads."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from appliance import __version__
from appliance.egress.findings import Check, Findings
from appliance.signing import fingerprint

FORMAT = "appliance-egress-report/1"
_WIDTH = 110

ATTEMPTS = {
    "tcp4": "connect over TCP, IPv4",
    "tcp6": "connect over TCP, IPv6",
    "mptcp": "connect over several paths at once (MPTCP)",
    "udp4": "send a datagram, IPv4",
    "udp6": "send a datagram, IPv6",
    "dns": "ask a name server, which can carry data in the name",
    "fast open": "send data with the first packet of a connection (TCP Fast Open)",
    "fast open sendmsg": "the same by another system call",
    "fast open connect": "the same by an option of the socket",
    "ctypes": "connect by calling the system's C library directly",
    "a spawned program": "start another program and let that connect",
    "unix path": "hand data to a local service at a file path",
    "unix datagram": "hand data to a local service, one message at a time",
    "unix abstract": "hand data to a local service that has no file",
    "raw": "write packets by hand (raw socket)",
    "packet": "write frames to the network card (packet socket)",
    "vsock": "talk to the machine that runs this virtual machine (vsock)",
    "netlink": "talk to the kernel's network settings (netlink)",
    "io_uring": "let the kernel work off a queue of orders (io_uring)",
    "request_key": "have the kernel start a helper program (request_key)",
    "bind": "offer a new address to connect to",
    "handing on a socket": "hand an open socket to another process",
    "borrowing a descriptor": "take an open file or socket from another process",
    "borrowing from the other end": "the same, from whoever is at the other end of a local connection",
    "taking in a socket": "have another process put an open socket into this one",
    "limiting another process": "lower the limits of another process, so that it breaks down",
    "foreign architecture": "use the system calls of another processor type (32-bit)",
    "reused by connect": "turn a caller's connection around and connect elsewhere",
    "reused by sendto": "the same, sending with the first packet",
    "reused by sendmsg": "the same by another system call",
    "reused by sendmmsg": "the same by a third system call",
    "smc": "switch a caller's connection to shared memory (SMC)",
    "listening anew": "turn a caller's connection into a new address to connect to",
    "another route": "have what a caller gets travel by way of another host",
}
"""What each attempt of `appliance.seal.probes` does, in plain words."""

_TRUSTED = {
    "nursery": "starts engines, and nothing else; runs before and outside the gateway's seal, because children inherit "
    "one. It takes orders from the gateway over one private connection and refuses any weaker seal than the config's",
    "keeper": "one for each engine: waits for its end and passes signals on. It has opened no socket and holds no "
    "privilege",
    "dialler": "the only process that may connect out: to the destinations in this report, which it got once at its "
    "start. It runs under a seal of its own, which admits their ports only",
    "witness": "makes this report. It has to stand outside the seals to look at them, and it holds the key that signs",
}
_OUTSIDE = [
    ("the Linux kernel of this machine", "it enforces the seals, and it told what is in this report"),
    ("what starts the appliance: systemd, or the container runtime", "it has this machine's privileges and could "
     "start the appliance otherwise than is described here"),
    ("root, and whoever can read the files of the appliance's user", "they own the kernel, the key that signs, "
     "and these programs"),
]  # fmt: skip
LIMITS = [
    "Root on this machine can change everything, this report and its key included.",
    "The attempts show that the locks work as they were built. The content of a running program's lock can't be read "
    "back by an ordinary user: a gateway that was replaced by a dishonest program before it locked itself could lie "
    "about its own attempts. What arrives outside is heard all the same.",
    "Code that was malicious already when it was installed, before any lock. Against it stands that packages are "
    "installed only if their hashes are those that were recorded.",
    "A fault of the kernel itself, or of the firmware and hardware below it: a management controller, a device "
    "with access to memory, an InfiniBand card.",
    "The time between two reports: each tells of its own moment. A seal can't be taken off in between, but root could "
    "do something and undo it.",
    "What callers do with the answers that they get. Answers go to whoever has a key.",
    "Covert channels: what a sealed process could tell a neighbour by timing, load or heat.",
    "The users, programs and services on this machine that are not part of the appliance.",
]
"""What no report can prove, whatever it says."""
_IN_SHORT = (
    "Root on this machine, faults of the kernel or the hardware, programs that were harmful before they were locked, "
    "the time between two reports, what callers do with answers, covert channels."
)

Document = dict[str, Any]


def build(findings: Findings, checks: list[Check], *, host: str, began: datetime, milliseconds: int) -> Document:
    """The report, ready to be entered in the ledger: texts, integers, truth values, null, lists and objects of them.

    `began` has to know its time zone. It holds only if there are checks, all of them hold, and everything could
    be looked at. Text that isn't Unicode, as names of processes may be, has its strange bytes written as \\xNN.
    """
    sound = all(check.holds and not check.violations for check in checks)
    document = {
        "format": FORMAT,
        "appliance": __version__,
        "host": host,
        "kernel": findings.kernel,
        "time": began.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "milliseconds": milliseconds,
        "holds": bool(checks) and sound and not findings.trouble,
        "checks": [asdict(check) for check in checks],
        "findings": asdict(findings),
        "trusted": list(_trusted(findings)),
        "limits": LIMITS,
    }
    clean: Document = _clean(document)
    return clean


def _trusted(findings: Findings) -> Iterable[Document]:
    running = [process for process in findings.processes if process.role == "trusted"]
    for what, why in _TRUSTED.items():
        pids = [process.pid for process in running if process.place.startswith(what)]
        yield {"what": what, "why": why, "processes": pids}
    for process in running:
        if not process.place.startswith(tuple(_TRUSTED)):
            why = "the appliance names it as one of its own outside the seals"
            yield {"what": process.place, "why": why, "processes": [process.pid]}
    for what, why in _OUTSIDE:
        yield {"what": what, "why": why, "processes": []}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value


def printable(value: object) -> str:
    """`value` as text that can't command a terminal or turn a line around: what isn't printable is escaped.

    Names of processes and files come from whoever runs them.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(value))


def verdict(report: Document) -> str:
    """What it comes to, in one sentence."""
    if not report["holds"]:
        count = sum(max(1, len(check["violations"])) for check in failed(report)) + len(trouble(report))
        count = count or len(report.get("broken", []))
        return f"NOT PROVEN: {count} {'thing is' if count == 1 else 'things are'} wrong. What to do stands below each."
    if report["findings"]["destinations"]:
        return "IT HOLDS: nothing can leave this appliance but to the destinations listed here."
    return "IT HOLDS: nothing can leave this appliance but answers to its callers."


def failed(report: Document) -> list[Document]:
    """The checks that don't hold."""
    return [check for check in report["checks"] if check["violations"] or not check["holds"]]


def trouble(report: Document) -> list[str]:
    """What could not be looked at, and no check says."""
    told = {violation for check in report["checks"] for violation in check["violations"]}
    return [line for line in report["findings"]["trouble"] if line not in told]


def destination(to: Document) -> str:
    """Where the outlet may go, on one line."""
    how = "TLS" if to["tls"] else "NOT ENCRYPTED"
    resolved = ", ".join(to["resolved"]) or "no address found"
    return f"{to['name']}: {to['kind']} server {to['address']}, {how}, now at {resolved}"


def ranges(numbers: Iterable[int]) -> str:
    """Ascending whole numbers, runs of them joined: `3, 7-9`."""
    runs = [
        [number for _, number in run] for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def alike(things: Iterable[Document], *apart: str) -> list[tuple[Document, list[Document]]]:
    """`things` in groups that differ in the fields `apart` at most: what one has in common, and all of it."""
    groups: dict[str, tuple[Document, list[Document]]] = {}
    for thing in things:
        common = {name: value for name, value in thing.items() if name not in apart}
        groups.setdefault(repr(common), (common, []))[1].append(thing)
    return list(groups.values())


def text(report: Document, *, colour: bool = False, file: Path | None = None) -> str:
    """The report for a terminal: one screen when all holds; what is wrong spelt out below its check.

    A signed report shows its place in the chain. `colour` is for terminals only; `file` is where the whole lies.
    """
    green, red, bold, plain = ("\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[0m") if colour else ("",) * 4
    good = report["holds"]
    lines = [
        f"{bold}{green if good else red}{'✓' if good else '✗'} {verdict(report)}{plain}",
        printable(
            f"  {report['host']}, {report['time'].replace('T', ' ').replace('Z', ' UTC')}, "
            f"looked at in {report['milliseconds'] / 1000:.1f} s; egress: {report['findings']['mode']}, "
            f"seal: {report['findings']['seal']}"
        ),
        "",
    ]
    wide = max((len(check["title"]) for check in report["checks"]), default=0)
    for check in report["checks"]:
        holds = check["holds"] and not check["violations"]
        mark = f"{green}✓{plain}" if holds else f"{red}✗{plain}"
        seen = _shortened(printable(check["seen"]), max(_WIDTH - wide - 4, _WIDTH // 4))
        lines.append(f"{mark} {printable(check['title']):<{wide}}  {seen}".rstrip())
        lines += [line for violation in check["violations"] for line in _wrapped(violation, "    - ")]
    if unseen := trouble(report):
        lines.append(f"{red}✗{plain} Some things could not be looked at")
        lines += [line for each in unseen for line in _wrapped(each, "    - ")]
    for name in ("broken", "healed"):
        lines += [line for note in report.get(name, []) for line in _wrapped(f"the chain of reports: {note}", "! ")]
    lines.append("")
    destinations = [destination(to) for to in report["findings"]["destinations"]]
    lines += _wrapped("; ".join(destinations) or "nowhere", "may connect to  ")
    lines += _wrapped(_IN_SHORT, "can't prove     ")
    if "signature" in report:
        lines.append(f"report          {report['number']}, sha256 {report['sha256']}")
        lines.append(f"signed by       {fingerprint(report['key'])}")
    if file:
        lines.append(f"kept in         {printable(file)}")
    return "\n".join(lines) + "\n"


def _shortened(what: str, width: int) -> str:
    """As many whole clauses of `what` as fit."""
    if len(what) <= width:
        return what
    cut = what[: width - 2]
    end = max(cut.rfind(", "), cut.rfind("; "))
    return f"{cut[:end] if end > 0 else cut} …"


def _wrapped(what: str, first: str) -> list[str]:
    return textwrap.wrap(
        printable(what), _WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
    )
