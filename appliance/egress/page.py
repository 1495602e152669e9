"""A report as one page to print: no script, nothing fetched, legible in black and white on A4."""

from __future__ import annotations

import html as escaping
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from appliance.egress import report as reports
from appliance.egress.findings import SEALED
from appliance.egress.report import ATTEMPTS, Document, alike, printable, ranges
from appliance.egress.style import style
from appliance.seal.probes import SENDING
from appliance.signing import fingerprint

_FEW = 4
_FILTERED = 2
_TITLES = {
    "trusted": "Trusted, outside the seals",
    "stray": "✗ Not accounted for",
    "prober": "This verification's own",
}
_LONGEST_COMMAND = 70
_LONGEST_WORD = 20
_KINDS = ("net", "mnt", "pid", "ipc", "user")


class Html(str):
    """Text that is markup already. Everything else is escaped on its way into a page."""

    __slots__ = ()


def tag(name: str, *children: object, css: str = "") -> Html:
    """An element around `children`; only those that are `Html` are taken as markup."""
    opened = f'<{name} class="{css}">' if css else f"<{name}>"
    return Html(f"{opened}{''.join(map(markup, children))}</{name}>")


def markup(value: object) -> Html:
    """`value` as markup: what isn't is made printable and escaped."""
    return value if isinstance(value, Html) else Html(escaping.escape(printable(value)))


def table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> Html:
    """A table; a cell that brings its own `td` keeps it. Without rows a sentence says so."""
    body = [tag("tr", *(cell if _is_cell(cell) else tag("td", cell) for cell in row)) for row in rows]
    if not body:
        return tag("p", "None.")
    return tag("table", tag("thead", tag("tr", *(tag("th", word) for word in head))), tag("tbody", *body))


def _is_cell(cell: object) -> bool:
    return isinstance(cell, Html) and cell.startswith("<td")


def html(report: Document) -> str:
    """The page. A signed report also shows its place in the chain and how to check it."""
    findings = report["findings"]
    moment = report["time"].replace("T", " ").replace("Z", " UTC")
    signed = "signature" in report
    look = style(
        f"Egress report {report['number']}" if signed else "Egress report, not signed",
        moment,
        f"sha256 {report['sha256']}" if signed else "",
    )
    body = [
        tag("h1", "Can anything leave this appliance?"),
        tag("p", f"Report {report['number']} of " if signed else "", f"{report['host']}, {moment}"),
        tag(
            "div",
            "✓ " if report["holds"] else "✗ ",
            reports.verdict(report),
            css="verdict" if report["holds"] else "verdict wrong",
        ),
        *_notes(report),
        tag("h2", "What was checked"),
        table(["", "statement", "looked at"], map(_check, report["checks"])),
        *_wrong(report),
        tag("h2", "Where it may connect to"),
        tag("p", "The config names no destination: nothing of this appliance may connect to another host.")
        if not findings["destinations"]
        else table(
            ["name", "what", "address", "encrypted", "leads to now"], map(_destination, findings["destinations"])
        ),
        tag("h2", "What this can't prove"),
        tag("ul", *(tag("li", limit) for limit in report["limits"])),
        tag("h2", "Who is trusted, and why"),
        table(["who", "why", "process"], map(_trusted, report["trusted"])),
        tag("h2", "Every way out, tried"),
        *_probes(findings["probes"]),
        tag("h2", "Processes, threads and sockets"),
        *_places(findings),
        tag("h2", "Surroundings"),
        *_surroundings(report),
        tag("h2", "Signature"),
        _proof(report) if signed else tag("p", "This report isn't signed."),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{markup('Egress report of ' + report['host'])}</title><style>{look}</style></head>\n"
        f"<body>{chr(10).join(body)}</body></html>\n"
    )


def _notes(report: Document) -> Iterator[Html]:
    notes = [*report.get("broken", []), *report.get("healed", [])]
    if notes:
        yield tag("p", tag("b", "The chain of reports, as this one found it: "), "; ".join(notes), ".")


def _holds(check: Document) -> bool:
    return bool(check["holds"] and not check["violations"])


def _check(check: Document) -> Iterator[object]:
    yield tag("td", "✓" if _holds(check) else "✗", css="mark" if _holds(check) else "mark wrong")
    yield check["title"]
    yield check["seen"]


def _wrong(report: Document) -> Iterator[Html]:
    failed, trouble = reports.failed(report), reports.trouble(report)
    if failed or trouble:
        yield tag("h2", "What is wrong, and what to do")
    for check in failed:
        yield tag("h3", "✗ It is not so that: ", check["title"])
        yield tag("ul", *(tag("li", line) for line in check["violations"] or ["it doesn't hold"]))
    if trouble:
        yield tag("h3", "✗ What could not be looked at")
        yield tag("ul", *(tag("li", line) for line in trouble))


def _destination(to: Document) -> tuple[object, ...]:
    encrypted = "yes, TLS" if to["tls"] else "NO"
    return to["name"], f"{to['kind']} server", to["address"], encrypted, ", ".join(to["resolved"]) or "no address"


def _trusted(one: Document) -> tuple[object, ...]:
    return tag("td", tag("b", one["what"])), one["why"], ", ".join(map(str, one["processes"])) or "-"


def _probes(probes: list[Document]) -> Iterator[Html]:
    """The matrix: a row for each attempt, a column for each place, the same attempt without a seal beside them."""
    yield tag(
        "p",
        "Each attempt was made from inside each seal, and by a process without a seal on the same machine. ",
        "A listener just outside counted what reached it. That the last column got out shows that the attempt ",
        "works; that no other did shows that the seals work as they were built.",
        css="small",
    )
    places = list(dict.fromkeys(probe["place"] for probe in probes))
    cells = {(probe["attempt"], probe["place"]): probe for probe in probes}
    rows = []
    for attempt in sorted({probe["attempt"] for probe in probes}, key=_order):
        tried = {place: cells.get((attempt, place)) for place in places}
        controls = dict.fromkeys(_control(probe) for probe in tried.values() if probe)
        what = tag("td", ATTEMPTS.get(attempt, attempt), " ", tag("code", attempt) if attempt in ATTEMPTS else "")
        rows.append([what, *map(_outcome, tried.values()), Html(" / ".join(controls))])
    yield table(["attempt", *places, "without a seal"], rows)
    yield tag(
        "p",
        "refused: the kernel said no, with its reason. Stayed inside: it was let, in a network of its own that leads "
        "nowhere, and nothing arrived. Allowed: it sends nothing by itself and stays within the seal, or else stands "
        "above as wrong. Not tried: it needs a caller's connection, which an engine never has.",
        css="small",
    )


def _order(attempt: str) -> tuple[int, str]:
    known = list(ATTEMPTS)
    return (known.index(attempt), "") if attempt in known else (len(known), attempt)


def _outcome(probe: Document | None) -> object:
    if probe is None:
        return "not tried"
    if probe["arrived"]:
        return tag("td", "✗ GOT OUT", css="wrong")
    if probe["outcome"] == "done":
        return "stayed inside" if probe["attempt"] in SENDING else "allowed"
    return _refused(probe["outcome"])


def _control(probe: Document) -> Html:
    if probe["control_arrived"]:
        return markup("got out")
    if probe["control"] == "done":
        return markup("NOTHING ARRIVED" if probe["attempt"] in SENDING else "allowed")
    return _refused(probe["control"])


def _refused(reason: str) -> Html:
    return Html(f"refused {tag('small', reason)}")


def _places(findings: Document) -> Iterator[Html]:
    yield tag(
        "p",
        "Like threads and like sockets are joined into one line each; the report's file lists every one. ",
        f"Network {findings['host_network']} is the machine's own, in which callers arrive; "
        "another number is a network apart from it.",
        css="small",
    )
    groups: dict[str, list[Document]] = {}
    for process in findings["processes"]:
        title = _TITLES.get(process["role"], process["place"])
        groups.setdefault(title, []).append(process)
    for title, inside in groups.items():
        yield tag("h3", title)
        yield table(
            ["process", "program", "user", "threads", "what holds them"],
            (row for process in inside for row in _threads(process)),
        )
        sockets = [row for process in inside for row in _sockets(process, findings["host_network"])]
        head = ["process", "file", "sockets", "state", "its address", "other end", "network"]
        yield table(head, sockets) if sockets else tag("p", "No socket is open here.", css="small")


def _threads(process: Document) -> Iterator[list[object]]:
    sealed = process["role"] not in _TITLES
    for common, threads in alike(process["threads"], "thread"):
        which: object = f"{len(threads)}: {ranges(thread['thread'] for thread in threads)}"
        which = which if len(str(which)) > _LONGEST_WORD else _word(which)
        yield [_word(process["pid"]), _program(process), _word(process["user"]), which, _seal(common, sealed=sealed)]
    if not process["threads"]:
        yield [_word(process["pid"]), _program(process), _word(process["user"]), "none could be read", ""]


def _program(process: Document) -> str:
    program, _, arguments = process["command"].partition(" ")
    line = f"{program.rpartition('/')[2]} {arguments}" if program.startswith("/") else process["command"]
    short = f"{line[:_LONGEST_COMMAND]}…" if len(line) > _LONGEST_COMMAND else line
    return f"{process['place']}: {short}" if process["role"] in _TITLES else short


def _seal(common: Document, *, sealed: bool) -> object:
    said = [
        (common["seccomp"] == _FILTERED, f"filtered ({common['filters']})", "no filter"),
        (common["no_new_privileges"] == 1, "gains no privilege", "can gain privilege"),
        (common["capabilities"] == 0, "holds none", f"holds {common['capabilities']:x}"),
    ]
    parts = [good if holds else bad.upper() if sealed else bad for holds, good, bad in said]
    network = "hidden" if common["network"] is None else common["network"]
    return ", ".join([*parts, f"network {network}"])


def _sockets(process: Document, host: int) -> Iterator[list[object]]:
    for common, sockets in alike(process["sockets"], "descriptor", "inode", "remote"):
        others = [*dict.fromkeys(each["remote"] for each in sockets if each["remote"])]
        more = f" and {len(others) - _FEW} more" if len(others) > _FEW else ""
        where = "none" if common["namespace"] is None else f"{common['namespace']}"
        yield [
            _word(process["pid"]),
            ranges(each["descriptor"] for each in sockets),
            _word(f"{len(sockets)} {common['family']}"),
            _word(common["state"]),
            common["local"] or "-",
            ", ".join(others[:_FEW]) + more or "-",
            f"{where}, the machine's" if common["namespace"] == host else where,
        ]


def _word(short: object) -> Html:
    """A cell that isn't broken into lines; for words of our own, not for what a stranger may name."""
    return tag("td", short, css="word")


def _surroundings(report: Document) -> Iterator[Html]:
    findings = report["findings"]
    yield tag("h3", "Networks of sealed processes")
    yield table(["network", "of", "bytes sent by each interface", "routes that lead out"], (
        [each["inode"], each["place"], ", ".join(f"{name}: {sent}" for name, sent in each["interfaces"].items()) or "-",
         "; ".join(each["routes"]) or "none"] for each in findings["networks"]
    ))  # fmt: skip
    yield tag("h3", "Namespaces: the parts of the system that a process has for itself")
    yield table(["of", *_KINDS], _namespaces(findings))
    yield tag("h3", "Services of this machine that a sealed process could reach by a file path")
    yield table(["seen by", "path", "who listens", "named in the config"], (
        [each["place"], each["path"], each["owner"], "yes" if each["configured"] else tag("td", "NO", css="wrong")]
        for each in findings["host_sockets"]
    ))  # fmt: skip
    yield tag("h3", "Files of this machine that a sealed process sees, and shouldn't")
    yield table(["seen by", "path", "what it is"], (
        [each["place"], each["path"], each["source"]] for each in findings["mounts"]
    ))  # fmt: skip
    missing = [f"{place}: {part}" for place, parts in findings["missing"].items() for part in parts]
    yield tag("h3", "The machine and the settings")
    yield _pairs({
        "kernel": f"{report['kernel']}, Landlock {findings['landlock'] or 'missing'}",
        "egress mode, seal": f"{findings['mode']}, {findings['seal']}",
        "listens for callers": ", ".join(findings["listening"]) or "nowhere",
        "missing of the seal": "; ".join(missing) or "nothing",
        "appliance": f"version {report['appliance']}; this look took {report['milliseconds'] / 1000:.1f} s",
    })  # fmt: skip


def _namespaces(findings: Document) -> Iterator[list[object]]:
    host = findings["host_namespaces"]
    yield [tag("td", tag("b", "the machine")), *(host.get(kind, "hidden") for kind in _KINDS)]
    sealed = [process for process in findings["processes"] if process["role"] in SEALED]
    for common, _ in alike({"place": each["place"], **each["namespaces"]} for each in sealed):
        numbers = [common.get(kind, "hidden") for kind in _KINDS]
        shared = [
            "the machine's" if number == host.get(kind) else number
            for kind, number in zip(_KINDS, numbers, strict=True)
        ]
        yield [common["place"], *shared]


def _pairs(pairs: dict[str, Any]) -> Html:
    return tag("dl", *(part for word, value in pairs.items() for part in (tag("dt", word), tag("dd", value))))


def _proof(report: Document) -> Html:
    name = f"{report['number']:06}.json"
    return tag(
        "div",
        _pairs({
            "report": report["number"],
            "its SHA-256": tag("code", report["sha256"]),
            "the one before": tag("code", report["previous"]),
            "signed by the key": tag("b", fingerprint(report["key"])),
            "signature (Ed25519)": tag("code", report["signature"]),
        }),
        tag("p", ""),
        tag("p", "This page shows what the file ", tag("code", name), " holds; the file is the evidence. To check it: ",
            tag("code", f"appliance egress check {name} --fingerprint '{fingerprint(report['key'])}'"),
            ". Compare the fingerprint with the one noted when the appliance was installed, and the SHA-256 with the "
            "file's. The next report repeats this SHA-256: that this one was changed or taken away shows to anybody "
            "who has noted a later one."),
        css="proof",
    )  # fmt: skip
