"""What a gateway costs: all of them side by side, in one run, in front of the same static upstream.

Every round measures each gateway once, one after the other and every other round the other way round, so that a
drift of the machine hits all alike; the table shows medians of the rounds. What the seal costs is told by the pairs
of `appliance` and `unsealed` in each round, with the 95 % interval of their median. Processor time is that of the
gateway's whole process tree, which other work on the machine disturbs far less than it does requests per second or
latency.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --only direct passthrough appliance --rounds 7
    python -m benchmarks.overhead --only appliance unsealed --rounds 15 --requests 20000 --chunks 800 --gap-ms 5

Saves overhead.json, overhead.md and overhead.svg under results/. Exit status: 0 measured, whatever came out;
1 the appliance left a request unanswered; 2 wrong command line.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import charts, load, processes, setting
from benchmarks.gateways import Door, Gateway, Upstream, all_gateways, request
from benchmarks.pairs import MARKS, UNDECIDED, Ratio
from benchmarks.results import keep
from benchmarks.terminal import command_line, say, show

REACH_REQUEST_US = 350.0
REACH_CHUNK_US = 45.0
REACH_PASSTHROUGH = 1.5
REACH_LITELLM = 20.0
REACH_SEAL = 0.02
PHASE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is asked of each gateway in each round."""

    rounds: int
    requests: int
    connections: int
    chunks: int
    gap_ms: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One gateway in one round. Microseconds are processor time; `nan`: no gateway, or nothing was answered."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    crowd_p50_ms: float
    """At the full number of connections, as `crowd_p99_ms`; the two above are with one."""
    crowd_p99_ms: float
    request_us: float
    chunk_us: float
    first_token_p50_ms: float
    resident_mb: float
    failed: int


def percentile(values: list[float], share: float) -> float:
    """The value that `share` (0 to 1) of `values` don't exceed; `nan` of nothing."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else float("nan")


def measure(door: Door, amount: Amount) -> Sample:
    """One round of one gateway. Raises `ConnectionError` when it can't be reached."""

    def spent() -> float:
        return processes.processor_seconds(door.pid) if door.pid else float("nan")

    def ask(connections: int, requests: int, *, stream: bool) -> tuple[load.Outcome, float]:
        body = request(stream=stream, chunks=amount.chunks)
        before = spent()
        work = load.Work(
            door.port, body, door.headers, connections=connections, requests=requests, seconds=PHASE_SECONDS
        )
        outcome = load.apply(work)
        return outcome, (spent() - before) * 1e6

    alone, _ = ask(1, max(100, amount.requests // 8), stream=False)
    crowd, crowd_us = ask(amount.connections, amount.requests, stream=False)
    streams, streams_us = ask(amount.connections, 2 * amount.connections, stream=True)
    return Sample(
        requests_per_second=crowd.answered / crowd.wall_seconds,
        p50_ms=percentile(alone.end_to_end_ms, 0.5),
        p99_ms=percentile(alone.end_to_end_ms, 0.99),
        crowd_p50_ms=percentile(crowd.end_to_end_ms, 0.5),
        crowd_p99_ms=percentile(crowd.end_to_end_ms, 0.99),
        request_us=crowd_us / crowd.answered if crowd.answered else float("nan"),
        chunk_us=streams_us / (streams.answered * amount.chunks) if streams.answered else float("nan"),
        first_token_p50_ms=percentile(streams.first_token_ms, 0.5),
        resident_mb=processes.resident_bytes(door.pid) / 1e6 if door.pid else float("nan"),
        failed=alone.failed + crowd.failed + streams.failed,
    )


@contextlib.contextmanager
def static_upstream(folder: Path, gap_ms: float) -> Iterator[Upstream]:
    """The static upstream in a process of its own, until the block ends. Raises `processes.Broken`."""
    upstream = Upstream(processes.free_port(), folder / "upstream.sock")
    log = folder / "upstream.log"
    command = [
        sys.executable, "-m", "benchmarks.upstream",
        "--port", str(upstream.port), "--socket", str(upstream.socket), "--gap-ms", str(gap_ms),
    ]  # fmt: skip
    with processes.running(command, log, lambda: b"ready" in log.read_bytes(), seconds=20, environment={}):
        yield upstream


def compare(gateways: Iterable[Gateway], amount: Amount) -> dict[str, list[Sample]]:
    """Samples of each gateway, one per round; gateways that don't start are told of and left out."""
    samples: dict[str, list[Sample]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overhead-")))
        upstream = stack.enter_context(static_upstream(folder, amount.gap_ms))
        doors: dict[str, Door] = {}
        for gateway in gateways:
            if why := gateway.missing():
                say(f"- {gateway.name}: {why}")
                continue
            say(f"  starting {gateway.name}")
            try:
                doors[gateway.name] = stack.enter_context(gateway.open(upstream, folder / gateway.name))
            except processes.Broken as why_not:
                say(f"! {gateway.name} is left out: {why_not}")
        for name, door in doors.items():
            say(f"  warming up {name}")
            body = request(stream=False)
            load.apply(load.Work(door.port, body, door.headers, connections=8, requests=500, seconds=5))
        for number in range(1, amount.rounds + 1):
            for name, door in list(doors.items())[:: 1 if number % 2 else -1]:
                began = time.monotonic()
                sample = measure(door, amount)
                samples.setdefault(name, []).append(sample)
                say(
                    f"  round {number}/{amount.rounds}  {name:<12} {sample.request_us:8.0f} us/request "
                    f"{sample.chunk_us:7.1f} us/chunk  {time.monotonic() - began:5.1f} s"
                    + (f"  {sample.failed} FAILED" if sample.failed else "")
                )
    return samples


def medians(samples: list[Sample]) -> Sample:
    """The median of each figure; failures are added up."""
    figures = {name: statistics.median(asdict(sample)[name] for sample in samples) for name in asdict(samples[0])}
    return Sample(**figures | {"failed": sum(sample.failed for sample in samples)})


def table(results: dict[str, Sample], gateways: Iterable[Gateway]) -> str:
    """The figures as Markdown; latencies are what each gateway adds to the direct way."""
    lines = [
        "| gateway | us per request | us per streamed chunk | requests/s | added p50 / p99, 1 connection "
        "| added p50 / p99, 32 connections | first token p50 | resident, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = results.get("direct")
    for gateway in gateways:
        if gateway.name not in results:
            continue
        row = results[gateway.name]
        label = f"{gateway.name} {gateway.version()}".strip() + f" ({gateway.about})"
        if row is base or base is None:
            one, many = (
                f"({row.p50_ms:.2f} / {row.p99_ms:.2f} ms)",
                f"({row.crowd_p50_ms:.1f} / {row.crowd_p99_ms:.1f} ms)",
            )
        else:
            one = f"{row.p50_ms - base.p50_ms:.2f} / {row.p99_ms - base.p99_ms:.2f} ms"
            many = f"{row.crowd_p50_ms - base.crowd_p50_ms:.1f} / {row.crowd_p99_ms - base.crowd_p99_ms:.1f} ms"
        lines.append(
            f"| {label} | {_whole(row.request_us)} | {_whole(row.chunk_us)} | {_whole(row.requests_per_second)} "
            f"| {one} | {many} | {_ms(row.first_token_p50_ms)} | {_whole(row.resident_mb)} |"
        )
    return "\n".join(lines)


def verdicts(results: dict[str, Sample]) -> list[tuple[bool | None, str]]:
    """What was to be reached, and whether it is, by medians of all rounds."""
    ours = results.get("appliance")
    if ours is None:
        return []
    found: list[tuple[bool | None, str]] = [
        (ours.request_us <= REACH_REQUEST_US, f"{ours.request_us:.0f} us per request; at most {REACH_REQUEST_US:.0f}"),
        (ours.chunk_us <= REACH_CHUNK_US, f"{ours.chunk_us:.1f} us per streamed chunk; at most {REACH_CHUNK_US:.0f}"),
    ]
    if bare := results.get("passthrough"):
        times = ours.request_us / bare.request_us
        found.append((times <= REACH_PASSTHROUGH, f"{times:.2f} times the bare passthrough; about {REACH_PASSTHROUGH}"))
    if litellm := results.get("litellm"):
        for what, less in (
            ("request", litellm.request_us / ours.request_us),
            ("chunk", litellm.chunk_us / ours.chunk_us),
        ):
            found.append(
                (less >= REACH_LITELLM, f"{less:.0f} times less than LiteLLM per {what}; at least {REACH_LITELLM:.0f}")
            )
    return found


def cost_of_the_seal(sealed: list[Sample], unsealed: list[Sample]) -> list[tuple[bool | None, str]]:
    """The same for the seal, by pairs of one round each; None: the pairs don't decide it."""
    found = []
    for figure, what in (
        ("request_us", "processor time per request"),
        ("chunk_us", "processor time per streamed chunk"),
        ("requests_per_second", "requests/s"),
    ):
        pairs = zip(sealed, unsealed, strict=True)
        # too little was asked for where the counter of processor time has not moved
        ratio = Ratio.of([getattr(on, figure) / (getattr(off, figure) or float("nan")) for on, off in pairs])
        if figure == "requests_per_second":
            reached, reach = ratio.at_least(1 - REACH_SEAL), f"at least {1 - REACH_SEAL:.0%}"
        else:
            reached, reach = ratio.at_most(1 + REACH_SEAL), f"at most {1 + REACH_SEAL:.0%}"
        told = f"with the seal {ratio.median:.1%} of the {what} without ({ratio.low:.1%} to {ratio.high:.1%}); {reach}"
        found.append((reached, told if reached is not None else f"{told}; {UNDECIDED}"))
    return found


def plot(results: dict[str, Sample], about: str) -> str:
    """Two bar charts, per request and per chunk, on a logarithmic scale; a self-contained SVG."""

    costs = {name: row for name, row in results.items() if name != "direct"}
    return charts.bars(
        {
            "per request, 32 connections": {name: row.request_us for name, row in costs.items()},
            "per streamed chunk, 32 streams": {name: row.chunk_us for name, row in costs.items()},
        },
        title="Processor time of the gateway, microseconds",
        highlight="appliance",
        marks=[REACH_REQUEST_US, REACH_CHUNK_US],
        about=about,
    )


def _whole(figure: float) -> str:
    return "-" if figure != figure else f"{figure:,.0f}"


def _ms(figure: float) -> str:
    return "fails" if figure != figure else f"{figure:.1f} ms"


def _options() -> argparse.ArgumentParser:
    parser = command_line("overhead", __doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these gateways")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--requests", type=int, default=4000, help="per gateway and round (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--chunks", type=int, default=200, help="per stream (default: %(default)s)")
    parser.add_argument("--gap-ms", type=float, default=20.0, help="pace of streams (default: %(default)s)")
    parser.add_argument("--peers", type=Path, default=Path(".venvs"), help="where peers.sh installed them")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _options()
    options = parser.parse_args(arguments)
    gateways = all_gateways(options.peers)
    if options.only:
        known = {gateway.name for gateway in gateways}
        if unknown := set(options.only) - known:
            parser.error(f"no such gateway: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
        gateways = [gateway for gateway in gateways if gateway.name in options.only]
    amount = Amount(options.rounds, options.requests, options.connections, options.chunks, options.gap_ms)

    samples = compare(gateways, amount)
    results = {name: medians(rounds) for name, rounds in samples.items()}
    about = setting.describe("fastapi", "uvicorn", "uvloop", "httptools", "aiohttp")
    text = table(results, gateways)
    judged = verdicts(results)
    if "appliance" in samples and "unsealed" in samples:
        judged += cost_of_the_seal(samples["appliance"], samples["unsealed"])
    saved = {
        "setting": about,
        "amount": asdict(amount),
        "versions": {gateway.name: gateway.version() for gateway in gateways if gateway.name in results},
        "medians": {name: asdict(row) for name, row in results.items()},
        "rounds": {name: [asdict(sample) for sample in rounds] for name, rounds in samples.items()},
        "reached": [{"reached": reached, "what": what} for reached, what in judged],
    }
    keep(options.results, "overhead", saved, text, plot(results, setting.sentence(about)))
    show(text)
    for reached, what in judged:
        show(f"{MARKS[reached]} {what}")
    say(f"saved under {options.results}/: overhead.json, overhead.md, overhead.svg")
    return 1 if "appliance" in results and results["appliance"].failed else 0


if __name__ == "__main__":
    sys.exit(main())
