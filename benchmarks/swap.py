"""What does a swap of the model cost those whom it serves meanwhile? Running streams, and requests that wait.

Beside: so many long streams run on one card's engine; the other card takes over their name, and the streams finish on
the engine they began on. Told is how long they waited from token to token while the new engine started, was accepted
and took over, against the same streams just before and just after. Then the same the other way round.

Replace: short requests, one after the other, while the old engine ends before the new one starts. Told is the longest
wait for a first token, against the new engine's own start.

    python -m benchmarks.swap --config configs/appliance.yaml
    python -m benchmarks.swap --streams 4 --seconds 10
    python -m benchmarks.swap --fake

Starts an appliance of its own, with the models folder and the engines of the config; with --fake on an engine that
only waits. Saves swap.json, .md and .svg under results/. Exit status: 0 no stream waited longer for a token than one
interval between tokens over what it waits without a swap, and no pause was over the start by a tenth, 1 not, 2 wrong
config or command line, 3 no appliance.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from matplotlib.figure import Figure

from appliance import config as configuration
from appliance import control
from appliance.config import Config
from appliance.errors import Invalid, NotRunning
from benchmarks import charts, pulse, serving, setting
from benchmarks.overhead import percentile
from benchmarks.pairs import MARKS
from benchmarks.pulse import Answer
from benchmarks.results import keep
from benchmarks.terminal import command_line, say, show
from benchmarks.throughput import story

CARDS = ("smollm2-135m-int8", "smollm2-135m-bnb4")
INTERVALS, OVER = 1.0, 1.1
_NAME = "chat"
_LONG = 8_000
_ASKERS, _ANSWER = 4, 4
_SETTLED = 1.0
_RULE = "|---|---|---|---|---|---|---|"


class Failed(Exception):
    """The swap was refused, or a request failed: there is nothing to tell of."""


@dataclass(frozen=True, slots=True)
class Steps:
    """When a swap began, its new engine was started and had answered, and the name had moved. Monotonic seconds."""

    began: float
    started: float
    answered: float
    moved: float
    checks: dict[str, float]
    """When each check of the gate began."""

    @property
    def phases(self) -> dict[str, tuple[float, float]]:
        """From when to when each of its parts took, in order."""
        begins = {"weights looked at": self.began, "starts": self.started, **self.checks, "moved": self.moved}
        ends = [*list(begins.values())[1:], self.moved + _SETTLED]
        return {phase: (begin, end) for (phase, begin), end in zip(begins.items(), ends, strict=True)}


@dataclass(frozen=True, slots=True)
class Phase:
    """What the streams' gaps were in one part of a swap, in milliseconds."""

    name: str
    seconds: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Beside:
    """Gaps between the tokens of running streams, in milliseconds: without a swap, and with one."""

    streams: int
    old: str
    new: str
    quiet: list[float]
    during: list[float]
    seconds: float
    phases: list[Phase]

    @property
    def interval(self) -> float:
        """How long a stream usually waits for its next token."""
        return percentile(self.quiet, 0.5)

    @property
    def longest(self) -> float:
        """By how many intervals the longest wait was longer than the longest without a swap."""
        return (max(self.during) - max(self.quiet)) / self.interval

    @property
    def p99(self) -> float:
        """The same of the 99th percentile."""
        return (percentile(self.during, 0.99) - percentile(self.quiet, 0.99)) / self.interval

    @property
    def slower(self) -> float:
        """How many times as long all of them took on average."""
        return sum(self.during) / len(self.during) / (sum(self.quiet) / len(self.quiet))


@dataclass(frozen=True, slots=True)
class Replaced:
    """A pause: the longest wait for a first token, and what the old engine's end, the new one's start and its gate took
    of it, in seconds."""

    old: str
    new: str
    pause: float
    end: float
    start: float
    gate: float
    requests: int

    @property
    def over(self) -> float:
        """The pause over the start."""
        return self.pause / self.start


class Ground:
    """An appliance of this benchmark's own, whose config says which card answers for the name."""

    def __init__(self, file: Path, settings: dict[str, Any], body: Callable[[int], dict[str, Any]]) -> None:
        """`body` is that of a stream of so many tokens."""
        self._file = file
        self._settings = settings
        self._body = body
        self.running: serving.Running

    def write(self, card: str, how: str) -> Config:
        """Write the config: `card` takes over in the way `how`."""
        self._settings["models"] = {_NAME: {**self._settings["models"][_NAME], "card": card, "swap": how}}
        self._file.write_text(yaml.safe_dump(self._settings))
        return configuration.load(self._file)

    def work(self, connections: int, tokens: int) -> pulse.Work:
        """Streams of so many tokens."""
        port = urlsplit(self.running.address).port or 80
        headers = {"authorization": f"Bearer {self.running.key}"}
        return pulse.Work(port, self._body(tokens), headers, connections)

    def swap(self, card: str, how: str) -> Steps:
        """Have `card` take over. Raises `Failed` when it is refused."""
        config = self.write(card, how)
        times = {"began": time.monotonic()}
        checks: dict[str, float] = {}
        for line in control.ask(config.state, "POST", "/apply"):
            now, told = time.monotonic(), str(line.get("progress", ""))
            if "error" in line:
                raise Failed(f"the swap to {card} was refused: {line['error']}")
            if f": starting {card}" in told:
                times["started"] = now
            elif told.endswith("the new engine has answered"):
                times["answered"] = now
            elif ": gate: " in told:
                checks[told.partition(": ")[2]] = now
            elif "changes" in line:
                times["moved"] = now
            if told:
                say(f"    {now - times['began']:5.1f} s  {told}")
        return Steps(**times, checks=checks)

    def alone(self) -> None:
        """Return once what was replaced has ended."""
        while len(list(self.running.state.glob("run/e*"))) > 1:
            time.sleep(0.2)


def beside(ground: Ground, old: str, new: str, streams: int, seconds: float) -> Beside:
    """The gaps of `streams` on `old`, for `seconds` before and after it is replaced by `new`, and meanwhile."""
    say(f"  {streams} streams on {old}; {new} takes over")
    with pulse.going(ground.work(streams, _LONG)) as going:
        time.sleep(_SETTLED + seconds)
        steps = ground.swap(new, "beside")
        time.sleep(_SETTLED + seconds)
        ended = time.monotonic()
        answers = going.end()
    _all_well(answers, streams)
    over = steps.moved + _SETTLED
    quiet = [*_gaps(answers, steps.began - seconds, steps.began), *_gaps(answers, over, ended)]
    phases = []
    for name, (begin, end) in steps.phases.items():
        if gaps := _gaps(answers, begin, end):
            phases.append(Phase(name, end - begin, percentile(gaps, 0.99), max(gaps)))
    ground.alone()
    return Beside(streams, old, new, quiet, _gaps(answers, steps.began, over), over - steps.began, phases)


def replaced(ground: Ground, old: str, new: str, seconds: float) -> Replaced:
    """The pause that short requests see while `old` ends and `new` starts after it."""
    say(f"  short requests to {old}; {new} replaces it")
    with pulse.going(ground.work(_ASKERS, _ANSWER)) as going:
        time.sleep(seconds / 4)
        steps = ground.swap(new, "replace")
        time.sleep(seconds / 4)
        answers = going.end()
    _all_well(answers, len([answer for answer in answers if not answer.whole]))
    waits = [answer.pieces[0] - answer.sent for answer in answers if answer.pieces]
    start, gate = steps.answered - steps.started, steps.moved - steps.answered
    return Replaced(old, new, max(waits), steps.started - steps.began, start, gate, len(answers))


def _gaps(answers: Sequence[Answer], begin: float, end: float) -> list[float]:
    return [1000 * gap for answer in answers for gap in answer.gaps(begin, end)]


def _all_well(answers: Sequence[Answer], running: int) -> None:
    """Raise `Failed` when a request failed, or another number than `running` still ran at the end."""
    failures = [answer.failure for answer in answers if answer.failure]
    if failures:
        raise Failed(f"{len(failures)} of {len(answers)} requests failed: {failures[0]}")
    if (still := sum(not answer.whole for answer in answers)) != running:
        raise Failed(f"{still} streams ran at the end, and {running} were begun: their context has no room for more")


@contextlib.contextmanager
def ground(config: Config | None, cards: Sequence[str], folder: Path) -> Iterator[Ground]:
    """An appliance with the models of `config`, without one on the fake engine. Raises `NotRunning`."""
    batching = {"max_sequences": 64}
    if config is None:
        from tests.fakes.house import House

        house = House(folder)
        for card in cards:
            house.card(card, context_length=8192)
        settings = house.settings
        body = _for_the_fake
    else:
        environment = str(config.path(config.settings.engines.environment))
        settings = {
            "listen": {"port": 0},
            "state": str(folder / "state"),
            "egress": {"mode": "deny", "verify": {"every_seconds": 0}},
            "models_folder": str(config.models_folder),
            "engines": {"environment": environment, "device": config.settings.engines.device},
        }
        body = partial(story, _NAME)
    settings["models"] = {_NAME: {"batching": batching}}
    place = Ground(folder / "appliance.yaml", settings, body)
    with serving.appliance(place.write(cards[0], "beside")) as running:
        place.running = running
        yield place


def _for_the_fake(tokens: int) -> dict[str, Any]:
    words = [{"role": "user", "content": f"tokens={tokens} gap=0.02"}]
    return {"model": _NAME, "stream": True, "messages": words, "max_tokens": tokens}


def table(found: Sequence[Beside], pauses: Sequence[Replaced]) -> str:
    """The figures as Markdown."""
    lines = [
        "| streams | from, to | swap took | interval between tokens | p99 without | with | added, in intervals "
        "| longest without | with | added, in intervals | slower on average |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.streams} | {each.old}, {each.new} | {each.seconds:.0f} s | {each.interval:.0f} ms "
        f"| {percentile(each.quiet, 0.99):.0f} ms | {percentile(each.during, 0.99):.0f} ms | {each.p99:+.1f} "
        f"| {max(each.quiet):.0f} ms | {max(each.during):.0f} ms | {each.longest:+.1f} | {each.slower:.2f} times |"
        for each in found
    ]
    lines += ["", "| streams | from, to | part of the swap | took | p99 | longest |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {each.streams} | {each.old}, {each.new} | {phase.name} | {phase.seconds:.1f} s | {phase.p99:.0f} ms "
        f"| {phase.longest:.0f} ms |"
        for each in found for phase in each.phases
    ]  # fmt: skip
    lines += ["", "| replaced | by | until it has ended | start | gate | longest wait | over the start |", _RULE]
    lines += [
        f"| {pause.old} | {pause.new} | {pause.end:.1f} s | {pause.start:.1f} s | {pause.gate:.1f} s "
        f"| {pause.pause:.1f} s | {pause.over - 1:+.0%} |"
        for pause in pauses
    ]
    return "\n".join(lines)


def chart(found: Sequence[Beside]) -> str:
    """How many of the gaps were longer than so many milliseconds, with a swap and without."""
    with charts.style():
        figure = Figure(figsize=(8, 2.6 * len(found)), layout="constrained")
        for axes, each in zip(figure.subplots(len(found), 1, squeeze=False).flat, found, strict=True):
            for gaps, colour, label in ((each.quiet, charts.CALM, "without"), (each.during, charts.BAD, "with a swap")):
                shares = [1 - number / len(gaps) for number in range(len(gaps))]
                axes.step(sorted(gaps), shares, color=colour, linewidth=1.6, label=label)
            axes.set(yscale="log", xscale="log", ylabel="share that is longer")
            axes.set_title(f"{each.streams} streams on {each.old}, and {each.new} takes over")
            charts.plain(axes.xaxis)
            axes.legend()
        axes.set_xlabel("milliseconds from token to token")
        return charts.svg(figure)


def verdicts(found: Sequence[Beside], pauses: Sequence[Replaced]) -> dict[str, bool | None]:
    """What was to hold, in words, and whether it does; None where other work disturbed the streams more than a swap."""
    said: dict[str, bool | None] = {}
    for each in found:
        where = f"{each.streams} streams, {each.old} to {each.new}"
        for what, grown in (("longest", each.longest), ("99th percentile of the", each.p99)):
            words = f"{where}: {what} wait for a token {grown:+.1f} intervals ({INTERVALS:g} at most)"
            said[words] = None if grown < -INTERVALS else grown <= INTERVALS
    for pause in pauses:
        what = f"{pause.new} in the place of {pause.old}: the pause is {pause.over - 1:+.0%} over the start"
        said[f"{what} ({OVER - 1:.0%} at most)"] = pause.over <= OVER
    return said


def measure(config: Config | None, cards: Sequence[str], counts: Sequence[int], seconds: float) -> dict[str, Any]:
    """All of it, as `keep` takes it. Raises `Failed` or `NotRunning`."""
    found: list[Beside] = []
    pauses: list[Replaced] = []
    ways = [(cards[0], cards[1]), (cards[1], cards[0])]
    with (
        tempfile.TemporaryDirectory(prefix="swap-") as name,
        ground(config, cards, Path(name).resolve()) as place,
    ):
        for streams in counts:
            found += [beside(place, old, new, streams, seconds) for old, new in ways]
        pauses += [replaced(place, old, new, seconds) for old, new in ways]
    figures = [
        {
            "streams": each.streams, "old": each.old, "new": each.new, "seconds": each.seconds,
            "interval_ms": each.interval, "added_intervals_longest": each.longest, "added_intervals_p99": each.p99,
            "slower_times": each.slower, "phases": list(map(asdict, each.phases)),
            "quiet_ms": each.quiet, "during_ms": each.during,
        }
        for each in found
    ]  # fmt: skip
    return {
        "beside": figures,
        "replaced": [{**asdict(pause), "over": pause.over} for pause in pauses],
        "verdicts": verdicts(found, pauses),
        "table": table(found, pauses),
        "chart": chart(found),
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_line("swap", __doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/appliance.yaml"), help="(default: %(default)s)")
    parser.add_argument("--fake", action="store_true", help="a fake engine, for the appliance alone")
    parser.add_argument("--cards", nargs=2, default=CARDS, metavar="CARD", help="(default: %(default)s)")
    parser.add_argument("--streams", nargs="+", type=int, default=[4, 32], help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=20, help="without a swap, before it and after it (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        config = None if options.fake else configuration.load(options.config)
        saved = measure(config, options.cards, options.streams, options.seconds)
    except Invalid as problem:
        parser.error(str(problem))
    except (NotRunning, Failed) as problem:
        say(str(problem))
        return 3
    text, drawing = saved.pop("table"), saved.pop("chart")
    saved = {
        "setting": setting.describe("fastapi", "uvicorn", "uvloop"),
        "engine": "fake" if config is None else "",
        **saved,
    }
    keep(options.results, "swap-fake" if options.fake else "swap", saved, text, drawing)
    show(text)
    for words, holds in saved["verdicts"].items():
        show(f"{MARKS[holds]} {words}")
    return 0 if all(saved["verdicts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
