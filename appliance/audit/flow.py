"""The way of groups to the disk: one at a time, while the next one grows; and again until it worked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from appliance.audit.checkpoint import Checkpoint
from appliance.audit.group import Group
from appliance.audit.health import Health
from appliance.audit.sink import Sink
from appliance.writer import Writer

_PAUSE = 0.002
"""Seconds between two groups, in which the next one grows."""
_LINGER = 0.01
"""Seconds that notes wait for a record that somebody waits for: then a request costs one group, not two."""
_PATIENCE = 10.0
"""Seconds after which a group that isn't on disk is held for failed, whatever the disk does meanwhile."""
_AGAIN = (0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to write what failed; the last is repeated."""

_log = logging.getLogger("appliance.audit")

T = TypeVar("T")


class _Ending(Exception):
    """The thread is to end before its work is done."""


class Flow:
    """Hands groups to a sink, in a thread; all else is on the event loop.

    `done` is called with each group that is on disk and the checkpoints that were signed with it; `failed`, when
    nobody knows any more when the disk will take what it was given.
    """

    def __init__(
        self,
        sink: Sink,
        writer: Writer,
        health: Health,
        segment: int,
        done: Callable[[Group, list[Checkpoint]], None],
        failed: Callable[[], None],
    ) -> None:
        """`segment`: the number of the first record of the open segment."""
        self.written = 0
        """How many lines have come to the disk."""
        self._loop = asyncio.get_running_loop()
        self._sink = sink
        self._writer = writer
        self._health = health
        self._tell_done = done
        self._tell_failed = failed
        self._groups = deque([Group(segment, health)])
        self._writing: Group | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        """When the timer ends."""
        self._late: asyncio.TimerHandle | None = None
        self._not_before = 0.0
        self._closed = False
        self._ended = False
        self._quiet = asyncio.Event()

    @property
    def growing(self) -> Group:
        """Where the next record goes."""
        return self._groups[-1]

    @property
    def segment(self) -> int:
        """The first record of the oldest segment to which something is still to be written."""
        return (self._writing or self._groups[0]).segment

    def begin_segment(self, first: int) -> None:
        """Have the next record, `first`, begin a new segment."""
        self._groups[-1].ends = True
        self._groups.append(Group(first, self._health))

    def hurry(self, group: Group) -> None:
        """Have `group` written as soon as may be."""
        group.hurried = True
        if self._writing is None and self._due > self._not_before:
            self._write_at(self._not_before)

    def look(self) -> None:
        """Set the timer for what waits to be written."""
        if self._writing is not None or self._ended:
            return
        group = self._groups[0]
        if group.hurried or group.ends or (group.lines and self._closed):
            when = self._not_before
        elif group.lines:
            when = self._loop.time() + _LINGER
        else:
            if self._closed:
                self._quiet.set()
            return
        if when < self._due:
            self._write_at(when)

    async def end(self, seconds: float) -> None:
        """Write all there is; for `seconds` at most."""
        self._closed = True
        self.look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        self._ended = True
        for timer in (self._timer, self._late):
            if timer is not None:
                timer.cancel()
        if not self._quiet.is_set():
            _log.error("the appliance ends before all is on record; what is missing was acknowledged to nobody")

    def _write_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = self._loop.call_at(when, self._write)

    def _write(self) -> None:
        """Hand a group to the thread."""
        self._timer = None
        self._due = math.inf
        group = self._writing = self._groups.popleft()
        if not self._groups:
            self._groups.append(Group(group.segment, self._health))
        self._late = self._loop.call_later(_PATIENCE, self._hangs)
        self._writer.do(lambda: self._commit(group))

    def _keep(self, group: Group) -> None:
        if not group.kept:
            self.written += len(group.lines)
            group.keep()

    def _done(self, group: Group, signed: list[Checkpoint]) -> None:
        self._keep(group)
        self._writing = None
        if self._late is not None:
            self._late.cancel()
        self._tell_done(group, signed)
        self._not_before = self._loop.time() + _PAUSE
        self.look()

    def _hangs(self) -> None:
        self._failed(self._health.trouble or f"{self._sink.folder}: the disk doesn't answer within {_PATIENCE:g} s")

    def _failed(self, why: str) -> None:
        self._health.failed(why)
        for group in (self._writing, *self._groups):
            if group is not None:
                group.fail()
        self._tell_failed()

    # ---- the thread

    def _commit(self, group: Group) -> None:
        """Put a group on disk, and try until it works: it is nowhere else."""
        tell, sink = self._writer.tell, self._sink
        signed: list[Checkpoint] = []
        with contextlib.suppress(_Ending):
            if group.lines:
                self._until_done(lambda: sink.keep(group.segment, group.lines))
            if group.stretches:
                tell(self._keep, group)
                signed = self._until_done(lambda: sink.sign(group.stretches))
            tell(self._done, group, signed)

    def _until_done(self, work: Callable[[], T]) -> T:
        for pause in itertools.chain(_AGAIN, itertools.repeat(_AGAIN[-1])):
            try:
                return work()
            except Exception as cause:  # whatever it is, nothing may happen that isn't on record
                why = type(cause).__name__
                if isinstance(cause, OSError):
                    why = f"{cause.filename or self._sink.folder}: {cause.strerror}"
                self._writer.tell(self._failed, why)
            if self._writer.stopping.wait(pause):
                break
        raise _Ending
