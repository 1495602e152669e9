"""What the kernel itself tells of a process's confinement."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from appliance.seal.parts import Seal


@dataclass(frozen=True, slots=True)
class ThreadEvidence:
    """One thread as /proc shows it. `network` is its namespace's inode, None where that is hidden."""

    thread: int
    seccomp: int
    """2: under a filter."""
    filters: int
    """How many filters; each process has at least those of the one that started it."""
    no_new_privileges: int
    capabilities: int
    """Effective and permitted sets in one: 0 says that none can be used."""
    network: int | None


@dataclass(frozen=True, slots=True)
class Running:
    """One line of the kernel's process table."""

    parent: int
    started: int
    """Clock ticks since boot."""
    name: str
    """Whatever the process calls itself."""
    ended: bool = False
    """Whether it only waits to be reaped."""


def running(pid: int) -> Running:
    """What /proc tells of the process `pid`. Raises FileNotFoundError or ProcessLookupError when it is gone."""
    # a name is any bytes, cut anywhere, and may hold what looks like the end of it
    head, tail = Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(") ", 1)
    state, parent, *fields = tail.split()
    return Running(int(parent), int(fields[17]), head.split(" (", 1)[1], state in "ZX")


def process_ids() -> list[int]:
    """All processes that this one's /proc shows."""
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def evidence(pid: int | None = None) -> list[ThreadEvidence]:
    """What /proc tells of each thread of `pid`, or of this process, ascending.

    Raises FileNotFoundError when it is gone. A sealed process can't see another's network namespace.
    """
    # "self" is right also where /proc belongs to another process namespace and counts otherwise.
    tasks = Path("/proc", str(pid or "self"), "task")
    threads = sorted(int(folder.name) for folder in tasks.iterdir())
    found = []
    for thread in threads:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended since the listing
            found.append(_thread_evidence(tasks / str(thread)))
    return found


def running_threads(pid: int) -> list[ThreadEvidence]:
    """The same for a process that may have ended: none then, whether it was reaped or not."""
    try:
        return evidence(pid)
    except (FileNotFoundError, ProcessLookupError):
        return []


def _thread_evidence(folder: Path) -> ThreadEvidence:
    lines = (folder / "status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    try:
        network: int | None = (folder / "ns/net").stat().st_ino
    except PermissionError:
        network = None
    return ThreadEvidence(
        thread=int(folder.name),
        seccomp=int(fields["Seccomp"]),
        filters=int(fields.get("Seccomp_filters", "0")),  # Linux 5.9
        no_new_privileges=int(fields["NoNewPrivs"]),
        capabilities=int(fields["CapEff"], 16) | int(fields["CapPrm"], 16),
        network=network,
    )


def is_thread(value: object) -> bool:
    """Whether a JSON value is a thread's evidence."""
    if not isinstance(value, dict) or value.keys() != {field.name for field in fields(ThreadEvidence)}:
        return False
    return all(type(each) is int or (each is None and name == "network") for name, each in value.items())


def as_json(seal: Seal, threads: list[ThreadEvidence]) -> dict[str, Any]:
    """`seal` and its evidence as JSON values."""
    return {**asdict(seal), "evidence": [asdict(thread) for thread in threads]}
