"""Does the gateway stay small? Many requests through one appliance, its resident memory sampled on the way.

    python -m benchmarks.memory
    python -m benchmarks.memory --requests 1000000

A tenth of the requests are streams. Saves memory.json and memory.svg under results/. Exit status: 0 under 200 MB
and flat, 1 not, 2 wrong command line. Flat: over the second half of the samples a straight line through them
climbs less than 2 MB per 100,000 requests (the first half is for caches, pools and the allocator to settle).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import charts, load, processes, setting
from benchmarks.gateways import Appliance, request
from benchmarks.overhead import static_upstream
from benchmarks.results import keep
from benchmarks.terminal import command_line, say, show

MOST_MB = 200.0
FLAT_MB_PER_100K = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Resident memory of the whole process tree after so many requests."""

    requests: int
    resident_mb: float


def slope(readings: list[Reading]) -> float:
    """Megabytes per 100,000 requests, over the second half of `readings` (two at least)."""
    settled = readings[len(readings) // 2 :]
    line = statistics.linear_regression([each.requests for each in settled], [each.resident_mb for each in settled])
    return line.slope * 100_000


def measure(requests: int, samples: int) -> list[Reading]:
    """Ask `requests` times, read memory `samples` times. Raises `processes.Broken`, or `RuntimeError` at a failure."""
    with (
        tempfile.TemporaryDirectory(prefix="memory-") as name,
        static_upstream(Path(name), 1) as upstream,
        Appliance().open(upstream, Path(name) / "appliance") as door,
    ):
        assert door.pid is not None  # noqa: S101 - it is a process of its own
        readings = [Reading(0, processes.resident_bytes(door.pid) / 1e6)]
        done = 0
        while done < requests:
            step = requests // samples
            for stream, count in ((False, step - step // 10), (True, step // 10)):
                body = request(stream=stream, chunks=8)
                work = load.Work(door.port, body, door.headers, connections=32, requests=count, seconds=600)
                outcome = load.apply(work)
                if outcome.failed:
                    raise RuntimeError(f"{outcome.failed} requests failed: {outcome.first_failure}")
                done += outcome.answered
            readings.append(Reading(done, processes.resident_bytes(door.pid) / 1e6))
            last = readings[-1]
            say(f"  {last.requests:>9,} requests  {last.resident_mb:6.1f} MB")
        return readings


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_line("memory", __doc__)
    parser.add_argument("--requests", type=int, default=200_000, help="(default: %(default)s)")
    parser.add_argument("--samples", type=int, default=40, help="readings of memory (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.samples < 2 or options.requests < 10 * options.samples:
        parser.error("at least 2 samples, and 10 requests for each")
    readings = measure(options.requests, options.samples)
    about = setting.describe("fastapi", "uvicorn", "uvloop", "httptools")
    most, climb = max(each.resident_mb for each in readings), slope(readings)
    met = most < MOST_MB and climb < FLAT_MB_PER_100K
    saved = {
        "setting": about,
        "most_mb": most,
        "mb_per_100000_requests": climb,
        "met": met,
        "readings": [[each.requests, round(each.resident_mb, 2)] for each in readings],
    }
    points = [(each.requests / 1000, each.resident_mb) for each in readings]
    drawn = charts.line(points, title="Resident memory of the gateway", x="thousand requests", y="MB", limit=MOST_MB)
    keep(options.results, "memory", saved, drawing=drawn)
    show(
        f"{'✓' if met else '✗'} {readings[0].resident_mb:.0f} MB at first, {most:.0f} at most (under {MOST_MB:.0f}), "
        f"{climb:+.2f} MB per 100,000 requests over the second half (under {FLAT_MB_PER_100K:+.0f})"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
