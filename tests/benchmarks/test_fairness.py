"""What the fairness run makes of its figures, and that it runs against the real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.config import Config
from benchmarks import fairness, load, serving, teams
from benchmarks.fairness import QUEUE, STRAIGHT, Quiet, Way
from tests.fakes import house as houses

WAYS = [
    Way(QUEUE, Quiet([50.0, 60.0, 70.0]), Quiet([90.0, 100.0, 200.0], 400.0)),
    Way(STRAIGHT, Quiet([50.0, 50.0, 50.0]), Quiet([400.0] * 3, 600.0)),
]


@pytest.fixture
def served() -> Iterator[Config]:
    """The config of an appliance that runs on the fake engine."""
    for house in houses.house():
        house.card("tiny")
        house.serve("chat", "tiny")
        loaded = config.load(house.write())
        with serving.appliance(loaded):
            yield loaded


def test_the_factor_is_of_medians() -> None:
    assert WAYS[0].factor == pytest.approx(100 / 60)
    assert WAYS[1].factor == 8


def test_the_table_shows_both_ways() -> None:
    first, second = fairness.table(WAYS).splitlines()[2:]
    assert "| through the queue | 60 ms | 70 ms | 100 ms | 200 ms | 1.67 | 2.86 | 400 |" in first
    assert "| 8.00 |" in second


def test_the_chart_holds_every_request() -> None:
    drawn = fairness.chart(WAYS)
    assert "through the queue (3)" in drawn
    assert "straight to the engine (3)" in drawn


@pytest.mark.parametrize(("factor", "status"), [(1.9, 0), (2.1, 1)])
def test_the_exit_status_says_whether_it_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, factor: float, status: int
) -> None:
    ways = [Way(QUEUE, Quiet([100.0]), Quiet([100.0 * factor])), WAYS[1]]

    def compared(*_: Any, **__: Any) -> list[Way]:
        return ways

    monkeypatch.setattr(fairness, "compare", compared)
    assert fairness.main(["--results", str(tmp_path)]) == status
    assert {path.name for path in tmp_path.iterdir()} == {"fairness.json", "fairness.md", "fairness.svg"}


def test_a_short_run_through_a_real_gateway_measures_both_ways(served: Config) -> None:
    ways = fairness.compare(served, "chat", streams=8, tokens=8, asks=5, settle=5)
    assert [way.name for way in ways] == [QUEUE, STRAIGHT]
    for way in ways:
        assert len(way.idle.first_token_ms) == len(way.flooded.first_token_ms) == 5
        assert way.flooded.flood_tokens_per_second > 0


def test_a_teams_key_opens_for_as_long_as_the_run_takes(served: Config) -> None:
    with serving.appliance(served) as running:
        port = int(running.address.rsplit(":", 1)[1])
        with teams.key(served, "sales") as headers:
            assert load.apply(load.Work(port, fairness.question("chat"), headers, requests=1)).answered == 1
