"""Times how a seal is put on, in processes such as the product starts. `benchmarks.seal` runs it.

    python -m benchmarks.starts gateway CONFIG
    python -S -m benchmarks.starts engine COUNT FOLDER [READABLE ...]

`gateway` starts the appliance of CONFIG as far as its seal, and prints what that took. `engine` forks keepers as the
nursery does, one sealed, one not, and so on, COUNT of each; it prints what passed from the fork until the command
was executed, and what the appliance's trial of this seal takes, from the fork until it has ended:
{"sealed": [...], "unsealed": [...], "trial": [...]}. All in milliseconds, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from appliance.engines import keeper
from appliance.seal.gateway import seal_gateway
from benchmarks.pairs import in_turn
from benchmarks.unsealed import without_engine_seal

# Imports what the nursery does, and the standard library: a larger process would be slower to fork.


def gateway(config: Path) -> NoReturn:
    """Start the appliance up to its seal, time that, tell, and end."""
    from appliance import app
    from appliance import config as configuration

    def timed(*arguments: Any, **options: Any) -> NoReturn:
        began = time.perf_counter()
        seal_gateway(*arguments, **options)
        _tell((time.perf_counter() - began) * 1000)
        os._exit(0)  # and with it the nursery

    with mock.patch("appliance.app.seal_gateway", timed):
        app.serve(configuration.load(config))
    raise RuntimeError("the appliance never came to its seal")


def engine(count: int, folder: Path, readable: list[Path]) -> dict[str, list[float]]:
    """Start `count` commands that end at once under the seal, as many without, and as many trials.

    `folder` is theirs to write to. Raises `RuntimeError` when one doesn't end well, or isn't sealed as it should be.
    """
    took: dict[str, list[float]] = {"sealed": [], "unsealed": [], "trial": []}
    seen = [*readable, Path(sys.base_prefix)]
    python = [Path(sys.executable).parents[1], Path(sys.base_prefix)]
    nothing = [sys.executable, "-I", "-S", "-c", ""]
    for number in range(count + 1):
        found = {}
        for way in in_turn("sealed", "unsealed", number):
            found[way], _ = _start(["/bin/true"], folder, seen, sealed=way == "sealed")
        _, found["trial"] = _start(nothing, folder, python, sealed=True)
        if number:  # the first warms up
            for way, milliseconds in found.items():
                took[way].append(milliseconds)
    return took


def _start(command: list[str], folder: Path, readable: list[Path], *, sealed: bool) -> tuple[float, float]:
    """Milliseconds from the fork of the keeper until the command is executed, and until all has ended."""
    status, tell = os.pipe()
    arguments = [f"--log={folder / 'log'}", f"--status={tell}", f"--parent={os.getpid()}", f"--writable={folder}"]
    arguments += [*(f"--readable={path}" for path in readable), "--", *command]
    with contextlib.nullcontext() if sealed else without_engine_seal():
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                os._exit(keeper.main(arguments))
            finally:
                os._exit(keeper.SEAL_UNAVAILABLE)
    os.close(tell)
    with os.fdopen(status) as lines:
        told = lines.read()  # ends as the command is executed: that closes the last copy of the descriptor
    executed = time.perf_counter()
    _, how = os.waitpid(child, 0)
    ended = time.perf_counter()
    if how or bool(json.loads(told or "{}").get("holds")) is not sealed:
        raise RuntimeError(f"a keeper ended with status {os.waitstatus_to_exitcode(how)}: {told}")
    return (executed - began) * 1000, (ended - began) * 1000


def _tell(figures: object) -> None:
    os.write(1, json.dumps(figures).encode())


def main(arguments: list[str]) -> None:
    """The command line."""
    match arguments:
        case ["gateway", config]:
            gateway(Path(config))
        case ["engine", count, folder, *readable]:
            _tell(engine(int(count), Path(folder), [Path(path) for path in readable]))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
