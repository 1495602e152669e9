"""What was seen of each request, and whether that is good enough. Pure: no clock, no socket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from appliance.config import Objectives


@dataclass(slots=True)
class Measured:
    """One request as its caller saw it. `started` is the time of day (`time.time`), the rest in milliseconds."""

    user: int
    turn: int
    language: str
    started: float
    status: int = 0
    """0: there was no answer at all."""
    error: str = ""
    first_token_ms: float = 0.0
    gaps_ms: list[float] = field(default_factory=list)
    """Between one piece of content and the next; one fewer than there were pieces."""
    end_to_end_ms: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0

    @property
    def mean_gap_ms(self) -> float:
        """Mean time between the answer's tokens; 0 of a single one. A piece may hold more than one token."""
        return sum(self.gaps_ms) / max(1, self.tokens - 1)

    def missed(self, objectives: Objectives) -> list[str]:
        """The objectives that this request missed: `failed`, or any of the three times."""
        if self.error:
            return ["failed"]
        held = {
            "time_to_first_token_ms": self.first_token_ms,
            "inter_token_latency_ms": self.mean_gap_ms,
            "end_to_end_ms": self.end_to_end_ms,
        }
        return [name for name, value in held.items() if value > getattr(objectives, name)]


@dataclass(frozen=True, slots=True)
class Spread:
    """How figures are spread; all 0 when there are none."""

    p50: float
    p95: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of `values`."""
        ranked = sorted(values)
        if not ranked:
            return cls(0, 0, 0, 0)
        last = len(ranked) - 1
        p50, p95, p99 = (ranked[min(last, int(share * len(ranked)))] for share in (0.5, 0.95, 0.99))
        return cls(p50, p95, p99, ranked[last])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to. `share` is the part of all requests that met every objective, failures included."""

    requests: int
    failed: int
    share: float
    seconds: float
    tokens: int
    tokens_per_second: float
    first_token_ms: Spread
    gap_ms: Spread
    """Of every single gap."""
    mean_gap_ms: Spread
    """Of each request's mean gap, which is what the objective is about."""
    end_to_end_ms: Spread
    within: dict[str, float]
    """For each objective on time, the share of all requests that met it."""
    errors: dict[str, int]
    met: bool

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def judge(run: Sequence[Measured], objectives: Objectives) -> Verdict:
    """Hold a run against its objectives. A run without a request has missed them."""
    missed = [each.missed(objectives) for each in run]
    good = [each for each in run if not each.error]
    count = max(1, len(run))
    share = sum(not misses for misses in missed) / count
    began = min((each.started for each in run), default=0.0)
    seconds = max((each.started + each.end_to_end_ms / 1000 for each in run), default=0.0) - began
    tokens = sum(each.tokens for each in good)
    rate = tokens / seconds if seconds else 0.0
    errors: dict[str, int] = {}
    for each in run:
        if each.error:
            errors[each.error] = errors.get(each.error, 0) + 1
    return Verdict(
        requests=len(run),
        failed=len(run) - len(good),
        share=share,
        seconds=seconds,
        tokens=tokens,
        tokens_per_second=rate,
        first_token_ms=Spread.of(each.first_token_ms for each in good),
        gap_ms=Spread.of(gap for each in good for gap in each.gaps_ms),
        mean_gap_ms=Spread.of(each.mean_gap_ms for each in good),
        end_to_end_ms=Spread.of(each.end_to_end_ms for each in good),
        within={
            name: sum(not {name, "failed"} & set(misses) for misses in missed) / count
            for name in ("time_to_first_token_ms", "inter_token_latency_ms", "end_to_end_ms")
        },
        errors=errors,
        met=bool(run) and share >= objectives.share and rate >= objectives.tokens_per_second,
    )


def tokens_over_time(run: Sequence[Measured], *, bin_seconds: float) -> list[tuple[float, float]]:
    """(seconds into the run, output tokens per second) for each bin of time, oldest first."""
    good = [each for each in run if each.gaps_ms or each.tokens]
    if not good:
        return []
    began = min(each.started for each in run)
    bins: dict[int, float] = {}
    for each in good:
        at = each.started - began + each.first_token_ms / 1000
        weight = each.tokens / (len(each.gaps_ms) + 1)
        for gap in (0.0, *each.gaps_ms):
            at += gap / 1000
            bins[int(at / bin_seconds)] = bins.get(int(at / bin_seconds), 0.0) + weight
    return [((slot + 0.5) * bin_seconds, bins.get(slot, 0.0) / bin_seconds) for slot in range(max(bins) + 1)]
