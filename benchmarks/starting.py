"""How long seals take to be put on when an appliance starts; what is timed runs in `benchmarks.starts`."""

from __future__ import annotations

import json
import os
import pwd
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.config import Config
from benchmarks import processes
from benchmarks.gateways import write_config
from benchmarks.overhead import percentile
from benchmarks.terminal import say

_ORDINARY = "nobody"
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Starts:
    """Milliseconds of each start, for one user. An engine's are from fork to execution, with the seal and without."""

    user: str
    gateway: list[float]
    sealed: list[float]
    unsealed: list[float]
    trial: list[float]
    """Of a sealed Python that does nothing, by which the appliance learns that engines can be sealed here."""

    @property
    def engine_ms(self) -> float:
        """What the seal adds to an engine's start, by medians."""
        return statistics.median(self.sealed) - statistics.median(self.unsealed)

    @property
    def cost_ms(self) -> float:
        """What an appliance with one engine spends on seals when it starts, by medians."""
        return statistics.median(self.gateway) + self.engine_ms


def measure(config: Config, count: int) -> list[Starts]:
    """Starts as this process's user and, for root, as one without any right, who is left out where that can't be.

    Raises `processes.Broken`.
    """
    own = _own_name()
    found = [starts(own, config, count)]
    if os.geteuid() == 0:
        try:
            found.append(starts(_ORDINARY, config, count))
        except processes.Broken as why:
            say(f"! user {_ORDINARY} is left out: {why}")
    return found


def _own_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def starts(user: str, config: Config, count: int) -> Starts:
    """`count` starts of each kind as `user`. Raises `processes.Broken` when one fails."""
    with tempfile.TemporaryDirectory(prefix="seal-") as name:
        folder = Path(name)
        engine = folder / "engine"
        engine.mkdir()
        file = write_config(folder, 0, folder / "upstream.sock", **_surroundings(config))
        if user != _own_name():
            for path in (folder, engine):
                os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        gateway = []
        for number in range(count):
            gateway.append(_measured(user, [], "gateway", str(file)))
            if number % 10 == 9:
                say(f"  {user}: {number + 1}/{count} starts of the gateway, the last in {gateway[-1]:.1f} ms")
        seen = [config.models_folder, config.path(config.settings.engines.environment)]
        readable = [str(path) for path in seen if path.exists()]
        both = _measured(user, ["-S"], "engine", str(count), str(engine), *readable)
        return Starts(user, gateway, both["sealed"], both["unsealed"], both["trial"])


def _surroundings(config: Config) -> dict[str, Any]:
    """What of the config the gateway's seal keeps in sight, so that the seal timed is the one it gets."""
    environment = str(config.path(config.settings.engines.environment))
    return {"models_folder": str(config.models_folder), "engines": {"environment": environment}}


def _measured(user: str, options: list[str], *arguments: str) -> Any:
    """What `benchmarks.starts` prints."""
    who: dict[str, Any] = {}
    python, environment = sys.executable, dict(os.environ)
    if user != _own_name():
        entry = pwd.getpwnam(user)
        who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        if not _may_run(python, who):  # it lies in a home folder; the system's own of the same version will do
            python = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
            environment["PYTHONPATH"] = sysconfig.get_path("purelib")
    command = [python, *options, "-m", "benchmarks.starts", *arguments]
    try:
        done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False, **who)
    except OSError as cause:
        raise processes.Broken(f"user {user} can't run {cause.filename}: {cause.strerror}") from cause
    if done.returncode:
        raise processes.Broken(f"a start as user {user} failed:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def _may_run(program: str, who: dict[str, Any]) -> bool:
    try:
        return subprocess.run([program, "-c", ""], cwd="/", check=False, **who).returncode == 0
    except OSError:
        return False


def table(measured: Sequence[Starts]) -> str:
    """The start costs as Markdown."""
    lines = [
        "| user | gateway's seal, p50 / p95 | an engine's start, sealed | the same, unsealed | an engine's seal, p50 "
        "| together, p50 | its trial before serving, p50 / p95 |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in measured:
        gateway, sealed, free, trial = (
            f"{percentile(values, 0.5):.1f} / {percentile(values, 0.95):.1f} ms"
            for values in (each.gateway, each.sealed, each.unsealed, each.trial)
        )
        together = f"{each.engine_ms:.1f} ms | {each.cost_ms:.1f} ms"
        lines.append(f"| {each.user} | {gateway} | {sealed} | {free} | {together} | {trial} |")
    return "\n".join(lines)
