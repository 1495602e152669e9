"""Ten times as much as the engine can do, for minutes: are the surplus requests refused fast, and the rest served?

First the peak: as many streams at once as the engine computes together, for some time. Then requests come at ten
times the rate of the peak, however they are answered. Of those the queue takes as many as it can serve within the
time that their class allows, and refuses the others with 429. Goodput is complete answers per second.

    python -m benchmarks.overload --config configs/appliance.yaml
    python -m benchmarks.overload --fake
    python -m benchmarks.overload --fake --seconds 20

Takes the running appliance, or starts one; with --fake one of its own before an engine that only waits (tests/fakes),
so that the machine is the gateway's and its rates are higher. Saves overload.json, .md and .svg under results/.
Exit status: 0 refusals in under 50 ms (p99), goodput at 90 % of the peak and memory flat, 1 not, 2 wrong config or
command line, 3 no appliance.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from matplotlib.figure import Figure

from appliance import config as configuration
from appliance.config import Config, LocalModel
from appliance.errors import Invalid, NotRunning
from benchmarks import arrivals, charts, load, serving, setting, teams
from benchmarks.overhead import percentile
from benchmarks.results import keep
from benchmarks.terminal import command_line, say, show
from benchmarks.throughput import story

TIMES = 10
SHED_MS, GOODPUT, FLAT_MB_PER_MINUTE = 50.0, 0.9, 1.0
_PEAK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    """What an overload came to. `readings` are (seconds, MB) of the gateway's own resident memory."""

    peak_per_second: float
    offered_per_second: float
    seconds: float
    outcome: arrivals.Outcome
    readings: list[tuple[float, float]]

    @property
    def goodput(self) -> float:
        """Complete answers per second over the second half, when the queue has filled, over the peak."""
        half = self.seconds / 2
        done = sum(half <= at < self.seconds for at in self.outcome.answered)
        return done / half / self.peak_per_second

    @property
    def shed_p99_ms(self) -> float:
        """Nearly all refusals came sooner."""
        return percentile([length for _, length in self.outcome.shed], 0.99)

    @property
    def climb(self) -> float:
        """Megabytes per minute, over the second half of the readings."""
        settled = self.readings[len(self.readings) // 2 :]
        at, size = [at for at, _ in settled], [size for _, size in settled]
        return 60 * statistics.linear_regression(at, size).slope

    @property
    def verdicts(self) -> dict[str, bool]:
        """What was to hold, in words, and whether it does."""
        outcome = self.outcome
        return {
            f"refusals within {self.shed_p99_ms:.1f} ms (p99; under {SHED_MS:g})": self.shed_p99_ms < SHED_MS,
            f"goodput {self.goodput:.0%} of the peak ({GOODPUT:.0%} at least)": self.goodput >= GOODPUT,
            f"memory {self.climb:+.2f} MB per minute (under {FLAT_MB_PER_MINUTE:+g})": self.climb < FLAT_MB_PER_MINUTE,
            f"{outcome.failed + outcome.late} requests without a proper answer (none)"
            f"{f': {outcome.first_failure}' if outcome.failed else ''}": not outcome.failed + outcome.late,
        }


def peak(port: int, body: dict[str, Any], headers: dict[str, str], streams: int, seconds: float) -> float:
    """Answers per second with so many streams at once. Raises `RuntimeError` when one fails."""
    outcome = load.apply(load.Work(port, body, headers, connections=streams, requests=10**9, seconds=seconds))
    if outcome.failed:
        raise RuntimeError(f"{outcome.failed} streams failed: {outcome.first_failure}")
    return outcome.answered / outcome.wall_seconds


def overload(
    port: int, pid: int, body: dict[str, Any], headers: dict[str, str], streams: int, seconds: float, patience: float
) -> Run:
    """The peak, then ten times that for `seconds`. `patience` is how long a request may wait in the end."""
    best = peak(port, body, headers, streams, min(_PEAK_SECONDS, seconds))
    say(f"  peak: {best:.1f} answers per second")
    gateway = psutil.Process(pid)
    client = arrivals.begin(arrivals.Arrivals(port, body, headers, TIMES * best, seconds, patience))
    began, readings = time.monotonic(), []
    while client.poll() is None and (now := time.monotonic() - began) < seconds:
        readings.append((now, gateway.memory_info().rss / 1e6))
        if len(readings) % 30 == 0:
            say(f"  {now:4.0f} of {seconds:.0f} s: {readings[-1][1]:.1f} MB")
        time.sleep(1)
    return Run(best, TIMES * best, seconds, arrivals.finish(client), readings)


@contextlib.contextmanager
def fake(folder: Path) -> Iterator[Config]:
    """The config of an appliance on the fake engine, in `folder`."""
    from tests.fakes.house import House

    house = House(folder)
    house.card("tiny")
    house.serve("chat", "tiny", batching={"max_sequences": 64})
    yield configuration.load(house.write())


def table(run: Run) -> str:
    """The figures as Markdown."""
    shed = [length for _, length in run.outcome.shed]
    return "\n".join(
        [
            "| peak, answers/s | offered /s | for | refused | refusal p50 | p99 | goodput of the peak "
            "| memory, first to last | MB per minute |",
            "|---|---|---|---|---|---|---|---|---|",
            f"| {run.peak_per_second:.1f} | {run.offered_per_second:.0f} | {run.seconds:.0f} s | {len(shed):,} "
            f"| {percentile(shed, 0.5):.1f} ms | {run.shed_p99_ms:.1f} ms | {run.goodput:.0%} "
            f"| {run.readings[0][1]:.0f} to {run.readings[-1][1]:.0f} MB | {run.climb:+.2f} |",
        ]
    )


def chart(run: Run) -> str:
    """Over time: answers per second against the peak, how fast refusals came, and the gateway's memory."""
    bins = max(1, int(run.seconds // 5))
    width = run.seconds / bins
    centres = [(number + 0.5) * width for number in range(bins)]
    with charts.style():
        figure = Figure(figsize=(8, 7.5), layout="constrained")
        good, shed, memory = figure.subplots(3, 1, sharex=True)
        good.plot(centres, _rates(run.outcome.answered, bins, width), color=charts.CALM, linewidth=1.8)
        good.axhline(GOODPUT * run.peak_per_second, color=charts.GOOD, linestyle="--", linewidth=1)
        good.set(title=f"Complete answers at {TIMES} times the load (dashed: {GOODPUT:.0%} of the peak)", ylabel="1/s")
        good.set_ylim(0)
        in_bins: list[list[float]] = [[] for _ in range(bins)]
        for at, length in run.outcome.shed:
            in_bins[min(bins - 1, int(at / width))].append(length)
        shed.plot(centres, [percentile(each, 0.99) for each in in_bins], color=charts.CALM, linewidth=1.8)
        shed.axhline(SHED_MS, color=charts.GOOD, linestyle="--", linewidth=1)
        shed.set(title="Refusals: p99 of the time until they come", ylabel="ms")
        shed.set_ylim(0)
        memory.plot(*zip(*run.readings, strict=True), color=charts.CALM, linewidth=1.8)
        memory.set(title="Resident memory of the gateway", ylabel="MB", xlabel="seconds")
        memory.set_ylim(0)
        return charts.svg(figure)


def _rates(times: Sequence[float], bins: int, width: float) -> list[float]:
    counts = [0] * bins
    for at in times:
        if at < bins * width:
            counts[int(at / width)] += 1
    return [count / width for count in counts]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_line("overload", __doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/appliance.yaml"), help="(default: %(default)s)")
    parser.add_argument("--fake", action="store_true", help="a fake engine, for the gateway alone")
    parser.add_argument("--seconds", type=float, default=300, help="of overload (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        with contextlib.ExitStack() as stack:
            if options.fake:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="over-")))
                config = stack.enter_context(fake(folder.resolve()))
            else:
                config = configuration.load(options.config)
            settings = config.settings
            model, local = next(
                (name, model) for name, model in settings.models.items() if isinstance(model, LocalModel)
            )
            body = story(model, options.tokens)
            if options.fake:  # directives of the fake: how many tokens, and how long each takes
                body["messages"] = [{"role": "user", "content": f"tokens={options.tokens} gap=0.02"}]
            running = stack.enter_context(serving.appliance(config))
            headers = stack.enter_context(teams.key(config, "everybody"))
            run = overload(
                urlsplit(running.address).port or 80, running.pid, body, headers, local.batching.max_sequences,
                options.seconds, 2 * settings.queue.waits.standard_seconds + 60,
            )  # fmt: skip
    except StopIteration:
        parser.error(f"{options.config} names no model with a card")
    except Invalid as problem:
        parser.error(str(problem))
    except (NotRunning, subprocess.CalledProcessError) as problem:
        say(str(problem))
        return 3
    about = setting.describe("fastapi", "uvicorn", "uvloop", "httptools")
    text = table(run)
    saved = {
        "setting": about,
        "engine": "fake" if options.fake else model,
        "peak_per_second": run.peak_per_second,
        "offered_per_second": run.offered_per_second,
        "seconds": run.seconds,
        "answered": len(run.outcome.answered),
        "shed": len(run.outcome.shed),
        "shed_p99_ms": run.shed_p99_ms,
        "slow_refusals": [[round(at, 2), round(length, 1)] for at, length in run.outcome.shed if length >= SHED_MS],
        "goodput": run.goodput,
        "mb_per_minute": run.climb,
        "client_behind_ms": run.outcome.behind_ms,
        "verdicts": run.verdicts,
        "readings": run.readings,
    }
    keep(options.results, "overload-fake" if options.fake else "overload", saved, text, chart(run))
    show(text)
    for words, holds in run.verdicts.items():
        show(f"{'✓' if holds else '✗'} {words}")
    if run.outcome.behind_ms > SHED_MS:
        show(f"? this client was up to {run.outcome.behind_ms:.0f} ms behind: other work has this machine's processors")
    return 0 if all(run.verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
