"""The appliance without its seal: only to see what the seal costs, never to serve anyone.

    python -m benchmarks.unsealed serve --config configs/appliance.yaml

All is as in the product, but that neither the gateway nor any engine gives anything up. It lies outside the
product's package, so that no option of the product, and nothing that is installed, can leave the seal off.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from appliance.seal.parts import Seal
from benchmarks.terminal import say

# The nursery imports this file without site packages: at the top, the standard library and what it is made of.

WARNING = "NOTHING IS SEALED: this is a benchmark, whatever runs here can send anything anywhere. Never serve with it."


class NoEngineSeal:
    """In the place of `appliance.seal.engine.EngineSeal`: applies nothing."""

    alone = False

    def __init__(self, *, best_effort: bool = False) -> None:
        """As the seal is made."""

    def leave(self) -> None:
        """Stay in the host's namespaces."""

    def close(self, readable: Mapping[Path, int], writable: Mapping[Path, int]) -> Seal:
        """Go on seeing everything, with every system call and privilege."""
        return Seal((), (WARNING,))


def no_gateway_seal(*_: Any, **__: Any) -> Seal:
    """In the place of `appliance.seal.gateway.seal_gateway`: applies nothing."""
    return Seal((), (WARNING,))


def without_engine_seal() -> Any:
    """A context in which keepers that this process forks apply no seal, and so read no evidence of one."""
    return mock.patch.multiple("appliance.engines.keeper", EngineSeal=NoEngineSeal, evidence=list)


def program(module: str, *arguments: str) -> list[str]:
    """As `appliance.engines.nursery.program`, but that keepers apply no seal."""
    start = (
        f"import sys; sys.path.append({str(Path(__file__).parents[1])!r}); "
        f"from benchmarks.unsealed import run; sys.exit(run({module!r}, sys.argv[1:]))"
    )
    return [sys.executable, "-I", "-S", "-c", start, *arguments]


def run(module: str, arguments: list[str]) -> int:
    """`main` of `appliance.<module>`, keepers applying no seal."""
    with without_engine_seal():
        return int(importlib.import_module(f"appliance.{module}").main(arguments))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status of `appliance serve`."""
    from appliance.__main__ import main as appliance

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unsealed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--config", type=Path, required=True, help="as `appliance serve` takes it")
    options = parser.parse_args(arguments)
    say(WARNING)
    with (
        mock.patch("appliance.app.seal_gateway", no_gateway_seal),
        mock.patch("appliance.engines.process.program", program),
    ):
        return appliance([options.command, "--config", str(options.config)])


if __name__ == "__main__":
    sys.exit(main())
