"""What an administrator can do to a running appliance: put an edited config into effect, and look."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from appliance import __version__, incidents, observe
from appliance import config as configuration
from appliance.accounts.identity import Identity
from appliance.accounts.office import Office
from appliance.api.exchange import House
from appliance.api.wire import WireLimits
from appliance.audit.archive import Actor, Archive
from appliance.audit.daily import daily
from appliance.audit.erasure import Erased, erase
from appliance.audit.orders import Orders
from appliance.audit.subjects import Subjects
from appliance.changes import Applied
from appliance.config import Config, RemoteModel, Settings
from appliance.dispatch.turns import Turns
from appliance.egress.assurance import Assurance, Verdict
from appliance.engines.command import Spec
from appliance.engines.engine import describe
from appliance.engines.fleet import Fleet, Machine, Tell, specs
from appliance.errors import ConfigInvalid, Problem
from appliance.incidents import Standing, Trouble
from appliance.privacy.guard import Guard
from appliance.probing import Probing
from appliance.seal.parts import Seal
from appliance.testimony import Testimony

_KEPT_BY_RESTART = (
    "listen", "egress", "privacy", "state", "models_folder", "engines.environment",
    "accounts.store", "accounts.identity.keys_url", "accounts.identity.ca", "audit.timestamps", "audit.shipping",
    "audit.works_council",
)  # fmt: skip


class Outward(Protocol):
    """What tells a server in the house of the audit log."""

    @property
    def trouble(self) -> str | None:
        """Why it can't at the moment."""

    def describe(self) -> dict[str, float]:
        """For metrics."""


@dataclass(slots=True)
class Appliance:
    """A running appliance, as the control socket and the signals see it."""

    config: Config
    house: House
    fleet: Fleet
    turns: Turns
    office: Office
    archive: Archive
    testimony: Testimony
    outward: Mapping[str, Outward]
    """What tells servers in the house of the audit log: `shipping`, `timestamps`."""
    identity: Identity | None
    access_log: observe.AccessLog
    seal: Seal
    wanted: Mapping[str, Spec]
    """What engines are to run."""
    endpoints: Mapping[str, RemoteModel]
    assurance: Assurance
    probing: Probing
    guard: Guard | None = None
    """The privacy gate; None where nothing may leave."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    base_url: str = ""
    _applying: asyncio.Lock = field(default_factory=asyncio.Lock)
    _orders: Orders = field(init=False)
    _verdict_on_record: tuple[bool, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        self._orders = Orders(self.archive, self.config.state)

    async def begin(self) -> None:
        """Put on record that the appliance starts, and on what. Raises `AuditUnavailable`."""
        settings, applied = self.config.settings, self._applied
        await self.archive.happened(
            "start", Actor.appliance(), version=__version__, policy=self.config.version, models=_weights(self.wanted),
            mode=settings.egress.mode, seal=list(self.seal.holds), missing=self._missing(),
            works_council=settings.audit.works_council, **applied.changes(self.config.text),
        )  # fmt: skip
        await self.archive.journal.checkpoint_now()  # so that even a log that is a moment old has a signature
        applied.keep(self.config.text)

    def end(self) -> None:
        """Put on record that the appliance ends, and whether it was asked to."""
        self.archive.note("stop", Actor.appliance(), asked=self.stopping.is_set())

    async def apply(self, tell: Tell, by: Actor) -> list[str]:
        """Read the config again and make it so, for `by`; return what changed, in words.

        It is on record as begun before anything changes. Raises `ApplianceError` when anything about it is wrong: then
        nothing has changed. One at a time, from the reading on: else the one that read an older file could be the last
        to take effect.
        """
        async with self._applying:
            return await self._apply(tell, by)

    async def _apply(self, tell: Tell, by: Actor) -> list[str]:
        new = configuration.load(self.config.file)
        _refuse_what_needs_a_restart(self.config.settings, new.settings, self.endpoints, str(new.file))
        tell("the config is right; checking weights")
        wanted = await asyncio.to_thread(specs, new, Machine.here())
        told = self._applied.changes(new.text)
        async with self.archive.act("config.apply", by, policy=new.version, **told) as act:
            changes = await self.fleet.change(new, wanted, tell)
            for name in ("limits", "objectives", "engines", "accounts", "queue", "audit"):
                if getattr(new.settings, name) != getattr(self.config.settings, name):
                    changes.append(f"{name}: taken over")
            act.tell(changes=changes, swaps=_swaps(_weights(self.wanted), _weights(wanted)))
            self.config, self.wanted = new, wanted
            self._take_over(new.settings)
            self._applied.keep(new.text)
        logging.getLogger("appliance").info("applied %s: %s", new.file, "; ".join(changes) or "no change")
        return changes

    @property
    def _applied(self) -> Applied:
        subjects = self.archive.subjects
        return Applied(self.config.state / "audit-work" / "applied.yaml", _persons(subjects), subjects.hidden.word)

    def _take_over(self, settings: Settings) -> None:
        self.house.limits = settings.limits
        self.house.accounts = self.turns.accounts = settings.accounts
        self.turns.settings = settings.queue
        self.office.apply(settings)
        self.house.audit = settings.audit
        self.archive.journal.apply(settings.audit)
        self.testimony.accounts = settings.accounts
        self.testimony.policy = self.config.version
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
            "audit": {
                **self.archive.journal.describe(), "trouble": self.archive.journal.trouble,
                **{name: {**each.describe(), "trouble": each.trouble} for name, each in self.outward.items()},
            },
            "gate": None if self.guard is None else {**self.guard.describe(), **self.house.metrics.outside()},
            "identity": None if self.identity is None else {"trouble": self.identity.trouble},
            "models": models,
        }  # fmt: skip

    def _missing(self) -> list[str]:
        """What the seals of the gateway and of the way out lack; engines show theirs themselves."""
        way_out = {place: seal for place, seal in self.probing.seals().items() if place in ("outlet", "dialler")}
        return [*self.seal.missing, *(f"{place}: {part}" for place, seal in way_out.items() for part in seal.missing)]

    async def erase(self, name: str, by: Actor, reason: str | None) -> Erased:
        """Erase a person: see `audit.erasure`."""
        return await erase(self.archive, self.office, self.config, by, name, reason)

    async def carry_out(self, order: str, asked: Mapping[str, Any], by: Actor) -> dict[str, Any]:
        """Carry out an order about the audit log: see `audit.orders`."""
        return await self._orders.carry_out(order, asked, by, self.config.settings.audit.retention)

    async def look_after_the_log(self) -> None:
        """Remove from the audit log what was kept for long enough, soon and then every day, until cancelled."""
        await daily(
            lambda: self._orders.daily(self.config.settings.audit.retention), lambda: self.config.settings.accounts.zone
        )

    def take(self, verdict: Verdict) -> None:
        """Note what a verification of the seal came to, and say it where somebody looks."""
        log = logging.getLogger("appliance.egress")
        came_to = verdict.holds, verdict.failed
        # while the log can't be written nothing of it waits in memory: one that comes later says how it is then
        if came_to != self._verdict_on_record and self.archive.journal.describe()["well"]:
            self._verdict_on_record = came_to
            self.archive.note(
                "egress.verdict", Actor.appliance(), report=verdict.number, holds=verdict.holds,
                failed=list(verdict.failed), sha256=verdict.sha256,
            )  # fmt: skip
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

    def standing(self) -> Standing:
        """For the record of incidents."""
        engines = {name: served.engine for name, served in self.fleet.served.items() if served.engine is not None}
        troubles = {
            Trouble(incidents.ENGINE, name): incidents.plain(engine.reason)
            for name, engine in engines.items()
            if engine.reason is not None
        }
        if (last := self.assurance.last) is not None and not last.holds:
            troubles[Trouble(incidents.SEAL)] = ", ".join(last.failed)
        if self.assurance.overdue:
            troubles[Trouble(incidents.OVERDUE)] = ""
        if not self.office.bookkeeper.describe()["well"]:
            troubles[Trouble(incidents.BOOKS)] = ""
        if self.guard is not None and self.guard.describe()["gone"]:
            troubles[Trouble(incidents.GATE)] = ""
        if self.identity is not None and self.identity.trouble is not None:
            troubles[Trouble(incidents.IDENTITY)] = incidents.plain(self.identity.trouble)
        return Standing(troubles, {name: engine.starts for name, engine in engines.items()})

    def states(self) -> Iterable[tuple[str, str, int, int]]:
        """For metrics: (model, state, starts, requests in flight)."""
        for name, served in self.fleet.served.items():
            if served.engine is not None:
                yield name, served.engine.state, served.engine.starts, served.engine.leases


def _persons(subjects: Subjects) -> Callable[[str], str]:
    """Shows persons of the config by pseudonym. Whoever has none is given none: they may have been erased."""
    others: dict[str, str] = {}

    def shown(name: str) -> str:
        subject = subjects.known(name)
        if subject is not None:
            return subject.pseudonym
        return others.setdefault(name, f"person-without-pseudonym-{len(others) + 1}")

    return shown


def _weights(wanted: Mapping[str, Spec]) -> dict[str, dict[str, str]]:
    """The card that answers for each model, and the SHA-256 of the record of its weights."""
    return {name: {"card": spec.settings.card, "weights": spec.fingerprint} for name, spec in wanted.items()}


def _swaps(before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """The models that something else answers for, with what did and what does; None for nothing."""
    return [
        {"model": name, "old": before.get(name), "new": after.get(name)}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


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
