"""What the seal costs: how figures are judged, that both ways are what they say, and small amounts of each."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from appliance import control
from appliance.engines.process import Nursery
from appliance.seal.evidence import evidence
from benchmarks import engines, overhead, processes, seal, unsealed
from benchmarks.engines import Kept
from benchmarks.gateways import Appliance, Gateway, Unsealed, Upstream, write_config
from benchmarks.pairs import Ratio, in_turn
from benchmarks.starting import Starts
from benchmarks.verifying import Verification, Verified

ROOT = Path(__file__).parents[2]
SAMPLE = overhead.Sample(
    requests_per_second=5000, p50_ms=1, p99_ms=2, crowd_p50_ms=3, crowd_p99_ms=4, request_us=160, chunk_us=40,
    first_token_p50_ms=5, resident_mb=80, failed=0,
)  # fmt: skip
QUICK = Verification(seconds=1.0, looking_seconds=0.4, processor_seconds=0.5, holds=True, requests=32)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path short enough for Unix sockets below it."""
    with tempfile.TemporaryDirectory(prefix="seal-") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("ratios", "at_least", "at_most"),
    [
        ([0.99, 1.0, 1.01] * 4, True, True),
        ([0.90, 0.95] * 5, False, True),
        ([1.05, 1.10] * 5, True, False),
        ([0.7, 1.0, 1.3] * 3, None, None),
        ([1.0] * 5, None, None),
        ([1.0] * 9 + [float("nan")], None, None),
        ([1.0] * 6, True, True),
    ],
)
def test_an_interval_decides_only_where_it_lies_on_one_side(
    ratios: list[float], at_least: bool | None, at_most: bool | None
) -> None:
    ratio = Ratio.of(ratios)
    assert not ratio.low > ratio.median
    assert not ratio.median > ratio.high
    assert (ratio.at_least(0.98), ratio.at_most(1.02)) == (at_least, at_most)


def test_each_way_goes_first_in_every_other_pair() -> None:
    assert [in_turn("a", "b", number)[0] for number in range(4)] == ["a", "b", "a", "b"]
    assert all(set(in_turn("a", "b", number)) == {"a", "b"} for number in range(4))


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({}, [True, True, True]),
        ({"request_us": 170}, [False, True, True]),
        ({"chunk_us": 44}, [True, False, True]),
        ({"requests_per_second": 4500}, [True, True, False]),
        ({"request_us": 120, "chunk_us": 30, "requests_per_second": 6000}, [True, True, True]),
        ({"chunk_us": float("nan")}, [True, None, True]),
    ],
)
def test_the_overhead_of_the_seal_is_judged_by_pairs(changes: dict[str, float], reached: list[bool | None]) -> None:
    """More processor time is worse, more requests/s are better; what was never measured isn't reached."""
    sealed = [replace(SAMPLE, **changes)] * 6  # type: ignore[arg-type]
    assert [reached for reached, _ in overhead.cost_of_the_seal(sealed, [SAMPLE] * 6)] == reached


def test_a_counter_that_has_not_moved_decides_nothing() -> None:
    free = [replace(SAMPLE, chunk_us=0.0)] * 6
    assert [reached for reached, _ in overhead.cost_of_the_seal([SAMPLE] * 6, free)] == [True, None, True]


def test_rounds_that_differ_leave_the_overhead_undecided() -> None:
    sealed = [replace(SAMPLE, request_us=160 * factor) for factor in (0.8, 1.0, 1.3) * 3]
    (reached, told), *_ = overhead.cost_of_the_seal(sealed, [SAMPLE] * 9)
    assert reached is None
    assert "undecided" in told


def test_a_start_costs_the_gateways_seal_and_what_an_engines_adds() -> None:
    starts = Starts(
        "root", gateway=[8.0, 9.0, 100.0], sealed=[21.0, 20.0, 22.0], unsealed=[13.0, 14.0, 15.0], trial=[40.0]
    )
    assert (starts.engine_ms, starts.cost_ms) == (7.0, 16.0)
    slow = replace(starts, gateway=[13.0])
    assert [reached for reached, _ in seal.verdicts([starts, slow], [], [])] == [True, False]


@pytest.mark.parametrize(
    ("runs", "reached"),
    [
        ([QUICK] * 10, True),
        ([*[QUICK] * 9, replace(QUICK, seconds=5.1)], False),
        ([*[QUICK] * 9, replace(QUICK, holds=False)], False),
    ],
)
def test_every_verification_has_to_be_quick_and_to_hold(runs: list[Verification], reached: bool) -> None:
    ((found, _),) = seal.verdicts([], [], [Verified("idle", runs)])
    assert found is reached


def test_the_engines_throughput_is_judged_by_pairs() -> None:
    kept = Kept(16, [(99.0, 100.0), (198.5, 200.0)] * 5)
    lost = Kept(32, [(90.0, 100.0), (190.0, 200.0)] * 5)
    assert [reached for reached, _ in seal.verdicts([], [kept, lost], [])] == [True, False]
    assert "| 16 | 150 | 149 | 99.1% (99.0% to 99.2%) |" in engines.table([kept])


@pytest.mark.parametrize(("gateway", "sealed"), [(Appliance(), True), (Unsealed(), False)])
def test_the_gateways_compared_differ_in_the_seal(
    gateway: Gateway, sealed: bool, upstream: Upstream, short: Path
) -> None:
    """The one holds by the kernel's word; the other has nothing, and says so wherever it is asked."""
    folder = short / gateway.name
    with gateway.open(upstream, folder) as door:
        (status,) = control.ask(folder / "state", "GET", "/status")
        seen = {(thread.seccomp, thread.no_new_privileges) for thread in evidence(door.pid)}
    assert seen == ({(2, 1)} if sealed else {(0, 0)})
    assert (unsealed.WARNING in status["egress"]["missing"]) is not sealed
    assert (unsealed.WARNING in (folder / "log").read_text()) is not sealed


async def test_the_engines_compared_differ_in_the_seal(short: Path) -> None:
    async def filters() -> tuple[str, bool]:
        for name in ("logs", "run", "cache"):
            (short / name).mkdir(exist_ok=True)
        nursery, log = Nursery.start(short, short / "models", Path(sys.prefix)), short / "logs" / "e.log"
        command = [sys.executable, "-c", "print(open('/proc/self/status').read())"]
        try:
            process = await nursery.spawn(command, {}, log, [], [])
            assert await process.wait() == 0
        finally:
            await nursery.close()
        (line,) = (line for line in log.read_text().splitlines() if line.startswith("Seccomp:"))
        log.unlink()
        return line.split()[1], process.seal.missing == (unsealed.WARNING,)

    assert await filters() == ("2", False)
    with mock.patch("appliance.engines.process.program", unsealed.program):
        assert await filters() == ("0", True)


def test_the_product_knows_nothing_of_the_benchmarks() -> None:
    """So nothing that is installed can start without a seal."""
    files = [*(ROOT / "appliance").rglob("*.py")]
    assert files
    assert not [
        file for file in files if "import benchmarks" in file.read_text() or "from benchmarks" in file.read_text()
    ]


def test_starts_and_verifications_are_measured(
    short: Path, upstream: Upstream, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_config(short, processes.free_port(), upstream.socket)
    small = ["--starts", "2", "--verify", "--verifications", "1", "--streams", "2", "--idle", "3"]
    status = seal.main(["--config", str(file), *small, "--results", str(short / "results")])
    said = capsys.readouterr()
    saved = json.loads((short / "results" / "seal.json").read_text())
    assert (status == 0) is all(each["reached"] for each in saved["reached"])
    for starts in saved["starts"]:
        for kind in ("gateway", "sealed", "unsealed", "trial"):
            assert len(starts[kind]) == 2
            assert all(0 < milliseconds < 60_000 for milliseconds in starts[kind])
    idle, busy = saved["verify"]
    assert (idle["load"], busy["load"]) == ("idle", "2 streams, 3 idle connections")
    assert all(0 < run["looking_seconds"] < run["seconds"] for each in (idle, busy) for run in each["runs"])
    assert saved["engine"] == []
    assert said.out.startswith("| user |")
    assert (short / "results" / "seal.md").read_text().count("|---|") >= 2


def test_wrong_input_is_told(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--pairs", "1"], ["--starts", "0"], ["--config", str(short / "none.yaml")]):
        with pytest.raises(SystemExit, match="2"):
            seal.main(arguments)
    assert "none.yaml" in capsys.readouterr().err
