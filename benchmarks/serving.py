"""A running appliance to measure: the one that runs, or one started for as long as it is needed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance import control
from appliance.config import Config
from appliance.errors import NotRunning
from benchmarks import processes
from benchmarks.terminal import say

START_SECONDS = 900.0
_LONGEST_RUN = 12 * 3600


@dataclass(frozen=True, slots=True)
class Running:
    """An appliance that can answer: its base URL, a key lent for this run, and the process of its gateway."""

    address: str
    key: str
    pid: int
    state: Path


@contextlib.contextmanager
def appliance(config: Config) -> Iterator[Running]:
    """The appliance that runs on `config`, else one started now and stopped at the end of the block.

    Raises `NotRunning` when it can't be started or doesn't come to answer.
    """
    with contextlib.ExitStack() as stack:
        try:
            status(config)
        except NotRunning:
            say(f"no appliance runs; starting one on {config.file}")
            stack.enter_context(_started(config))
        wait_until_ready(config)
        running = status(config)
        (loan,) = control.ask(config.state, "POST", "/keys/lend", {"seconds": _LONGEST_RUN})
        yield Running(running["address"], loan["key"], running["pid"], config.state)


def status(config: Config) -> dict[str, Any]:
    """What `appliance status` knows. Raises `NotRunning`."""
    (answer,) = control.ask(config.state, "GET", "/status")
    return answer


def wait_until_ready(config: Config, seconds: float = START_SECONDS) -> None:
    """Return once every model can answer. Raises `NotRunning` when the appliance ends or takes over `seconds`."""
    until = time.monotonic() + seconds
    told = ""
    while True:
        models = status(config)["models"]
        waiting = {name: model for name, model in models.items() if model["state"] not in ("ready", "endpoint")}
        if not waiting:
            return
        if time.monotonic() > until:
            raise NotRunning(f"not ready after {seconds:.0f} s: {', '.join(waiting)}")
        now = "; ".join(f"{name}: {model.get('stage') or model['state']}" for name, model in waiting.items())
        if now != told:
            say(f"  waiting: {now}")
            told = now
        time.sleep(0.2)


@contextlib.contextmanager
def _started(config: Config) -> Iterator[subprocess.Popen[bytes]]:
    def answers() -> bool:
        try:
            status(config)
        except NotRunning:
            return False
        return True

    command = [sys.executable, "-m", "appliance", "serve", "--config", str(config.file)]
    with tempfile.TemporaryDirectory(prefix="appliance-") as folder:
        try:
            with processes.running(command, Path(folder) / "log", answers, seconds=60, environment={}) as program:
                yield program
                say("stopping the appliance that was started for this")
        except processes.Broken as why:
            raise NotRunning(f"the appliance did not start: {why}") from why
