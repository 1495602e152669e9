"""What Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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

from appliance.core import Request
from appliance.observe.record import Record

_FAST = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
_SLOW = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300)

_MOST_VERSIONS = 8
"""Of one model that are shown at once: the series of older ones go."""


class Observed(Protocol):
    """Something with a state per model, to be shown as metrics."""

    def states(self) -> Iterable[tuple[str, str, int, int]]:
        """(model, state, starts so far, requests in flight) for each engine."""

    def memory(self) -> Iterable[tuple[str, str, float]]:
        """(model, version, bytes of main memory) for each engine that runs."""

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
        memory = GaugeMetricFamily(
            "appliance_engine_memory_bytes", "Main memory that an engine holds.", labels=["model", "version"]
        )
        for model, version, held in self._observed.memory():
            memory.add_metric([model, version], held)
        yield from (state, starts, flight, memory, missing)
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


class _AuditCollector(Collector):
    def __init__(self, describe: Callable[[], Mapping[str, float]]) -> None:
        self._describe = describe

    def collect(self) -> Iterator[Metric]:
        now = self._describe()
        yield GaugeMetricFamily("appliance_audit_well", "1 while the audit log takes records.", value=now["well"])
        yield CounterMetricFamily("appliance_audit_records", "Records in the audit log.", value=now["records"])
        yield GaugeMetricFamily("appliance_audit_waiting", "Records that are not on disk yet.", value=now["waiting"])
        yield CounterMetricFamily(
            "appliance_audit_failures", "Attempts to write to the audit log that failed.", value=now["failures"]
        )
        yield GaugeMetricFamily(
            "appliance_audit_unsigned_seconds", "Age of the oldest record that no checkpoint signs.",
            value=now["checkpoint_age_seconds"],
        )  # fmt: skip


class _GateCollector(Collector):
    def __init__(self, describe: Callable[[], Mapping[str, float]]) -> None:
        self._describe = describe

    def collect(self) -> Iterator[Metric]:
        for what, value in self._describe().items():
            yield GaugeMetricFamily(f"appliance_gate_{what}", "What the privacy gate tells of itself.", value=value)


class _RolloutCollector(Collector):
    def __init__(self, figures: Callable[[], Iterable[tuple[str, str, str, Mapping[str, float | None]]]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """One family for each figure; a version that has none of it yet isn't shown there."""
        families = {
            name: GaugeMetricFamily(
                f"appliance_rollout_{name}", f"{about} In the rollout's window.", labels=["model", "version", "arm"]
            )
            for name, about in _ROLLOUT.items()
        }
        for model, version, arm, told in self._figures():
            for name, value in told.items():
                if value is not None:
                    families[name].add_metric([model, version, arm], value)
        yield from families.values()


_ROLLOUT = {
    "requests": "Requests that a version answered, or failed; of a shadow, copies.",
    "failures": "Those that failed.",
    "first_token_p50_seconds": "Time from its turn to the first token, median.",
    "first_token_p95_seconds": "The same, 95th percentile.",
    "token_p50_seconds": "Time between tokens, each stream's mean: median.",
    "token_p95_seconds": "The same, 95th percentile.",
    "total_p50_seconds": "End-to-end time, median.",
    "total_p95_seconds": "The same, 95th percentile.",
    "good": "Answers that callers rated `up`.",
    "bad": "Answers that callers rated `down`.",
    "agreement": "How much of a shadow's answers agrees with those given, 0 to 1.",
}


class _OutwardCollector(Collector):
    def __init__(self, describe: Mapping[str, Callable[[], Mapping[str, float]]]) -> None:
        self._describe = describe

    def collect(self) -> Iterator[Metric]:
        for name, describe in self._describe.items():
            for what, value in describe().items():
                yield GaugeMetricFamily(
                    f"appliance_audit_{name}_{what}", "What appliance/audit tells of it; docs/audit.md.", value=value
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
            "appliance_requests", "Requests by outcome.", ["model", "operation", "outcome", "version"],
            registry=self.registry,
        )  # fmt: skip
        self.refusals = Counter(
            "appliance_refusals", "Requests that got an error instead of an answer.", ["code"], registry=self.registry
        )
        self.seconds = Histogram(
            "appliance_request_seconds",
            "End-to-end time.",
            ["model", "operation", "version"],
            buckets=_SLOW,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "appliance_time_to_first_token_seconds", "Time to first token of streams.", ["model", "version"],
            buckets=_SLOW, registry=self.registry,
        )  # fmt: skip
        self.gaps = Histogram(
            "appliance_inter_token_seconds", "Time between streamed chunks.", ["model", "version"],
            buckets=_FAST, registry=self.registry,
        )  # fmt: skip
        self.tokens = Counter("appliance_tokens", "Tokens.", ["model", "kind", "version"], registry=self.registry)
        self.waits = Histogram(
            "appliance_queue_wait_seconds", "Time that requests waited for their turn on an engine.",
            ["service_class"], buckets=_SLOW, registry=self.registry,
        )  # fmt: skip
        self.shed = Counter(
            "appliance_shed", "Requests refused at once, since they would have waited too long.",
            ["model", "service_class"], registry=self.registry,
        )  # fmt: skip
        self.bursts = Counter(
            "appliance_bursts", "Requests that left the house.", ["provider", "outcome"], registry=self.registry
        )
        self.held = Counter(
            "appliance_held", "Requests that the house couldn't answer and that may not leave it.", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self.masked = Counter(
            "appliance_masked", "Values that were replaced in requests that left.", ["kind"], registry=self.registry
        )
        self.restored = Counter(
            "appliance_placeholders", "Placeholders in answers from outside: known, or made up by the model.",
            ["what"], registry=self.registry,
        )  # fmt: skip
        self.feedback = Counter(
            "appliance_feedback", "What callers said of answers, `up` or `down`.", ["model", "version", "rating"],
            registry=self.registry,
        )  # fmt: skip
        self.copies = Counter(
            "appliance_copies", "Copies of requests for a shadow, by what became of them.",
            ["model", "version", "outcome"], registry=self.registry,
        )  # fmt: skip
        self.decisions = Counter(
            "appliance_rollout_decisions", "Decisions about candidates, by hand (`host`) or by `rule`.",
            ["model", "what", "by"], registry=self.registry,
        )  # fmt: skip
        # looking labels up took longer than counting; models and operations are few, and of versions the last are kept
        self._labelled: dict[tuple[str, str, str], _Labelled] = {}
        self._versions: dict[str, dict[str, None]] = {}

    def watch(self, observed: Observed) -> None:
        """Show the states of `observed` with each scrape."""
        self.registry.register(_EngineCollector(observed))

    def watch_queues(self, standings: Callable[[], Iterable[tuple[str, str, int, float]]]) -> None:
        """Show with each scrape what `standings` yields: (model, service class, waiting, seconds the last has yet)."""
        self.registry.register(_QueueCollector(standings))

    def watch_books(self, describe: Callable[[], Mapping[str, float]]) -> None:
        """Show with each scrape how the books are, as `Bookkeeper.describe` tells."""
        self.registry.register(_BooksCollector(describe))

    def watch_audit(self, describe: Callable[[], Mapping[str, float]]) -> None:
        """Show with each scrape how the audit log is, as `Journal.describe` tells."""
        self.registry.register(_AuditCollector(describe))

    def watch_gate(self, describe: Callable[[], Mapping[str, float]]) -> None:
        """Show with each scrape how the privacy gate is, as `Guard.describe` tells."""
        self.registry.register(_GateCollector(describe))

    def watch_rollouts(self, figures: Callable[[], Iterable[tuple[str, str, str, Mapping[str, float | None]]]]) -> None:
        """Show with each scrape what `figures` tells of the versions that are compared, as `Rollouts.figures` does."""
        self.registry.register(_RolloutCollector(figures))

    def watch_outward(self, describe: Mapping[str, Callable[[], Mapping[str, float]]]) -> None:
        """Show with each scrape how shipping and timestamps are, as they themselves tell."""
        self.registry.register(_OutwardCollector(describe))

    def outside(self) -> dict[str, dict[str, int]]:
        """Since the start: requests `answered` outside by provider, `held` by reason, values `masked` by kind."""
        return {
            "answered": _counts(self.bursts, "provider", outcome="answered"),
            "held": _counts(self.held, "reason"),
            "masked": _counts(self.masked, "kind"),
        }

    def open(self, request: Request) -> Record:
        """Begin to measure a request."""
        return Record(request, self._gaps_of)

    def settle(self, record: Record) -> None:
        """Count what a request took, however it ended."""
        labelled, request = self._of(record), record.request
        self.requests.labels(request.model, request.operation.name, record.outcome, version_of(record)).inc()
        labelled.prompt.inc(record.usage.prompt_tokens)
        labelled.completion.inc(record.usage.completion_tokens)
        self.timed(record)

    def timed(self, record: Record) -> None:
        """Count how long a request took, or a copy of one, which is no request."""
        labelled = self._of(record)
        labelled.seconds.observe(record.ended - record.began)
        if record.first:
            labelled.first_token.observe(record.first - record.began)

    def rated(self, model: str, version: str, rating: str) -> None:
        """Count what a caller said of an answer."""
        self._known(model, version)
        self.feedback.labels(model, version, rating).inc()

    def copied(self, model: str, version: str, outcome: str) -> None:
        """Count a copy for a shadow."""
        self._known(model, version)
        self.copies.labels(model, version, outcome).inc()

    def _gaps_of(self, record: Record) -> Histogram:
        return self._of(record).gaps

    def _of(self, record: Record) -> _Labelled:
        model, operation, version = record.request.model, record.request.operation.name, version_of(record)
        found = self._labelled.get((model, operation, version))
        if found is None:
            self._known(model, version)
            found = self._labelled[model, operation, version] = _Labelled(
                seconds=self.seconds.labels(model, operation, version),
                first_token=self.first_token.labels(model, version),
                gaps=self.gaps.labels(model, version),
                prompt=self.tokens.labels(model, "prompt", version),
                completion=self.tokens.labels(model, "completion", version),
            )
        return found

    def _known(self, model: str, version: str) -> None:
        """Note that `version` is shown, and show no more than the last few of a model."""
        versions = self._versions.setdefault(model, {})
        versions[version] = None
        if len(versions) <= _MOST_VERSIONS:
            return
        oldest = next(iter(versions))
        del versions[oldest]
        for each in self._by_version:
            each.remove_by_labels({"model": model, "version": oldest})
        for key in [key for key in self._labelled if (key[0], key[2]) == (model, oldest)]:
            del self._labelled[key]

    @property
    def _by_version(self) -> tuple[Counter | Histogram, ...]:
        return (
            self.requests, self.seconds, self.first_token, self.gaps, self.tokens, self.feedback, self.copies,
        )  # fmt: skip

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def version_of(record: Record) -> str:
    """The label of what answered: a version of the house, `outside` for a provider, empty for nobody."""
    return record.version or ("outside" if record.provider is not None else "")


def _counts(counter: Counter, label: str, **only: str) -> dict[str, int]:
    return {
        sample.labels[label]: int(sample.value)
        for metric in counter.collect()
        for sample in metric.samples
        if all(sample.labels[name] == value for name, value in only.items())
    }
