"""The benchmark of swaps: what counts as a delay and as a pause, and that it can be run at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.pulse import Answer
from benchmarks.swap import Beside, Phase, Replaced, Steps, main, table, verdicts

QUIET = [20.0] * 98 + [25.0, 40.0]


def beside(during: list[float]) -> Beside:
    return Beside(4, "one", "two", QUIET, during, 30.0, [Phase("gate: speed", 3.0, 77.0, 99.0)])


def test_a_gap_belongs_to_the_time_in_which_it_ends() -> None:
    answer = Answer(sent=0.5, pieces=[1.0, 1.5, 3.0, 3.25])
    assert answer.gaps(1.0, 3.0) == [0.5]
    assert answer.gaps(3.0, 4.0) == [1.5, 0.25]


def test_a_delay_is_told_in_intervals_over_what_is_waited_without_a_swap() -> None:
    assert beside(QUIET).longest == beside(QUIET).p99 == 0
    assert beside([20.0] * 99 + [60.0]).longest == 1
    assert beside([40.0] * 100).slower == pytest.approx(1.975, abs=0.01)


def test_the_parts_of_a_swap_follow_one_another() -> None:
    steps = Steps(1.0, 2.0, 12.0, 15.0, {"gate: smoke prompt": 12.1, "gate: speed": 13.0})
    assert steps.phases == {
        "weights looked at": (1.0, 2.0), "starts": (2.0, 12.1), "gate: smoke prompt": (12.1, 13.0),
        "gate: speed": (13.0, 15.0), "moved": (15.0, 16.0),
    }  # fmt: skip
    assert "| gate: speed | 3.0 s | 77 ms | 99 ms |" in table([beside(QUIET)], [])


@pytest.mark.parametrize(("longest", "holds"), [(20.0, True), (60.0, True), (61.0, False), (19.0, None)])
def test_one_interval_is_allowed_and_no_more_and_a_disturbed_run_proves_nothing(
    longest: float, holds: bool | None
) -> None:
    said = verdicts([beside([min(20.0, longest)] * 999 + [longest])], [])
    assert [met for words, met in said.items() if "longest" in words] == [holds]


@pytest.mark.parametrize(("pause", "holds"), [(11.0, True), (11.1, False)])
def test_a_pause_may_be_a_tenth_over_the_start(pause: float, holds: bool) -> None:
    replaced = Replaced("one", "two", pause, end=0.5, start=10.0, gate=0.4, requests=20)
    assert list(verdicts([], [replaced]).values()) == [holds]
    assert f"| {pause:.1f} s |" in table([], [replaced])


@pytest.mark.long
def test_swaps_of_the_fake_engine_are_measured(tmp_path: Path) -> None:
    assert main(["--fake", "--streams", "2", "--seconds", "1", "--results", str(tmp_path)]) in (0, 1)
    saved = json.loads((tmp_path / "swap-fake.json").read_text())
    assert [each["streams"] for each in saved["beside"]] == [2, 2]
    assert all(15 < each["interval_ms"] < 60 for each in saved["beside"])
    assert all(each["pause"] >= each["start"] > 0 for each in saved["replaced"])
    assert "<svg" in (tmp_path / "swap-fake.svg").read_text()
