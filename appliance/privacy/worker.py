"""A detector at work: texts in, what is personal in them out, one task after the other.

It is a fork of the template, which loaded the detectors. Whatever comes to its end here, by an error, by the time
limit or because it grew too large, is replaced by a fresh fork; so nothing is mended.
"""

from __future__ import annotations

import resource
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from appliance.privacy.channel import Frame, packed, span_as_json, taken
from appliance.privacy.kinds import Span
from appliance.privacy.notes import where

_ROOM = 512 * 2**20
"""Bytes of memory that a task may take beside what the template has."""


class Detects(Protocol):
    """`appliance.privacy.detect.detector.Detector`."""

    def find(self, text: str, *, strict: bool = False) -> list[Span]: ...  # noqa: D102 - as it says there

    def language(self, text: str) -> str: ...  # noqa: D102

    def known(self, text: str) -> Sequence[tuple[int, int]]: ...  # noqa: D102


def work(detector: Detects, channel: socket.socket) -> None:
    """Carry out the tasks that come until the channel closes, or one fails."""
    while (task := taken(channel)) is not None:
        # the default action: no code of ours has to run, wherever it hangs
        signal.setitimer(signal.ITIMER_REAL, task["seconds"])
        answer = _answered(detector, task)
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.sendall(packed(answer))
        if "error" in answer:
            return


def limit_memory() -> None:
    """Have whatever asks for much more memory than this process has now get an error."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _answered(detector: Detects, task: Frame) -> Frame:
    try:
        return {"answers": [_answer(detector, task, text) for text in task["texts"]]}
    except Exception as error:  # its message may hold what the text said
        return {"error": where(error)}


def _answer(detector: Detects, task: Frame, text: str) -> Any:
    match task["do"]:
        case "find":
            return [span_as_json(span) for span in detector.find(text, strict=task["strict"])]
        case "language":
            return detector.language(text)
        case "known":
            return [list(word) for word in detector.known(text)]
    raise ValueError
