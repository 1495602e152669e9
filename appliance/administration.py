"""What an administrator can do to a running appliance: put an edited config into effect, and look."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance import config as configuration
from appliance import observe
from appliance.api.exchange import House
from appliance.api.wire import WireLimits
from appliance.config import Config, RemoteModel, Settings
from appliance.engines.engine import describe
from appliance.engines.fleet import Fleet, Machine, Tell, specs
from appliance.engines.seal import Seal
from appliance.errors import ConfigInvalid, Problem

_KEPT_BY_RESTART = ("listen", "egress", "state")


@dataclass(slots=True)
class Appliance:
    """A running appliance, as the control socket and the signals see it."""

    config: Config
    house: House
    fleet: Fleet
    access_log: observe.AccessLog
    seal: Seal
    endpoints: Mapping[str, RemoteModel]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    base_url: str = ""
    _applying: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def apply(self, tell: Tell) -> list[str]:
        """Read the config again and make it so; return what changed, in words.

        Raises `ApplianceError` when anything about it is wrong: then nothing has changed. One at a time, from
        the reading on: else the one that read an older file could be the last to take effect.
        """
        async with self._applying:
            return await self._apply(tell)

    async def _apply(self, tell: Tell) -> list[str]:
        new = configuration.load(self.config.file)
        _refuse_what_needs_a_restart(self.config.settings, new.settings, self.endpoints, str(new.file))
        tell("the config is right; checking weights")
        wanted = await asyncio.to_thread(specs, new, Machine.here())
        changes = await self.fleet.change(new, wanted, tell)
        for name in ("limits", "objectives", "engines"):
            if getattr(new.settings, name) != getattr(self.config.settings, name):
                changes.append(f"{name}: taken over")
        self.config = new
        self.house.limits = new.settings.limits
        logging.getLogger("appliance").info("applied %s: %s", new.file, "; ".join(changes) or "no change")
        return changes

    def status(self) -> dict[str, Any]:
        """What `appliance status` shows."""
        models = {
            name: dict(describe(served.engine)) if served.engine else {"state": "endpoint"}
            for name, served in self.fleet.served.items()
        }
        egress = self.config.settings.egress
        return {
            "address": self.base_url,
            "config": str(self.config.file),
            "pid": os.getpid(),
            "egress": {
                "mode": egress.mode, "seal": egress.seal, "holds": self.seal.holds, "missing": self.seal.missing
            },
            "models": models,
        }  # fmt: skip

    def states(self) -> Iterable[tuple[str, str, int, int]]:
        """For metrics: (model, state, starts, requests in flight)."""
        for name, served in self.fleet.served.items():
            if served.engine is not None:
                yield name, served.engine.state, served.engine.starts, served.engine.leases


def _refuse_what_needs_a_restart(old: Settings, new: Settings, endpoints: Mapping[str, RemoteModel], file: str) -> None:
    problems = [
        Problem(name, "changes only with a restart: stop the appliance and start it again")
        for name in _KEPT_BY_RESTART
        if getattr(old, name) != getattr(new, name)
    ]
    if WireLimits.of(old.limits) != WireLimits.of(new.limits):
        what = "those on headers, bodies, idle time and connections change only with a restart"
        problems.append(Problem("limits", what))
    problems += [
        Problem(
            f"models.{name}.endpoint",
            "a running appliance can't be made to reach another address; restart it to add or change an endpoint",
        )
        for name, model in new.models.items()
        if isinstance(model, RemoteModel) and endpoints.get(name) != model
    ]
    if problems:
        raise ConfigInvalid(file, problems)
