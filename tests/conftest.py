"""Houses to test in: one that is shared by all who only ask, and as many of one's own as a test needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.fakes import house as houses
from tests.fakes.house import House, Running


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # its package has no types
    """Where two run at once: a file stays whole, since its fixtures are dear, and so does what the real engine runs."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/real" if nodeid.startswith("tests/real/") else nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """For pytest-xdist: how tests are shared out."""
    return ByFile(config, log)


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
