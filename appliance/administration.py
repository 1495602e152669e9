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
from appliance.accounts.identity import Identity
from appliance.accounts.office import Office
from appliance.api.exchange import House
from appliance.api.wire import WireLimits
from appliance.config import Config, RemoteModel, Settings
from appliance.dispatch.turns import Turns
from appliance.egress.assurance import Assurance, Verdict
from appliance.engines.engine import describe
from appliance.engines.fleet import Fleet, Machine, Tell, specs
from appliance.errors import ConfigInvalid, Problem
from appliance.probing import Probing
from appliance.seal.parts import Seal

_KEPT_BY_RESTART = (
    "listen", "egress", "state", "models_folder", "engines.environment",
    "accounts.store", "accounts.identity.keys_url", "accounts.identity.ca",
)  # fmt: skip


@dataclass(slots=True)
class Appliance:
    """A running appliance, as the control socket and the signals see it."""

    config: Config
    house: House
    fleet: Fleet
    turns: Turns
    office: Office
    identity: Identity | None
    access_log: observe.AccessLog
    seal: Seal
    endpoints: Mapping[str, RemoteModel]
    assurance: Assurance
    probing: Probing
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
        for name in ("limits", "objectives", "engines", "accounts", "queue"):
            if getattr(new.settings, name) != getattr(self.config.settings, name):
                changes.append(f"{name}: taken over")
        self.config = new
        self._take_over(new.settings)
        logging.getLogger("appliance").info("applied %s: %s", new.file, "; ".join(changes) or "no change")
        return changes

    def _take_over(self, settings: Settings) -> None:
        self.house.limits = settings.limits
        self.house.accounts = self.turns.accounts = settings.accounts
        self.turns.settings = settings.queue
        self.office.apply(settings.accounts)
        if self.identity is not None:
            self.identity.take(settings.accounts)

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
                "mode": egress.mode, "seal": egress.seal, "holds": self.seal.holds, "missing": self._missing(),
                "verify": self.assurance.describe(),
            },
            "books": self.office.bookkeeper.describe(),
            "identity": None if self.identity is None else {"trouble": self.identity.trouble},
            "models": models,
        }  # fmt: skip

    def _missing(self) -> list[str]:
        """What the seals of the gateway and of the way out lack; engines show theirs themselves."""
        way_out = {place: seal for place, seal in self.probing.seals().items() if place in ("outlet", "dialler")}
        return [*self.seal.missing, *(f"{place}: {part}" for place, seal in way_out.items() for part in seal.missing)]

    def take(self, verdict: Verdict) -> None:
        """Note what a verification of the seal came to, and say it where somebody looks."""
        log = logging.getLogger("appliance.egress")
        if not self.assurance.take(verdict):
            log.warning("report %d is older than one that was told of before, and counts for nothing", verdict.number)
        elif verdict.holds:
            log.info("report %d: the seal holds (sha256 %s)", verdict.number, verdict.sha256)
        else:
            log.error(
                "report %d: THE SEAL IS NOT PROVEN: %s; `appliance egress verify` says what to do (sha256 %s)",
                verdict.number, ", ".join(verdict.failed), verdict.sha256,
            )  # fmt: skip

    def missing(self) -> Iterable[tuple[str, int]]:
        """For metrics: (place, number of parts that its seal lacks)."""
        yield "gateway", len(self.seal.missing)
        for place, seal in self.probing.seals().items():
            yield place, len(seal.missing)

    def proof(self) -> tuple[bool, float] | None:
        """For metrics: whether the last verification held and is not overdue, and when it was (seconds since 1970)."""
        last = self.assurance.last
        return None if last is None else (last.holds and not self.assurance.overdue, last.timestamp)

    def failures(self) -> int:
        """For metrics: verifications so far that did not hold."""
        return self.assurance.failures

    def states(self) -> Iterable[tuple[str, str, int, int]]:
        """For metrics: (model, state, starts, requests in flight)."""
        for name, served in self.fleet.served.items():
            if served.engine is not None:
                yield name, served.engine.state, served.engine.starts, served.engine.leases


def _refuse_what_needs_a_restart(old: Settings, new: Settings, endpoints: Mapping[str, RemoteModel], file: str) -> None:
    problems = [
        Problem(name, "changes only with a restart: stop the appliance and start it again")
        for name in _KEPT_BY_RESTART
        if _at(name, old) != _at(name, new)
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


def _at(name: str, settings: Settings) -> object:
    """What `settings` hold at a dotted name; None below a section that is left out."""
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
