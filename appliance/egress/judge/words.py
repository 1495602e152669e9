"""What all rules speak of, in the same words."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.egress.findings import DIALLER, KEEPER, SEALED, Check, Findings, Process

RESTART = "stop the appliance, keep this report, and find out what did it before you start it again"
TELL_MAKERS = "this is a fault of the appliance; keep this report and tell its makers"

Wrong = Iterator[str]
"""One line for each violation."""


def check(name: str, title: str, seen: str, wrong: Wrong) -> Check:
    """A check that holds when nothing is wrong."""
    violations = list(dict.fromkeys(wrong))
    return Check(name, title, not violations, seen, violations)


def who(process: Process) -> str:
    """A process as a violation names it."""
    return f"{process.place}, process {process.pid} ({process.command})"


def count(number: int, noun: str) -> str:
    """`1 process`, `2 processes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"


def sealed(findings: Findings) -> list[Process]:
    """The processes that live under a seal."""
    return [process for process in findings.processes if process.role in SEALED]


def is_engine(place: str) -> bool:
    """Whether a place is an engine's."""
    return place.startswith("engine ")


def is_dialler(process: Process) -> bool:
    """Whether a process looks up names and connects for the outlet, under a seal of its own."""
    return process.role == "trusted" and process.place == DIALLER


def is_keeper(process: Process) -> bool:
    """Whether a process keeps an engine."""
    return process.role == "trusted" and process.place.startswith(KEEPER)


def engines(findings: Findings) -> list[str]:
    """Places of engines: those that are kept, those that run, and those that were probed."""
    kept = [process.place.removeprefix(KEEPER) for process in findings.processes if is_keeper(process)]
    running = [process.place for process in findings.processes if process.role == "engine"]
    probed = [probe.place for probe in findings.probes if is_engine(probe.place)]
    return list(dict.fromkeys([*kept, *running, *probed]))
