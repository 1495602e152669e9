"""What a person sees: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys


def show(text: str) -> None:
    """A result."""
    print(text, flush=True)  # noqa: T201 - the terminal is meant


def say(text: str) -> None:
    """Progress, or why something can't be done."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the terminal is meant
