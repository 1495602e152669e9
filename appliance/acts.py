"""What the command line does, on record: by the appliance that runs on the state folder, else by the command itself.

One process alone writes to a log, so where an appliance runs, it is told over its control socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from appliance import control, state
from appliance.audit.archive import Actor, Archive
from appliance.config import Config
from appliance.egress.owner import as_owner
from appliance.errors import ApplianceError, AuditFailed, AuditUnavailable, NotAnswering, NotRunning, in_full

T = TypeVar("T")
_PATIENCE = 30.0
"""Seconds in which an appliance that runs has put something on record, or nothing is done."""
_SHORT = 2.0
"""Seconds that a disk which takes nothing has to get well in, before a command gives up."""


class Tell(Protocol):
    """What work is given to tell more with."""

    def __call__(self, *, target: str | None = None, key: str | None = None, **more: Any) -> None:
        """Add to the record of the act's end: see `archive.Act.tell`."""


def on_record(
    config: Config,
    name: str,
    work: Callable[[Tell], T],
    *,
    target: str | None = None,
    key: str | None = None,
    **told: Any,
) -> T:
    """Do `work`, the act `name` of whoever runs this command: on record before, and what became of it after.

    `target`, `key` and `told` as in `Archive.act`. Raises what `work` does, and `AuditFailed` when the act can't be put
    on record: then nothing was done, and the message says what to do.
    """
    beginning = {"name": name, "target": target, "key": key, "told": told}
    try:
        of = _told(config, beginning | {"phase": "intent"})["seq"]
    except NotRunning:
        by = Actor.host()

        async def done(archive: Archive) -> T:
            async with archive.act(name, by, target=target, key=key, **told) as act:
                return work(act.tell)

        return alone(config, name, done)
    except NotAnswering as hung:
        raise AuditFailed(f"{hung}, and nothing may be done that isn't on record; nothing was done") from hung
    ending: dict[str, Any] = {"name": name, "of": of, "phase": "failed", "told": {}}

    def tell(*, target: str | None = None, key: str | None = None, **more: Any) -> None:
        ending["target"], ending["key"] = target or ending.get("target"), key or ending.get("key")
        ending["told"] |= more

    try:
        result = work(tell)
    except BaseException as cause:
        ending["told"]["error"] = type(cause).__name__
        raise
    else:
        ending["phase"] = "done"
        return result
    finally:
        try:
            _told(config, ending)
        except ApplianceError as failure:  # that it was begun is on record
            logging.getLogger("appliance.acts").warning("how %s ended isn't on record: %s", name, failure)


def _told(config: Config, act: dict[str, Any]) -> dict[str, Any]:
    """What the appliance that runs answers to being told of an act."""
    answers = list(control.ask(config.state, "POST", "/audit/acts", act, patience=_PATIENCE))
    answer = answers[0] if answers else {"error": "it didn't say why"}
    if "error" in answer:
        raise AuditFailed(f"{act['name']} can't be put on record, so nothing was done: {answer['error']}")
    return answer


def alone(config: Config, name: str, work: Callable[[Archive], Awaitable[T]]) -> T:
    """Do the act `name` with the log opened here, as no appliance runs. Raises what `work` does, and `AuditFailed`."""

    async def run() -> T:
        archive = await Archive.open(config)
        try:
            return await work(archive)
        finally:
            await archive.close(_PATIENCE if archive.journal.trouble is None else _SHORT)

    state.require_fit(config)
    config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # threads that begin in here go by the owner's rights, too
        with as_owner(config.state):
            return asyncio.run(run())
    except (AuditFailed, AuditUnavailable) as failure:
        advice = "; make room on its disk, and see that it can be written to" * isinstance(failure, AuditUnavailable)
        raise AuditFailed(
            f"{name} can't be put on record, so nothing was done: {in_full(failure)}{advice}"
        ) from failure
