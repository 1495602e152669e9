"""Houses to test in: one that is shared by all who only ask, and as many of one's own as a test needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.fakes import house as houses
from tests.fakes.house import ROOT, House, Running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where two run at once: a file stays whole, since its fixtures are dear, and so does what the real engine runs."""
    for item in items:
        real = item.path.is_relative_to(ROOT / "tests" / "real")
        item.add_marker(pytest.mark.xdist_group("the real engine" if real else str(item.path)))


@pytest.fixture
def house() -> Iterator[House]:
    """An empty house: no card, no config."""
    yield from houses.house()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts appliances, and ends them after the test."""
    running: list[Running] = []

    def begin(house: House, **options: Any) -> Running:
        house.write()
        running.append(Running(house, **options))
        return running[-1]

    yield begin
    for each in running:
        each.process.kill()
        each.process.wait()


@pytest.fixture(scope="session")
def shared() -> Iterator[Running]:
    """A running appliance with `chat` and `vectors`. For tests that ask and change nothing."""
    for house in houses.house():
        house.card("tiny")
        house.card("small", task="embedding")
        house.serve("chat", "tiny")
        house.serve("vectors", "small")
        house.write()
        running = Running(house).ready("chat").ready("vectors")
        yield running
        running.stop()


@pytest.fixture(scope="session")
def client(shared: Running) -> Iterator[httpx.Client]:
    """A client of the shared appliance, with its key."""
    with shared.client() as client:
        yield client
