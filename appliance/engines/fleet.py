"""All models by their public names: which engine or endpoint answers for each, and how that changes.

A change is planned first (`planning`), then carried out (`swap`): new engines start, each answers and is accepted,
the names move in one step, and only then what was replaced is drained. Where memory doesn't suffice for both, the old
engine gives its own back before, and requests wait. Until that step nothing has changed, and what was given up for it
is started again when it fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from appliance.config import Config, RemoteModel
from appliance.engines import planning, slots
from appliance.engines.account import Account
from appliance.engines.capacity import Need
from appliance.engines.command import Spec
from appliance.engines.engine import Engine, Spawn
from appliance.engines.idle import Idling
from appliance.engines.launches import Launches
from appliance.engines.planning import Model, Plan
from appliance.engines.retiring import Retiring
from appliance.engines.served import Accept, Arms, Served, Split, Tell
from appliance.engines.specs import candidate
from appliance.engines.swap import Swap
from appliance.engines.upstream import Upstream
from appliance.errors import Conflict, DoesNotFit, EngineFailed, NotFound

TRIAL = "trial/"
"""What the names of engines begin with that nobody is served by."""
_TRIAL_DRAIN_SECONDS = 10.0


class Fleet:
    """The models that are served. One per appliance."""

    def __init__(
        self,
        config: Config,
        spawn: Spawn,
        connect: Callable[[str, RemoteModel], Awaitable[Upstream]],
        accept: Accept | None = None,
        account: Account | None = None,
    ) -> None:
        """`spawn` starts an engine's process; `connect` gives the upstream of an endpoint.

        Without `accept` a new engine may take over when it has answered, and without `account` everything fits.
        """
        self._config = config
        self._spawn = spawn
        self._connect = connect
        self._accept = accept
        self._account = account
        self._arms: dict[str, Arms] = {}
        self._trials: dict[str, Served] = {}
        self._retiring = Retiring(self._held, self._complain)
        self._launches = Launches(config.state)
        self._idling = Idling(lambda: self._account, self.engines, lambda: self._retiring.engines)
        self._changing = asyncio.Lock()
        self._starting: Collection[Engine] = ()
        """Those of a change, which no name leads to yet."""
        self._stopping = False

    @property
    def served(self) -> Mapping[str, Served]:
        """Public name to what answers for it: the stable one where there is a candidate, too."""
        return {name: arms.stable for name, arms in self._arms.items()}

    @property
    def names(self) -> list[str]:
        """All public names, those of adapters too, in the alphabet's order."""
        return sorted(name for model, served in self.served.items() for name in (model, *served.adapters))

    def find(self, name: str) -> Served:
        """What answers for `name`, the stable one. Raises `NotFound` naming the models there are."""
        return self.arms(name).stable

    def arms(self, name: str) -> Arms:
        """All that may answer for `name`. Raises as `find`."""
        if (arms := self._arms.get(name)) is not None:
            return arms
        if (trial := self._trials.get(name)) is not None:
            return Arms(trial)
        for arms in self._arms.values():
            if (adapter := arms.stable.adapters.get(name)) is not None:
                tried = arms.candidate.adapters.get(name) if arms.candidate is not None else None
                return Arms(adapter) if tried is None else Arms(adapter, tried, arms.split, arms.mirror)
        raise self.unknown(name)

    def unknown(self, name: str) -> NotFound:
        """What is said of a name that there isn't."""
        known = ", ".join(self.names)
        return NotFound(f"there is no model {name[:64]!r}; there are: {known}", param="model", code="model_not_found")

    def engines(self) -> Iterator[tuple[str, Engine]]:
        """Slot and engine of all that run, or are to run: for candidates and trials, too."""
        for slot, served in self._slots().items():
            if served.engine is not None:
                yield slot, served.engine

    async def start(self, specs: Mapping[str, Spec]) -> None:
        """Begin to serve all models of the config; returns before engines are ready."""
        made: dict[str, Served] = {}
        for slot, what in slots.wanted(self._config, specs).items():
            made[slot] = await self._made(self._config, slot, what)
            if (engine := made[slot].engine) is not None and self._accept is not None:
                engine.vet = partial(self._vet, self._accept)  # there is no swap that would look at it
        self._arms = slots.arms(self._config, made)
        self._idling.start(served.engine for served in made.values() if served.engine is not None)

    def plan(self, config: Config, specs: Mapping[str, Spec]) -> Plan:
        """What `change` would do; nothing is started. Raises `DoesNotFit`."""
        account = self._account and self._account.under(config.settings.engines)
        standing: dict[str, Model] = {}
        for slot, served in self._slots().items():
            if served.engine is None:
                standing[slot] = Model(self._config.settings.models[slot])  # type: ignore[arg-type]  # an endpoint's
            elif slot not in self._trials:
                standing[slot] = self._weighed(served.engine.spec, can_sleep=served.engine.can_sleep)
        wanted = {slot: self._weighed(what) for slot, what in slots.wanted(config, specs).items()}
        if account is None:
            return planning.plan(standing, wanted)
        return planning.plan(standing, wanted, account.objection, self._passing(account))

    def _weighed(self, what: Spec | RemoteModel, *, can_sleep: bool = False) -> Model:
        need = self._account.need(what) if self._account is not None and isinstance(what, Spec) else None
        return Model(what, need, can_sleep=can_sleep)

    def _passing(self, account: Account) -> dict[str, Need]:
        """What engines take that no name leads to: those on trial, and those that finish what they were asked."""
        engines = [served.engine for served in self._trials.values() if served.engine is not None]
        engines += [engine for engine in self._retiring.engines if not engine.resting]
        return {
            f"{engine.spec.name} ({engine.spec.version}, on its way out)": account.need(engine.spec)
            for engine in engines
        }

    async def change(self, config: Config, specs: Mapping[str, Spec], tell: Tell) -> list[str]:
        """Make the fleet what `config` says; return what changed, in words.

        Raises `DoesNotFit` when memory doesn't suffice, `EngineFailed` when a new engine doesn't answer or isn't
        accepted: nothing has changed then, and the model's `trouble` tells why. One change at a time.
        """
        async with self._changing:
            return await self._change(config, specs, tell)

    async def _change(self, config: Config, specs: Mapping[str, Spec], tell: Tell) -> list[str]:
        plan = self.plan(config, specs)
        old = self._slots()
        new = {slot: old[source] for slot, source in plan.takes.items()}
        try:
            for slot, what in slots.wanted(config, specs).items():
                if slot not in new:
                    new[slot] = await self._made(config, slot, what)
            swap = await self._prepared(plan, old, new, tell)
        except BaseException:
            for served in new.values():
                if served.remote is not None and served not in old.values():
                    served.remote.retire()
            raise
        # from here to the end of it nobody else runs: the one step
        before, self._config = self._arms, config
        self._arms = slots.arms(config, new)
        self._account = self._account and self._account.under(config.settings.engines)
        gates = self._take_over(config, specs, new)
        swap.finish()
        self._idling.release(swap.started)
        for slot, served in old.items():
            if served not in new.values() and slot not in self._trials:
                self._retire(served)
        return slots.changes(before, self._arms) + gates

    async def _prepared(self, plan: Plan, old: Mapping[str, Served], new: dict[str, Served], tell: Tell) -> Swap:
        """The swap when all that is new has answered and is accepted. When it raises, all is as it was before."""
        swap = Swap(old, new, plan.early, self._accept, tell, self._idling.make_room, self._held)
        self._starting = swap.started
        self._idling.forget(old[slot].engine for slot in plan.early)
        try:
            if self._stopping:
                raise EngineFailed("the appliance was stopped")
            await swap.prepare()
            self._drop_dropped(plan, new)
        except BaseException as failure:
            for name in {planning.name_of(slot) for slot in swap.slots} & old.keys():
                old[name].trouble = str(failure) or "the change was broken off"
            await _to_its_end(self._undo(swap))
            raise
        finally:
            self._starting = ()
        return swap

    async def _undo(self, swap: Swap) -> None:
        await swap.undo(lambda: self._stopping)
        self._idling.release(swap.started)

    async def promote(self, name: str) -> None:
        """The candidate answers for `name` alone, from one moment to the next; the stable one drains.

        Raises `Conflict` where there is none, `EngineFailed` while it isn't ready.
        """
        async with self._changing:
            arms = self._model(name)
            tried = arms.candidate
            if tried is None:
                raise Conflict(f"{name} has no candidate to promote", param="model", code="no_candidate")
            if not tried.ready:
                why = tried.engine.reason if tried.engine is not None else None
                raise EngineFailed(f"{name}: the candidate {tried.version} isn't ready{f': {why}' if why else ''}")
            if tried.engine is not None and arms.stable.engine is not None:
                idle = arms.stable.engine.spec.settings.idle  # as a candidate it had none
                spec = tried.engine.spec
                tried.engine.spec = replace(spec, settings=spec.settings.model_copy(update={"idle": idle}))
            self._arms[name] = Arms(tried)
            self._retire(arms.stable)

    async def drop(self, name: str, why: str) -> None:
        """The candidate of `name` gets no more requests and is drained; at once, also while a change goes on.

        `why` is shown as the model's `trouble`. Does nothing where there is none.
        """
        arms = self._model(name)
        if arms.candidate is not None:
            arms.stable.trouble = f"{arms.candidate.version} was dropped: {why}"
            self._arms[name] = Arms(arms.stable)
            self._retire(arms.candidate)

    def weigh(self, name: str, percent: float) -> None:
        """Give the candidate of `name` so many of 100 requests, or copies of them, from the next one on.

        Raises `Conflict` where there is none.
        """
        arms = self._model(name)
        if arms.candidate is None:
            raise Conflict(f"{name} has no candidate", param="model", code="no_candidate")
        if arms.mirror is not None:
            self._arms[name] = replace(arms, mirror=replace(arms.mirror, percent=percent))
        else:
            split = arms.split or Split(0, "user", slots.salt(name, arms.candidate))
            self._arms[name] = replace(arms, split=replace(split, percent=percent))

    @asynccontextmanager
    async def trial(self, spec: Spec, tell: Tell) -> AsyncIterator[Served]:
        """An engine for a card that nobody is served by, under `trial/<card>`, which `find` knows while this lasts.

        Raises `DoesNotFit`, `Conflict` when the same card is on trial, and `EngineFailed`.
        """
        name = f"{TRIAL}{spec.settings.card}"
        if name in self._trials:
            raise Conflict(f"{spec.settings.card} is on trial already", param="model", code="on_trial")
        spec = replace(spec, name=name)
        if self._account is not None:
            needs = {slot: self._account.need(engine.spec) for slot, engine in self.engines()}
            needs |= self._passing(self._account) | {f"{name} ({spec.version})": self._account.need(spec)}
            if (why := self._account.objection(needs)) is not None:
                raise DoesNotFit(f"not enough memory: {why}. Stop a model meanwhile, or take a smaller card")
        engine = self._engine(self._config, spec)
        self._trials[name] = served = Served(name, engine)
        try:
            await Swap({}, {name: served}, {}, None, tell, self._idling.make_room, self._held).prepare()
            yield served
        finally:
            await _to_its_end(self._end_trial(name, engine))

    async def _end_trial(self, name: str, engine: Engine) -> None:
        await engine.drain(_TRIAL_DRAIN_SECONDS)
        del self._trials[name]  # not before: until it has gone it has its memory
        self._idling.release([engine])

    @property
    def account(self) -> Account | None:
        """Who knows how much memory there is; None where that is nobody's concern."""
        return self._account

    def memory(self) -> dict[str, Any] | None:
        """What `appliance status` and `appliance plan` tell of it."""
        return self._account.describe(dict(self.engines())) if self._account is not None else None

    def end_waiting(self) -> None:
        """The appliance stops: whoever waits for a model that is to come is refused, and nobody will wait any more."""
        self._stopping = True
        for served in self._slots().values():
            served.refuse_waiting()

    async def stop(self, seconds: float) -> None:
        """Drain every engine for at most `seconds`; returns when all are gone."""
        self.end_waiting()
        await self._idling.stop()
        engines = [*(engine for _, engine in self.engines()), *self._starting]
        await asyncio.gather(*(engine.drain(seconds) for engine in engines), self._retiring.ended())

    def _model(self, name: str) -> Arms:
        """The arms of a model. Raises `NotFound`, also for an adapter, which has no fate of its own."""
        arms = self.arms(name)
        if (base := arms.stable.base) is not None:
            raise NotFound(f"{name} is an adapter; name its base, {base.name}", param="model", code="model_not_found")
        return arms

    def _slots(self) -> dict[str, Served]:
        found: dict[str, Served] = {}
        for name, arms in self._arms.items():
            found[name] = arms.stable
            if arms.candidate is not None:
                found[candidate(name)] = arms.candidate
        return found | self._trials

    def _drop_dropped(self, plan: Plan, new: dict[str, Served]) -> None:
        """Leave out the candidates that were dropped while others started."""
        for slot in plan.takes:
            if new[slot] not in self._slots().values():
                if slot == planning.name_of(slot):
                    raise EngineFailed(f"{slot}: {new[slot].version} was to take over, and was dropped meanwhile")
                del new[slot]

    async def _made(self, config: Config, slot: str, what: Spec | RemoteModel) -> Served:
        name = planning.name_of(slot)
        if isinstance(what, RemoteModel):
            return Served(name, (what, await self._connect(name, what)))
        return Served(name, self._engine(config, what))

    def _take_over(self, config: Config, specs: Mapping[str, Spec], new: Mapping[str, Served]) -> list[str]:
        """What engines need not be started anew for; returns what of it isn't in the config, in words."""
        said = []
        for slot, served in new.items():
            if served.engine is not None:
                if served.engine.spec.card.gate != specs[slot].card.gate:
                    said.append(f"{served.name}: {specs[slot].settings.card} has another gate, from its next start on")
                served.engine.spec = specs[slot]
                served.engine.backoff = config.settings.engines.restart_backoff_seconds
                served.trouble = None
        return said

    def _retire(self, served: Served) -> None:
        if served.remote is not None:
            served.remote.retire()
        if served.engine is not None:
            self._retiring.add(served.engine)

    async def _vet(self, accept: Accept, engine: Engine) -> None:
        await accept(engine, None, logging.getLogger("appliance.engines").info)

    def _held(self, engine: Engine) -> float:
        return self._account.held(engine) if self._account is not None else 0.0

    def _complain(self, engine: Engine, why: str) -> None:
        if (arms := self._arms.get(engine.spec.name)) is not None:
            arms.stable.trouble = why

    def _engine(self, config: Config, spec: Spec) -> Engine:
        launch = self._launches.of(spec, lambda: self._account.place(engine) if self._account is not None else ())
        engine = Engine(spec, launch, self._spawn, backoff=config.settings.engines.restart_backoff_seconds)
        engine.call = lambda: self._idling.call(engine)
        return engine


async def _to_its_end(doing: Coroutine[Any, Any, None]) -> None:
    """Have it done as a whole, however often whoever waits for it is cancelled meanwhile."""
    task, cancelled = asyncio.ensure_future(doing), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as told:
            cancelled = told
    task.result()
    if cancelled is not None:
        raise cancelled
