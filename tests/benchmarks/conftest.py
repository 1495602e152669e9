from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.gateways import Upstream
from benchmarks.overhead import static_upstream


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """The static upstream, streaming a chunk each millisecond; its socket's path is short as Unix wants it."""
    with TemporaryDirectory() as folder, static_upstream(Path(folder), 1) as running:
        yield running
