"""A detector that finds what tests hide in texts, and breaks in the ways that they ask for.

Installed in place of the real one: `python -c "from tests.fakes import detector; detector.main()" CHANNEL`.
"""

from __future__ import annotations

import collections
import errno
import itertools
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.privacy.kinds import Kind, Span

COMMAND = ["-c", "from tests.fakes import detector; detector.main()"]
_NAMES = re.compile(r"Anna Weber|Bernd Klein|Person-\d+")
_SECRET = "hunter2"


def main() -> None:
    """Run the real template, gate and workers with this detector."""
    from appliance.privacy import process

    sys.modules["appliance.privacy.detect.detector"] = sys.modules[__name__]
    sys.exit(process.main(sys.argv[1:]))


class Detector:
    """Same signature as `appliance.privacy.detect.detector.Detector`."""

    def __init__(self, settings: Any, site: Any) -> None:
        self._site = [entry.name for entry in site]

    def find(self, text: str, *, strict: bool = False) -> list[Span]:
        for word, act in _FAULTS.items():
            if word in text:
                told = act(text)
                if told is not None:
                    return told
        found = [Span(each.start(), each.end(), Kind.PERSON, 0.9, "fake") for each in _NAMES.finditer(text)]
        for kind, words in ((Kind.SECRET, [_SECRET]), (Kind.CLIENT, self._site)):
            found += [Span(at, at + len(word), kind) for word in words if (at := text.find(word)) >= 0]
        return sorted(found)

    def language(self, text: str) -> str:
        return "de"

    def known(self, text: str) -> list[tuple[int, int]]:
        return []


def _hang(text: str) -> None:
    """Inside C code, where no handler of Python's would run."""
    collections.deque(itertools.repeat(0), maxlen=0)


def _babble(text: str) -> None:
    """Write something else than an answer to the gate."""
    for entry in Path("/proc/self/fd").iterdir():
        if entry.exists() and stat.S_ISSOCK(entry.stat().st_mode):
            os.write(int(entry.name), b"\x00\x00\x00\x05nonse")


def _slow(text: str) -> None:
    time.sleep(60)


def _raise(text: str) -> None:
    raise ValueError(text)


def _attempts(text: str) -> list[Span]:
    """Try what no detector may, as the process it is; each outcome is a span's source."""
    key, sibling, gate = text.split()[1:4]

    def connect() -> None:
        with socket.socket(socket.AF_INET) as sender:
            sender.connect(("127.0.0.1", 9))

    tried: dict[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "a socket": connect,
        "a Unix socket": lambda: socket.socket(socket.AF_UNIX),
        "/etc/passwd": lambda: Path("/etc/passwd").read_text(),
        "a key of the state": lambda: Path(key).read_text(),
        "writing": lambda: Path("/tmp/written").write_text(""),  # noqa: S108 - it has to fail
        "a program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
        "a fork": lambda: os.fork() or os._exit(0),
        "memory of the gate": lambda: open(f"/proc/{gate}/mem", "rb").close(),  # noqa: PTH123
        "signal to the gate": lambda: os.kill(int(gate), 0),
        "memory of another": lambda: open(f"/proc/{sibling}/mem", "rb").close(),  # noqa: PTH123
        "signal to another": lambda: os.kill(int(sibling), 0),
    }
    spans = []
    for at, (name, act) in enumerate(tried.items()):
        try:
            act()
            became = "done"
        except OSError as error:
            became = errno.errorcode.get(error.errno or 0, "?")
        spans.append(Span(at, at + 1, Kind.WORD, 1.0, f"{name}: {became}"))
    return spans


_FAULTS: dict[str, Callable[[str], list[Span] | None]] = {
    "HANG": _hang,
    "CRASH": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "STOP": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "RAISE": _raise,
    "SLOW": _slow,
    "MEMORY": lambda _: bytearray(4 * 2**30) and None,
    "BABBLE": _babble,
    "OUTSIDE": lambda text: [Span(0, len(text) + 1, Kind.PERSON)],
    "BACKWARDS": lambda text: [Span(3, 5, Kind.PERSON), Span(0, 2, Kind.PERSON)],
    "EMPTY": lambda text: [Span(2, 2, Kind.PERSON)],
    "MANY": lambda text: [Span(0, 1, Kind.PERSON)] * 400_000,
    "ATTEMPTS": _attempts,
}
