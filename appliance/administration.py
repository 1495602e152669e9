"""What an administrator can do to a running appliance: put an edited config into effect, and look."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from appliance import __version__, observe, plain
from appliance import config as configuration
from appliance.acceptance import Acceptance
from appliance.accounts.identity import Identity
from appliance.accounts.office import Office
from appliance.api.exchange import House
from appliance.audit.archive import Actor, Archive
from appliance.audit.daily import daily
from appliance.audit.erasure import Erased, erase
from appliance.audit.orders import Orders
from appliance.changes import Applied, persons, swaps, weights
from appliance.config import Config, RemoteModel, Settings
from appliance.dispatch.turns import Turns
from appliance.egress.assurance import Assurance, Verdict
from appliance.engines.command import Spec
from appliance.engines.fleet import Fleet
from appliance.engines.planning import Plan
from appliance.engines.served import Tell
from appliance.engines.specs import Machine, specs
from appliance.errors import ApplianceError, Invalid, in_full
from appliance.privacy.guard import Guard
from appliance.probing import Probing
from appliance.proposal import Proposal, restarts
from appliance.rollout.rollouts import Rollouts
from appliance.seal.parts import Seal
from appliance.testimony import Testimony
from appliance.versions import Version, Versions
from appliance.watching import Stillness, look

_LOOK_SECONDS = 0.25
"""Between two looks at the file of the config, where it is watched."""


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
    rollouts: Rollouts
    guard: Guard | None = None
    """The privacy gate; None where nothing may leave."""
    acceptance: Acceptance | None = None
    """The gate of new engines."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    base_url: str = ""
    _orders: Orders = field(init=False)
    versions: Versions = field(init=False)
    version: Version | None = None
    """That of the config in effect; None where it couldn't be kept."""
    _refused: str | None = None
    """Why the last apply changed nothing; None since one did."""
    _stillness: Stillness = field(default_factory=Stillness)
    _verdict_on_record: tuple[bool, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        self._orders = Orders(self.archive, self.config.state)
        self.versions = Versions(self.config.state / "configs")

    async def begin(self) -> None:
        """Put on record that the appliance starts, and on what. Raises `AuditUnavailable`."""
        settings, applied = self.config.settings, self._applied
        told = applied.changes(self.config.text)
        await self.archive.happened(
            "start", Actor.appliance(), version=__version__, policy=self.config.version, models=weights(self.wanted),
            mode=settings.egress.mode, seal=list(self.seal.holds), missing=self._missing(),
            works_council=settings.audit.works_council, **told,
        )  # fmt: skip
        await self.archive.journal.checkpoint_now()  # so that even a log that is a moment old has a signature
        applied.keep(self.config.text)
        changes = [f"{section}: changed" for section in told["sections"]]
        await self._keep("start", changes if self.versions.all() else ["the first config"])

    def end(self) -> None:
        """Put on record that the appliance ends, and whether it was asked to."""
        self.archive.note("stop", Actor.appliance(), asked=self.stopping.is_set())

    async def plan(self, tell: Tell, version: int | None = None) -> Proposal:
        """What `apply` would do with the config as it is, or with that version of it in its place; changes nothing.

        Raises `ApplianceError` for one that is wrong in itself, or isn't there.
        """
        proposal, _ = await self._propose(tell, version)
        return proposal

    async def apply(self, tell: Tell, by: Actor, show: Callable[[Proposal], None] | None = None) -> list[str]:
        """Read the config again and make it so, for `by`; return what changed, in words.

        `show` is given what would change, before it does. It is on record as begun before anything changes. Raises
        `ApplianceError` when anything about it is wrong: then nothing has changed. One at a time, from the reading on:
        else the one that read an older file could be the last to take effect.
        """
        if self.rollouts.changing.locked():
            tell("another apply is under way; this one comes after it, and reads the file then")
        async with self.rollouts.changing:
            self._stillness.told(look(self.config.file))
            try:
                changes = await self._apply(tell, by, show)
            except ApplianceError as refusal:
                self._refused = in_full(refusal)
                raise
            self._refused = None
            return changes

    async def _apply(self, tell: Tell, by: Actor, show: Callable[[Proposal], None] | None) -> list[str]:
        proposal, wanted = await self._propose(tell)
        if show is not None:
            show(proposal)
        if proposal.refusal is not None:
            raise proposal.refusal
        new = proposal.new
        told = await asyncio.to_thread(self._applied.changes, new.text)
        async with self.archive.act("config.apply", by, policy=new.version, **told) as act:
            before = {slot: engine.spec for slot, engine in self.fleet.engines()}  # a rollout may have changed it since
            tried = dict(self.acceptance.results) if self.acceptance else {}
            try:
                changes = await self.fleet.change(new, wanted, tell)
            finally:
                if self.acceptance is not None:
                    act.tell(gate=self.acceptance.since(tried))
            changes += [f"{name}: taken over" for name in proposal.settings]
            act.tell(changes=changes, swaps=swaps(weights(before), weights(wanted)))
            self.config, self.wanted = new, wanted
            self._take_over(new.settings)
            await self.rollouts.take(new)
            self._applied.keep(new.text)
            await self._keep(by.name or ("SIGHUP" if by.role == "host" else "watch"), changes)
            if self.version is not None:
                act.tell(version=self.version.number, rollback=self.version.rollback)
        logging.getLogger("appliance").info("applied %s: %s", new.file, "; ".join(changes) or "no change")
        return changes

    async def _propose(self, tell: Tell, version: int | None = None) -> tuple[Proposal, dict[str, Spec]]:
        old = self.config
        if version is None:
            new = await asyncio.to_thread(configuration.load, old.file)
        else:
            text = await asyncio.to_thread(lambda: self.versions.text(self.versions.named(version)))
            new = await asyncio.to_thread(configuration.of, old.file, text)
        notes, new = self.rollouts.notes(new), self.rollouts.effective(new)
        if restart := restarts(old.settings, new.settings, self.endpoints):
            return Proposal(old, new, restart, None, notes), {}
        tell("the config can be read; checking cards and weights")
        wanted: dict[str, Spec] = {}
        try:
            wanted = await asyncio.to_thread(specs, new, Machine.here())
            plan: Plan | ApplianceError = self.fleet.plan(new, wanted)
        except Invalid:  # told by field and line
            raise
        except ApplianceError as refusal:
            plan = refusal
        return Proposal(old, new, [], plan, notes, self.fleet.memory()), wanted

    async def _keep(self, by: str, changes: Sequence[str]) -> None:
        """Keep the config that is in effect now. Where that fails it is in effect all the same, without a number."""
        try:
            self.version = await asyncio.to_thread(self.versions.keep, self.config.text, by, changes)
        except OSError as cause:
            self.version = None
            what = "the config is in effect, but can't be kept for `appliance rollback`: %s: %s"
            logging.getLogger("appliance").error(what, cause.filename, cause.strerror)

    async def apply_unasked(self, by: Literal["SIGHUP", "watch"]) -> None:
        """Apply for nobody who waits: the log tells how it went."""
        log = logging.getLogger("appliance")
        try:  # whoever sent the signal
            await self.apply(log.info, Actor("", "host") if by == "SIGHUP" else Actor.appliance())
        except ApplianceError as refusal:
            log.error("%s: nothing was changed: %s", by, refusal)
        except Exception:
            log.exception("%s: apply failed", by)

    async def watch(self) -> None:
        """Apply the config when its file has been changed, where it says so itself, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self.config.settings.watch:
                self._stillness = Stillness()
            elif self._stillness.comes(look(self.config.file), time.monotonic()) and self._unapplied() is not False:
                await self.apply_unasked("watch")

    def _unapplied(self) -> bool | None:
        """Whether the file holds something else than what is in effect; None where it can't be read."""
        try:
            return plain.read(self.config.file, len(self.config.text) + 1) != self.config.text
        except OSError:
            return None

    @property
    def _applied(self) -> Applied:
        subjects = self.archive.subjects
        return Applied(self.config.state / "audit-work" / "applied.yaml", persons(subjects), subjects.hidden.word)

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
        models = {name: served.describe() for name, served in self.fleet.served.items()}
        egress = self.config.settings.egress
        return {
            "address": self.base_url,
            "config": str(self.config.file),
            "version": {
                **(asdict(self.version) if self.version else {}), "unapplied": self._unapplied(),
                "applying": self.rollouts.changing.locked(), "refused": self._refused,
                "watch": self.config.settings.watch,
            },
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
            "acceptance": {} if self.acceptance is None else self.acceptance.describe(),
            "memory": self.fleet.memory(),
            "rollouts": self.rollouts.describe(),
        }  # fmt: skip

    def _missing(self) -> list[str]:
        """What the seals of the gateway and of the way out lack; engines show theirs themselves."""
        way_out = {place: seal for place, seal in self.probing.seals().items() if place in ("outlet", "dialler")}
        return [*self.seal.missing, *(f"{place}: {part}" for place, seal in way_out.items() for part in seal.missing)]

    async def erase(self, name: str, by: Actor, reason: str | None) -> Erased:
        """Erase a person: see `audit.erasure`."""
        self.rollouts.forget(name)
        return await erase(self.archive, self.office, self.versions, self.config, by, name, reason)

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
