"""The rollouts that are under way: what is counted of both versions, what follows from it, and what people order.

A decision is on record and on disk before it takes effect, and whoever starts after a crash finds it as it was decided.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from appliance import config as configuration
from appliance.config import Config, LocalModel, Rollout, Settings
from appliance.core import Caller
from appliance.engines.fleet import Fleet
from appliance.engines.served import Served
from appliance.errors import ApplianceError, BadRequest, Conflict
from appliance.observe import Metrics, Record
from appliance.rollout.decisions import Decision, Decisions, What, effective, standing
from appliance.rollout.ratings import Rating, Ratings
from appliance.rollout.trial import Trial
from appliance.rollout.verdict import Quality

_DONE: dict[What, str] = {"promoted": "promoted", "dropped": "dropped", "weight": "given another weight"}
_EVERY = 1.0
"""Seconds from one look at the numbers to the next."""

Act = Callable[..., AbstractAsyncContextManager[Any]]
"""Puts on record that somebody begins to do something, and what became of it: `Archive.act`."""


class Rollouts:
    """All rollouts of an appliance. `run` looks after them."""

    def __init__(
        self,
        settings: Settings,
        decisions: Decisions,
        fleet: Fleet,
        act: Act,
        appliance: object,
        metrics: Metrics,
        *,
        quality: Callable[[Served, Served], Quality | None] = lambda _, __: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`settings` are those of the config's file; `appliance` is who acts where a rule decided.

        `quality` says what the golden set scored for the stable version and for the candidate, where there is one.
        """
        self.changing = asyncio.Lock()
        """Held while the fleet is changed, so that a config that is applied and a promotion don't cross."""
        self._deciding = asyncio.Lock()
        self._settings = settings
        self._decisions = decisions
        self._fleet = fleet
        self._act = act
        self._appliance = appliance
        self._metrics = metrics
        self._quality = quality
        self._clock = clock
        self._wall = wall
        self._ratings = Ratings(clock)
        self._trials: dict[str, Trial] = {}
        self._log = logging.getLogger("appliance.rollout")

    def effective(self, config: Config) -> Config:
        """`config` as it is after what was decided."""
        return replace(config, settings=effective(config.settings, self._decisions.known))

    def notes(self, written: Config) -> list[str]:
        """What was decided about the rollouts of a config, and what to write into it so that it says so itself."""
        return [
            f"{name}: {each['card']} was {_DONE[each['what']]} ({each['by']}); {each['advice']}"
            for name, each in self._decided(written.settings).items()
        ]

    async def take(self, config: Config) -> None:
        """`config`, of which this made what is effective, has come into effect."""
        written = await asyncio.to_thread(configuration.of, config.file, config.text)
        self._settings = written.settings
        try:
            await asyncio.to_thread(self._decisions.prune, standing(written.settings).values())
        except OSError as cause:
            self._log.warning("decisions on rollouts that are no more stay in their file: %s", cause.strerror)
        self._match()
        for name, trial in self._trials.items():
            decided = self._decisions.known.get(name)
            if decided is not None and decided.of == trial.of and decided.percent is not None:
                self._fleet.weigh(name, decided.percent)  # it may have been given while the config was on its way

    def settle(self, record: Record) -> None:
        """A request has come to its end."""
        request = record.request
        if record.version and record.outcome == "answered":
            self._ratings.answered(request.id, request.caller, request.model, record.version)
        if (trial := self._trial_of(request.model)) is not None:
            trial.count(record, self._clock())

    def copied(self, record: Record, agreement: float | None) -> None:
        """A copy of a request has come to its end; `agreement` of its answer with the one that was given, 0 to 1."""
        trial = self._trial_of(record.request.model)
        numbers = trial.count(record, self._clock(), copy=True) if trial is not None else None
        if numbers is not None and agreement is not None:
            numbers.compared += 1
            numbers.agreed += agreement

    def _trial_of(self, model: str) -> Trial | None:
        """The rollout of a model, or of the base of an adapter, which is tried together with it."""
        found = self._trials.get(model)
        return found or next((each for each in self._trials.values() if model in each.stable.adapters), None)

    def rate(self, id_: str, caller: Caller, rating: Rating) -> None:
        """Note what `caller` says of the answer to the request `id_`. Raises `NotFound`."""
        rated = self._ratings.rate(id_, caller, rating)
        if rated is not None:
            self._metrics.rated(*rated, rating)

    def forget(self, user: str) -> None:
        """Somebody is erased."""
        self._ratings.forget(user)

    async def run(self) -> None:
        """Look at the numbers every second, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.look()
            except Exception:
                self._log.exception("a look at the rollouts failed")

    async def look(self) -> None:
        """Do what was decided and isn't done, and decide what the numbers ask for."""
        self._match()
        for name, trial in list(self._trials.items()):
            try:
                await self._look(name, trial)
            except (ApplianceError, OSError) as hindrance:
                self._log.warning("rollout of %s: %s", name, hindrance)
        self._match()

    async def promote(self, name: str, by: object, why: str = "by hand") -> str:
        """Have the candidate of `name` take over; what was done, in words.

        Raises `Conflict` where there is none, `EngineFailed` while it can't answer, and `AuditUnavailable`.
        """
        async with self.changing:
            trial = self._find(name)
            async with self._act("rollout.promote", by, **_told(trial, why)):
                if not trial.candidate.ready:
                    await self._fleet.promote(name)  # raises, with the reason
                await self._decide(trial, "promoted", by, why, lambda: self._fleet.promote(name))
            self._match()
        return f"{name}: now answered by {trial.candidate.version}; {permanent(name, trial.rollout, 'promoted')}"

    async def drop(self, name: str, by: object, why: str = "by hand") -> str:
        """Have the candidate of `name` get nothing any more; what was done, in words. Raises as `promote`."""
        trial = self._find(name)
        async with self._act("rollout.drop", by, **_told(trial, why)):
            await self._decide(trial, "dropped", by, why, lambda: self._fleet.drop(name, why))
        self._match()
        return f"{name}: {trial.candidate.version} is dropped; {permanent(name, trial.rollout, 'dropped')}"

    async def weigh(self, name: str, percent: float, by: object) -> str:
        """Give the candidate of `name` so many percent, from the next request on. Raises as `promote`, `BadRequest`."""
        if not 0 <= percent <= 100:
            raise BadRequest("the weight has to be from 0 to 100 percent", param="percent", code="invalid_value")
        trial = self._find(name)
        if trial.rollout.mode == "blue-green":
            raise Conflict(f"{name}: blue-green gives a candidate all or nothing: promote it, or drop it")

        async def weighed() -> None:
            self._fleet.weigh(name, percent)

        async with self._act("rollout.weight", by, **_told(trial, "by hand"), percent=f"{percent:g}"):
            await self._decide(trial, "weight", by, "by hand", weighed, percent)
        trial.rollout = trial.rollout.model_copy(update={"percent": percent})
        advice = permanent(name, trial.rollout, "weight", percent)
        return f"{name}: {trial.candidate.version} gets {percent:g} % from now on; {advice}"

    def describe(self) -> dict[str, Any]:
        """What `appliance rollout` shows, by public name: those under way, and what was decided."""
        self._match()
        now = self._clock()
        for trial in self._trials.values():
            trial.judge(self._ratings, now)
        running = {name: trial.describe(self._ratings, now) for name, trial in self._trials.items()}
        return {"running": running, "decided": self._decided(self._settings)}

    def _decided(self, settings: Settings) -> dict[str, dict[str, Any]]:
        digests, found = standing(settings), {}
        for name, each in self._decisions.known.items():
            rollout = _rollout(settings, name)
            if rollout is not None and digests.get(name) == each.of:
                found[name] = {
                    "card": rollout.card, "what": each.what, "by": each.by, "why": each.why, "at": each.at,
                    "percent": each.percent, "advice": permanent(name, rollout, each.what, each.percent),
                }  # fmt: skip
        return found

    def figures(self) -> Iterator[tuple[str, str, str, Mapping[str, float | None]]]:
        """For metrics: (model, version, `stable` or `candidate`, the figures of the window by name)."""
        now = self._clock()
        for name, trial in self._trials.items():
            for arm, served in (("stable", trial.stable), ("candidate", trial.candidate)):
                yield name, served.version, arm, trial.numbers(served, self._ratings, now).figures

    def _match(self) -> None:
        """Have a trial for each candidate that there is, and for no other."""
        found: dict[str, Trial] = {}
        decided = effective(self._settings, self._decisions.known)
        for name, of in standing(self._settings).items():
            rollout = _rollout(decided, name) or _rollout(self._settings, name)
            if name not in self._fleet.served or rollout is None:
                continue
            arms, known = self._fleet.arms(name), self._trials.get(name)
            if arms.candidate is None:
                continue
            if known is not None and (known.of, known.stable, known.candidate) == (of, arms.stable, arms.candidate):
                found[name] = known
            else:
                found[name] = Trial(name, of, rollout, arms.stable, arms.candidate, self._clock())
                self._metrics.decisions.labels(name, "dropped", "rule")  # from 0, so that Prometheus sees it increase
        for name, trial in self._trials.items():
            if found.get(name) is not trial:
                trial.close()
        self._trials = found
        for trial in found.values():
            if trial.began is None and trial.candidate.ready:
                trial.began = self._clock()
                trial.quality = self._quality(trial.stable, trial.candidate)

    async def _look(self, name: str, trial: Trial) -> None:
        decided = self._decisions.known.get(name)
        if decided is not None and decided.of == trial.of and decided.what != "weight":
            # decided while a config that still had it was on its way into effect
            if decided.what == "dropped":
                await self._fleet.drop(name, decided.why)
            elif not self.changing.locked():
                await self._fleet.promote(name)
            return
        came_to = trial.judge(self._ratings, self._clock())
        if came_to.action == "drop":
            await self.drop(name, self._appliance, came_to.reason)
        elif came_to.action == "promote" and not self.changing.locked():  # else at the next look
            await self.promote(name, self._appliance, came_to.reason)

    async def _decide(
        self, trial: Trial, what: What, by: object, why: str, work: Callable[[], Awaitable[None]],
        percent: float | None = None,
    ) -> None:  # fmt: skip
        """Write the decision, then do `work`. What turns out to be impossible was never decided."""
        role = "rule" if by is self._appliance else str(getattr(by, "role", "host"))
        async with self._deciding:
            if self._fleet.arms(trial.name).candidate is not trial.candidate:
                raise Conflict(f"{trial.name}: something else was decided meanwhile", code="no_candidate")
            before = self._decisions.known.get(trial.name)
            decision = Decision(trial.of, what, role, why, self._wall(), percent)
            try:
                await asyncio.to_thread(self._decisions.decide, trial.name, decision)
            except OSError as cause:
                why_not = f"the decision can't be written, so nothing was changed: {cause.strerror}"
                raise ApplianceError(why_not) from cause
            try:
                await work()
            except ApplianceError:
                await asyncio.to_thread(self._decisions.undo, trial.name, before)
                raise
        self._metrics.decisions.labels(trial.name, what, role).inc()
        self._log.info("rollout of %s: %s %s (%s): %s", trial.name, trial.candidate.version, what, role, why)

    def _find(self, name: str) -> Trial:
        self._match()
        trial = self._trials.get(name)
        if trial is None:
            known = ", ".join(sorted(self._trials)) or "none"
            if (decided := self._decisions.known.get(name)) is not None and decided.what == "promoted":
                known += f". What was promoted goes back when `rollout` is taken out of models.{name} and applied"
            raise Conflict(f"there is no rollout of {name[:64]!r} under way; under way: {known}", code="no_candidate")
        return trial


def permanent(name: str, rollout: Rollout, what: What, percent: float | None = None) -> str:
    """What to write into the config so that it says what was decided."""
    if what == "promoted":
        return f"to make it permanent, write `card: {rollout.card}` into models.{name} and remove its `rollout`"
    if what == "dropped":
        return f"to make it permanent, remove `rollout` from models.{name}; to try again, change it"
    return f"to make it permanent, write `percent: {percent:g}` into models.{name}.rollout"


def _rollout(settings: Settings, name: str) -> Rollout | None:
    model = settings.models.get(name)
    return model.rollout if isinstance(model, LocalModel) else None


def _told(trial: Trial, why: str) -> dict[str, Any]:
    return {"model": trial.name, "stable": trial.stable.version, "candidate": trial.candidate.version, "why": why}
