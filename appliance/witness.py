"""The process that proves the seal while the appliance runs.

It is started before the gateway seals itself, stays outside every seal, and verifies at every interval. It takes
nothing from the gateway, and ends with it; and gives nothing but verdicts.
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
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance import control
from appliance.config import Config
from appliance.egress.assurance import Verdict
from appliance.egress.verify import Verification, verify
from appliance.errors import ApplianceError

_FIRST = 2.0
"""Seconds after the start: by then the control socket has somebody behind it."""
_LONGEST = 60.0
"""Seconds that a verification may take on a host that is very busy."""


def start(config: Config) -> subprocess.Popen[bytes]:
    """Start the witness; call it before the gateway seals itself."""
    witness = subprocess.Popen(
        [sys.executable, "-P", "-m", "appliance.witness"],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert witness.stdin is not None  # noqa: S101 - asked for above
    order = {"gateway": os.getpid(), "state": str(config.state), "every": config.settings.egress.verify.every_seconds}
    with witness.stdin as orders:
        orders.write(json.dumps(order).encode())
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
    """Verify at every interval, for as long as the process that started this one runs."""
    # Not until some descriptor closes: a gateway that was taken over could close it, and would be unobserved.
    gateway = os.pidfd_open(os.getppid())
    order = json.load(sys.stdin)
    if os.getppid() != order["gateway"]:
        return
    state, every = Path(order["state"]), float(order["every"])
    known: tuple[int, str] | None = None
    due = time.monotonic() + min(_FIRST, every)
    while not _wait(max(0.0, due - time.monotonic()), [gateway]):
        due = time.monotonic() + every
        known = _verify(state, known)


def _wait(seconds: float, descriptors: list[int]) -> bool:
    return bool(select.select(descriptors, [], [], seconds)[0])


def _verify(state: Path, known: tuple[int, str] | None) -> tuple[int, str] | None:
    """Verify in a child, so that whatever happens to it, the next interval comes.

    `known` is the number and SHA-256 of the newest report so far, and so is what is returned: kept here and not in the
    folder, since a folder that was put back to an earlier state doesn't show it.
    """
    told, tells = os.pipe()
    os.set_blocking(told, False)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(int(_LONGEST))
            verdict = run(state, known).verdict
            os.write(tells, json.dumps([verdict.number, verdict.sha256]).encode())
            if not verdict.holds:  # said here, too: an alarm shouldn't depend on nobody but the one who is doubted
                _say(f"report {verdict.number}: THE SEAL IS NOT PROVEN: {', '.join(verdict.failed)}")
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
    os.close(tells)
    with os.fdopen(told, "rb") as words:
        number, sha256 = json.loads(words.read() or b'[0, ""]')
    return (number, sha256) if number > (known or (0, ""))[0] else known


def run(state: Path, known: tuple[int, str] | None = None) -> Verification:
    """Verify, and tell the appliance the verdict; what was found is returned. `known` as for `verify`."""

    def ask(method: str, path: str, body: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        return control.ask(state, method, path, body, patience=_LONGEST)

    verification = verify(state, ask, known)
    _tell(state, verification.verdict)
    return verification


def _say(text: str) -> None:
    print(f"witness: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the process' own log


def _give_up(state: Path, why: str) -> None:
    _say(f"no verification: {why}")
    now = datetime.now(UTC)
    failed = (f"verification: {why}",)
    try:
        _tell(
            state, Verdict(0, now.isoformat(timespec="seconds"), now.timestamp(), holds=False, failed=failed, sha256="")
        )
    except ApplianceError as error:
        _say(f"the appliance can't be told: {error}")


def _tell(state: Path, verdict: Verdict) -> None:
    for _ in control.ask(state, "POST", "/egress/verdict", asdict(verdict), patience=_LONGEST):
        pass


if __name__ == "__main__":
    main()
