"""What it costs to keep books: processor time and latency of admission, reservation and settlement of a request.

    python -m benchmarks.accounts
    python -m benchmarks.accounts --requests 50000 --rounds 9
    PGPASSWORD=... python -m benchmarks.accounts --postgresql books@db.internal:5432/bench

Many tasks at once reserve, wait until the reservation is on disk, and settle, with no engine in between: the load
is as high as it gets. Processor time is that of the whole process, of the event loop as of the thread that writes,
so it includes what the tasks themselves cost. `no limits` books only; `four scopes` holds each request against
budgets and limits per minute of a key, a user, a team and a use case. To reach on SQLite: at most 60 us a request.

reserve   until it is decided: in memory with SQLite; with PostgreSQL after a round trip, which decides for all who
          wait, so that budgets hold exactly over several appliances.
kept      from then until it is on disk. A request goes to its engine meanwhile; only its answer waits for this.

SQLite's file lies under the results folder while it is measured, so that its disk is a real one. --postgresql names
an empty database of its own, since what is measured is booked there; without TLS.

Saves accounts.json and accounts.md under results/. Exit status: 0 all reached, 1 not, 2 wrong command line or no
such database.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from appliance.accounts.bookkeeper import Bookkeeper
from appliance.accounts.entries import Want
from appliance.accounts.store import Look, Store
from appliance.config import Accounts, Postgresql
from appliance.errors import BooksUnavailable
from benchmarks import setting
from benchmarks.overhead import percentile
from benchmarks.pairs import MARKS
from benchmarks.results import keep
from benchmarks.terminal import command_line, say, show

REACH_US = 60.0
_PEOPLE = 32
"""Keys and users that the requests are of, in four teams."""
_AMPLE = {
    "requests_per_minute": 10**9, "tokens_per_minute": 10**12, "parallel_requests": 10**6,
    "tokens_per_day": 10**15, "euros_per_month": 1e9,
}  # fmt: skip
_PRICES = {"machine_hour_euros": 1.0, "models": {"chat": {"tokens_per_second": 1000.0}}}
SETTINGS: dict[str, dict[str, Any]] = {
    "no limits": {"prices": _PRICES},
    "four scopes": {
        "prices": _PRICES, "each_key": _AMPLE, "each_user": _AMPLE, "each_team": _AMPLE,
        "use_cases": {"letters": _AMPLE},
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is asked in each round."""

    rounds: int
    requests: int
    tasks: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One round. Microseconds are processor time for each request."""

    request_us: float
    requests_per_second: float
    reserve_p50_ms: float
    reserve_p99_ms: float
    kept_p50_ms: float
    kept_p99_ms: float


async def measure(store: Store, accounts: Accounts, amount: Amount) -> Sample:
    """One round on `store`, which stays open."""
    keeper = Bookkeeper(store, accounts, appliance="benchmark")
    await keeper.open()
    reserved: list[float] = []
    kept: list[float] = []
    left = iter(range(amount.requests))
    now = time.perf_counter

    async def task(number: int) -> None:
        person = number % _PEOPLE
        want = Want(f"key_{person}", f"user {person}", f"team {person % 4}", "letters", "chat", 500, 200)
        for _ in left:
            asked = now()
            booking = await keeper.reserve(want)
            decided = now()
            await booking.kept()
            reserved.append(decided - asked)
            kept.append(now() - decided)
            booking.settle(100, 50)

    processor, began = time.process_time(), now()
    await asyncio.gather(*(task(number) for number in range(amount.tasks)))
    processor, seconds = time.process_time() - processor, now() - began
    await keeper.close(10)
    return Sample(
        request_us=processor / amount.requests * 1e6,
        requests_per_second=amount.requests / seconds,
        reserve_p50_ms=percentile(reserved, 0.5) * 1e3,
        reserve_p99_ms=percentile(reserved, 0.99) * 1e3,
        kept_p50_ms=percentile(kept, 0.5) * 1e3,
        kept_p99_ms=percentile(kept, 0.99) * 1e3,
    )


def rounds(backend: str, store: Store, amount: Amount) -> dict[str, list[Sample]]:
    """Samples of each setting, one after the other in each round, so that a drift of the machine hits all alike."""
    samples: dict[str, list[Sample]] = {name: [] for name in SETTINGS}
    for number in range(amount.rounds + 1):
        for name, settings in SETTINGS.items():
            sample = uvloop.run(measure(store, Accounts.model_validate(settings), amount))
            if number:  # the first warms up
                samples[name].append(sample)
                say(f"  round {number}/{amount.rounds}  {backend:<10} {name:<11} {sample.request_us:6.1f} us/request")
    return samples


def medians(samples: list[Sample]) -> Sample:
    """The median of each figure."""
    return Sample(**{name: statistics.median(asdict(each)[name] for each in samples) for name in asdict(samples[0])})


def round_trip_ms(store: Store) -> float:
    """The median time of an empty group: what deciding in the database takes when there is nothing to decide."""

    def once() -> float:
        began = time.perf_counter()
        with store.group(Look()):
            pass
        return time.perf_counter() - began

    return statistics.median(once() for _ in range(200)) * 1e3


def table(results: dict[str, dict[str, Sample]]) -> str:
    """The figures as Markdown."""
    lines = [
        "| store | limits | us per request | requests/s | reserve p50 / p99 | kept p50 / p99 |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {backend} | {name} | {row.request_us:.1f} | {row.requests_per_second:,.0f} "
        f"| {row.reserve_p50_ms:.3f} / {row.reserve_p99_ms:.3f} ms | {row.kept_p50_ms:.2f} / {row.kept_p99_ms:.2f} ms |"
        for backend, rows in results.items()
        for name, row in rows.items()
    ]
    return "\n".join(lines)


def verdicts(results: dict[str, dict[str, Sample]]) -> list[tuple[bool, str]]:
    """What was to be reached, and whether it is, by medians of all rounds."""
    return [
        (row.request_us <= REACH_US, f"SQLite, {name}: {row.request_us:.1f} us per request; at most {REACH_US:.0f}")
        for name, row in results["SQLite"].items()
    ]


def _database(text: str) -> Postgresql:
    user, _, rest = text.partition("@")
    address, _, database = rest.partition("/")
    host, _, port = address.rpartition(":")
    if not (user and host and port.isdecimal() and database):
        raise argparse.ArgumentTypeError("has to be USER@HOST:PORT/DATABASE")
    return Postgresql.model_validate(
        {"host": host, "port": int(port), "database": database, "user": user, "tls": False}
    )


def _empty(settings: Postgresql) -> Store:
    """A store in an empty database. Raises `BooksUnavailable` for one that isn't there, or is used already."""
    store = Store.postgresql(settings, os.environ.get("PGPASSWORD"), None, None)
    if store.keys() or store.usage("0001-01-01", "9999-12-31", None):
        store.close()
        raise BooksUnavailable(f"the database {settings.database} is in use; name an empty one")
    return store


def _options() -> argparse.ArgumentParser:
    parser = command_line("accounts", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--requests", type=int, default=10_000, help="per setting and round (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=32, help="at once (default: %(default)s)")
    parser.add_argument(
        "--postgresql", type=_database, metavar="USER@HOST:PORT/DATABASE",
        help="measure this, too; the password is in PGPASSWORD",
    )  # fmt: skip
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _options().parse_args(arguments)
    amount = Amount(options.rounds, options.requests, options.tasks)
    options.results.mkdir(parents=True, exist_ok=True)
    try:
        database = _empty(options.postgresql) if options.postgresql is not None else None
    except BooksUnavailable as why_not:
        say(f"accounts: {why_not}")
        return 2
    samples: dict[str, dict[str, list[Sample]]] = {}
    trip = None
    with (
        tempfile.TemporaryDirectory(dir=options.results, prefix="accounts-") as folder,
        contextlib.closing(Store.sqlite(Path(folder))) as embedded,
    ):
        samples["SQLite"] = rounds("SQLite", embedded, amount)
    if database is not None:
        with contextlib.closing(database):
            samples["PostgreSQL"] = rounds("PostgreSQL", database, amount)
            trip = round_trip_ms(database)

    results = {backend: {name: medians(each) for name, each in found.items()} for backend, found in samples.items()}
    about = setting.describe("sqlalchemy", "pg8000", "uvloop")
    judged = verdicts(results)
    saved = {
        "setting": about,
        "amount": asdict(amount),
        "medians": {backend: {name: asdict(row) for name, row in rows.items()} for backend, rows in results.items()},
        "rounds": {
            backend: {name: [asdict(each) for each in found] for name, found in kinds.items()}
            for backend, kinds in samples.items()
        },
        "round_trip_ms": trip,
        "reached": [{"reached": reached, "what": what} for reached, what in judged],
    }
    text = table(results)
    if trip is not None:
        text += f"\n\nA round trip to PostgreSQL that decides nothing takes {trip:.2f} ms."
    keep(options.results, "accounts", saved, text)
    show(text)
    for reached, what in judged:
        show(f"{MARKS[reached]} {what}")
    say(f"saved under {options.results}/: accounts.json, accounts.md")
    return 0 if all(reached for reached, _ in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
