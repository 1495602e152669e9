"""What a person sees in the terminal: what is being waited for, then how to begin."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Sequence

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"
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


def alarm(text: str) -> str:
    """`text` in red, where that is shown: on a terminal, or if FORCE_COLOR says so (NO_COLOR: never)."""
    wanted = "NO_COLOR" not in os.environ and ("FORCE_COLOR" in os.environ or sys.stdout.isatty())
    return f"{_RED}{text}{_PLAIN}" if wanted else text


def welcome(address: str, key: str | None, model: str | None, missing: Sequence[str]) -> None:
    """Print the address, a first key where one was made, and a line that works as pasted."""
    shown = f"{key}      shown this once, stored only as a hash"
    kept = "the one shown at the first start; another: appliance keys create"
    url, option = address, ""
    if address.startswith("unix:"):  # there a URL needs a host, but which one says nothing
        url, option = "http://localhost", f"--unix-socket {shlex.quote(address.removeprefix('unix:'))} "
    lines = [
        "",
        f"  Address   {address if option else f'{url}/v1'}      (docs: {url}/docs)",
        f"  Key       {shown if key else kept}",
        *(alarm(f"  ! The seal is not complete: {part}") for part in missing),
    ]
    if model:
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'
        lines += [
            "",
            f"  curl {option}{url}/v1/chat/completions \\",
            f"    -H 'Authorization: Bearer {key or '<key>'}' -H 'Content-Type: application/json' \\",
            f"    -d '{body}'",
        ]
    sys.stdout.write("\n".join([*lines, "", ""]))
    sys.stdout.flush()
