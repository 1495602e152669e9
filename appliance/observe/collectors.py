"""What is asked for with each scrape, of those who know it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


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


class Engines(Collector):
    """How engines and the seal are."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
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


class Queues(Collector):
    """Who waits in front of them."""

    def __init__(self, standings: Callable[[], Iterable[tuple[str, str, int, float]]]) -> None:
        self._standings = standings

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        labels = ["model", "service_class"]
        length = GaugeMetricFamily("appliance_queue_length", "Requests that wait for their turn.", labels=labels)
        seconds = GaugeMetricFamily(
            "appliance_queue_expected_seconds", "How long the last of them has yet to wait.", labels=labels
        )
        for model, service_class, waiting, expected in self._standings():
            length.add_metric([model, service_class], waiting)
            seconds.add_metric([model, service_class], expected)
        yield from (length, seconds)


class Books(Collector):
    """How the books are."""

    def __init__(self, describe: Callable[[], Mapping[str, float]]) -> None:
        self._describe = describe

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        now = self._describe()
        yield GaugeMetricFamily("appliance_books_well", "1 while the store takes entries.", value=now["well"])
        yield GaugeMetricFamily(
            "appliance_books_waiting", "Entries that are not in the store yet.", value=now["waiting"]
        )
        yield CounterMetricFamily(
            "appliance_books_failures", "Attempts to write to the store that failed.", value=now["failures"]
        )


class Audit(Collector):
    """How the audit log is."""

    def __init__(self, describe: Callable[[], Mapping[str, float]]) -> None:
        self._describe = describe

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
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


class Gate(Collector):
    """How the privacy gate is."""

    def __init__(self, describe: Callable[[], Mapping[str, float]]) -> None:
        self._describe = describe

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        for what, value in self._describe().items():
            yield GaugeMetricFamily(f"appliance_gate_{what}", "What the privacy gate tells of itself.", value=value)


class Rollouts(Collector):
    """The versions that are compared."""

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


class Outward(Collector):
    """How shipping and timestamps are."""

    def __init__(self, describe: Mapping[str, Callable[[], Mapping[str, float]]]) -> None:
        self._describe = describe

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        for name, describe in self._describe.items():
            for what, value in describe().items():
                yield GaugeMetricFamily(
                    f"appliance_audit_{name}_{what}", "What appliance/audit tells of it; docs/audit.md.", value=value
                )
