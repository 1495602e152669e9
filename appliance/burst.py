"""The way out: what the house can't answer at the moment is protected, cleared and asked of a provider, or stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from appliance.accounts.bookkeeper import Bookkeeper
from appliance.accounts.cap import DailyCap
from appliance.accounts.entries import Want
from appliance.config import Privacy, Provider, cloud_name
from appliance.core import DataClass, Reply, Request, Usage
from appliance.dispatch.cloud.cloud import Candidate, Cloud, Masked
from appliance.errors import BadRequest, HeldBack, Loading, Overloaded, Refused, UpstreamFailed, held_headers
from appliance.observe import Metrics, Record
from appliance.privacy.asked import Asked
from appliance.privacy.guard import Guard
from appliance.privacy.policy import decide
from appliance.privacy.restore import Restorer
from appliance.privacy.verdict import Held, Verdict
from appliance.testimony import Testimony, Told

OPERATIONS = frozenset({"chat", "message"})
"""Those that providers know, too; all others are answered in the house."""
_BYTES_PER_TOKEN = 2
"""At least, of text in the languages that may leave."""
_REASONS: dict[type[Refused], str] = {Overloaded: "busy", Loading: "loading", UpstreamFailed: "failed"}


class Burst:
    """Takes requests outside that the house can't answer. One per appliance whose `egress.mode` allows it."""

    def __init__(
        self,
        privacy: Privacy,
        providers: Mapping[str, Provider],
        guard: Guard,
        cloud: Cloud,
        cap: DailyCap,
        bookkeeper: Bookkeeper,
        testimony: Testimony,
        metrics: Metrics,
    ) -> None:
        self.guard = guard
        self._privacy = privacy
        self._providers = providers
        self._cloud = cloud
        self._cap = cap
        self._bookkeeper = bookkeeper
        self._testimony = testimony
        self._metrics = metrics

    def helps(self, request: Request, refusal: Refused) -> bool:
        """Whether `refusal` is the house's own want of room, and the policy knows a way out for such a request.

        What is found in it can only raise its class, so a rule for a higher one may be the one that decides.
        """
        if request.local_only or request.operation.name not in OPERATIONS or _reason(refusal) is None:
            return False
        classes = [each for each in DataClass if each.rank >= request.data_class.rank]
        decisions = [decide(self._privacy, self._providers, each, request.use_case) for each in classes]
        return any(self._cloud.candidates(request.model, each.providers, 0) for each in decisions)

    async def answer(self, request: Request, refusal: Refused, reply: Reply, record: Record, told: Told) -> None:
        """Answer through a provider what the house refused with `refusal`.

        Raises `HeldBack` when it may not leave or nobody could answer, and `Refused` for what its budgets forbid.
        What is too long for the house keeps its `BadRequest`: to send it again would not help.
        """
        reply.note(((b"x-appliance-route", b"none"),))  # until somebody answers
        seconds = self._privacy.detectors.seconds
        asked = Asked(request.operation.name, request.payload, request.data_class, request.use_case, seconds)
        verdict = told.verdict = await self.guard.protect(asked)
        try:
            if verdict.held is not None:
                raise self._held(refusal, told, verdict.held, verdict.why)
            # the house's own bound ends where its model does
            prompt = max(request.most_prompt_tokens, len(verdict.payload) // _BYTES_PER_TOKEN)
            request = replace(request, most_prompt_tokens=prompt)
            most = prompt + request.most_completion_tokens // max(1, request.choices)
            candidates = self._cloud.candidates(request.model, verdict.providers, most)
            if not candidates:
                raise self._held(refusal, told, Held.NO_PROVIDER, "none that may get it can take it at the moment")
            await self._ask(request, refusal, reply, record, told, verdict, candidates)
        finally:
            self.guard.forget(verdict.ticket)

    async def _ask(
        self, request: Request, refusal: Refused, reply: Reply, record: Record, told: Told, verdict: Verdict,
        candidates: Sequence[Candidate],
    ) -> None:  # fmt: skip
        names = {
            each: cloud_name(each.provider, self._providers[each.provider].models[each.model]) for each in candidates
        }

        def worst(name: str) -> int:
            return self._bookkeeper.cost(name, request.most_prompt_tokens, request.most_completion_tokens)

        dearest = max(names.values(), key=worst)
        hold = await self._cap.hold(worst(dearest))
        if hold is None:
            raise self._held(refusal, told, "budget", "what providers may cost today (egress.euros_per_day) is used up")
        booking = intent = None
        dispatch = Dispatch(verdict, dearest)
        try:
            with record:
                booking = await self._bookkeeper.reserve(Want.of(request, dearest, again=record.counted))
                reply.note(booking.headers)
                intent = self._testimony.departure(request, verdict, [each.provider for each in candidates])
                told.on_record = True
                await intent.kept()

                def chosen(candidate: Candidate) -> None:
                    dispatch.model, record.provider = names[candidate], candidate.provider
                    reply.note(_headers(candidate, verdict))

                clear = partial(self.guard.clear, verdict.ticket)
                masked = Masked(verdict.payload, candidates, clear, dispatch.restorer, chosen)
                try:
                    await self._cloud.serve(request, masked, intent.heard(reply), record, booking.kept)
                except Refused as failure:
                    if reply.begun or _reason(failure) is None:
                        raise
                    raise self._nobody(refusal, told, failure) from failure
        finally:
            usage = _used(record, request)
            cost = self._bookkeeper.cost(dispatch.model, usage.prompt_tokens, usage.completion_tokens)
            if booking is not None:
                booking.settle(usage.prompt_tokens, usage.completion_tokens, dispatch.model)
            hold.settle(cost)
            if intent is not None:
                intent.outcome(record, usage, cost)
                self._count(record, verdict, dispatch)

    def _count(self, record: Record, verdict: Verdict, dispatch: Dispatch) -> None:
        self._metrics.bursts.labels(record.provider or "none", record.outcome).inc()
        for kind, count in verdict.found.items():
            self._metrics.masked.labels(kind).inc(count)
        for what, restored in dispatch.restored.items():
            self._metrics.restored.labels(what).inc(restored)

    def _nobody(self, refusal: Refused, told: Told, failure: Refused) -> Refused:
        if failure.code == "not_cleared":
            return self._held(refusal, told, Held.GATE, "what was to be sent was not cleared")
        return self._held(refusal, told, "providers", "no provider answered")

    def _held(self, refusal: Refused, told: Told, held: str, why: str) -> Refused:
        self._metrics.held.labels(held).inc()
        told.held = str(held)
        if isinstance(refusal, BadRequest):
            message = f"{refusal.message}; and this request stays in the house: {why}"
            stays = BadRequest(message, code=refusal.code, param=refusal.param)
            stays.headers = held_headers(held)
            return stays
        return HeldBack(
            f"the model here can't answer now ({_reason(refusal)}), and this request stays in the house: {why}",
            held=held,
            retry_after=refusal.retry_after,
        )


class Dispatch:
    """What becomes of one request on its way out."""

    def __init__(self, verdict: Verdict, model: str) -> None:
        self.model = model
        """Whose price counts: of who answers, and until somebody does, the dearest."""
        self._originals = verdict.originals
        self._restorers: list[Restorer] = []

    def restorer(self) -> Restorer:
        """A new one, for one attempt."""
        self._restorers.append(Restorer(self._originals))
        return self._restorers[-1]

    @property
    def restored(self) -> dict[str, int]:
        """Placeholders that were put back, and those that nobody knew."""
        return {
            "known": sum(each.restored for each in self._restorers),
            "unknown": sum(each.unknown for each in self._restorers),
        }


def _reason(refusal: Refused) -> str | None:
    """Why the house can't answer, in a word; None where that is no want of the house."""
    if isinstance(refusal, BadRequest):
        return "too long" if refusal.code == "context_length_exceeded" else None
    return next((reason for kind, reason in _REASONS.items() if isinstance(refusal, kind)), None)


def _used(record: Record, request: Request) -> Usage:
    """What is booked: what the provider told, and the worst case where it told nothing of what it was asked."""
    usage = record.usage
    if not record.dispatched or usage.prompt_tokens:
        return usage
    completion_tokens = usage.completion_tokens if request.stream else request.most_completion_tokens
    return Usage(request.most_prompt_tokens, completion_tokens)


def _headers(candidate: Candidate, verdict: Verdict) -> list[tuple[bytes, bytes]]:
    """What an answer from outside says of itself."""
    masked = ";".join(f"{kind}={count}" for kind, count in sorted(verdict.found.items()))
    return [
        (b"x-appliance-route", b"cloud"),
        (b"x-appliance-provider", candidate.provider.encode()),
        (b"x-appliance-region", (candidate.region or "").encode()),
        (b"x-appliance-data-class", verdict.data_class.encode()),
        (b"x-appliance-masked", masked.encode()),
    ]
