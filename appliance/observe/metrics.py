"""What Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from appliance.core import Request
from appliance.observe import collectors
from appliance.observe.record import Record

_FAST = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
_SLOW = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300)

_MOST_VERSIONS = 8
"""Of one model that are shown at once: the series of older ones go."""


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

    def watch(self, observed: collectors.Observed) -> None:
        """Show the states of `observed` with each scrape."""
        self.registry.register(collectors.Engines(observed))

    def watch_queues(self, standings: Callable[[], Iterable[tuple[str, str, int, float]]]) -> None:
        """Show with each scrape what `standings` yields: (model, service class, waiting, seconds the last has yet)."""
        self.registry.register(collectors.Queues(standings))

    def watch_books(self, describe: Callable[[], Mapping[str, float]]) -> None:
        """Show with each scrape how the books are, as `Bookkeeper.describe` tells."""
        self.registry.register(collectors.Books(describe))

    def watch_audit(self, describe: Callable[[], Mapping[str, float]]) -> None:
        """Show with each scrape how the audit log is, as `Journal.describe` tells."""
        self.registry.register(collectors.Audit(describe))

    def watch_gate(self, describe: Callable[[], Mapping[str, float]]) -> None:
        """Show with each scrape how the privacy gate is, as `Guard.describe` tells."""
        self.registry.register(collectors.Gate(describe))

    def watch_rollouts(self, figures: Callable[[], Iterable[tuple[str, str, str, Mapping[str, float | None]]]]) -> None:
        """Show with each scrape what `figures` tells of the versions that are compared, as `Rollouts.figures` does."""
        self.registry.register(collectors.Rollouts(figures))

    def watch_outward(self, describe: Mapping[str, Callable[[], Mapping[str, float]]]) -> None:
        """Show with each scrape how shipping and timestamps are, as they themselves tell."""
        self.registry.register(collectors.Outward(describe))

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
        self._known(request.model, version_of(record))
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
        """Note that `version` answers now, and show no more than the last few of a model that did."""
        versions = self._versions.setdefault(model, {})
        versions.pop(version, None)
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
