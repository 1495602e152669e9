"""What does the seal cost? Its time at each start; with --engine the engine's throughput; with --verify the proof.

    python -m benchmarks.seal
    python -m benchmarks.seal --engine --verify --config configs/appliance.yaml

start     The gateway's seal as the appliance of the config puts it on, in a fresh process each time; an engine's from
          the fork of its keeper to the execution of its command, less the same without the seal, alternately. As root
          also for an ordinary user, whose seal has a user namespace around it. To reach: under 20 ms together.
--engine  Two engines of the config's first model with a card, one sealed and one not, are up beside each other and
          are asked alternately over their Unix sockets, in pairs of batches. They are started anew for each half of
          the pairs, the other one first. Needs memory for two. To reach: at least 98 % of the throughput kept.
--verify  How long `appliance egress verify` takes on the running appliance (or one started for this): idle, then with
          streams and idle connections on it. To reach: always under 5 s, and every verification holds.

What the seal costs a request is in the table of `python -m benchmarks.overhead`: its gateway `unsealed`.

Saves seal.json and seal.md under results/. Exit status: 0 all reached, 1 not, or the pairs don't decide it, 2 wrong
config or command line, 3 no appliance or engine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from appliance import config as configuration
from appliance.errors import Invalid, NotRunning
from benchmarks import engines, processes, setting, starting, verifying
from benchmarks.engines import Kept
from benchmarks.pairs import MARKS, UNDECIDED
from benchmarks.results import keep
from benchmarks.starting import Starts
from benchmarks.terminal import command_line, say, show
from benchmarks.verifying import Verified

REACH_START_MS = 20.0
REACH_KEPT = 0.98


def verdicts(
    started: Sequence[Starts], kept: Sequence[Kept], verified: Sequence[Verified]
) -> list[tuple[bool | None, str]]:
    """What was to be reached, and whether it is; None: the pairs don't decide it."""
    found: list[tuple[bool | None, str]] = []
    for starts in started:
        what = f"{starts.cost_ms:.1f} ms for sealing gateway and engine as {starts.user}; under {REACH_START_MS:.0f}"
        found.append((starts.cost_ms < REACH_START_MS, what))
    for each in kept:
        ratio = each.ratio
        reached = ratio.at_least(REACH_KEPT)
        what = f"{each.streams} streams: {ratio.low:.1%} to {ratio.high:.1%} is kept; at least {REACH_KEPT:.0%}"
        found.append((reached, what if reached is not None else f"{what}; {UNDECIDED}"))
    for under in verified:
        most, holds = max(run.seconds for run in under.runs), sum(run.holds for run in under.runs)
        what = f"{under.load}: verified in {most:.2f} s at most; under {verifying.REACH_SECONDS:.0f}"
        found.append((under.reached, f"{what}; {holds} of {len(under.runs)} hold"))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = command_line("seal", __doc__)
    add = parser.add_argument
    add("--config", type=Path, default=Path("configs/appliance.yaml"), help="(default: %(default)s)")
    add("--starts", type=int, default=30, metavar="N", help="of each kind, for each user (default: %(default)s)")
    add("--engine", action="store_true", help="measure the throughput of the real engine, too")
    add("--streams", type=int, nargs="+", default=[16, 32], metavar="N", help="(default: 16 32)")
    add("--tokens", type=int, default=64, help="per stream (default: %(default)s)")
    add(
        "--pairs", type=int, default=20, help="at each number of streams; under 6 decide nothing (default: %(default)s)"
    )
    add("--verify", action="store_true", help="time `appliance egress verify`, too")
    add("--verifications", type=int, default=10, metavar="N", help="under each load (default: %(default)s)")
    add("--idle", type=int, default=500, metavar="N", help="idle connections beside the streams (default: %(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if min(options.starts, options.verifications, *options.streams, options.tokens) < 1 or options.pairs < 2:
        parser.error("--starts, --verifications, --streams and --tokens must be at least 1, --pairs at least 2")
    kept: list[Kept] = []
    verified: list[Verified] = []
    try:
        config = configuration.load(options.config)
        started = starting.measure(config, options.starts)
        if options.engine:
            kept = engines.compare(config, options.streams, options.tokens, options.pairs)
        if options.verify:
            verified = verifying.verify(config, options.verifications, max(options.streams), options.idle)
    except StopIteration:
        parser.error(f"{options.config} names no model with a card")
    except Invalid as problem:
        parser.error(str(problem))
    except (NotRunning, processes.Broken) as problem:
        say(f"seal: {problem}")
        return 3
    about = setting.describe("fastapi", "uvicorn", "uvloop")
    tables = [starting.table(started)]
    tables += [engines.table(kept)] if kept else []
    tables += [verifying.table(verified)] if verified else []
    judged = verdicts(started, kept, verified)
    saved = {
        "setting": about,
        "starts": [asdict(each) | {"cost_ms": each.cost_ms} for each in started],
        "engine": [asdict(each) | {"kept": asdict(each.ratio)} for each in kept],
        "verify": [asdict(each) for each in verified],
        "reached": [{"reached": reached, "what": what} for reached, what in judged],
    }
    text = "\n\n".join(tables)
    keep(options.results, "seal", saved, text)
    show(text)
    for reached, what in judged:
        show(f"{MARKS[reached]} {what}")
    say(f"saved under {options.results}/: seal.json, seal.md")
    return 0 if all(reached for reached, _ in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
