"""Whether a candidate takes over, goes, or is tried for longer. Pure.

Before the window's end it goes only if it is clearly worse: if it kept within the bounds, fewer than one of a hundred
such windows would come to that at any of its looks. One failure of three is no proof, three of three are. At the
window's end the bounds themselves decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from appliance.config import Rollout
from appliance.rollout.confidence import least, most
from appliance.rollout.numbers import Numbers, Times

_DOUBT = 0.001
"""How likely it may be that one share was ever believed to lie elsewhere. Nine are looked at: below 0.01 in all."""
_OF_TIMES = _DOUBT / 320
"""The same for shares of times, since any class from 1 ms to 300 s may come to be the one that they are parted at."""
_LEAST = 20
"""Of fewer times or ratings there is no 95th percentile, and no share."""
_MOST_CRASHES = 3
_UNSEEN = 0.5
"""Of what little was seen of, no larger share is presumed than this, or than was seen."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Percent of the golden cases that each passed at its gate, and by how much less the candidate may."""

    stable: float
    candidate: float
    less: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a candidate, and why, in words for an administrator."""

    action: Literal["promote", "drop", "wait"]
    reason: str


PASSED = Verdict("wait", "within all bounds at the window's end: appliance rollout promote")
"""Of one that a person is to promote."""


def verdict(
    rollout: Rollout,
    stable: Numbers,
    candidate: Numbers,
    elapsed: float,
    *,
    crashes: int = 0,
    quality: Quality | None = None,
    passed: bool = False,
) -> Verdict:
    """Judge `candidate` by what was seen of both in the last `elapsed` seconds, `rollout.window_seconds` at most.

    `crashes`: how often its engine failed. `passed`: it came to `PASSED` before, and while it waits for somebody, no
    chance is to carry it over a bound. In the modes `ab` and `blue-green` nothing but crashes is judged.
    """
    if crashes >= _MOST_CRASHES:
        return Verdict("drop", f"its engine failed {crashes} times")
    if rollout.mode == "ab":
        return Verdict("wait", "a person decides: appliance rollout promote, or drop")
    if rollout.mode == "blue-green":
        return Verdict("wait", "it stands by: appliance rollout promote, or drop")
    for reason in _clearly_worse(rollout, stable, candidate):
        return Verdict("drop", reason)
    if passed:
        return PASSED
    if elapsed < rollout.window_seconds:
        return Verdict("wait", f"within bounds after {elapsed:.0f} of {rollout.window_seconds:g} s")
    if candidate.requests < rollout.least_requests:
        what = "got copies of" if rollout.mode == "shadow" else "answered"
        return Verdict("wait", f"it has {what} {candidate.requests} of at least {rollout.least_requests} requests")
    if rollout.bounds.agreement_percent is not None and rollout.mode == "shadow" and not candidate.compared:
        return Verdict("wait", "none of its answers could be compared yet")
    for reason in _out_of_bounds(rollout, stable, candidate, quality):
        return Verdict("drop", reason)
    if rollout.promote == "manual":
        return PASSED
    return Verdict("promote", f"within all bounds over {rollout.window_seconds:g} s and {candidate.requests} requests")


def _clearly_worse(rollout: Rollout, stable: Numbers, candidate: Numbers) -> Iterator[str]:
    bounds = rollout.bounds
    before = _presumed(stable.failures, stable.requests)
    if least(candidate.failures, candidate.requests, _DOUBT) > before + bounds.errors_percent_more / 100:
        yield _failures(stable, candidate)
    for what, old, new, times in _times(rollout, stable, candidate):
        if (slowest := old.quantile(0.95)) is not None:
            late = new.over(times * slowest)
            if least(late, new.count, _OF_TIMES) > most(old.over(slowest), old.count, _OF_TIMES):
                yield f"{late} of its {new.count} {what} took over {times:g} times the old one's 95th percentile"
    before = _presumed(stable.bad, stable.good + stable.bad)
    if least(candidate.bad, candidate.good + candidate.bad, _DOUBT) > before + bounds.feedback_percent_less / 100:
        yield _feedback(stable, candidate)
    wanted = bounds.agreement_percent
    if wanted is not None and most(candidate.agreed, candidate.compared, _DOUBT) < wanted / 100:
        yield _agreement(candidate, wanted)


def _out_of_bounds(rollout: Rollout, stable: Numbers, candidate: Numbers, quality: Quality | None) -> Iterator[str]:
    bounds = rollout.bounds
    if _percent(candidate.failures, candidate.requests) > (
        _percent(stable.failures, stable.requests) + bounds.errors_percent_more
    ):
        yield _failures(stable, candidate)
    for what, old, new, times in _times(rollout, stable, candidate):
        before, now = old.quantile(0.95), new.quantile(0.95)
        if min(old.count, new.count) >= _LEAST and before is not None and now is not None and now > times * before:
            yield f"its {what} took {now * 1000:.0f} ms at the 95th percentile, the old one's {before * 1000:.0f} ms"
    rated, rated_before = candidate.good + candidate.bad, stable.good + stable.bad
    if min(rated, rated_before) >= _LEAST and _percent(candidate.good, rated) < (
        _percent(stable.good, rated_before) - bounds.feedback_percent_less
    ):
        yield _feedback(stable, candidate)
    wanted, agreed = bounds.agreement_percent, candidate.agreement
    if wanted is not None and agreed is not None and agreed < wanted / 100:
        yield _agreement(candidate, wanted)
    if quality is not None and quality.candidate < quality.stable - quality.less:
        yield f"{quality.candidate:.0f} % of the golden cases passed, of the old one's {quality.stable:.0f} %"


def _times(rollout: Rollout, stable: Numbers, candidate: Numbers) -> Iterator[tuple[str, Times, Times, float]]:
    bounds = rollout.bounds
    yield "first tokens", stable.first_token, candidate.first_token, bounds.first_token_times
    yield "tokens", stable.token, candidate.token, bounds.token_times


def _presumed(hits: int, trials: int) -> float:
    """The largest share that the old one may have."""
    return min(most(hits, trials, _DOUBT), max(_UNSEEN, hits / trials if trials else 0.0))


def _percent(hits: int, trials: int) -> float:
    return 100 * hits / trials if trials else 0.0


def _failures(stable: Numbers, candidate: Numbers) -> str:
    of_old = f"{stable.failures} of the old one's {stable.requests}"
    return f"{candidate.failures} of its {candidate.requests} requests failed, {of_old}"


def _feedback(stable: Numbers, candidate: Numbers) -> str:
    of_old = f"{stable.good} of the old one's {stable.good + stable.bad}"
    return f"{candidate.good} of {candidate.good + candidate.bad} that rated it found it good, {of_old}"


def _agreement(candidate: Numbers, percent: float) -> str:
    return f"its answers agree by {candidate.agreement or 0:.0%} with those given, not by {percent:g} %"
