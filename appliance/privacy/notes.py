"""What the gate's processes print: never a word of a request, so never an error's own message."""

from __future__ import annotations

import sys
from pathlib import Path


def where(error: BaseException) -> str:
    """What went wrong and in which line."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    place = f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at is not None else "an unknown place"
    return f"{type(error).__name__} at {place}"


def note(what: str) -> None:
    """Say `what` on standard error."""
    print(f"gate: {what}", file=sys.stderr, flush=True)  # noqa: T201 - the process' own log
