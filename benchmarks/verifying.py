"""How long `appliance egress verify` takes, on an appliance that is idle and on one that is busy."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from appliance.config import Config, LocalModel
from appliance.errors import NotRunning
from benchmarks import load, serving
from benchmarks.terminal import say
from benchmarks.throughput import story

REACH_SECONDS = 5.0
_LOADED_SECONDS = 60.0
"""How long all streams may take to be in flight at once, before a verification begins all the same."""


@dataclass(frozen=True, slots=True)
class Verification:
    """One run of `appliance egress verify`, from the shell's point of view."""

    seconds: float
    looking_seconds: float
    """Of them, as the report says: looking, trying and judging; the rest is Python's start, the ledger, the verdict."""
    processor_seconds: float
    """Of the command and what it waited for; not of the processes it tried the seal in."""
    holds: bool
    requests: int
    """In flight just before it began, as the appliance counts them."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Verifications under one load."""

    load: str
    runs: list[Verification]

    @property
    def reached(self) -> bool:
        """Whether each was quick enough, and found the seal whole."""
        return all(run.holds and run.seconds < REACH_SECONDS for run in self.runs)


@contextlib.contextmanager
def idle_connections(port: int, key: str, count: int) -> Iterator[Callable[[], None]]:
    """Connections that have been used and are kept. Calling what it yields uses each again, so that none gets too old.

    Raises `OSError` or `HTTPException` when one can't be had.
    """
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(count)]

    def use(connection: http.client.HTTPConnection) -> None:
        connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {key}"})
        connection.getresponse().read()

    def use_all() -> None:
        for connection in connections:
            try:
                use(connection)
            except (http.client.HTTPException, ConnectionError):  # it was idle for too long
                connection.close()
                use(connection)

    try:
        yield use_all
    finally:
        for connection in connections:
            connection.close()


def verification(config: Config) -> Verification:
    """Run the command once. Raises `NotRunning` when it finds no appliance, or may not look at it."""
    requests = _in_flight(config)
    command = [sys.executable, "-m", "appliance", "egress", "verify", "--json", "--config", str(config.file)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(done.stdout or "{}")
    if "checks" not in report:
        raise NotRunning(report.get("error") or done.stderr.strip())
    for check in report["checks"]:
        if not check["holds"]:
            say(f"  ! does not hold: {check['name']}")
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return Verification(seconds, report["milliseconds"] / 1000, spent, done.returncode == 0, requests)


def _in_flight(config: Config) -> int:
    return sum(int(model.get("requests", 0)) for model in serving.status(config)["models"].values())


def verify(config: Config, count: int, streams: int, idle: int) -> list[Verified]:
    """`count` verifications of the appliance idle, and as many with so much on it. Raises `NotRunning`."""

    def runs(before_each: Callable[[], None]) -> list[Verification]:
        made = []
        for number in range(count):
            before_each()
            made.append(verification(config))
            last = made[-1]
            say(f"  verification {number + 1}/{count}: {last.seconds:.2f} s with {last.requests} requests in flight")
        return made

    with serving.appliance(config) as running:
        alone = Verified("idle", runs(lambda: None))
        port = urlsplit(running.address).port or 80
        name, model = next(iter(config.settings.models.items()))
        wanted = streams if isinstance(model, LocalModel) else 0  # requests to endpoints aren't counted
        body = story(name, 512)
        headers = {"authorization": f"Bearer {running.key}"}
        work = load.Work(port, body, headers, connections=streams, requests=10**6, seconds=3600)
        with load.under(work), idle_connections(port, running.key, idle) as use_all:

            def load_up() -> None:
                use_all()
                until = time.monotonic() + _LOADED_SECONDS
                while _in_flight(config) < wanted and time.monotonic() < until:
                    time.sleep(0.05)

            busy = Verified(f"{streams} streams, {idle} idle connections", runs(load_up))
    return [alone, busy]


def table(measured: Sequence[Verified]) -> str:
    """The verifications as Markdown."""
    lines = [
        "| load | seconds, p50 / most | of them looking and trying, p50 | processor seconds, p50 | that hold |",
        "|---|---|---|---|---|",
    ]
    for each in measured:
        seconds = [run.seconds for run in each.runs]
        looking = statistics.median(run.looking_seconds for run in each.runs)
        spent = statistics.median(run.processor_seconds for run in each.runs)
        lines.append(
            f"| {each.load} | {statistics.median(seconds):.2f} / {max(seconds):.2f} s | {looking:.2f} s "
            f"| {spent:.2f} s | {sum(run.holds for run in each.runs)} of {len(each.runs)} |"
        )
    return "\n".join(lines)
