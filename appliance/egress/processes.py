"""Every process of the running appliance, what it is, and what the kernel says confines it.

Parents are the kernel's word: whoever starts something here adopts what that leaves behind, so it stays below the
gateway. What escapes the tree all the same is known by the namespaces that it lives in.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from appliance.egress import sockets
from appliance.egress.findings import KEEPER, SEALED, TEMPLATE, WAITING, Process, Role
from appliance.egress.started import Known
from appliance.seal.evidence import Running, ThreadEvidence, process_ids, running, running_threads

KINDS = ("net", "mnt", "pid", "ipc", "user")
_PROC = Path("/proc")
_LONGEST_COMMAND = 200
_TRIES = 5
_KNOWN: dict[str, tuple[Role, str]] = {
    "outlet": ("outlet", "outlet"), "gate": ("gate", "gate"), TEMPLATE: ("gate", "gate"),
}  # fmt: skip
"""What was started before the seal and has one of its own that holds it like the gateway."""


def look(gateway: int, places: Mapping[int, str], trusted: Mapping[int, Known], trouble: list[str]) -> list[Process]:
    """Every process of the appliance whose gateway is the process `gateway`, ascending.

    `places` says whose keeper a process is (`engine chat`), `trusted` what was started before the seal. What ends
    meanwhile is left out. What may not be looked at is a line in `trouble`.
    """
    table, threads = _family(gateway)
    named = roles(gateway, places, trusted, {pid: table[pid] for pid in threads}, threads, os.getpid())
    seen = {pid: namespaces(pid, threads[pid][0].thread) for pid in threads}
    ours = {space for pid in named if named[pid][0] in SEALED for space in seen[pid].items()}
    for pid, spaces in _intruders(ours, threads.keys(), table):
        if found := running_threads(pid):
            threads[pid], seen[pid], named[pid] = found, spaces, ("stray", "in a namespace of the appliance's")
    held = sockets.opened(threads, trouble)
    processes = []
    for pid in sorted(threads):
        command, user = _command(pid, table[pid].name), _user(pid)
        if user is None or pid not in held:
            continue
        hidden = [kind for kind in KINDS if kind not in seen[pid]]
        if hidden and not running_threads(pid):
            continue
        if hidden:
            trouble.append(
                f"process {pid} ({command}): its namespaces ({', '.join(hidden)}) may not be read; "
                f"verify as root, or as user {user}"
            )
        role, place = named[pid]
        processes.append(
            Process(
                pid=pid, parent=table[pid].parent, started=table[pid].started, role=role, place=place, command=command,
                user=user, namespaces=seen[pid], threads=threads[pid], sockets=held[pid],
            )
        )  # fmt: skip
    return processes


def roles(
    gateway: int,
    places: Mapping[int, str],
    trusted: Mapping[int, Known],
    table: Mapping[int, Running],
    threads: Mapping[int, list[ThreadEvidence]],
    verifier: int,
) -> dict[int, tuple[Role, str]]:
    """What each process of `table` is, and its place, to the process `verifier`, which verifies.

    Pure; a parent comes before its children in `table`.
    """
    named: dict[int, tuple[Role, str]] = {}
    for pid, process in table.items():
        parent = process.parent
        known = trusted.get(pid)
        match named.get(parent):
            case _ if pid == gateway:
                named[pid] = ("gateway", "gateway")
            case _ if known is not None and known.ticks == process.started:
                named[pid] = _KNOWN.get(known.does, ("trusted", known.does))
            case ("gateway" | "outlet" | "engine" | "prober", _) as inherited:
                named[pid] = inherited
            case ("gate", _) if parent in trusted and trusted[parent].does == TEMPLATE:
                named[pid] = ("gate", "gate")  # a detector, or what tries the seal from inside; nobody else forks there
            case ("trusted", "nursery") if _filters(threads[pid]) == _filters(threads[parent]):
                # What the nursery forks keeps an engine. One with a filter is an engine's, which lost its keeper.
                named[pid] = ("trusted", KEEPER + places.get(pid, f"engine of process {pid}"))
            case ("trusted", "witness") if pid == verifier:
                named[pid] = ("prober", "witness")
            case ("trusted", "witness"):  # waits until another verification is done
                named[pid] = ("trusted", WAITING)
            case ("trusted", does) if does.startswith(KEEPER):
                named[pid] = ("engine", does.removeprefix(KEEPER))
            case _:
                named[pid] = ("stray", f"below process {parent}")
    return named


def namespaces(pid: int | str = "self", thread: int | None = None) -> dict[str, int]:
    """Inodes of the namespaces of a process, or of one thread of it, by kind; what may not be read is absent."""
    folder = _PROC / str(pid) / (f"task/{thread}/ns" if thread is not None else "ns")
    found = {}
    for kind in KINDS:
        with contextlib.suppress(OSError):
            found[kind] = (folder / kind).stat().st_ino
    return found


def _family(gateway: int) -> tuple[dict[int, Running], dict[int, list[ThreadEvidence]]]:
    """The process table, and the threads of the gateway and all below it, parents first."""
    for _ in range(_TRIES):
        table = _table()
        threads = {pid: found for pid in _below(gateway, table) if (found := running_threads(pid))}
        # Where a parent ended meanwhile, its children have another by now.
        if all(pid == gateway or table[pid].parent in threads for pid in threads):
            break
    return table, threads


def _table() -> dict[int, Running]:
    table = {}
    for pid in process_ids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            table[pid] = running(pid)
    return table


def _below(top: int, table: Mapping[int, Running]) -> list[int]:
    """`top` and all below it, parents first."""
    children: dict[int, list[int]] = {}
    for pid, process in table.items():
        children.setdefault(process.parent, []).append(pid)
    found = [top] if top in table else []
    for pid in found:  # grows while it is walked
        found += children.get(pid, [])
    return found


def _intruders(
    ours: set[tuple[str, int]], accounted: Collection[int], table: Mapping[int, Running]
) -> Iterator[tuple[int, dict[str, int]]]:
    """Processes outside the tree that live in a namespace which is the appliance's and not the host's."""
    closed = {space for space in ours - set(namespaces().items()) if space[0] != "user"}
    for pid in table.keys() - set(accounted) if closed else ():
        for spaces in _of_threads(pid):
            if closed & set(spaces.items()):
                yield pid, spaces
                break


def _of_threads(pid: int) -> Iterator[dict[str, int]]:
    """The namespaces of each thread of a process: each may have entered others."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for folder in (_PROC / str(pid) / "task").iterdir():
            yield namespaces(pid, int(folder.name))


def _filters(threads: list[ThreadEvidence]) -> int:
    return max(thread.filters for thread in threads)


def _command(pid: int, name: str) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    line = " ".join(word.decode(errors="replace") for word in words if word) or f"[{name}]"
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:_LONGEST_COMMAND]


def _user(pid: int) -> int | None:
    """The real user; None when the process has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
    return None
