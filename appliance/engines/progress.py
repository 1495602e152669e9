"""Reads an engine's signs of life: what a start is busy with, and its last words."""

from __future__ import annotations

import re
from pathlib import Path

_TAIL_BYTES = 64 * 1024
_LAST_WORDS_BYTES = 4 * 2**20  # vLLM writes a long traceback for each request that its end takes along
_STAGES = (
    ("Application startup complete", "answering its first request"),
    ("Starting vLLM server", "opening its socket"),
    ("init engine", "warming up"),
    ("KV cache", "making room for the KV cache"),
    ("Compiling a graph", "compiling the model"),
    ("Loading weights took", "warming up"),
    ("oading safetensors", "loading weights"),
    ("Starting to load model", "loading weights"),
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("non-default args", "reading the model's configuration"),
)
# the line that ends a traceback, not the `raise SomeError(` in the code that it shows
_REASON = re.compile(r"\b(?:\w*(?:Error|Exception)(?::|$)|(?:Killed|out of memory)\b|\w+ proc \S+ died\b).*")
_LONGEST_LINE = 2000
_HARMLESS = re.compile(r"^(?:\([^)]*\)\s*)?(?:DEBUG|INFO|WARNING)\b")
_CONSEQUENCES = ("initialization failed", "stack trace", "response already started", "RuntimeError: cancelled")
_NOISE = re.compile(r"^\([^)]*\)\s*|^\w+ \d\d-\d\d \d\d:\d\d:\d\d \S+\s*")


def tail(log: Path, size: int = _TAIL_BYTES) -> str:
    """The last `size` bytes of a log, 64 KiB; empty when there is none yet."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def stage(log: Path) -> str:
    """What a start is busy with, in words."""
    text = tail(log)
    last = max(_STAGES, key=lambda known: text.rfind(known[0]))
    return last[1] if last[0] in text else "loading libraries"


def last_words(log: Path, status: int) -> str:
    """Why a process ended: its exit status and the last error in its log, in one line of at most 300 characters."""
    tailed = (line[:_LONGEST_LINE] for line in tail(log, _LAST_WORDS_BYTES).splitlines())
    lines = [line for line in tailed if not _HARMLESS.match(line)]
    reasons = [match.group(0) for line in lines if (match := _REASON.search(_NOISE.sub("", line)))]
    # the first of the last burst tells the cause; what only follows from it tells nothing
    telling = [reason for reason in reasons if not any(known in reason for known in _CONSEQUENCES)]
    # when a worker died, all that was said later follows from that
    telling += [reason for reason in reasons if reason.startswith("Worker proc")]
    how = f"killed by signal {status - 128}" if status > 128 else f"exit status {status}"
    return f"the engine ended ({how}){': ' + telling[-1][:200] if telling else ''}; see {log}"
