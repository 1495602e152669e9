"""Looks records up in the files of the log, while the journal goes on writing to them. Nothing of it waits for a lock.

The log is read in blocks, and between two of them others have their turn: of all that runs in this process, an
auditor who searches years has the most time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import math
import re
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from appliance.audit.question import LAST, SEQ, Question, seq_of
from appliance.audit.segments import Segment, listed, opened
from appliance.errors import AuditFailed, Overloaded

T = TypeVar("T")

_BLOCK = 1 << 17
"""Bytes: less than a millisecond of work, for which the event loop may have to wait."""
_WINDOW = 1 << 24
"""Bytes of a compressed segment that are held at once, to go through it backwards."""
_PAGE_LINES = 20_000
"""A page is given out when so many lines were looked at, however many were found."""
_PAGE_BYTES = 1 << 23
_MOST_ASKING = 8
"""Pages that are looked for or waited for at once."""
_RECORD = {"at", "body", "kind", "prev", "seq"}
_SEQ = re.compile(SEQ + rb"$", re.MULTILINE)
_DAY = re.compile(rb'^\{"at":"([0-9]{4}-[0-9]{2}-[0-9]{2})T', re.MULTILINE)


class Step(NamedTuple):
    """What one block of the log came to."""

    lines: list[bytes]
    looked_at: int = 0
    reached: int | None = None
    """The number of the record that was looked at last."""


class Page:
    """Records one after the other, until it is full."""

    def __init__(self, limit: int, *, bounded: bool = True) -> None:
        """`bounded`: it is full, too, when much of the log was looked at, or much was found."""
        self.lines: list[bytes] = []
        self.next: int | None = None
        """The number to go on after, where there may be more; None at the end of the log."""
        self._limit = limit
        self._most_bytes: float = _PAGE_BYTES if bounded else math.inf
        self._most_lines: float = _PAGE_LINES if bounded else math.inf
        self._bytes = self._looked_at = 0

    def take(self, step: Step) -> bool:
        """Add the records that were found; whether the page is full. Damaged ones are left out."""
        for line in step.lines:
            if (seq := _number(line)) is None:
                continue
            if self.lines and (len(self.lines) == self._limit or self._bytes + len(line) > self._most_bytes):
                return True
            self.lines.append(line)
            self._bytes += len(line)
            self.next = seq
        self._looked_at += step.looked_at
        self.next = step.reached or self.next
        return self._looked_at >= self._most_lines and self.next is not None

    def end(self) -> None:
        """There is no more."""
        self.next = None


class Search:
    """Answers questions about the log in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._days: dict[int, str | None] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit-search")
        self._turn = asyncio.Lock()
        self._asking = 0

    def page(self, question: Question, limit: int, *, newest_first: bool = True) -> Page:
        """The first records that are asked for, `limit` at most. Raises `AuditFailed` for a log that can't be read."""
        page = Page(limit)
        if not any(map(page.take, self.steps(question, newest_first=newest_first))):
            page.end()
        return page

    def all(self, question: Question, limit: int, *, newest_first: bool = True) -> Page:
        """The same, however much of the log has to be looked at for it."""
        page = Page(limit, bounded=False)
        if not any(map(page.take, self.steps(question, newest_first=newest_first))):
            page.end()
        return page

    async def page_beside(self, question: Question, limit: int, *, newest_first: bool = True) -> Page:
        """The same in a thread, with turns for others between two blocks; one page after the other.

        Each holds up to 16 MiB of the log meanwhile, so `Overloaded` is raised where many wait already.
        """
        if self._asking >= _MOST_ASKING:
            raise Overloaded("many are looking into the log; try again in a moment", code="audit_busy", retry_after=5)
        self._asking += 1
        try:
            async with self._turn:
                page = Page(limit)
                async for full in self.beside(map(page.take, self.steps(question, newest_first=newest_first))):
                    if full:
                        return page
                page.end()
                return page
        finally:
            self._asking -= 1

    async def beside(self, work: Iterator[T]) -> AsyncIterator[T]:
        """What `work` yields, which is made in a thread, one after the other. It never yields None."""
        loop = asyncio.get_running_loop()
        while (done := await loop.run_in_executor(self._thread, next, work, None)) is not None:
            yield done

    def steps(self, question: Question, *, newest_first: bool = False) -> Iterator[Step]:
        """All that is asked for, block by block, ordered by number, whatever the clock did.

        Raises `AuditFailed` for a log that can't be read.
        """
        try:
            segments = listed(self._folder)
            ends = [*(after.first - 1 for after in segments[1:]), LAST]
            reach = list(zip(segments, ends, strict=False))  # a new log has no segment
            for segment, last in reversed(reach) if newest_first else reach:
                if not segment.first <= question.most or last < question.least:
                    continue
                with contextlib.suppress(FileNotFoundError):  # retention has just removed it
                    if self._may_hold(segment, question):
                        yield from _steps(segment, question, newest_first=newest_first)
                    else:
                        yield Step([])
        except (OSError, EOFError, zlib.error) as cause:
            why = getattr(cause, "strerror", None) or "a file of it is damaged"
            raise AuditFailed(f"the log can't be read: {why}; run `appliance audit verify`") from cause

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _may_hold(self, segment: Segment, question: Question) -> bool:
        """Whether records of the time in question may lie there: a segment holds those of one UTC day."""
        if question.since == "" and question.until == Question.until:
            return True
        if segment.first not in self._days:
            self._days[segment.first] = _day(segment)
        day = self._days[segment.first]
        return day is None or question.since[:10] <= day <= question.until[:10]


def _steps(segment: Segment, question: Question, *, newest_first: bool) -> Iterator[Step]:
    if not newest_first:
        with opened(segment) as file:
            for block in _blocks(file):
                if (_first(block) or 0) > question.most:
                    return
                yield _step(block, question)
        return
    for block in _backwards(segment, question.most):
        if not block:
            yield Step([])
            continue
        if (_last(block) or LAST) < question.least:
            return
        step = _step(block, question)
        yield step._replace(lines=step.lines[::-1], reached=_first(block) if step.looked_at else None)


def _step(block: bytes, question: Question) -> Step:
    last = _last(block)
    if (last is not None and last < question.least) or (_first(block) or 0) > question.most:
        return Step([])
    return Step(question.pick(block), block.count(b"\n") + 1, last)


def _backwards(segment: Segment, most: int) -> Iterator[bytes]:
    """The blocks of a segment from the last one on, without those beyond the record `most`; b"" to take a breath."""
    with opened(segment) as file:
        if not isinstance(file, gzip.GzipFile):
            yield from _blocks_from_end(file)
            return
    while True:
        window: deque[bytes] = deque()
        held = 0
        with opened(segment) as file:
            for block in _blocks(file):
                if (_first(block) or 0) > most:
                    break
                window.append(block)
                held += len(block)
                while held - len(window[0]) >= _WINDOW:
                    held -= len(window.popleft())
                yield b""
        yield from reversed(window)
        first = next(filter(None, map(_first, window)), None)
        if first is None or first <= segment.first:
            return
        most = first - 1


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Whole lines, many at once, without the last end. One that is being written isn't a record yet."""
    rest = b""
    while part := file.read(_BLOCK):
        whole, end, rest = (rest + part).rpartition(b"\n")
        if end:
            yield whole


def _blocks_from_end(file: IO[bytes]) -> Iterator[bytes]:
    """The same, the last ones first."""
    left = file.seek(0, 2)
    rest, ended = b"", False
    while left:
        start = max(0, left - _BLOCK)
        file.seek(start)
        rest = file.read(left - start) + rest
        left = start
        if not ended:
            rest, end, _ = rest.rpartition(b"\n")
            if not (ended := bool(end)):
                rest = b""  # of a line that is being written; its beginning comes
                continue
        if left == 0:
            yield rest
            return
        rest, end, whole = rest.partition(b"\n")
        if end:
            yield whole


def _day(segment: Segment) -> str | None:
    """The UTC day of its records; None where none is left in its beginning."""
    with opened(segment) as file:
        found = _DAY.search(file.read(_BLOCK))
    return found[1].decode() if found else None


def _first(block: bytes) -> int | None:
    """The number of the first record in it whose line isn't damaged."""
    found = _SEQ.search(block)
    return int(found[1]) if found else None


def _last(block: bytes) -> int | None:
    last = seq_of(block)
    return last if last is not None else max(map(int, _SEQ.findall(block)), default=None)


def _number(line: bytes) -> int | None:
    """The number of the record; None for a damaged line, and for one in the place of a record that was removed."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and record.keys() == _RECORD and isinstance(record["body"], dict)
    return seq_of(line) if whole else None
