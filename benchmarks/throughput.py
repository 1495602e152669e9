"""Does the real engine keep its throughput behind the appliance? Both ways to it, alternately, in one run.

A pair is one batch of streams straight to the engine's Unix socket and one through the appliance; which goes
first alternates. The verdict is the median of the pairs' ratios, with a bootstrapped 95 % interval. Beside it
stands the gateway's share of all processor time that answering took: where engine and gateway share the same
cores, that is what the gateway can cost at most, and other work on the machine hardly disturbs it.

    python -m benchmarks.throughput --config configs/appliance.yaml

Takes the running appliance, or starts one. Saves throughput.json under results/. Exit status: 0 the whole
interval is at 97 % or above at every number of streams, 1 it isn't, 2 wrong config or command line, 3 no appliance.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from appliance import config as configuration
from appliance.config import Config, LocalModel
from appliance.errors import Invalid, NotRunning
from benchmarks import load, processes, serving, setting
from benchmarks.overhead import percentile
from benchmarks.pairs import MARKS, UNDECIDED, Ratio, in_turn
from benchmarks.results import keep
from benchmarks.terminal import command_line, say, show

REACH = 0.97


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch of streams gave: output tokens per second over the batch, median time to first token."""

    tokens_per_second: float
    first_token_ms: float
    gateway_share: float = 0.0
    """Processor time of the gateway over that of gateway and engines together."""


@dataclass(frozen=True, slots=True)
class Result:
    """Pairs (direct, through) at one number of streams."""

    streams: int
    pairs: list[tuple[Batch, Batch]]

    @property
    def ratios(self) -> list[float]:
        """Throughput through the appliance over the engine's own, for each pair."""
        return [through.tokens_per_second / direct.tokens_per_second for direct, through in self.pairs]

    def kept(self) -> Ratio:
        """What the ratios say together."""
        return Ratio.of(self.ratios)


def story(model: str, tokens: int) -> dict[str, Any]:
    """The body of a stream that ends after exactly `tokens`."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": "Write a long story about a house that answers its own letters."}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def run_batch(target: int | str, body: dict[str, Any], headers: dict[str, str], streams: int, pid: int) -> Batch:
    """One batch: every stream at once, until all have ended; `pid` is the gateway. Raises as `load.batch` does."""
    before = processes.processor_seconds(pid, alone=True), processes.processor_seconds(pid)
    outcome = load.batch(target, body, headers, streams)
    gateway = processes.processor_seconds(pid, alone=True) - before[0]
    everything = processes.processor_seconds(pid) - before[1]
    tokens = streams * int(body["max_tokens"])
    return Batch(tokens / outcome.wall_seconds, percentile(outcome.first_token_ms, 0.5), gateway / everything)


def engine_socket(state: Path) -> Path:
    """The socket of the engine that runs. Raises `NotRunning` unless there is exactly one."""
    found = sorted(state.glob("run/e*/engine.sock"))
    if len(found) != 1:
        raise NotRunning(f"{len(found)} engines run; this compares with exactly one")
    return found[0]


def compare(config: Config, model: str, counts: list[int], tokens: int, pairs: int) -> list[Result]:
    """Pairs at each number of streams. Raises `NotRunning` or `RuntimeError`."""
    with serving.appliance(config) as running:
        port = urlsplit(running.address).port or 80
        headers = {"authorization": f"Bearer {running.key}"}
        socket = str(engine_socket(running.state))
        body = story(model, tokens)
        say("  warming up")
        run_batch(socket, body, {}, max(counts), running.pid)
        run_batch(port, body, headers, max(counts), running.pid)
        results = []
        for streams in counts:
            result = Result(streams, [])
            for number in range(pairs):
                batches = {}
                for way in in_turn("through", "direct", number):
                    where: tuple[int | str, dict[str, str]] = (socket, {}) if way == "direct" else (port, headers)
                    batches[way] = run_batch(where[0], body, where[1], streams, running.pid)
                result.pairs.append((batches["direct"], batches["through"]))
                direct, through = (batch.tokens_per_second for batch in result.pairs[-1])
                say(
                    f"  {streams} streams, pair {number + 1}/{pairs}: engine {direct:.0f} tok/s, "
                    f"through the appliance {through:.0f}, ratio {through / direct:.3f}"
                )
            results.append(result)
        return results


def table(results: list[Result]) -> str:
    """The figures as Markdown."""
    lines = [
        "| streams | engine alone, tok/s | through the appliance, tok/s | kept (95 % interval) "
        "| first token p50, alone | first token p50, through | gateway's share of processor time |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        direct, through = zip(*result.pairs, strict=True)
        kept = result.kept()
        lines.append(
            f"| {result.streams} | {statistics.median(b.tokens_per_second for b in direct):.0f} "
            f"| {statistics.median(b.tokens_per_second for b in through):.0f} "
            f"| {kept.median:.1%} ({kept.low:.1%} to {kept.high:.1%}) "
            f"| {statistics.median(b.first_token_ms for b in direct):.0f} ms "
            f"| {statistics.median(b.first_token_ms for b in through):.0f} ms "
            f"| {statistics.median(b.gateway_share for b in through):.1%} |"
        )
    return "\n".join(lines)


def verdict(result: Result) -> str:
    """Whether the run shows that enough is kept; a machine with other work on it often shows neither."""
    kept = result.kept()
    reached = kept.at_least(REACH)
    said = {
        True: f"at least {REACH:.0%} of the engine's own throughput is kept",
        False: f"{kept.median:.1%} is kept; at least {REACH:.0%} has to be",
        None: f"{kept.low:.1%} to {kept.high:.1%} may be kept; {UNDECIDED}",
    }
    return f"{MARKS[reached]} {result.streams} streams: {said[reached]}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_line("throughput", __doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/appliance.yaml"), help="(default: %(default)s)")
    parser.add_argument("--streams", type=int, nargs="+", default=[16, 32], help="(default: 16 32)")
    parser.add_argument("--tokens", type=int, default=64, help="per stream (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=9, help="at each number of streams (default: %(default)s)")
    options = parser.parse_args(arguments)

    try:
        config = configuration.load(options.config)
        model = next(name for name, model in config.settings.models.items() if isinstance(model, LocalModel))
        results = compare(config, model, options.streams, options.tokens, options.pairs)
    except StopIteration:
        parser.error(f"{options.config} names no model with a card")
    except Invalid as problem:
        parser.error(str(problem))
    except NotRunning as problem:
        say(str(problem))
        return 3
    about = setting.describe("fastapi", "uvicorn", "uvloop", "httptools")
    text = table(results)
    saved = {
        "setting": about,
        "model": model,
        "results": [
            {
                "streams": result.streams,
                "kept": result.kept().median,
                "interval": [result.kept().low, result.kept().high],
                "pairs": [{"direct": asdict(direct), "through": asdict(through)} for direct, through in result.pairs],
            }
            for result in results
        ],
    }
    keep(options.results, "throughput", saved, text)
    show(text)
    for result in results:
        show(verdict(result))
    return 0 if all(result.kept().at_least(REACH) for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
