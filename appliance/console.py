"""What a person sees in the terminal: what is being waited for, then how to begin."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

_RED, _BOLD, _PLAIN = "\x1b[31m", "\x1b[1m", "\x1b[0m"
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_LONG, _FRAME = 2.0, 0.2
"""Seconds after which somebody who waits is told what for, and between two looks of a line that moves."""


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

    def clear(self) -> None:
        """Take a line that moves away."""
        if self._live and self._text:
            self._write("\r\x1b[K")
        self._text = ""

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that has closed is no reason to end otherwise than well
            sys.stderr.write(text)
            sys.stderr.flush()


@contextlib.contextmanager
def waiting(told: Callable[[], str]) -> Iterator[None]:
    """Tell what is being waited for, where that takes longer than two seconds. On a terminal `told` is asked anew
    all the time; elsewhere it stands there once. It is called in a thread."""
    show, over = Progress(), threading.Event()

    def watch() -> None:
        if over.wait(_LONG):
            return
        show.say(told())
        while sys.stderr.isatty() and not over.wait(_FRAME):
            show.say(told())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        show.clear()


def alarm(text: str) -> str:
    """`text` in red, where that is shown: on a terminal, or if FORCE_COLOR says so (NO_COLOR: never)."""
    return _shown(_RED, text)


def bold(text: str) -> str:
    """`text` in bold, where that is shown; as for `alarm`."""
    return _shown(_BOLD, text)


def _shown(style: str, text: str) -> str:
    wanted = "NO_COLOR" not in os.environ and ("FORCE_COLOR" in os.environ or sys.stdout.isatty())
    return f"{style}{text}{_PLAIN}" if wanted else text


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
