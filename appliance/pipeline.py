"""The story of a request, in the order in which it happens: each step is a promise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from appliance.accounts.bookkeeper import Booking, Bookkeeper
from appliance.accounts.entries import Want
from appliance.core import Caller, DataClass, Reply, Request, Usage
from appliance.dispatch.choose import choose
from appliance.dispatch.count import prompt_tokens
from appliance.dispatch.line import Place
from appliance.dispatch.serve import serve
from appliance.dispatch.turns import Turns
from appliance.egress.assurance import Assurance
from appliance.engines.fleet import Fleet
from appliance.errors import BadRequest, BudgetExceeded, NotFound, Refused, Unreachable
from appliance.mirror import Mirror
from appliance.observe import AccessLog, Metrics, Record
from appliance.rollout.ratings import Rating
from appliance.rollout.rollouts import Rollouts
from appliance.testimony import Intent, Testimony, Told

if TYPE_CHECKING:
    from appliance.burst import Burst

_COUNT_SECONDS = 30.0
"""For an engine that is very busy to count a prompt."""
_HERE = {each: ((b"x-appliance-route", b"local"), (b"x-appliance-data-class", each.encode())) for each in DataClass}
"""What an answer of the house says of itself."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may run: its place in the queue in front of what answers it, and what is booked for it."""

    request: Request
    place: Place
    booking: Booking


class Pipeline:
    """Takes checked requests to the model that answers them."""

    def __init__(
        self,
        assurance: Assurance,
        fleet: Fleet,
        turns: Turns,
        bookkeeper: Bookkeeper,
        testimony: Testimony,
        metrics: Metrics,
        access_log: AccessLog,
        rollouts: Rollouts,
        burst: Burst | None = None,
    ) -> None:
        """`burst` is the way out; None where there is none."""
        self._assurance = assurance
        self._fleet = fleet
        self._turns = turns
        self._bookkeeper = bookkeeper
        self._testimony = testimony
        self._metrics = metrics
        self._access_log = access_log
        self._rollouts = rollouts
        self._mirror = Mirror(fleet.arms, metrics, rollouts.copied)
        self._burst = burst
        self._counting: set[asyncio.Task[None]] = set()

    @property
    def proven(self) -> bool:
        """Whether the proof of the seal lets requests be answered."""
        return self._assurance.objection() is None

    async def run(self, request: Request, reply: Reply, instead: Callable[[str], Request]) -> None:
        """Answer `request` through `reply`; `instead` makes it one to another model, for budgets that step down.

        Raises `Refused` for what can't be answered. Cancelled when the caller has gone: the engine then
        stops generating, and what was used until then is settled all the same. That it is about to be answered
        is on disk before the engine hears of it, and what became of it is written in the end. What the house can't
        answer may leave it where, and as, the policy allows.
        """
        record = self._metrics.open(request)
        told = Told()
        try:
            try:
                try:
                    with record:
                        self._assurance.require()
                        self._testimony.require()
                        await self._answer(request, reply, instead, record, told)
                except Unreachable:
                    if reply.begun or self._fleet.arms(record.request.model).stable.engine is None:
                        raise
                    # its engine has gone, perhaps for another, before it heard of it
                    record, told = record.anew(), Told()
                    with record:
                        await self._answer(record.request, reply, instead, record, told)
            except Refused as refusal:
                asked = record.request  # another than at first where a budget steps down
                if self._burst is None or reply.begun or not self._burst.helps(asked, refusal):
                    raise
                with record:
                    self._assurance.require()  # it may have waited for its turn for long
                record, told = record.anew(), Told()
                with record:
                    await self._burst.answer(asked, refusal, reply, record, told)
        finally:
            if not told.on_record:
                refused = request.id, request.caller, request.operation.name, record.status, record.code
                self._testimony.refusal(*refused, told)
            self._metrics.settle(record)
            self._rollouts.settle(record)
            self._access_log.write(record)

    async def _answer(
        self, request: Request, reply: Reply, instead: Callable[[str], Request], record: Record, told: Told
    ) -> None:
        """Answer it in the house. Raises `Refused`."""
        admitted = intent = copy = None
        try:
            with record:
                admitted = await self._admit(request, instead, reply, record)
                reply.note(admitted.booking.headers)
                served = await admitted.place.turn()
                if admitted.place.moved:  # made for another version, whose context and defaults may have been others
                    record.request = instead(admitted.request.model)
                    admitted = replace(admitted, request=record.request)
                record.turn(served.version)
                copy = self._mirror.take(admitted.request, served)
                intent = self._testimony.intent(admitted.request, served, copy.served if copy else None)
                told.on_record = True
                await intent.kept()
                reply.note(_HERE[request.data_class])
                heard = copy.heard(intent.heard(reply)) if copy else intent.heard(reply)
                await serve(admitted.request, served, heard, record, admitted.booking.kept, admitted.place)
        finally:
            if admitted is not None:
                admitted.place.leave(record.usage.completion_tokens, failed=record.outcome == "failed")
                self._settle(admitted, record, intent, copied=copy.send(record) if copy else None)

    async def _admit(
        self, request: Request, instead: Callable[[str], Request], reply: Reply, record: Record
    ) -> Admitted:
        """A place in the queue, and a reservation of all that the request may use. Raises `Refused`."""
        stepped_down = False
        while True:
            place = self._turns.enter(request, choose(request, self._fleet.arms(request.model)))
            try:
                booking = await self._bookkeeper.reserve(Want.of(request, stepped_down=stepped_down))
            except BudgetExceeded as spent:
                place.leave(0)
                if spent.step_down_to is None or stepped_down:
                    raise
                smaller = self._smaller(spent, instead, spent.step_down_to)
                if smaller.model != request.model:
                    reply.note(((b"x-appliance-stepped-down-from", request.model.encode()),))
                record.request = request = smaller
                stepped_down = True
            except BaseException:
                place.leave(0)
                raise
            else:
                record.counted = True
                return Admitted(request, place, booking)

    def _smaller(self, spent: BudgetExceeded, instead: Callable[[str], Request], model: str) -> Request:
        """The same request to the smaller model. Raises `spent` itself if that one can't do it."""
        try:
            request = instead(model)
            choose(request, self._fleet.arms(model))
        except (BadRequest, NotFound):
            raise spent from None
        return request

    def _settle(self, admitted: Admitted, record: Record, intent: Intent | None, *, copied: bool | None) -> None:
        usage, request = record.usage, admitted.request
        if not record.dispatched:
            self._end(admitted, record, intent, Usage(), copied=copied)
        elif usage.prompt_tokens or not request.most_prompt_tokens:
            self._end(admitted, record, intent, usage, copied=copied)
        else:  # an engine tells of the prompt with the end of its answer, and this answer had none
            completion_tokens = usage.completion_tokens if request.stream else request.most_completion_tokens
            task = asyncio.create_task(self._count(admitted, record, intent, completion_tokens, copied=copied))
            self._counting.add(task)
            task.add_done_callback(self._counting.discard)

    async def _count(
        self, admitted: Admitted, record: Record, intent: Intent | None, completion_tokens: int, *, copied: bool | None
    ) -> None:
        """Settle an answer that broke off. What nobody can count any more is booked as it was reserved."""
        counted = None
        try:
            async with asyncio.timeout(_COUNT_SECONDS):
                counted = await prompt_tokens(admitted.request, admitted.place.served)
        except TimeoutError:
            pass
        finally:
            known = counted if counted is not None else admitted.request.most_prompt_tokens
            self._end(admitted, record, intent, Usage(known, completion_tokens), copied=copied)

    def _end(
        self, admitted: Admitted, record: Record, intent: Intent | None, usage: Usage, *, copied: bool | None
    ) -> None:
        admitted.booking.settle(usage.prompt_tokens, usage.completion_tokens)
        if intent is not None:
            cost = self._bookkeeper.cost(admitted.request.model, usage.prompt_tokens, usage.completion_tokens)
            intent.outcome(record, usage, cost, copied=copied)

    async def close(self, seconds: float) -> None:
        """Wait for what is still being counted, for `seconds` at most; the rest is booked as it was reserved.

        Copies are broken off.
        """
        await self._mirror.close()
        if self._counting:
            _, late = await asyncio.wait(self._counting, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def rate(self, id_: str, caller: Caller, rating: Rating) -> None:
        """Note what `caller` says of the answer to the request `id_`. Raises `NotFound` for one that they never got."""
        self._rollouts.rate(id_, caller, rating)

    def refused(self, id_: str, caller: Caller | None, operation: str | None, refusal: Refused) -> None:
        """Put on record, and note in the access log, a request that was refused before `run`."""
        self._testimony.refusal(id_, caller, operation, refusal.status, refusal.code)
        self._access_log.refused(id_, caller, operation, refusal)
