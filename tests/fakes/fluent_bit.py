"""Fluent Bit, a real collector, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FLUENT_BIT = os.environ.get("FLUENT_BIT") or shutil.which("fluent-bit")
MISSING = "needs Fluent Bit, which is not among the test tools: install it, or say where it is by FLUENT_BIT=PATH"


@contextmanager
def fluent_bit(config: Path, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running one with that config; what it prints goes into `log`."""
    assert FLUENT_BIT
    with log.open("ab") as output:
        process = subprocess.Popen(
            [FLUENT_BIT, "-c", config], stdout=output, stderr=output, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
