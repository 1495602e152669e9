"""A collector in the house gets every record, at least once and in order, as soon as it is under a checkpoint.

Where it has got to is noted only after the collector has said that it has taken all of a delivery, so whatever breaks
in between is sent again: the collector tells what it knows already by `audit.seq` and `audit.sha256`. Nobody waits
for any of this. While the collector is away, nothing is kept but its place in the log.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from appliance import __version__, durable
from appliance.audit import otlp
from appliance.audit.checkpoint import Checkpoint
from appliance.audit.journal import Journal
from appliance.audit.otlp import Later
from appliance.audit.record import Kind, clean
from appliance.audit.tail import Record, Tail
from appliance.config import Shipping
from appliance.engines.upstream import Upstream
from appliance.errors import AuditFailed, Refused
from appliance.signing import BEFORE_THE_FIRST, written

_SECONDS = 30.0
"""For one delivery, all in all."""
_SIZE = 2 << 20
"""Bytes of records in one delivery, unless a single one has more."""
_LARGEST_ANSWER = 64 * 1024
_LONGEST_PAUSE = 60.0
_PATIENCE = 60.0
"""For which deliveries may fail until that is an incident."""
_MOST_REFUSED = 64
"""After so many refusals in a row, it isn't single records that are refused."""
_MOST_TOLD = 20
"""So many numbers of refused records are told of in one incident."""
_STALE = 3600.0
"""After which what waits in memory is read again: retention may have removed it since."""

_log = logging.getLogger("appliance.audit")


class Place(NamedTuple):
    """How far the collector has taken a log."""

    seq: int = 0
    sha256: str = BEFORE_THE_FIRST
    """Of that record's line, by which it is seen that the log is still the same."""
    missed: int = 0
    """Records that were gone before they could be shipped, and of which no incident tells yet."""


class Shipper:
    """Ships a log. It never fails: `trouble` tells."""

    def __init__(
        self,
        journal: Journal,
        work: Path,
        settings: Shipping,
        upstream: Upstream,
        *,
        host: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """In the folder `work` is noted how far it has got; `upstream` leads to the collector."""
        self._journal = journal
        self._file = work / "shipped.json"
        self._settings = settings
        self._upstream = upstream
        self._clock = clock
        self._sleep = sleep
        self._resource = {
            "service.name": "inference-appliance",
            "service.version": __version__,
            "host.name": host or socket.gethostname(),
            "audit.fingerprint": journal.fingerprint,
        }
        self._place = Place()
        self._tail = Tail(journal.folder, 0)
        self._pending: list[Record] = []
        self._pending_since = 0.0
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing_since: float | None = None
        self._told = False
        self._refused = self._missed = 0
        self.trouble: str | None = None
        """Why deliveries fail; None while they don't."""

    def start(self) -> None:
        """Begin where it stopped; it goes on until `close`. Needs a running loop and doesn't wait."""
        self._journal.on_checkpoint.append(self._notice)
        self._task = asyncio.create_task(self._keep())

    def describe(self) -> dict[str, float]:
        """For metrics.

        `behind`: records that the collector hasn't taken yet. `failing_seconds`: for how long deliveries have failed.
        `refused` and `missed`: records since the start that it won't get, since it refused them, or they were gone.
        """
        since = self._failing_since
        return {
            "behind": float(max(self._journal.head[0] - self._place.seq, 0)),
            "failing_seconds": 0.0 if since is None else self._clock() - since,
            "refused": float(self._refused),
            "missed": float(self._missed),
        }

    async def close(self) -> None:
        """Stop, and break off what is under way: it is sent again after the next start."""
        task, self._task = self._task, None
        if task is not None:
            self._journal.on_checkpoint.remove(self._notice)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._upstream.close()

    def _notice(self, _: Checkpoint) -> None:
        self._more.set()

    async def _keep(self) -> None:
        pauses, found = _pauses(), False
        while True:
            self._more.clear()
            try:
                if not found:
                    await self._find()
                    found = True
                await self._fill()
                idle = not self._pending
                await (self._caught_up() if idle else self._deliver())
            except Exception as why:
                pause = max(next(pauses), why.seconds if isinstance(why, Later) else 0.0)
                await self._fails(why)
                await self._sleep(pause)
                continue
            self._is_well()
            pauses = _pauses()
            if idle:
                await self._more.wait()

    # ---- the place in the log

    async def _find(self) -> None:
        """Go to where it stopped, or to the beginning where this isn't the log that it was in."""
        place, known = await asyncio.to_thread(_place, self._file, self._journal.folder, self._signed)
        if not known:
            _log.warning("the collector is sent the whole log: %s doesn't fit it", self._file)
            self._journal.note(Kind.INCIDENT, {"incident": "shipping_anew"})
        self._place, self._tail = place, Tail(self._journal.folder, place.seq)

    async def _move(self, place: Place) -> None:
        """Take `place` for the one to go on from, also after a restart."""
        self._place = place
        try:
            await asyncio.to_thread(durable.replace, self._file, written(place._asdict()))
        except OSError as why:  # then more is sent again than need be
            _log.warning("how far the collector has got can't be noted: %s: %s", self._file, why.strerror)

    async def _caught_up(self) -> None:
        if missed := self._place.missed:
            self._missed += missed
            _log.error("%d records were removed from the log before the collector took them", missed)
            self._journal.note(Kind.INCIDENT, {"incident": "shipping_missed", "records": missed})
            await self._move(self._place._replace(missed=0))

    @property
    def _signed(self) -> int:
        """The last record that may go: it is on disk, and nothing can take it back."""
        return self._journal.checkpoint.last if self._journal.checkpoint else 0

    async def _fill(self) -> None:
        """Have as much pending as goes into a delivery."""
        if self._pending and self._clock() - self._pending_since > _STALE:
            self._pending, self._tail = [], Tail(self._journal.folder, self._place.seq)
        room = self._settings.batch_records - len(self._pending)
        size = _SIZE - sum(len(record.line) for record in self._pending)
        if room > 0 and size > 0:
            if not self._pending:
                self._pending_since = self._clock()
            self._pending += await asyncio.to_thread(self._tail.take, self._signed, room, size)

    # ---- deliveries

    async def _deliver(self) -> None:
        """Deliver what is pending, and go on behind it. Raises `Later`; then all of it is pending still."""
        there = [record for record in self._pending if record.line]
        refused = await self._offer(there)
        if refused:
            self._refused += len(refused)
            numbers = [record.seq for record in refused[:_MOST_TOLD]]
            _log.error("the collector refuses %d records, and won't get them: %s ...", len(refused), numbers)
            body = {"incident": "shipping_refused", "records": len(refused), "seq": numbers}
            self._journal.note(Kind.INCIDENT, body)
        last = self._pending[-1]
        missed = last.seq - self._place.seq - len(there)
        await self._move(Place(last.seq, last.sha256, self._place.missed + missed))
        self._pending = []

    async def _offer(self, records: Sequence[Record]) -> list[Record]:
        """Those of `records` that the collector refuses by themselves; all others it has taken.

        Raises `Later` also when it takes none: then it isn't the records that are wrong, as far as can be told.
        """
        refused: list[Record] = []
        parts, takes, refusals = [records] if records else [], False, 0
        while parts:
            part = parts.pop()
            if await self._takes(part):
                takes = True
                continue
            refusals += 1
            if len(part) == 1:
                refused += part
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
            if not takes and (refusals >= _MOST_REFUSED or not parts):
                raise Later("it refuses whatever it gets")
        return refused

    async def _takes(self, records: Sequence[Record]) -> bool:
        """Whether the collector takes all of these; False where it would refuse them again. Raises `Later`."""
        delivery = await asyncio.to_thread(otlp.encode, records, self._resource)
        try:
            async with asyncio.timeout(_SECONDS):
                response = await self._upstream.post(otlp.PATH, delivery)
                try:
                    answer = await response.whole(_LARGEST_ANSWER)
                finally:
                    response.close()
        except Refused:
            raise Later("it can't be reached, or broke off") from None
        except TimeoutError:
            raise Later(f"it didn't answer within {_SECONDS:g} s") from None
        return otlp.took_all(response.status, answer, response.retry_after, now=datetime.now(UTC))

    # ---- what is told of it

    async def _fails(self, why: Exception) -> None:
        told = str(why) if isinstance(why, Later | AuditFailed) else f"{type(why).__name__} at this end"
        if told != self.trouble:
            _log.warning(
                "records don't get to the collector: %s; they stay in the log, and are sent again. "
                "Check audit.shipping and its server", told, exc_info=None if isinstance(why, Later) else why,
            )  # fmt: skip
        self.trouble = told
        if self._failing_since is None:
            self._failing_since = self._clock()
        if not self._told and self._clock() - self._failing_since >= _PATIENCE:
            self._told = True
            self._journal.note(Kind.INCIDENT, {"incident": "shipping_failed", "why": clean(told)})
            if isinstance(why, AuditFailed):  # what can't be read for so long is damaged
                await asyncio.to_thread(self._tail.skip)

    def _is_well(self) -> None:
        if self._failing_since is None:
            return
        seconds = int(self._clock() - self._failing_since)
        _log.info("records get to the collector again, after %d s", seconds)
        if self._told:
            self._journal.note(Kind.INCIDENT, {"incident": "shipping_again", "seconds": seconds})
        self.trouble, self._failing_since, self._told = None, None, False


def _place(file: Path, folder: Path, signed: int) -> tuple[Place, bool]:
    """Where to go on in the log in `folder`, and whether that was noted for this very log, or for none."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        told = json.loads(file.read_bytes())
        place = Place(int(told["seq"]), str(told["sha256"]), int(told["missed"]))
    except FileNotFoundError:
        return Place(), True
    except (OSError, ValueError, KeyError, TypeError):
        return Place(), False
    try:
        found = Tail(folder, place.seq - 1).take(place.seq, 1, 0)
    except AuditFailed:
        found = []  # nothing to compare with
    same = place.seq <= signed and all(record.sha256 == place.sha256 for record in found)
    return (place, True) if same else (Place(), False)


def _pauses() -> Iterator[float]:
    """Seconds until the next attempt."""
    return itertools.chain((0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0), itertools.repeat(_LONGEST_PAUSE))
