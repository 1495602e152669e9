"""One engine: a vLLM process, its five states, and the one task that owns them.

Everyone else asks: `lease()` for a request, `until_ready()` after a start, `drain()` to end it. The owner
task alone starts and ends processes and moves the state, so nobody checks first and acts later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum
from pathlib import Path

from appliance.engines import load, progress
from appliance.engines.command import Launch, Spec
from appliance.engines.load import Load
from appliance.engines.process import EngineProcess
from appliance.engines.upstream import Upstream
from appliance.errors import ApplianceError, EngineFailed, Loading, UpstreamFailed

_PROBE_EVERY = 0.25
_PROBE_PATIENCE = 120.0
_READ_EVERY = 0.25
_STEADY = 60.0  # times the first wait: whoever ran so long is not in a loop of crashes
_LONGEST_BACKOFF = 60.0
_MOST_DOUBLINGS = 60  # far over the longest backoff, far below a float's end


class State(StrEnum):
    """Where an engine is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


Spawn = Callable[[Launch], Awaitable[EngineProcess]]


class Lease:
    """A request's hold on an engine: while it lasts, the engine is not taken away."""

    __slots__ = ("_engine", "upstream")

    def __init__(self, engine: Engine, upstream: Upstream) -> None:
        self._engine = engine
        self.upstream = upstream

    def __enter__(self) -> Upstream:
        return self.upstream

    def __exit__(self, *_: object) -> None:
        self._engine.release()


class Engine:
    """Starts, watches, restarts and ends the process of one model."""

    def __init__(
        self,
        spec: Spec,
        launch: Callable[[], Awaitable[Launch]],
        spawn: Spawn,
        *,
        backoff: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`launch` checks the weights and makes the command for the next start.

        `backoff` is the first wait after a crash, in seconds; as an attribute it may be changed at any time.
        """
        self.spec = spec
        self.backoff = backoff
        self.state = State.STOPPED
        self.reason: str | None = None
        """Why it failed, in a line for the administrator."""
        self.stage = "waiting"
        """What a start is busy with, for the progress display."""
        self.starts = 0
        self.since = clock()
        self.process: EngineProcess | None = None
        self.upstream: Upstream | None = None
        self.load = Load()
        """What the engine said of its work when it was last read: 4 times a second while there are requests."""
        self.listeners: list[Callable[[], None]] = []
        """Called after each change of `state`, and after each reading of `load`."""
        self._launch = launch
        self._spawn = spawn
        self._clock = clock
        self._log = logging.getLogger("appliance.engines")
        self._leases = 0
        self._unleased = asyncio.Event()
        self._changed = asyncio.Event()
        self._end_asked = asyncio.Event()
        self._drain_seconds = 0.0
        self._owner: asyncio.Task[None] | None = None

    @property
    def leases(self) -> int:
        """Requests that hold it now."""
        return self._leases

    def start(self) -> None:
        """Begin the owner task; returns at once."""
        self._owner = asyncio.create_task(self._own(), name=f"engine {self.spec.name}")

    def lease(self) -> Lease:
        """Hold the engine for one request. Raises `Loading` while it can't answer."""
        upstream = self.upstream
        if self.state is not State.READY or upstream is None:
            raise self.not_ready()
        self._leases += 1
        return Lease(self, upstream)

    def not_ready(self) -> Loading:
        """What is answered while it can't be leased."""
        return Loading(
            f"the model {self.spec.name} is {'restarting' if self.starts > 1 else 'still loading'}; "
            "try again in a moment",
            code="model_loading",
            retry_after=5,
        )

    def release(self) -> None:
        """Give a lease back; `Lease` does it."""
        self._leases -= 1
        if not self._leases:
            self._unleased.set()

    async def until_ready(self) -> None:
        """Wait for the first answer. Raises `EngineFailed` with the reason when a start fails."""
        while self.state is not State.READY:
            if self.state is State.FAILED or (self._owner is not None and self._owner.done()):
                raise EngineFailed(self.reason or "the engine was stopped")
            self._changed.clear()
            await self._changed.wait()

    async def drain(self, seconds: float) -> None:
        """Let leased requests finish for at most `seconds`, then end the process. Returns when it is gone."""
        self._drain_seconds = seconds
        self._end_asked.set()
        if self._owner is not None:
            await asyncio.wait([self._owner])

    def _become(self, state: State, reason: str | None = None) -> None:
        if state is State.STARTING:
            reason = self.reason  # why it has to start anew is told until it answers again
        self.state, self.reason, self.since = state, reason, self._clock()
        level = logging.ERROR if state is State.FAILED else logging.INFO
        why = f": {reason}" if reason and state is not State.STARTING else ""
        self._log.log(level, "engine %s: %s%s", self.spec.name, state, why)
        self._changed.set()
        self._tell()

    def _tell(self) -> None:
        for listener in self.listeners:  # not at once: what listens must not be able to end the owner's task
            asyncio.get_running_loop().call_soon(listener)

    def _busy_with(self, stage: str) -> None:
        if stage != self.stage:
            self.stage = stage
            self._log.info("engine %s: %s", self.spec.name, stage)

    async def _own(self) -> None:
        failures = 0
        while not self._end_asked.is_set():
            launch: Launch | None = None
            ready_at = math.inf
            try:
                self.starts += 1
                self.stage = "checking weights"
                self._become(State.STARTING)
                if (launch := await self._command()) is not None:
                    await self._start(launch)
                    ready_at = self._clock()
                    await self._watch()
            except (ApplianceError, OSError) as failure:  # OSError: a full disk, a folder that is gone
                self._become(State.FAILED, str(failure))
            finally:
                await self._clear(launch)
            if self._clock() - ready_at > _STEADY * self.backoff:
                failures = 0
            if not self._end_asked.is_set():
                delay = min(self.backoff * 2.0 ** min(failures, _MOST_DOUBLINGS), _LONGEST_BACKOFF)
                failures += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._end_asked.wait(), delay)
        self._become(State.STOPPED)

    async def _command(self) -> Launch | None:
        """The command for the next start; None when told to end before all weights were read."""
        launching = asyncio.ensure_future(self._launch())
        ended = asyncio.create_task(self._end_asked.wait())
        try:
            await asyncio.wait({launching, ended}, return_when=asyncio.FIRST_COMPLETED)
            return launching.result() if launching.done() else None
        finally:
            for each in (launching, ended):
                each.cancel()
            await asyncio.gather(launching, ended, return_exceptions=True)

    async def _start(self, launch: Launch) -> None:
        """Spawn the process and wait for its first token. Raises `ApplianceError`, or returns when told to end."""
        self.stage = "starting"
        launch.socket.unlink(missing_ok=True)
        self.process = await self._spawn(launch)
        upstream = Upstream(launch.socket)
        answered = asyncio.create_task(self._first_answer(upstream, launch))
        if await self._first(answered, self.spec.settings.startup_seconds) is answered:
            answered.result()
            self.upstream = upstream
            self._become(State.READY)
        elif not self._end_asked.is_set():
            raise EngineFailed(
                f"no answer within startup_seconds ({self.spec.settings.startup_seconds:g} s); see {launch.log}"
            )

    async def _first(self, task: asyncio.Task[None], patience: float | None) -> asyncio.Task[None] | None:
        """`task` if it ends first; None at the timeout or when told to end. A dead process raises `EngineFailed`."""
        assert self.process is not None  # noqa: S101 - only called between spawn and clear
        died = asyncio.create_task(self.process.wait())
        ended = asyncio.create_task(self._end_asked.wait())
        try:
            await asyncio.wait({task, died, ended}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if died.done():
                raise EngineFailed(progress.last_words(self._current_log, died.result()))
            return task if task.done() else None
        finally:
            for each in (task, died, ended):
                each.cancel()
            await asyncio.gather(task, died, ended, return_exceptions=True)

    async def _first_answer(self, upstream: Upstream, launch: Launch) -> None:
        self._current_log = launch.log
        while True:
            self._busy_with(progress.stage(launch.log))
            if launch.socket.exists():
                with contextlib.suppress(UpstreamFailed, TimeoutError):
                    async with asyncio.timeout(_PROBE_PATIENCE):
                        if await self._probe(upstream):
                            return
            await asyncio.sleep(_PROBE_EVERY)

    async def _probe(self, upstream: Upstream) -> bool:
        """Whether the model generates one token (or one embedding)."""
        if self.spec.card.task == "embedding":
            path, body = "/v1/embeddings", '"input": "ready?"'
        else:
            path, body = "/v1/completions", '"prompt": "ready?", "max_tokens": 1'
        response = await upstream.post(path, f'{{"model": {json.dumps(self.spec.name)}, {body}}}'.encode())
        try:
            await response.whole()
        finally:
            response.close()
        return response.status == 200

    async def _watch(self) -> None:
        """Stay until told to end, then drain. Raises `EngineFailed` when the process dies or its tokens stall."""
        if self.upstream is None or self.process is None:
            return
        control = Upstream(Path(self.upstream.socket))
        try:
            stalled = asyncio.create_task(self._until_stalled(control))
            if await self._first(stalled, None) is stalled:
                raise EngineFailed(
                    f"no token moved for {self.spec.settings.stall_seconds:g} s though there was work (stalled)"
                )
            self._become(State.DRAINING)
            await self._until_unleased()
        finally:
            control.close()

    async def _until_unleased(self) -> None:
        deadline = self._clock() + self._drain_seconds
        assert self.process is not None  # noqa: S101 - draining begins from ready
        died = asyncio.create_task(self.process.wait())
        while self._leases and not died.done() and self._clock() < deadline:
            self._unleased.clear()
            waited = asyncio.create_task(self._unleased.wait())
            await asyncio.wait({died, waited}, timeout=deadline - self._clock(), return_when=asyncio.FIRST_COMPLETED)
            waited.cancel()
        died.cancel()

    async def _until_stalled(self, control: Upstream) -> None:
        """Return when there was work but no token moved for `stall_seconds`.

        Only the engine's own counters tell: it also answers, with the model stuck, what takes no model,
        such as a count of tokens or a refusal, so bytes that callers get are no sign of life.
        """
        patience = self.spec.settings.stall_seconds
        moved_at, idle_for = self._clock(), 0.0
        while True:
            idle_for += await self._until_worth_reading(patience / 6)
            with contextlib.suppress(UpstreamFailed, TimeoutError, ValueError):
                async with asyncio.timeout(patience / 6):
                    before, self.load = self.load, await load.ask(control)
                    self._tell()
                    if self.load.moved != before.moved:
                        moved_at, idle_for = self._clock(), 0.0
                    elif self.load.idle and idle_for >= patience / 6:
                        idle_for = 0.0
                        if await self._probe(control):
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
            if self._leases or not self.load.idle:
                break
        return waited

    async def _clear(self, launch: Launch | None) -> None:
        """Leave nothing behind: no connection, no process, no socket."""
        upstream, self.upstream = self.upstream, None
        process, self.process = self.process, None
        self.load = Load()
        if process is not None:
            if self.state is State.FAILED:
                process.kill()
            else:
                process.terminate()
            await process.wait()
        if upstream is not None:
            upstream.close()
        if launch is not None:
            shutil.rmtree(launch.socket.parent, ignore_errors=True)


def describe(engine: Engine) -> Iterator[tuple[str, object]]:
    """What `appliance status` tells of an engine, as pairs."""
    yield "state", engine.state
    yield "card", engine.spec.settings.card
    yield "quantization", engine.spec.card.quantization
    yield "reason", engine.reason
    yield "stage", engine.stage if engine.state is State.STARTING else None
    yield "starts", engine.starts
    yield "requests", engine.leases
    yield "pid", engine.process.pid if engine.process else None
    yield "seal_missing", engine.process.seal.missing if engine.process else ()
