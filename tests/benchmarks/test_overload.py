"""What the overload run makes of its figures, that it runs against the real gateway, and its open-loop client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks import arrivals, overload
from benchmarks.arrivals import Arrivals, Outcome
from benchmarks.overload import Run

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
SHED = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}"

Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[int]:
    """Answers the n-th request as told; yields its port."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(length)
                count += 1
                await answer(count - 1, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


async def test_requests_come_however_slowly_they_are_answered() -> None:
    """None is answered before all twenty are there."""
    all_there = asyncio.Event()

    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 19:
            all_there.set()
        await all_there.wait()
        writer.write(GOOD)

    async with server(answer) as port:
        outcome = await arrivals.drive(Arrivals(port, {}, {}, per_second=100, seconds=0.2, patience=20))
    assert len(outcome.answered) >= 20
    assert outcome.failed == outcome.late == 0


async def test_answers_refusals_and_failures_are_told_apart() -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number % 4 == 3:
            writer.close()
            return
        writer.write([GOOD, SHED, GOOD.replace(b"200 OK", b"500 No")][number % 4])

    async with server(answer) as port:
        outcome = await arrivals.drive(Arrivals(port, {}, {}, per_second=200, seconds=0.2, patience=20))
    assert len(outcome.answered) == pytest.approx(10, abs=2)
    assert len(outcome.shed) == pytest.approx(10, abs=2)
    assert outcome.failed == pytest.approx(20, abs=3)
    assert "status 500" in outcome.first_failure or "broke" in outcome.first_failure


async def test_what_is_never_answered_is_late() -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number:
            writer.write(GOOD)

    async with server(answer) as port:
        outcome = await arrivals.drive(Arrivals(port, {}, {}, per_second=50, seconds=0.1, patience=0.2))
    assert outcome.late == 1


async def test_an_unreachable_target_is_a_failure_and_no_hang() -> None:
    outcome = await arrivals.drive(Arrivals(1, {}, {}, per_second=50, seconds=0.1, patience=5))
    assert outcome.failed >= 5
    assert outcome.late == 0


def run(*, per_second: float = 10, shed_ms: float = 2, climb: float = 0, failed: int = 0) -> Run:
    """A minute at a peak of 10 answers per second."""
    answered = [number / per_second for number in range(int(60 * per_second))]
    shed = [(number / 10, shed_ms) for number in range(600)]
    outcome = Outcome(answered, shed, failed=failed, first_failure="status 500" if failed else "")
    return Run(10, 100, 60, outcome, [(second, 100 + climb * second / 60) for second in range(60)])


def test_a_good_run_meets_all() -> None:
    assert all(run().verdicts.values())
    assert run().goodput == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "bad", [run(per_second=8), run(shed_ms=51), run(climb=5), run(failed=1)], ids=["goodput", "slow", "grows", "failed"]
)
def test_each_objective_can_be_missed(bad: Run) -> None:
    assert list(bad.verdicts.values()).count(False) == 1


def test_the_chart_and_the_table_can_be_made() -> None:
    assert "Refusals: p99" in overload.chart(run())
    assert "| 10.0 | 100 | 60 s | 600 | 2.0 ms | 2.0 ms | 100% | 100 to 100 MB | +0.00 |" in overload.table(run())


@pytest.mark.long
def test_a_short_overload_of_a_real_gateway_is_refused_and_served(tmp_path: Path) -> None:
    """What it measures of a machine with other work on it says little, so only what is in it is looked at."""
    assert overload.main(["--fake", "--seconds", "4", "--tokens", "8", "--results", str(tmp_path)]) in (0, 1)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"overload-fake.json", "overload-fake.md", "overload-fake.svg"}
