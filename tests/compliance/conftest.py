"""A life to report on, gathered once: in order, and with a failure and a gap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.compliance.collect import Facts
from tests.compliance import sample
from tests.fakes import house as houses


@pytest.fixture(scope="session")
def good() -> Iterator[Facts]:
    """All in order."""
    for house in houses.house():
        yield sample.facts(house)


@pytest.fixture(scope="session")
def bad() -> Iterator[Facts]:
    """One verification failed, and for hours there was none."""
    for house in houses.house():
        yield sample.facts(house, failing=True, gap=True)
