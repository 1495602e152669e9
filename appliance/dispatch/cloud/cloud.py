"""Asks providers outside the house for what may leave it: one after another, and none once an answer has begun."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from appliance import config
from appliance.clearance import NotCleared
from appliance.core import Reply, Request, Usage
from appliance.dispatch.cloud.answer import Answer
from appliance.dispatch.cloud.breaker import Breaker
from appliance.dispatch.cloud.budget import RetryBudget
from appliance.dispatch.cloud.events import Event
from appliance.dispatch.cloud.provider import Body, Clear, Failed, Provider, TooPicky, Unfit, Why
from appliance.dispatch.cloud.restored import Restore
from appliance.errors import BadRequest, Overloaded, Refused, UpstreamFailed
from appliance.observe import Record

Kept = Callable[[], Awaitable[None]]
"""Returns once what the request may use is booked for good; raises `Refused` where it can't be."""

_ON_FIRST_USE = ("httpcore2", "httpcore2._backends.anyio", "h11", "anyio._backends._asyncio")
"""What the SDKs' HTTP client imports only with its first request, when it would hold up all others."""
_MOST_SECONDS = 3600.0
"""For a whole answer, however it trickles."""
_PAUSES = {Why.BUSY: 10.0, Why.KEY: 300.0, Why.NO_MODEL: 300.0}
"""Seconds for which a provider is left alone at once, where it doesn't say how long itself."""
_ADVICE = {
    Why.KEY: "it refuses the appliance's key, or its account has no funds left; check `egress.providers.%s.key`",
    Why.NO_MODEL: "it doesn't know the model, or the path; check `egress.providers.%s` for `url` and `models`",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that could answer a request."""

    provider: str
    model: str
    """The public name of what it answers in place of."""
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Masked:
    """A request as it may leave, and what belongs to it."""

    payload: bytes = field(repr=False)
    """JSON as an engine would get it, in the caller's dialect."""
    candidates: Sequence[Candidate]
    """In the order in which they are asked."""
    clear: Clear
    restore: Callable[[], Restore]
    """Makes a new one for each attempt."""
    chosen: Callable[[Candidate], None] = lambda _: None
    """Called with the one that answers, or refuses for all, before anything goes to the caller."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Who answered."""

    provider: str
    region: str | None
    model: str
    """As the provider calls it."""
    usage: Usage


@dataclass(slots=True)
class _Attempt:
    """What belongs to one request while it is served."""

    request: Request
    masked: Masked
    reply: Reply
    record: Record
    kept: Kept
    begun: bool = False
    """Whether something has gone to the caller."""

    async def begin(self, candidate: Candidate) -> None:
        """Before anything goes to the caller. Raises `Refused` where it can't be booked."""
        if self.begun:
            return
        self.masked.chosen(candidate)
        await self.kept()
        self.begun = True
        if self.request.stream:
            await self.reply.begin()


class Cloud:
    """All providers of the config. One per appliance."""

    def __init__(
        self,
        providers: Mapping[str, config.Provider],
        sockets: Mapping[str, Path],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Imports the SDKs that are needed, which takes seconds: not while requests are served.

        `sockets` are the outlet's, by provider.
        """
        for module in _ON_FIRST_USE:
            importlib.import_module(module)
        for name in ("httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._settings = providers
        self._providers = {name: _provider(name, each, sockets[name]) for name, each in providers.items()}
        self._breakers = {name: Breaker(clock) for name in providers}
        self._models = {(name, model): Breaker(clock) for name, each in providers.items() for model in each.models}
        self._budget = RetryBudget(clock)
        self._plain: set[tuple[str, str]] = set()
        """Models that take no wishes of how to sample."""
        self._log = logging.getLogger("appliance.dispatch.cloud")

    def candidates(self, model: str, names: Sequence[str], tokens: int) -> list[Candidate]:
        """Of the providers `names`, in that order, those that can answer for `model` and are not left alone now.

        `tokens` is what prompt and answer come to at most.
        """
        return [
            Candidate(name, model, settings.region)
            for name in names
            if (settings := self._settings.get(name)) is not None
            and (cloud := settings.models.get(model)) is not None
            and cloud.context_length >= tokens
            and self._breakers[name].ready
            and self._models[name, model].ready
        ]

    async def serve(self, request: Request, masked: Masked, reply: Reply, record: Record, kept: Kept) -> Answered:
        """Answer through the first candidate that can, in the caller's dialect, with the originals put back.

        Raises `Overloaded` when all are busy, `UpstreamFailed` when none could answer, when one broke off after its
        answer had begun, and, with the code `not_cleared`, when one body was not cleared: then nothing else is tried.
        """
        payload = json.loads(masked.payload)
        attempt = _Attempt(request, masked, reply, record, kept)
        failures: list[Failed] = []
        self._budget.request()
        asked = False
        for candidate, plain in self._order(masked.candidates):
            try:
                body = self._body(request, payload, candidate, plain=plain)
            except Unfit:
                continue
            if asked and not self._budget.retry():
                break
            if not self._admit(candidate):
                continue
            asked = True
            try:
                return await self._attempt(candidate, body, attempt)
            except TooPicky:
                self._plain.add((candidate.provider, candidate.model))
            except Unfit:
                continue
            except Failed as failure:
                if attempt.begun:
                    raise UpstreamFailed(
                        "the provider broke off its answer; try again", code="provider_failed"
                    ) from None
                failures.append(failure)
        raise _none_could(failures)

    def _order(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, bool]]:
        """Each candidate, and at once again without wishes of how to sample if that is what it couldn't take."""
        for candidate in candidates:
            plain = (candidate.provider, candidate.model) in self._plain
            yield candidate, plain
            if not plain and (candidate.provider, candidate.model) in self._plain:
                yield candidate, True

    def _body(self, request: Request, payload: Body, candidate: Candidate, *, plain: bool) -> Body:
        model = self._settings[candidate.provider].models[candidate.model].model
        return self._providers[candidate.provider].body(request, payload, model, plain=plain)

    def _admit(self, candidate: Candidate) -> bool:
        """Whether it may be asked now; where it may, both its breakers wait to hear what came of it."""
        own, models = self._breakers[candidate.provider], self._models[candidate.provider, candidate.model]
        return own.ready and models.ready and own.admit() and models.admit()

    async def _attempt(self, candidate: Candidate, body: Body, attempt: _Attempt) -> Answered:
        """One attempt at one provider, which decides over its breakers."""
        breaker, models = self._breakers[candidate.provider], self._models[candidate.provider, candidate.model]
        record = attempt.record
        taken = record.dispatched  # by one before
        try:
            usage = await self._answer(candidate, body, attempt)
        except Failed as failure:
            record.dispatched = taken or failure.taken
            self._note(candidate, failure)
            raise
        except (Unfit, Refused) as why:  # it answered
            breaker.succeeded()
            models.succeeded()
            if isinstance(why, Unfit | BadRequest):
                record.dispatched = taken
            if isinstance(why, BadRequest):
                attempt.masked.chosen(candidate)
            raise
        except NotCleared as why:
            record.dispatched = taken
            breaker.abandoned()
            models.abandoned()
            raise UpstreamFailed(f"this request was not cleared to leave: {why}", code="not_cleared") from None
        except BaseException:
            breaker.abandoned()
            models.abandoned()
            raise
        breaker.succeeded()
        models.succeeded()
        settings = self._settings[candidate.provider]
        return Answered(candidate.provider, candidate.region, settings.models[candidate.model].model, usage)

    def _note(self, candidate: Candidate, failure: Failed) -> None:
        breaker, models = self._breakers[candidate.provider], self._models[candidate.provider, candidate.model]
        failed, other = (models, breaker) if failure.why is Why.NO_MODEL else (breaker, models)
        failed.failed(failure.retry_after or _PAUSES.get(failure.why))
        other.abandoned()
        advice = _ADVICE.get(failure.why)
        told = advice % candidate.provider if advice else "it is tried again later"
        level = logging.ERROR if advice else logging.WARNING
        self._log.log(level, "provider %s failed, %s: %s", candidate.provider, failure, told)

    async def _answer(self, candidate: Candidate, body: Body, attempt: _Attempt) -> Usage:
        request, masked, record = attempt.request, attempt.masked, attempt.record
        answer = Answer(request, body, masked.restore())
        seconds = self._settings[candidate.provider].first_token_seconds
        now = asyncio.get_running_loop().time
        ends = now() + _MOST_SECONDS

        async def clear(provider: str, method: str, path: str, final: bytes) -> str:
            clearance = await masked.clear(provider, method, path, final)
            record.dispatched = True  # from here on it may cost, also where nobody waits for the answer
            record.sent_to[provider] = None
            return clearance

        async with aclosing(self._providers[candidate.provider].events(body, clear)) as events:
            try:
                while (event := await _next(events, seconds)) is not None:
                    if now() > ends:
                        raise Failed(Why.SLOW)
                    if data := answer.take(event):
                        await attempt.begin(candidate)
                        record.token()
                        await attempt.reply.frames(data)
                answer.require_end()
                rest = answer.rest()
            finally:
                answer.settle(record)
        await attempt.begin(candidate)
        if request.stream:
            await attempt.reply.frames(rest)
            await attempt.reply.end()
        else:
            await attempt.reply.whole(rest)
        return record.usage


async def _next(events: AsyncGenerator[Event, None], seconds: float) -> Event | None:
    """The next event; None at the end. Raises `Failed` when none comes in time."""
    try:
        async with asyncio.timeout(seconds):
            return await anext(events)
    except TimeoutError:
        raise Failed(Why.SLOW) from None
    except StopAsyncIteration:
        return None


def _none_could(failures: Sequence[Failed]) -> Refused:
    if failures and all(failure.why is Why.BUSY for failure in failures):
        wait = math.ceil(min(failure.retry_after or _PAUSES[Why.BUSY] for failure in failures))
        return Overloaded("all providers are busy; try again later", code="providers_busy", retry_after=wait)
    if failures:
        return UpstreamFailed("no provider could answer; try again", code="providers_failed")
    return UpstreamFailed("no provider takes such a request", code="no_provider")


def _provider(name: str, settings: config.Provider, socket: Path) -> Provider:
    # only what is needed: either SDK takes a second or more
    if settings.api == "anthropic":
        from appliance.dispatch.cloud.anthropic import Anthropic

        return Anthropic(name, settings, socket)
    from appliance.dispatch.cloud.openai import OpenAI

    return OpenAI(name, settings, socket)
