"""Records that come to the disk together, and what one of them looks like to whoever wrote it."""

from __future__ import annotations

import asyncio

from appliance.audit.health import Health


class Group:
    """Records of one segment, and what is signed once they are on disk. For the event loop, until it is written."""

    __slots__ = ("_health", "_waiting", "ends", "hurried", "kept", "lines", "segment", "stretches")

    def __init__(self, segment: int, health: Health) -> None:
        self.segment = segment
        """The number of the first record of their segment."""
        self.lines: list[bytes] = []
        self.stretches: list[tuple[int, list[str]]] = []
        """To be signed: the number of the last record, and the hashes of all; some may be of groups before."""
        self.hurried = False
        """Whether something in it is to be on disk at once."""
        self.ends = False
        """Whether the segment is closed behind it."""
        self.kept = False
        """Whether the lines are on disk."""
        self._health = health
        self._waiting: list[asyncio.Future[None]] = []

    async def written(self) -> None:
        """Return once the lines are on disk. Raises `AuditUnavailable`."""
        self._health.require()
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def keep(self) -> None:
        """The lines are on disk: let all who wait go on."""
        self.kept = True
        for each in self._left():
            each.set_result(None)

    def fail(self) -> None:
        """Nobody knows when the lines will be on disk: let all who wait raise."""
        for each in self._left():
            each.set_exception(self._health.refusal())

    def _left(self) -> list[asyncio.Future[None]]:
        waiting, self._waiting = self._waiting, []
        return [each for each in waiting if not each.done()]  # one is when its task was cancelled


class Ticket:
    """A record that is in the chain, and on disk once its group is."""

    __slots__ = ("_group", "seq")

    def __init__(self, group: Group, seq: int) -> None:
        self.seq = seq
        """Its number."""
        self._group = group

    async def kept(self) -> None:
        """Return once the record is on disk. Raises `AuditUnavailable` when it can't be for now."""
        if not self._group.kept:
            await self._group.written()
