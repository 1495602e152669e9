"""How soon another weight of a rollout holds: by `appliance rollout weight`, and by an edited config that is applied.

The appliance runs as it does anywhere, with engines that pretend, while users ask one short request after the other.
Each change takes all of them from one version to the other. It holds from the moment it is ordered until the last
request was sent that the version before it still answered; a request that was sent before the order may end after it.

    python -m benchmarks.routing
    python -m benchmarks.routing --changes 50 --users 32

To reach by the command: 100 ms, at each change; and no request fails. What an apply takes is mostly the checksums of
the weights, which it verifies first.

Saves routing.json and routing.md under results/. Exit status: 0 all reached, 1 not, 2 wrong command line.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from appliance import control
from benchmarks import setting
from benchmarks.pairs import MARKS
from benchmarks.results import keep
from benchmarks.terminal import command_line, say, show
from tests.fakes.house import House, Running, house, until

REACH_MS = 100.0
PATH = "/v1/chat/completions"
ASKED = {"model": "chat", "messages": [{"role": "user", "content": "tokens=1"}]}
_AFTER_SECONDS = 0.3


@dataclass(slots=True)
class Users:
    """Those who ask, each in a thread; `answers` has when each request was sent, and which card answered it."""

    running: Running
    count: int
    stop: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[float, str]] = field(default_factory=list)
    failed: int = 0
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Users:
        self.threads = [threading.Thread(target=self._ask) for _ in range(self.count)]
        for each in self.threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for each in self.threads:
            each.join()

    def _ask(self) -> None:
        with self.running.client() as client:
            while not self.stop.is_set():
                sent = time.perf_counter()
                try:
                    answer: Any = client.post(PATH, json=ASKED).json()
                    self.answers.append((sent, answer["choices"][0]["message"]["content"]))
                except (httpx.HTTPError, ValueError, LookupError):
                    self.failed += 1


@dataclass(frozen=True, slots=True)
class Change:
    """One change, in milliseconds from its order: when it was confirmed, and when it held."""

    confirmed_ms: float
    held_ms: float


def change(users: Users, order: Callable[[], None], card: str) -> Change:
    """Give `order`, after which `card` answers everything."""
    ordered = time.perf_counter()
    order()
    confirmed = time.perf_counter()
    time.sleep(_AFTER_SECONDS)
    late = [sent for sent, said in list(users.answers) if sent > ordered and said != card]
    return Change((confirmed - ordered) * 1000, (max(late, default=ordered) - ordered) * 1000)


def by_command(made: House, percent: float) -> None:
    """As `appliance rollout weight` does."""
    (answer,) = control.ask(made.state, "POST", "/rollout", {"do": "weight", "name": "chat", "percent": percent})
    if "error" in answer:
        raise RuntimeError(answer["error"])


def by_config(made: House, percent: float) -> None:
    """As an administrator does who edits the file, from `appliance apply` on."""
    made.settings["models"]["chat"]["rollout"]["percent"] = percent
    made.write()
    last = list(control.ask(made.state, "POST", "/apply"))[-1]
    if "error" in last:
        raise RuntimeError(last["error"])


_COMMAND = "`appliance rollout weight`"
WAYS = {_COMMAND: by_command, "an edited config, `appliance apply`": by_config}


def measure(made: House, users: Users, changes: int) -> dict[str, list[Change]]:
    """So many changes in each way, to and fro."""
    found: dict[str, list[Change]] = {}
    for way, order in WAYS.items():
        say(way)
        found[way] = [
            change(users, lambda order=order, to=to: order(made, 100.0 * to), ("one", "two")[to])  # type: ignore[misc]
            for to in (number % 2 for number in range(1, changes + 1))
        ]
        order(made, 0.0)
    return found


def _measured(made: House, users: int, changes: int) -> tuple[dict[str, list[Change]], Users]:
    for name in ("one", "two"):
        made.card(name)
    made.serve("chat", "one", rollout={"card": "two", "mode": "ab", "percent": 0, "by": "request"})
    made.write()
    running = Running(made).ready()
    try:
        until(lambda: running.status()["rollouts"]["running"]["chat"]["candidate"]["state"] == "ready")
        _ = running.key  # so that all use the same one
        with Users(running, users) as asking:
            until(lambda: len(asking.answers) > users)
            return measure(made, asking, changes), asking
    finally:
        running.stop()


def table(found: dict[str, list[Change]]) -> str:
    """The figures for people."""
    rows = ["| a weight is changed by | holds after, median | at most | confirmed after, median |", "|---|---|---|---|"]
    for way, changes in found.items():
        held = [each.held_ms for each in changes]
        confirmed = statistics.median(each.confirmed_ms for each in changes)
        rows.append(f"| {way} | {statistics.median(held):.1f} ms | {max(held):.1f} ms | {confirmed:.1f} ms |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_line("routing", __doc__)
    parser.add_argument("--changes", type=int, default=20, help="in each way (default: %(default)s)")
    parser.add_argument("--users", type=int, default=8, help="who ask at once (default: %(default)s)")
    options = parser.parse_args(arguments)
    (found, users), *_ = (_measured(made, options.users, options.changes) for made in house())
    most = max(each.held_ms for each in found[_COMMAND])
    shown = table(found)
    show(shown)
    judged = [
        (most <= REACH_MS, f"by the command, held after {most:.1f} ms at most; {REACH_MS:g} ms to reach"),
        (not users.failed, f"{len(users.answers)} requests answered, {users.failed} failed"),
    ]
    for reached, what in judged:
        show(f"{MARKS[reached]} {what}")
    figures = {
        "setting": setting.describe(),
        "amount": {"changes": options.changes, "users": options.users, "requests": len(users.answers)},
        "failed": users.failed,
        "changes": {way: [[each.confirmed_ms, each.held_ms] for each in changes] for way, changes in found.items()},
    }
    keep(options.results, "routing", figures, shown)
    return 0 if all(reached for reached, _ in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
