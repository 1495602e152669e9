"""What an administrator of this host can order of the log: holds, and runs of its retention.

The same whether the appliance carries it out, or a command while none runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from appliance.audit import holds
from appliance.audit.archive import Actor, Archive
from appliance.audit.record import Kind, clean
from appliance.audit.segments import lines, listed
from appliance.audit.sweep import Sweep
from appliance.config.audit import Retention
from appliance.errors import ApplianceError, AuditFailed, BadRequest, in_full

ORDERS = ("hold", "release", "repair", "retention")
_ACT = b'"kind":"%s","prev":"' % Kind.ACT.value.encode()
_END = 160
_SLICE, _BREATH = 500, 0.001
"""After so many records the event loop has its turn, for so many seconds."""


class Orders:
    """Carries out orders on the log below the folder `state`."""

    def __init__(self, archive: Archive, state: Path) -> None:
        self.sweep = Sweep(archive, state)
        self._archive = archive
        self._folder = state / "audit"
        self._trouble: str | None = None
        """Why the last daily run failed."""

    async def carry_out(self, order: str, asked: Mapping[str, Any], by: Actor, settings: Retention) -> dict[str, Any]:
        """What comes of one of `ORDERS`. `asked`: what it needs to know.

        Raises `BadRequest`, `AuditFailed`, `AuditUnavailable`, all of which say what to do.
        """
        match order:
            case "hold":
                wanted = {name: asked.get(name) for name in ("since", "until", "subject")}
                hold = await holds.place(self._archive, by, reason=str(asked["reason"]), now=time.time(), **wanted)
                return {"hold": asdict(hold)}
            case "release":
                return {"hold": asdict(await holds.release(self._archive, by, str(asked["id"])))}
            case "repair":
                found = await holds.repair(self._archive, by, self._acts())
                return {"holds": [asdict(each) for each in found]}
            case "retention":
                swept = await self.sweep.run(settings, by, dry=bool(asked["dry_run"]), sure=True)
                failed = [{"segment": first, "why": why} for first, why in swept.failed.items()]
                return {**swept.told(), "failed": failed}
        raise ValueError(f"there is no order {order}")

    async def daily(self, settings: Retention) -> None:
        """What is done every day without being ordered. What can't be done is raised, and told in an incident: once,
        until it works, or fails for another reason."""
        try:
            await self.sweep.run(settings, Actor.appliance())
        except Exception as cause:
            before, self._trouble = self._trouble, in_full(cause) or type(cause).__name__
            if self._trouble != before:
                incident = {"incident": "retention_failed", "why": clean(self._trouble)}
                self._archive.journal.note(Kind.INCIDENT, incident)
            raise
        self._trouble = None

    def _acts(self) -> Iterator[dict[str, Any]]:
        """All acts on record, in order. Raises `AuditFailed`."""
        try:
            segments = listed(self._folder)
        except OSError as cause:
            raise AuditFailed(f"the log can't be read: {cause.strerror}") from cause
        number = count(1)
        for segment in segments:
            for line in lines(segment):
                if next(number) % _SLICE == 0:
                    time.sleep(_BREATH)
                if _ACT in line[-_END:]:
                    yield json.loads(line)


def refused(refusal: ApplianceError) -> dict[str, Any]:
    """What comes of an order that is refused; `wrong`: it has to be given in another way."""
    return {"error": in_full(refusal), "wrong": isinstance(refusal, BadRequest)}
