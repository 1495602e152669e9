"""What a person sees in the terminal: what is being waited for, then how to begin."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress:
    """One line that moves on a terminal; elsewhere a line each time that something new begins."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._text = ""
        self._began = time.monotonic()
        self._frame = 0

    def say(self, text: str) -> None:
        """Show what is going on now; call it as often as you like."""
        now = time.monotonic()
        if not self._text:
            self._began = now
        if self._live:
            self._frame = (self._frame + 1) % len(_FRAMES)
            self._write(f"\r\x1b[K{_FRAMES[self._frame]} {text} ({now - self._began:.0f} s)")
        elif text != self._text:
            self._write(f"  {text}\n")
        self._text = text

    def done(self, text: str) -> None:
        """End with a mark and the time since the first `say`."""
        start = "\r\x1b[K" if self._live else ""
        self._write(f"{start}✓ {text} after {time.monotonic() - self._began:.0f} s\n")
        self._text = ""

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that has closed is no reason to end otherwise than well
            sys.stderr.write(text)
            sys.stderr.flush()


def welcome(address: str, key: str | None, model: str | None, missing: Sequence[str], keys_file: str) -> None:
    """Print the address, a first key where one was made, and a line that works as pasted."""
    shown = f"{key}      shown this once, stored only as a hash"
    kept = f"the one shown at the first start (lost? stop, delete {keys_file}, start again)"
    lines = [
        "",
        f"  Address   {address}/v1      (docs: {address}/docs)",
        f"  Key       {shown if key else kept}",
        *(f"  ! The seal is not complete: {part}" for part in missing),
    ]
    if model:
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'
        lines += [
            "",
            f"  curl {address}/v1/chat/completions \\",
            f"    -H 'Authorization: Bearer {key or '<key>'}' -H 'Content-Type: application/json' \\",
            f"    -d '{body}'",
        ]
    sys.stdout.write("\n".join([*lines, "", ""]))
    sys.stdout.flush()
