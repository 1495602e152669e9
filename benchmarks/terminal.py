"""What a person says and sees: the command line; results on standard output, everything else on standard error."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def command_line(name: str, about: str | None) -> argparse.ArgumentParser:
    """The grammar of `python -m benchmarks.<name>`: `about` as it stands, and where results go."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder to save to (default: %(default)s)"
    )
    return parser


def show(text: str) -> None:
    """A result."""
    print(text, flush=True)  # noqa: T201 - the terminal is meant


def say(text: str) -> None:
    """Progress, or why something can't be done."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the terminal is meant
