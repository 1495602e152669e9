"""An engine of a card that nobody is served by, for an evaluation: as long as whoever asked for it stays."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.audit.archive import Actor, Archive
from appliance.config import Config, Idle, LocalModel
from appliance.engines.engine import Engine, describe
from appliance.engines.fleet import TRIAL, Fleet
from appliance.engines.served import Tell
from appliance.engines.specs import Machine, device, spec
from appliance.errors import ApplianceError, CardInvalid, EngineFailed, Problem, in_full
from appliance.weights.card import load_card, named


@asynccontextmanager
async def try_out(
    turn: asyncio.Lock, fleet: Fleet, archive: Archive, config: Config, card: str, tell: Tell, by: Actor
) -> AsyncIterator[tuple[str, Engine]]:
    """The name that `card` is asked for by, by keys lent on this host alone, and its engine, which can answer.

    On record as `eval.trial` before it starts. Waits for `turn`: two engines more would be two too many for most
    hosts. Raises `CardInvalid`, `WeightsInvalid`, `DoesNotFit` with the numbers, and `EngineFailed`; nobody notices
    anything of it then.
    """
    if turn.locked():
        tell("waiting for another trial to end")
    async with turn:
        tell(f"checking the weights of {card}")
        folder = named(config.models_folder, card)
        if (task := load_card(folder).task) != "chat":
            what = f"{card} is for {task}; only models for chat are evaluated"
            raise CardInvalid(str(folder / "card.yaml"), [Problem("task", what)])
        model = _settings(config, card)
        wanted = await asyncio.to_thread(spec, config, f"{TRIAL}{card}", model, device(config, Machine.here()))
        told = {"card": card, "weights": wanted.fingerprint}
        async with archive.act("eval.trial", by, **told), fleet.trial(wanted, tell) as served:
            assert served.engine is not None  # noqa: S101 - a card's always has one
            yield served.name, served.engine


def _settings(config: Config, card: str) -> LocalModel:
    """As the engine of the first name that has this card, or tries it, is set: with another context, cache or number of
    GPUs the card could answer otherwise, or not start. By default where nobody has it."""
    for model in config.settings.models.values():
        if isinstance(model, LocalModel) and card in (model.card, model.rollout and model.rollout.card):
            alone: dict[str, Any] = {"card": card, "adapters": {}, "rollout": None, "idle": Idle(), "swap": "auto"}
            return model.model_copy(update=alone)
    return LocalModel(card=card)


class Held(Response):
    """Lines of JSON: `{"progress": ...}`, then `{"ready": ...}`, what `appliance status` says of the engine, which
    lasts until the connection ends; or `{"error": ...}`, also where the engine ends by itself or `stopping` is set."""

    background = None

    def __init__(
        self, trial: Callable[[Tell], AbstractAsyncContextManager[tuple[str, Engine]]], stopping: asyncio.Event
    ) -> None:
        self._trial = trial
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the engine."""
        lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        await send({
            "type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/x-ndjson")],
        })  # fmt: skip
        gone = asyncio.create_task(_gone(receive))
        holding = asyncio.create_task(self._hold(lines, gone))
        holding.add_done_callback(lambda _: lines.put_nowait(None))
        gone.add_done_callback(lambda _: None if self._ready else holding.cancel())
        try:
            while (line := await lines.get()) is not None:
                body = json.dumps(line).encode() + b"\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            holding.cancel()
            gone.cancel()
            await asyncio.gather(holding, gone, return_exceptions=True)

    _ready = False

    async def _hold(self, lines: asyncio.Queue[dict[str, Any] | None], gone: asyncio.Task[None]) -> None:
        try:
            async with self._trial(lambda text: lines.put_nowait({"progress": text})) as (name, engine):
                self._ready = True
                lines.put_nowait({"ready": {"model": name, **dict(describe(engine))}})
                await self._over(gone, engine)
        except ApplianceError as refusal:
            lines.put_nowait({"error": in_full(refusal)})
        except Exception as bug:  # whoever waits for the last line would wait for ever
            logging.getLogger("appliance.trial").exception("the trial failed")
            lines.put_nowait({"error": f"{type(bug).__name__}; the appliance's log has more"})

    async def _over(self, gone: asyncio.Task[None], engine: Engine) -> None:
        """Return when nobody wants it any more. Raises `EngineFailed` when it can't go on."""
        ends = [asyncio.create_task(engine.until_failed()), asyncio.create_task(self._stopping.wait())]
        try:
            await asyncio.wait([gone, *ends], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        if not gone.done():
            raise EngineFailed(engine.reason or "the appliance stops")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
