"""What each start of an engine gets of its own: a folder for its socket, and a log."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from appliance.engines import command
from appliance.engines.command import Launch, Spec
from appliance.engines.specs import unchanged
from appliance.errors import WeightsInvalid


class Launches:
    """Makes the commands that start engines. One per appliance."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._number = itertools.count(1)
        self._logs: dict[Path, Path] = {}
        """Log to the folder of the start that writes it: while that is there, so is its engine."""

    def of(self, spec: Spec, gpus: Callable[[], Sequence[int]]) -> Callable[[], Awaitable[Launch]]:
        """What makes the command for each start of `spec`, whose weights have just been verified.

        `gpus` tells by number on which it is to run now.
        """
        verified = True  # only a restart comes later

        async def launch() -> Launch:
            nonlocal verified
            if not verified and not await asyncio.to_thread(unchanged, spec):
                raise WeightsInvalid(f"{spec.weights} was prepared anew meanwhile. Run `appliance apply` to load it.")
            verified = False
            return self._launch(spec, gpus())

        return launch

    def _launch(self, spec: Spec, gpus: Sequence[int]) -> Launch:
        # short: the path of a Unix socket holds at most 107 bytes
        folder = self._state / "run" / f"e{next(self._number)}"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
        cache, logs = self._state / "cache", self._state / "logs"
        cache.mkdir(mode=0o700, exist_ok=True)
        logs.mkdir(mode=0o700, exist_ok=True)
        return command.launch(spec, folder, cache, self._log(logs, spec.name, folder), gpus)

    def _log(self, logs: Path, name: str, folder: Path) -> Path:
        """A log that no other engine of that name writes to now: each tells its own last words."""
        stem = f"engine-{name.replace('/', '_')}"
        numbers = itertools.chain([""], (f"-{each}" for each in itertools.count(2)))
        free = (logs / f"{stem}{number}.log" for number in numbers)
        log = next(log for log in free if log not in self._logs or not self._logs[log].exists())
        self._logs[log] = folder
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        return log
