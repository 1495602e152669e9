"""Does one team's flood leave another team alone? One floods, the other asks now and then; both on the real engine.

The quiet team sends one short stream at a time. Its time to first token is measured on the idle engine, then while
the other keeps so many streams going as it can. Both once through the appliance with its queue, and once straight to
the engine's own socket, past the queue. Each way is held against its own idle value.

    python -m benchmarks.fairness --config configs/appliance.yaml

Takes the running appliance, or starts one. While the flood settles the quiet team asks already, uncounted: that is
how the queue learns how much it can let run. Saves fairness.json, .md and .svg under results/. Exit status: 0 the
median with the queue is within twice the idle one, 1 it isn't, 2 wrong config or command line, 3 no appliance.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from appliance import config as configuration
from appliance.config import Config, LocalModel
from appliance.engines import load as engine_load
from appliance.errors import Invalid, NotRunning
from benchmarks import charts, load, serving, setting, teams
from benchmarks.overhead import percentile
from benchmarks.results import keep
from benchmarks.terminal import command_line, say, show
from benchmarks.throughput import engine_socket, story

REACH = 2.0
QUEUE, STRAIGHT = "through the queue", "straight to the engine"


@dataclass(frozen=True, slots=True)
class Quiet:
    """First-token times of the quiet team, and what the flood got meanwhile (output tokens per second)."""

    first_token_ms: list[float]
    flood_tokens_per_second: float = 0.0

    @property
    def median(self) -> float:
        """Half come sooner."""
        return percentile(self.first_token_ms, 0.5)

    @property
    def p90(self) -> float:
        """Nine of ten come sooner."""
        return percentile(self.first_token_ms, 0.9)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the engine: the quiet team alone on it, and beside the flood."""

    name: str
    idle: Quiet
    flooded: Quiet

    @property
    def factor(self) -> float:
        """The median beside the flood over the idle one."""
        return self.flooded.median / self.idle.median


def question(model: str) -> dict[str, Any]:
    """What the quiet team asks: a short prompt, a few tokens."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": "In one word: which colour has the sky?"}],
        "max_tokens": 4,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def ask(target: int | str, body: Mapping[str, Any], headers: Mapping[str, str], count: int) -> list[float]:
    """First-token times (ms) of `count` streams, one after the other. Raises `RuntimeError` when one fails."""
    outcome = load.apply(load.Work(target, body, headers, requests=count, seconds=600))
    if outcome.failed:
        raise RuntimeError(f"{outcome.failed} of {count} streams failed: {outcome.first_failure}")
    return outcome.first_token_ms


def computed(socket: str) -> float:
    """Tokens of prompts and answers that the engine has finished so far."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=60) as engine:
        return engine_load.read(engine.get("http://engine/metrics").content).tokens


def measure(
    name: str, target: int | str, socket: str, model: str, headers: tuple[Mapping[str, str], Mapping[str, str]],
    *, streams: int, tokens: int, asks: int, settle: int,
) -> Way:  # fmt: skip
    """One way: idle, then flooded. `headers` are the flooding team's and the quiet one's."""
    flooding, quiet = headers
    body = question(model)
    ask(target, body, quiet, 5)
    idle = Quiet(ask(target, body, quiet, asks))
    say(f"  {name}: idle {idle.median:.0f} ms, p90 {idle.p90:.0f} ms")
    flood = load.Work(target, story(model, tokens), flooding, connections=streams, requests=10**9, seconds=3600)
    with load.under(flood):
        ask(target, body, quiet, settle)
        before = computed(socket)
        outcome = load.apply(load.Work(target, body, quiet, requests=asks, seconds=600))
        rate = (computed(socket) - before) / outcome.wall_seconds
    if outcome.failed:
        raise RuntimeError(f"{outcome.failed} of {asks} streams failed: {outcome.first_failure}")
    way = Way(name, idle, Quiet(outcome.first_token_ms, rate))
    say(f"  {name}: flooded {way.flooded.median:.0f} ms, p90 {way.flooded.p90:.0f} ms, {rate:.0f} tok/s in all")
    return way


def compare(config: Config, model: str, *, streams: int, tokens: int, asks: int, settle: int) -> list[Way]:
    """Both ways. Raises `NotRunning` or `RuntimeError`."""
    size = {"streams": streams, "tokens": tokens, "asks": asks, "settle": settle}
    with serving.appliance(config) as running:
        port, socket = urlsplit(running.address).port or 80, str(engine_socket(running.state))
        with teams.key(config, "flood") as flooding, teams.key(config, "quiet") as quiet:
            through = measure(QUEUE, port, socket, model, (flooding, quiet), **size)
        load.batch(socket, question(model), {}, 1)  # once the engine has finished what it was left with
        return [through, measure(STRAIGHT, socket, socket, model, ({}, {}), **{**size, "settle": 3})]


def table(ways: Sequence[Way]) -> str:
    """The figures as Markdown."""
    lines = [
        "| the quiet team's first token | idle p50 | idle p90 | beside the flood p50 | p90 | p50 over idle "
        "| p90 over idle | tok/s of all meanwhile |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {way.name} | {way.idle.median:.0f} ms | {way.idle.p90:.0f} ms | {way.flooded.median:.0f} ms "
        f"| {way.flooded.p90:.0f} ms | {way.factor:.2f} | {way.flooded.p90 / way.idle.p90:.2f} "
        f"| {way.flooded.flood_tokens_per_second:.0f} |"
        for way in ways
    ]
    return "\n".join(lines)


def chart(ways: Sequence[Way]) -> str:
    """Every first token beside the flood, in the order in which they came."""
    colours = {QUEUE: charts.CALM, STRAIGHT: charts.BAD}
    groups = {way.name: (colours[way.name], list(enumerate(way.flooded.first_token_ms))) for way in ways}
    return charts.scatter(
        groups, title="First token of the quiet team beside a flood", x="request", y="ms",
        limit=REACH * ways[0].idle.median,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_line("fairness", __doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/appliance.yaml"), help="(default: %(default)s)")
    parser.add_argument("--streams", type=int, default=64, help="that the flood keeps going (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of each of them (default: %(default)s)")
    parser.add_argument("--asks", type=int, default=40, help="of the quiet team that count (default: %(default)s)")
    parser.add_argument("--settle", type=int, default=40, help="of it before that (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        config = configuration.load(options.config)
        model = next(name for name, model in config.settings.models.items() if isinstance(model, LocalModel))
        size = {name: getattr(options, name) for name in ("streams", "tokens", "asks", "settle")}
        ways = compare(config, model, **size)
    except StopIteration:
        parser.error(f"{options.config} names no model with a card")
    except Invalid as problem:
        parser.error(str(problem))
    except NotRunning as problem:
        say(str(problem))
        return 3
    about = setting.describe("fastapi", "uvicorn", "uvloop", "httptools")
    text = table(ways)
    saved = {"setting": about, "model": model, **size, "ways": [asdict(way) for way in ways]}
    keep(options.results, "fairness", saved, text, chart(ways))
    show(text)
    factor = ways[0].factor
    met = factor <= REACH
    show(f"{'✓' if met else '✗'} first tokens come after {factor:.2f} times the idle value; {REACH:g} at most")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
