"""The journal: the one owner of the chain, which puts records on disk in groups.

write -> chained at once, in order of calls -> a group -> one write, on disk -> kept
                                                       -> now and then a checkpoint over what is on disk
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from appliance import signing
from appliance.audit.checkpoint import Checkpoint
from appliance.audit.disk import Disk, RealDisk
from appliance.audit.flow import Flow
from appliance.audit.group import Group, Ticket
from appliance.audit.health import Health, in_words
from appliance.audit.record import Chain, Kind
from appliance.audit.sink import Opened, Sink, open_log, tidy
from appliance.config.audit import Audit
from appliance.errors import AuditFailed
from appliance.writer import Writer

_DAY = 86_400
_MIB = 1 << 20
_GRACE = 0.5
"""Seconds that a thread has at least to let go of its files when the log is closed."""

_log = logging.getLogger("appliance.audit")

T = TypeVar("T")


class Journal:
    """The open log. Two threads work for it: one writes, the other one changes segments that are closed.

    For one event loop. While it can't write, it says so to all who ask, and tries until it can.
    """

    def __init__(
        self, folder: Path, opened: Opened, settings: Audit, wall: Callable[[], float], disk: Disk, writer: Writer
    ) -> None:
        """`Journal.open` makes one."""
        found = opened.found
        self.folder = folder
        self.fingerprint = signing.fingerprint(signing.public(opened.key))
        """Of the key that signs, for people to compare."""
        self.keys = opened.anchor.keys
        """The public keys that the log may be signed with, in hex: the one that signs, then those before it."""
        self.checkpoint = found.checkpoint
        """The newest that is on disk."""
        self.on_checkpoint: list[Callable[[Checkpoint], None]] = []
        """Called on the event loop with each new one."""
        self._lock = opened.lock
        self._settings = settings
        self._wall = wall
        self._disk = disk
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._closer = Writer("audit-closed")
        self._sink = Sink(folder, opened, wall, disk)
        self._chain = Chain(found.seq, found.head)
        self._health = Health()
        self._flow = Flow(self._sink, writer, self._health, found.first, self._done, self._failed)
        self._before = found.seq
        """The number of the last record of the runs before."""
        self._length = found.segment.length
        """Of the open segment, with all that is on its way there."""
        self._day = found.day
        self._unsigned: list[str] = []
        self._signing: asyncio.TimerHandle | None = None
        self._behind = 0.0
        """Since when there have been records without a checkpoint, as long as there are."""
        self._asked: list[tuple[int, asyncio.Future[None]]] = []
        self._closed = False
        for seq, head in enumerate(found.unsigned, found.seq - len(found.unsigned) + 1):
            self._sign_later(seq, head)
        if found.first > found.seq:
            self._cut()  # what isn't signed lies in another segment
        self._tidy()
        for incident in found.incidents:
            level = logging.WARNING if incident["incident"] == "audit_torn" else logging.ERROR
            _log.log(level, "the audit log: %s", in_words(incident))
            self.note(Kind.INCIDENT, incident)
        self._flow.look()

    @classmethod
    async def open(
        cls,
        folder: Path,
        keys: Path,
        settings: Audit,
        *,
        wall: Callable[[], float] = time.time,
        disk: Disk | None = None,
    ) -> Journal:
        """The log in `folder`, signed with the key in `keys`; both are made where they are missing.

        `wall`: seconds since 1970. Raises `AuditFailed`, also while another process has it open.
        """
        disk = disk or RealDisk()
        writer = Writer("audit")
        try:
            opened = await writer.ask(lambda: open_log(folder, keys, disk))
        except BaseException:
            await writer.stop(0)
            raise
        return cls(folder, opened, settings, wall, disk, writer)

    # ---- what others ask of it

    @property
    def head(self) -> tuple[int, str]:
        """The number of the last record, and its hash; on disk it may be a moment later."""
        return self._chain.seq, self._chain.head

    def write(self, kind: Kind, body: Mapping[str, Any]) -> Ticket:
        """Chain a record at once; the disk is the business of the ticket.

        Raises `AuditUnavailable` while nothing can be written, ValueError for a body that can't stand in a record;
        then there is no such record.
        """
        if self._closed or not self._health.well:
            raise self._health.refusal()
        group, seq = self._append(kind, body)
        self._flow.hurry(group)
        return Ticket(group, seq)

    def note(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Chain a record that nobody waits for. It never fails: what can't be written now is written later."""
        if self._closed:
            _log.error("a record of the kind %s came after the log was closed, and is lost", kind)
            return
        try:
            self._append(kind, body)
        except ValueError:
            _log.exception("a record of the kind %s can't be written", kind)
            self._append(Kind.INCIDENT, {"incident": "audit_no_record", "kind": kind.value})
        self._flow.look()

    def require(self) -> None:
        """Raise `AuditUnavailable` while nothing can be written."""
        self._health.require()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written at the moment, for administrators."""
        return self._health.trouble

    def apply(self, settings: Audit) -> None:
        """Other settings, from the next record on."""
        self._settings = settings

    def describe(self) -> dict[str, float]:
        """For metrics. `waiting` is the number of records that aren't on disk yet.

        `checkpoint_age_seconds` is how long there have been records since the newest checkpoint; 0 when it covers all.
        """
        signed = self.checkpoint.last if self.checkpoint else 0
        return {
            "well": float(self._health.well),
            "failures": float(self._health.failures),
            "waiting": float(self._chain.seq - self._before - self._flow.written),
            "records": float(self._chain.seq),
            "checkpoint_age_seconds": self._loop.time() - self._behind if signed < self._chain.seq else 0.0,
        }

    async def checkpoint_now(self) -> Checkpoint | None:
        """The newest checkpoint, once it covers all records that there are now; None while there is no record.

        Raises `AuditUnavailable`.
        """
        seq = self._chain.seq
        if seq > (self.checkpoint.last if self.checkpoint else 0):
            if self._closed:
                raise self._health.refusal()
            self.require()
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._asked.append((seq, waiting))
            self._sign()
            await waiting
        return self.checkpoint

    async def exclusively(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread while nobody else changes closed segments; records go on being written meanwhile.

        Raises what it raises, and `AuditFailed` once the log is closed.
        """
        if self._closed:
            raise AuditFailed("the log is closed")
        return await self._closer.ask(work)

    async def close(self, seconds: float) -> None:
        """Take no more records, write what there is, and sign it; then others can open the log."""
        if self._closed:
            return
        self._closed = True
        ends = self._loop.time() + seconds
        self._cut()
        await self._flow.end(seconds)
        if self._signing is not None:
            self._signing.cancel()
        self._writer.do(self._let_go)
        for thread in (self._writer, self._closer):
            await thread.stop(max(_GRACE, ends - self._loop.time()))

    # ---- records

    def _append(self, kind: Kind, body: Mapping[str, Any]) -> tuple[Group, int]:
        at = self._wall()
        if not 0 <= at - self._day < _DAY:
            self._begin_day(at)
        line = self._chain.append(kind, body, at)
        group, seq = self._flow.growing, self._chain.seq
        group.lines.append(line)
        self._length += len(line) + 1
        self._sign_later(seq, self._chain.head)
        if self._length >= self._settings.segment_mib * _MIB:
            self._end_segment()
        return group, seq

    def _begin_day(self, at: float) -> None:
        if self._length:
            self._end_segment()
        self._day = int(at // _DAY) * _DAY

    def _end_segment(self) -> None:
        self._cut()
        self._flow.begin_segment(self._chain.seq + 1)
        self._length = 0

    def _sign_later(self, seq: int, head: str) -> None:
        if not self._unsigned:
            self._signing = self._loop.call_later(self._settings.checkpoint_seconds, self._sign)
            if self.checkpoint is None or self.checkpoint.last == seq - 1:
                self._behind = self._loop.time()
        self._unsigned.append(head)
        if len(self._unsigned) >= self._settings.checkpoint_records:
            self._cut(seq)

    def _sign(self) -> None:
        self._cut()
        self._flow.look()

    def _cut(self, seq: int | None = None) -> None:
        """Have all records up to `seq` signed as soon as they are on disk; None: all."""
        if self._unsigned:
            heads, self._unsigned = self._unsigned, []
            group = self._flow.growing
            group.stretches.append((self._chain.seq if seq is None else seq, heads))
            group.hurried = True
        if self._signing is not None:
            self._signing.cancel()
            self._signing = None

    # ---- what comes of them

    def _done(self, group: Group, signed: list[Checkpoint]) -> None:
        if signed:
            self._announce(signed)
        incident = self._health.wrote()
        if incident is not None:
            self._append(Kind.INCIDENT, incident)
        if incident is not None or group.ends:
            self._tidy()
        if self._closed:
            self._cut()

    def _announce(self, signed: list[Checkpoint]) -> None:
        self._behind = self._loop.time()
        for checkpoint in signed:
            self.checkpoint = checkpoint
            for call in self.on_checkpoint:
                self._loop.call_soon(call, checkpoint)
        covered = signed[-1].last
        for seq, waiting in self._asked:
            if seq <= covered and not waiting.done():
                waiting.set_result(None)
        self._asked = [each for each in self._asked if not each[1].done()]

    def _failed(self) -> None:
        asked, self._asked = self._asked, []
        for _, waiting in asked:
            if not waiting.done():
                waiting.set_exception(self._health.refusal())

    def _tidy(self) -> None:
        folder, before, disk = self.folder, self._flow.segment, self._disk

        def work() -> None:
            try:
                tidy(folder, before, disk)
            except OSError as cause:
                _log.warning("a closed segment isn't compressed, which is tried again: %s", cause)

        self._closer.do(work)

    def _let_go(self) -> None:
        self._sink.close()
        self._closer.do(lambda: os.close(self._lock))
