"""One run over the log that removes what was kept for long enough.

A thread reads and prepares, a little at a time, so that nobody waits for it; what changes the log itself is one file
put in the place of another. A segment that can't be dealt with stays as it is, and an incident tells of it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import durable
from appliance.audit import closed, removal
from appliance.audit.archive import Actor, Archive
from appliance.audit.closed import Pause, Unsound
from appliance.audit.holds import Hold
from appliance.audit.inventory import Inventory
from appliance.audit.record import Kind, moment
from appliance.audit.removal import Prepared
from appliance.audit.retention import Contents, Removed, Terms
from appliance.audit.segments import Segment, listed
from appliance.audit.signed import Signed
from appliance.config.audit import Retention
from appliance.errors import AuditFailed
from appliance.signing import load_key, public

_MOST_TOLD = 10
"""So many segments that couldn't be dealt with are named in an incident; it counts them all."""
_LONGEST_OFF = 40 * 86_400.0
"""Seconds since the last run after which somebody has to say that the clock is right."""
_BREATH = 0.001
"""Seconds between two slices of work, in which the event loop has its turn."""


@dataclass(slots=True)
class Swept:
    """What a run did, or would do."""

    removed: Removed = field(default_factory=Removed)
    segments: int = 0
    """Those that records were removed from."""
    failed: dict[int, str] = field(default_factory=dict)
    """Segments that stay as they are, by the number of their first record, and why."""
    stubs: list[dict[str, Any]] = field(default_factory=list)
    """What was signed: the first and the last record of each segment, and how many of each kind are gone from it."""

    def told(self) -> dict[str, Any]:
        """As it stands in a record."""
        return {**self.removed.told(), "failed": len(self.failed), "segments": self.segments}


class _Stopped(Exception):
    """The run has ended."""


class Sweep:
    """Runs over the log below the folder `state`. One run at a time; others wait for it."""

    def __init__(
        self,
        archive: Archive,
        state: Path,
        *,
        wall: Callable[[], float] = time.time,
        breath: float = _BREATH,
    ) -> None:
        self._archive = archive
        self._folder = state / "audit"
        self._keys = state / "audit-keys"
        self._inventory = Inventory(state / "audit-work" / "contents.json")
        self._signed = Signed(self._folder, archive.journal.keys)
        self._last = state / "audit-work" / "retention"
        """Holds when the last run was."""
        self._wall = wall
        self._breath = breath
        self._running = asyncio.Lock()

    async def run(self, settings: Retention, by: Actor, *, dry: bool = False, sure: bool = False) -> Swept:
        """Remove what neither `settings` nor a hold keeps; `dry`: only look; `sure`: whatever the clock says.

        Raises `AuditFailed` while the holds are not known, the log can't be read or the clock is in doubt, and
        `AuditUnavailable`: then no more is removed. A run is put on record, a dry one isn't.
        """
        stop = threading.Event()

        def pause() -> None:
            if stop.is_set():
                raise _Stopped  # in the thread; nobody waits for what comes of it
            time.sleep(self._breath)

        async with self._running:
            try:
                run = _Run(self._archive, self._folder, self._inventory, self._signed, settings, self._wall(), pause)
                if dry:
                    await run.finish()  # it is signed for already, and isn't to be counted
                    await run.over(None)
                    return run.swept
                if not sure:
                    self._require_likely(self._wall())
                key = _key(self._keys, self._archive.journal.keys[0])
                async with self._archive.act("retention", by) as act:
                    try:
                        await run.finish()
                        await run.over(key)
                    finally:
                        act.tell(**run.swept.told(), stubs=run.swept.stubs)
                self._note(moment(self._wall()))
            finally:
                stop.set()
        return self._told(run.swept)

    def _require_likely(self, now: float) -> None:
        """A clock that is years ahead would have everything removed. Raises `AuditFailed`."""
        last = self._last.read_text(errors="replace") if self._last.exists() else ""
        if last and last < moment(now - _LONGEST_OFF):
            raise AuditFailed(
                f"the last run was on {last[:10]}, and the clock says {moment(now)[:10]}: is it right? If it is, "
                "`appliance audit retention --now` removes what is due; then runs go on by themselves"
            )

    def _note(self, now: str) -> None:
        try:
            durable.replace(self._last, now.encode())
        except OSError as cause:
            logging.getLogger("appliance.audit").warning("%s can't be written: %s", self._last, cause.strerror)

    def _told(self, swept: Swept) -> Swept:
        log = logging.getLogger("appliance.audit")
        if swept.failed:
            some = [{"segment": first, "why": why} for first, why in list(swept.failed.items())[:_MOST_TOLD]]
            incident = {"incident": "retention_failed", "count": len(swept.failed), "segments": some}
            self._archive.journal.note(Kind.INCIDENT, incident)
            first, why = next(iter(swept.failed.items()))
            log.error(
                "retention: %d segments of the log stay as they are; the first is %012d: %s. It is tried again every "
                "day; `appliance audit verify` tells more", len(swept.failed), first, why,
            )  # fmt: skip
        removed = sum(swept.removed.kinds.values())
        log.info("retention: %d records removed from %d segments", removed, swept.segments)
        return swept


class _Run:
    """One run; what it came to is in `swept`."""

    def __init__(
        self, archive: Archive, folder: Path, inventory: Inventory, signed: Signed, settings: Retention, now: float,
        pause: Pause,
    ) -> None:  # fmt: skip
        self.swept = Swept()
        self._archive = archive
        self._folder = folder
        self._inventory = inventory
        self._signed = signed
        self._settings = settings
        self._now = now
        self._pause = pause
        self._holds: tuple[Hold, ...] | None = None
        self._before: dict[Segment, bytes] = {}
        """What `Terms.latest` is in front of each."""
        self._terms = Terms.of(settings, archive.holds.active, now)

    async def finish(self) -> None:
        """Finish what a run before left half done. Raises `AuditFailed`."""
        try:
            for step in await asyncio.to_thread(lambda: [*removal.finish(self._folder, self._signed, self._pause)]):
                await self._archive.journal.exclusively(step)
        except OSError as cause:
            raise AuditFailed(f"a removal that was broken off can't be finished: {_why(cause)}") from cause

    async def over(self, key: Ed25519PrivateKey | None) -> None:
        """Go over all closed segments, and remove; without a key, only look. Raises `AuditFailed`."""
        try:
            due = await asyncio.to_thread(self._due)
        except OSError as cause:
            raise AuditFailed(f"the log can't be read: {_why(cause)}") from cause
        try:
            await asyncio.to_thread(self._signed.follow, self._archive.journal.checkpoint, self._pause)
        except Unsound as cause:
            raise AuditFailed(f"nothing is removed, since the log isn't what was signed: {cause}") from cause
        for segment in due:
            try:
                removed = await self._deal_with(segment, due[-1], key)
            except (OSError, Unsound) as cause:
                self.swept.failed[segment.first] = _why(cause)
                continue
            self.swept.removed += removed
            self.swept.segments += bool(removed.kinds)

    async def _deal_with(self, segment: Segment, last: Segment, key: Ed25519PrivateKey | None) -> Removed:
        while True:  # as long as somebody puts holds into effect meanwhile
            if self._holds != self._archive.holds.active:
                self._holds = self._archive.holds.active
                self._terms = Terms.of(self._settings, self._holds, self._now)
                await asyncio.to_thread(self._show, last)
            prepared = await asyncio.to_thread(
                removal.prepare, segment, self._terms, self._before[segment], self._now, self._signed, self._pause,
                dry=key is None,
            )  # fmt: skip
            if key is None or not prepared.removed.kinds or await self._commit(prepared, key):
                return prepared.removed

    async def _commit(self, prepared: Prepared, key: Ed25519PrivateKey) -> bool:
        async with self._archive.holds.lock:
            if self._holds != self._archive.holds.active:
                return False
            await self._archive.journal.exclusively(partial(removal.commit, prepared, key))
            self.swept.stubs.append({name: prepared.stub[name] for name in ("first", "kinds", "last")})
            return True

    # ---- in a thread

    def _due(self) -> list[Segment]:
        segments = [segment for segment in listed(self._folder) if segment.compressed]
        known = self._inventory.over(segments, self._look)
        due, latest = [], b""
        for segment, contents in known.items():
            if contents.due(self._terms, latest):
                due.append(segment)
            self._before[segment] = latest
            self.swept.removed.held += contents.spared(self._terms, latest)
            latest = contents.latest(self._terms, latest)
        return due

    def _look(self, segment: Segment) -> Contents | None:
        try:
            return closed.contents(segment, self._pause)
        except Unsound as cause:
            self.swept.failed[segment.first] = _why(cause)
            return None

    def _show(self, last: Segment) -> None:
        """Have `terms` see what is held in all segments up to `last`: outcomes lie behind their intents."""
        if not self._terms.persons:
            return
        for segment in listed(self._folder):
            if segment.compressed and segment <= last:
                try:
                    closed.show(self._terms, segment, self._pause)
                except Unsound as cause:
                    raise AuditFailed(
                        f"nothing is removed, since {segment.file.name} may speak of a person who is held: {cause}"
                    ) from cause


def _key(folder: Path, known: str) -> Ed25519PrivateKey:
    file = folder / "signing.pem"
    try:
        key = load_key(file.read_bytes())
    except OSError as cause:
        raise AuditFailed(f"{file} can't be read: {cause.strerror}") from cause
    if key is None:
        raise AuditFailed(f"{file} holds no key that signs; restore it from a backup")
    if public(key) != known:
        raise AuditFailed(f"{file} holds another key than the one that signs the log since the start; start anew")
    return key


def _why(cause: Exception) -> str:
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
