"""One rollout while it lasts: both versions, and what is counted of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from appliance.config import Rollout
from appliance.engines.engine import Engine, State
from appliance.engines.served import Served
from appliance.observe import Record
from appliance.rollout.numbers import Numbers, Window
from appliance.rollout.ratings import Ratings
from appliance.rollout.verdict import PASSED, Quality, Verdict, verdict

_NOT_YET = Verdict("wait", "the candidate isn't ready yet")
_NOT_NOW = Verdict("wait", "within all bounds, but its engine isn't ready")


class Crashes:
    """How often an engine has failed since this was made."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        self._engine = engine
        self._before = engine.state
        engine.listeners.append(self._heard)

    def close(self) -> None:
        """Count no more."""
        self._engine.listeners.remove(self._heard)

    def _heard(self) -> None:
        before, self._before = self._before, self._engine.state
        self.count += self._engine.state is State.FAILED and before is not State.FAILED


@dataclass(slots=True)
class Trial:
    """A candidate beside what is stable. Times are seconds of a clock that never goes back."""

    name: str
    of: str
    """The rollout's digest, as the config has it."""
    rollout: Rollout
    stable: Served
    candidate: Served
    made: float
    """When this was: what was said before counts for neither."""
    crashes: Crashes | None = None
    windows: dict[Served, Window] = field(default_factory=dict)
    quality: Quality | None = None
    began: float | None = None
    """When the candidate first could answer; None before."""
    verdict: Verdict = _NOT_YET
    passed: bool = False
    """Whether it was within all bounds at its window's end, and a person is to promote it."""

    def __post_init__(self) -> None:
        if self.candidate.engine is not None:
            self.crashes = Crashes(self.candidate.engine)
        self.windows = {each: Window(self.rollout.window_seconds) for each in (self.stable, self.candidate)}

    def close(self) -> None:
        """It is over."""
        if self.crashes is not None:
            self.crashes.close()

    def count(self, record: Record, now: float, *, copy: bool = False) -> Numbers | None:
        """Count a request, or a copy, where one of the two was to answer it; give what it was counted in."""
        base, _, _ = record.version.partition("+")  # after it stands an adapter
        # a shadow may be of the very version that serves: what isn't a copy was answered by that
        arms = (self.candidate,) if copy else (self.stable, self.candidate)
        served = next((each for each in arms if each.version == base), None)
        request = record.request
        if served is None or not (request.most_prompt_tokens or request.most_completion_tokens):
            return None
        numbers = self.windows[served].at(now)
        numbers.refused += record.outcome == "refused"
        if record.outcome not in ("answered", "failed"):
            return numbers
        numbers.requests += 1
        numbers.prompt_tokens += record.usage.prompt_tokens
        numbers.completion_tokens += record.usage.completion_tokens
        if record.outcome == "failed":
            numbers.failures += 1
            return numbers
        numbers.total.add(record.ended - record.began)
        if record.first:
            numbers.first_token.add(record.first - record.turned)
        if record.gap is not None:
            numbers.token.add(record.gap)
        return numbers

    def numbers(self, served: Served, ratings: Ratings, now: float) -> Numbers:
        """Those of the window that ends now."""
        numbers = self.windows[served].sums(now)
        since = max(self.made, now - self.rollout.window_seconds)
        numbers.good, numbers.bad = ratings.sums(self.name, served.version, since)
        return numbers

    def judge(self, ratings: Ratings, now: float) -> Verdict:
        """What is to be done, by what was seen until now."""
        self.verdict = verdict(
            self.rollout,
            self.numbers(self.stable, ratings, now),
            self.numbers(self.candidate, ratings, now),
            now - self.began if self.began is not None else 0.0,
            crashes=self.crashes.count if self.crashes is not None else 0,
            quality=self.quality,
            passed=self.passed,
        )
        self.passed = self.verdict is PASSED
        if self.verdict.action == "promote" and not self.candidate.ready:
            self.verdict = _NOT_NOW
        if self.began is None and self.verdict.action == "wait":
            self.verdict = _NOT_YET
        return self.verdict

    def describe(self, ratings: Ratings, now: float) -> dict[str, Any]:
        """What `appliance rollout` shows of it."""
        rollout = self.rollout
        return {
            "mode": rollout.mode, "percent": rollout.percent, "by": rollout.by, "promote": rollout.promote,
            "elapsed_seconds": 0.0 if self.began is None else round(now - self.began, 1),
            "window_seconds": rollout.window_seconds, "least_requests": rollout.least_requests,
            "verdict": self.verdict.reason,
            "stable": _shown(self.stable, self.numbers(self.stable, ratings, now)),
            "candidate": _shown(self.candidate, self.numbers(self.candidate, ratings, now)),
        }  # fmt: skip


def _shown(served: Served, numbers: Numbers) -> dict[str, Any]:
    return {
        "version": served.version,
        "state": str(served.engine.state) if served.engine is not None else "endpoint",
        **numbers.figures,
        "refused": numbers.refused, "compared": numbers.compared,
        "prompt_tokens": numbers.prompt_tokens, "completion_tokens": numbers.completion_tokens,
    }  # fmt: skip
