"""Logs and metrics. Neither ever holds a prompt, an answer, a personal name or a key."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from appliance.core import Caller, Request, Usage
from appliance.errors import Refused

_LOG_BYTES = 64 * 2**20
_FLUSH_SECONDS = 0.5
_FAST = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
_SLOW = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300)


class Record:
    """What is measured of one request while it runs. Times are `time.perf_counter` seconds."""

    __slots__ = ("_gaps", "began", "dispatched", "first", "last", "outcome", "request", "status", "usage")

    def __init__(self, request: Request, gaps: Histogram) -> None:
        self.request = request
        self.began = time.perf_counter()
        self.first = 0.0
        self.last = 0.0
        self.status = 500
        self.outcome = "failed"
        self.dispatched = False
        """Whether an engine was asked and did not refuse."""
        self.usage = Usage()
        self._gaps = gaps

    def token(self) -> None:
        """Tokens have just passed to the caller."""
        now = time.perf_counter()
        if self.last:
            self._gaps.observe(now - self.last)
        else:
            self.first = now
        self.last = now


class Observed(Protocol):
    """Something with a state per model, to be shown as metrics."""

    def states(self) -> Iterable[tuple[str, str, int, int]]:
        """(model, state, starts so far, requests in flight) for each engine."""

    def missing(self) -> Iterable[tuple[str, int]]:
        """(place, number of missing parts) for each place that should be sealed."""

    def proof(self) -> tuple[bool, float] | None:
        """Whether the last verification of the seal holds, and when it was (seconds since 1970); None before it."""

    def failures(self) -> int:
        """Verifications of the seal so far that did not hold."""


class _EngineCollector(Collector):
    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "appliance_engine_state", "1 for the state an engine is in.", labels=["model", "state"]
        )
        starts = GaugeMetricFamily("appliance_engine_starts", "Starts of a model's engine so far.", labels=["model"])
        flight = GaugeMetricFamily("appliance_requests_in_flight", "Requests on an engine.", labels=["model"])
        for model, now, count, requests in self._observed.states():
            state.add_metric([model, now], 1)
            starts.add_metric([model], count)
            flight.add_metric([model], requests)
        missing = GaugeMetricFamily("appliance_seal_missing", "Parts that a seal lacks.", labels=["place"])
        for place, parts in self._observed.missing():
            missing.add_metric([place], parts)
        yield from (state, starts, flight, missing)
        # without labels, so that it is there from the start: one that appears as 1 has not increased for Prometheus
        yield CounterMetricFamily(
            "appliance_egress_failures", "Verifications of the seal that did not hold.", value=self._observed.failures()
        )
        if proof := self._observed.proof():
            yield GaugeMetricFamily("appliance_egress_holds", "1 while the last verification holds.", value=proof[0])
            yield GaugeMetricFamily(
                "appliance_egress_verified_timestamp_seconds", "When the seal was last verified.", value=proof[1]
            )


class _QueueCollector(Collector):
    def __init__(self, standings: Callable[[], Iterable[tuple[str, str, int, float]]]) -> None:
        self._standings = standings

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "service_class"]
        length = GaugeMetricFamily("appliance_queue_length", "Requests that wait for their turn.", labels=labels)
        seconds = GaugeMetricFamily(
            "appliance_queue_expected_seconds", "How long the last of them has yet to wait.", labels=labels
        )
        for model, service_class, waiting, expected in self._standings():
            length.add_metric([model, service_class], waiting)
            seconds.add_metric([model, service_class], expected)
        yield from (length, seconds)


class _BooksCollector(Collector):
    def __init__(self, describe: Callable[[], Mapping[str, float]]) -> None:
        self._describe = describe

    def collect(self) -> Iterator[Metric]:
        now = self._describe()
        yield GaugeMetricFamily("appliance_books_well", "1 while the store takes entries.", value=now["well"])
        yield GaugeMetricFamily(
            "appliance_books_waiting", "Entries that are not in the store yet.", value=now["waiting"]
        )
        yield CounterMetricFamily(
            "appliance_books_failures", "Attempts to write to the store that failed.", value=now["failures"]
        )


@dataclass(frozen=True, slots=True)
class _Labelled:
    """The metrics of one operation on one model."""

    seconds: Histogram
    first_token: Histogram
    gaps: Histogram
    prompt: Counter
    completion: Counter


class Metrics:
    """The appliance's Prometheus metrics; one object per appliance, never a module global."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the page and tell nothing here
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "appliance_requests", "Requests by outcome.", ["model", "operation", "outcome"], registry=self.registry
        )
        self.refusals = Counter(
            "appliance_refusals", "Requests that got an error instead of an answer.", ["code"], registry=self.registry
        )
        self.seconds = Histogram(
            "appliance_request_seconds",
            "End-to-end time.",
            ["model", "operation"],
            buckets=_SLOW,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "appliance_time_to_first_token_seconds", "Time to first token of streams.", ["model"],
            buckets=_SLOW, registry=self.registry,
        )  # fmt: skip
        self.gaps = Histogram(
            "appliance_inter_token_seconds", "Time between streamed chunks.", ["model"],
            buckets=_FAST, registry=self.registry,
        )  # fmt: skip
        self.tokens = Counter("appliance_tokens", "Tokens.", ["model", "kind"], registry=self.registry)
        self.waits = Histogram(
            "appliance_queue_wait_seconds", "Time that requests waited for their turn on an engine.",
            ["service_class"], buckets=_SLOW, registry=self.registry,
        )  # fmt: skip
        self.shed = Counter(
            "appliance_shed", "Requests refused at once, since they would have waited too long.",
            ["model", "service_class"], registry=self.registry,
        )  # fmt: skip
        # looking labels up took longer than counting; models and operations are few, so all are kept
        self._labelled: dict[tuple[str, str], _Labelled] = {}

    def watch(self, observed: Observed) -> None:
        """Show the states of `observed` with each scrape."""
        self.registry.register(_EngineCollector(observed))

    def watch_queues(self, standings: Callable[[], Iterable[tuple[str, str, int, float]]]) -> None:
        """Show with each scrape what `standings` yields: (model, service class, waiting, seconds the last has yet)."""
        self.registry.register(_QueueCollector(standings))

    def watch_books(self, describe: Callable[[], Mapping[str, float]]) -> None:
        """Show with each scrape how the books are, as `Bookkeeper.describe` tells."""
        self.registry.register(_BooksCollector(describe))

    def open(self, request: Request) -> Record:
        """Begin to measure a request."""
        return Record(request, self._of(request).gaps)

    def settle(self, record: Record) -> None:
        """Count what a request took, however it ended."""
        labelled = self._of(record.request)
        self.requests.labels(record.request.model, record.request.operation.name, record.outcome).inc()
        labelled.seconds.observe(time.perf_counter() - record.began)
        if record.first:
            labelled.first_token.observe(record.first - record.began)
        labelled.prompt.inc(record.usage.prompt_tokens)
        labelled.completion.inc(record.usage.completion_tokens)

    def _of(self, request: Request) -> _Labelled:
        model, operation = request.model, request.operation.name
        found = self._labelled.get((model, operation))
        if found is None:
            found = self._labelled[model, operation] = _Labelled(
                seconds=self.seconds.labels(model, operation),
                first_token=self.first_token.labels(model),
                gaps=self.gaps.labels(model),
                prompt=self.tokens.labels(model, "prompt"),
                completion=self.tokens.labels(model, "completion"),
            )
        return found

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Rotating(logging.handlers.RotatingFileHandler):
    """Writes through no link, neither as the file nor as its folder: one may have been planted to lead elsewhere."""

    def _open(self) -> TextIOWrapper:
        return os.fdopen(_open_plain(Path(self.baseFilename)), "a", encoding=self.encoding)


def _open_plain(path: Path) -> int:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(path.name, flags, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    if os.fstat(file).st_nlink != 1:
        os.close(file)
        raise OSError(errno.EMLINK, "has more than one name; remove it", str(path))
    return file


class AccessLog:
    """One JSON line per request, in a file that rotates at 64 MiB.

    Lines are written twice a second: a write for each request would take longer than making the line. What
    must not be lost belongs in the audit log, not here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handler = _Rotating(folder / "requests.log", maxBytes=_LOG_BYTES, backupCount=8, encoding="utf-8")
        self._lines: list[str] = []

    def write(self, record: Record) -> None:
        """Note how a request went."""
        now = time.perf_counter()
        request = record.request
        self._add(
            {
                "time": round(time.time(), 3),
                "request": request.id,
                "key": request.caller.key_id,
                "model": request.model,
                "operation": request.operation.name,
                "outcome": record.outcome,
                "status": record.status,
                "prompt_tokens": record.usage.prompt_tokens,
                "completion_tokens": record.usage.completion_tokens,
                "first_token_ms": round((record.first - record.began) * 1000, 1) if record.first else None,
                "total_ms": round((now - record.began) * 1000, 1),
            }
        )

    def refused(self, id_: str, caller: Caller | None, operation: str | None, refusal: Refused) -> None:
        """Note a request that was refused before it was known to be one for a model."""
        self._add(
            {
                "time": round(time.time(), 3),
                "request": id_,
                "key": caller.key_id if caller is not None else None,
                "operation": operation,
                "outcome": "refused",
                "status": refusal.status,
                "code": refusal.code,
                "reason": refusal.reason,
            }
        )

    def _add(self, line: dict[str, object]) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
        self._lines.append(json.dumps(line))

    def flush(self) -> None:
        """Write the lines that wait."""
        lines, self._lines = self._lines, []
        if lines:
            self._handler.emit(logging.LogRecord("requests", logging.INFO, "", 0, "\n".join(lines), None, None))

    def close(self) -> None:
        """Write what waits and close the file."""
        self.flush()
        self._handler.close()


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        mark = {"WARNING": "! ", "ERROR": "✗ ", "CRITICAL": "✗ "}.get(record.levelname, "  ")
        return f"{mark}{record.getMessage()}"


def log_to(folder: Path, *, console: bool = True) -> None:
    """Send the appliance's own log to `folder`/appliance.log with times, and to standard error without."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = _Rotating(folder / "appliance.log", maxBytes=16 * 2**20, backupCount=4, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger("appliance")
    root.setLevel(logging.INFO)
    root.handlers = [file]
    if console:
        screen = logging.StreamHandler(sys.stderr)
        screen.setLevel(logging.WARNING)
        screen.setFormatter(_Plain())
        root.handlers.append(screen)
    root.propagate = False
    # what the server would say of a request is said by us, without a traceback that could hold a prompt
    server = logging.getLogger("uvicorn")
    server.handlers, server.propagate = [logging.NullHandler()], False
