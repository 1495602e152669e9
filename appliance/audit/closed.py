"""Reads closed segments, a little at a time."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from appliance.audit.retention import Contents, Line, Terms, read
from appliance.audit.segments import Segment

_SLICE = 1 << 15
"""Bytes of lines between two pauses: about a millisecond of work, for which the event loop may have to wait."""
_BLOCK = 1 << 16

Pause = Callable[[], None]
"""Called between two slices of work: lets others have their turn, or raises to end it."""


class Unsound(Exception):
    """A segment isn't what was signed, or can't be read; the text says what is wrong."""


def contents(segment: Segment, pause: Pause) -> Contents:
    """Which records a closed segment has. Raises `Unsound`."""
    found = Contents()
    for lines in slices(segment):
        for text in lines:
            found.add(line_of(text))
        pause()
    return found


def show(terms: Terms, segment: Segment, pause: Pause) -> None:
    """Show `terms` the lines that name a person who is held. Raises `Unsound`."""
    for lines in slices(segment):
        for text in lines:
            if any(person in text for person in terms.persons):
                line = line_of(text)
                terms.held(line, text, line.at)
        pause()


def slices(segment: Segment) -> Iterator[list[bytes]]:
    """The lines of a closed segment, with their ends, some at a time. Raises `Unsound`."""
    try:
        with gzip.open(segment.file) as packed, io.BufferedReader(packed, _BLOCK) as file:
            while lines := file.readlines(_SLICE):
                yield lines
    except (OSError, EOFError, zlib.error) as cause:
        raise Unsound(f"it can't be read: {getattr(cause, 'strerror', None) or 'it is damaged'}") from cause


def line_of(text: bytes) -> Line:
    """What a line says. Raises `Unsound`."""
    try:
        return read(text)
    except ValueError as cause:
        raise Unsound(str(cause)) from None


def sha256_of(file: Path, pause: Pause) -> str | None:
    """Of what is packed in `file`; None where it isn't whole."""
    found = hashlib.sha256()
    try:
        with gzip.open(file) as packed:
            while block := packed.read(_SLICE):
                found.update(block)
                pause()
    except (OSError, EOFError, zlib.error):
        return None
    return found.hexdigest()
