"""The process that proves the seal while the appliance runs.

It is started before the gateway seals itself, stays outside every seal, and verifies at every interval. It takes
nothing from the gateway but the end of its standard input, at which it ends; and gives nothing but verdicts.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance import control
from appliance.config import Config
from appliance.egress.verify import verify
from appliance.errors import ApplianceError

_FIRST = 2.0
"""Seconds after the start: by then the control socket has somebody behind it."""
_LONGEST = 60.0
"""Seconds that a verification may take on a host that is very busy."""


def start(config: Config) -> subprocess.Popen[bytes]:
    """Start the witness; call it before the gateway seals itself. It ends when the returned `stdin` closes."""
    witness = subprocess.Popen(
        [sys.executable, "-P", "-m", "appliance.witness"],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert witness.stdin is not None  # noqa: S101 - asked for above
    order = {"state": str(config.state), "every": config.settings.egress.verify.every_seconds}
    witness.stdin.write(json.dumps(order).encode() + b"\n")
    witness.stdin.flush()
    return witness


async def ended(witness: subprocess.Popen[bytes] | None) -> None:
    """Return when `witness` has ended; never, where there is none. The sealed gateway can't start another."""
    gone = asyncio.Event()
    if witness is None:
        await gone.wait()
        return
    loop, life = asyncio.get_running_loop(), os.pidfd_open(witness.pid)
    loop.add_reader(life, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(life)
        os.close(life)


def main() -> None:
    """Verify at every interval, until standard input closes."""
    line = sys.stdin.readline()
    if not line:
        return
    order = json.loads(line)
    state, every = Path(order["state"]), float(order["every"])
    due = time.monotonic() + min(_FIRST, every)
    while not _wait(max(0.0, due - time.monotonic()), [sys.stdin.fileno()]):
        due = time.monotonic() + every
        _verify(state)


def _wait(seconds: float, descriptors: list[int]) -> bool:
    return bool(select.select(descriptors, [], [], seconds)[0])


def _verify(state: Path) -> None:
    """Verify in a child, so that whatever happens to it, the next interval comes."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(int(_LONGEST))
            run(state)
            status = 0
        except ApplianceError as error:
            _give_up(state, str(error))
        except Exception as error:  # the appliance has to hear of every verification that did not come to an end
            _give_up(state, f"{type(error).__name__}: {error}")
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        _give_up(state, f"it took longer than {_LONGEST:.0f} s")


def run(state: Path) -> Any:
    """Verify, and tell the appliance the verdict; what was found is returned."""

    def ask(method: str, path: str, body: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        return control.ask(state, method, path, body, patience=_LONGEST)

    verification = verify(state, ask)
    verdict = verification.verdict
    _tell(state, {
        "number": verdict.number, "time": verdict.time, "timestamp": verdict.timestamp,
        "holds": verdict.holds, "failed": list(verdict.failed), "sha256": verdict.sha256,
    })  # fmt: skip
    return verification


def _give_up(state: Path, why: str) -> None:
    print(f"witness: no verification: {why}", file=sys.stderr, flush=True)  # noqa: T201 - the process' own log
    now = datetime.now(UTC)
    failed = [f"verification: {why}"]
    try:
        _tell(state, {
            "number": 0, "time": now.isoformat(timespec="seconds"), "timestamp": now.timestamp(), "holds": False,
            "failed": failed, "sha256": "",
        })  # fmt: skip
    except ApplianceError as error:
        print(f"witness: the appliance can't be told: {error}", file=sys.stderr, flush=True)  # noqa: T201


def _tell(state: Path, verdict: dict[str, Any]) -> None:
    for _ in control.ask(state, "POST", "/egress/verdict", verdict, patience=_LONGEST):
        pass


if __name__ == "__main__":
    main()
