"""Whether an engine lives: it generates a token when asked, and its tokens move while there is work."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from appliance.engines import load
from appliance.engines.command import Spec
from appliance.engines.load import Load
from appliance.engines.upstream import Upstream
from appliance.errors import EngineFailed, UpstreamFailed

_READ_EVERY = 0.25


async def generates(upstream: Upstream, spec: Spec) -> bool:
    """Whether the model generates one token (or one embedding, or one score). Raises `UpstreamFailed`."""
    if spec.card.task == "embedding":
        path, body = "/v1/embeddings", '"input": "ready?"'
    elif spec.card.task == "rerank":
        path, body = "/v1/score", '"text_1": "ready?", "text_2": "ready?"'
    else:
        path, body = "/v1/completions", '"prompt": "ready?", "max_tokens": 1'
    return await _posted(upstream, path, f'{{"model": {json.dumps(spec.name)}, {body}}}'.encode()) == 200


async def order(control: Upstream, path: str, patience: float) -> None:
    """Have an engine do what `path` stands for, such as /wake_up, within `patience` seconds. Raises `EngineFailed`."""
    try:
        async with asyncio.timeout(patience):
            status = await _posted(control, path, b"")
    except TimeoutError:
        raise EngineFailed(f"no answer to {path} within startup_seconds ({patience:g} s)") from None
    if status != 200:
        raise EngineFailed(f"the engine refused {path} (HTTP {status})")


async def _posted(upstream: Upstream, path: str, body: bytes) -> int:
    response = await upstream.post(path, body)
    try:
        await response.whole()
    finally:
        response.close()
    return response.status


class Stall:
    """Reads one engine's counters, 4 times a second while there are requests.

    Only they tell: the engine also answers, with the model stuck, what takes no model, such as a count of tokens or a
    refusal, so bytes that callers get are no sign of life.
    """

    def __init__(
        self, control: Upstream, spec: Spec, leased: Callable[[], bool], take: Callable[[Load], None],
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        """`leased` tells whether requests hold the engine; `take` gets each reading."""
        self._control = control
        self._spec = spec
        self._leased = leased
        self._take = take
        self._clock = clock
        self._load = Load()

    async def comes(self) -> None:
        """Return when there was work but no token moved for `stall_seconds`."""
        patience = self._spec.settings.stall_seconds
        moved_at, idle_for = self._clock(), 0.0
        while True:
            idle_for += await self._until_worth_reading(patience / 6)
            with contextlib.suppress(UpstreamFailed, TimeoutError, ValueError):
                async with asyncio.timeout(patience / 6):
                    before, self._load = self._load, await load.ask(self._control)
                    self._take(self._load)
                    if self._load.moved != before.moved:
                        moved_at, idle_for = self._clock(), 0.0
                    elif self._load.idle and idle_for >= patience / 6:
                        idle_for = 0.0
                        if await generates(self._control, self._spec):
                            moved_at = self._clock()
            if self._clock() - moved_at > patience:
                return

    async def _until_worth_reading(self, longest: float) -> float:
        """Wait until a reading tells something new, at most `longest` seconds; return how long.

        A reading takes the engine's server a few milliseconds, so an idle engine is read for its life only.
        """
        pause, waited = min(_READ_EVERY, longest), 0.0
        while waited < longest:
            await asyncio.sleep(pause)
            waited += pause
            if self._leased() or not self._load.idle:
                break
        return waited
