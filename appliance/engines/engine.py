"""One engine: a vLLM process, its states, and the one task that owns them.

Everyone else asks: `lease()` for a request, `until_ready()` after a start, `rest()` and `wake()` to have the memory
for a while, `drain()` to end it. The owner task alone starts and ends processes and moves the state, so nobody checks
first and acts later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

from appliance.engines import health, progress
from appliance.engines.command import SLEEP_MODE, Launch, Spec
from appliance.engines.health import Stall
from appliance.engines.load import Load
from appliance.engines.process import EngineProcess
from appliance.engines.upstream import Upstream
from appliance.errors import ApplianceError, EngineFailed, Loading, UpstreamFailed

_PROBE_EVERY = 0.25
_PROBE_PATIENCE = 120.0
_STEADY = 60.0  # times the first wait: whoever ran so long is not in a loop of crashes
_LONGEST_BACKOFF = 60.0
_MOST_DOUBLINGS = 60  # far over the longest backoff, far below a float's end
_END_OF_CLAUSE = re.compile(r"[:;\n]")
_PATH = re.compile(r"/\S+")
_MOST_WHY = 200


class State(StrEnum):
    """Where an engine is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    IDLE = "idle"
    """Ended until somebody wakes it."""
    ASLEEP = "asleep"
    """Its process runs and has given the GPU's memory back."""
    FAILED = "failed"


class Asked(Enum):
    """What its owner task was told to bring about."""

    RUN = 1
    REST = 2
    SLEEP = 3
    END = 4


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
        self.gives_way = False
        """Whether its next start takes only the processor time that others leave, until it has answered."""
        self.starts = 0
        self.since = clock()
        self.can_sleep = False
        """Whether its process was started so that it can sleep."""
        self.process: EngineProcess | None = None
        self.upstream: Upstream | None = None
        self.load = Load()
        """What the engine said of its work when it was last read: 4 times a second while there are requests."""
        self.vet: Callable[[Engine], Coroutine[Any, Any, None]] | None = None
        """Looks at it before it becomes ready: at its first start only, since after a crash it is what it was."""
        self.listeners: list[Callable[[], None]] = []
        """Called after each change of `state`, and after each reading of `load`."""
        self._launch = launch
        self._spawn = spawn
        self._clock = clock
        self._log = logging.getLogger("appliance.engines")
        self.call: Callable[[], None] = self.wake
        """Has it come back, since somebody asks for it; whoever shares out memory puts something else here."""
        self.obstacle: str | None = None
        """Why it can't come back now, in numbers."""
        self.comebacks = 0
        """How many of its starts were since it was woken."""
        self._leases = 0
        self._quiet_since = clock()
        self._changed = asyncio.Event()
        self._asked = Asked.RUN
        self._news = asyncio.Event()
        """Set when something else is asked of the owner, or the last lease was given back."""
        self._drain_seconds = 0.0
        self._owner: asyncio.Task[None] | None = None

    @property
    def leases(self) -> int:
        """Requests that hold it now."""
        return self._leases

    @property
    def quiet_seconds(self) -> float:
        """How long no request has held it; 0 while one does."""
        return 0.0 if self._leases else self._clock() - self._quiet_since

    @property
    def resting(self) -> bool:
        """Whether it was told to give its memory back, and will not come back before it is woken."""
        return self._asked in (Asked.REST, Asked.SLEEP)

    def start(self, *, resting: bool = False) -> None:
        """Begin the owner task; returns at once. `resting`: nothing runs before it is woken."""
        self._asked = Asked.REST if resting else self._asked
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
        if self.obstacle is not None:
            what = f"the model {self.spec.name} idles and can't come back now: {self.obstacle}"
            return Loading(what, code="model_loading", retry_after=5)
        if self.state is State.FAILED and self.reason is not None:
            # only how it begins: the rest may be an engine's own words, which may quote what it was asked. No paths:
            # they are nobody's business but the administrator's
            why = _PATH.sub("a file", _END_OF_CLAUSE.split(self.reason, maxsplit=1)[0])[:_MOST_WHY]
            what = f"the model {self.spec.name} could not be started ({why}), and is tried again"
            return Loading(what, code="model_loading", retry_after=5)
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
            self._quiet_since = self._clock()
            self._news.set()

    async def until_ready(self) -> None:
        """Wait for the first answer. Raises `EngineFailed` with the reason when a start fails."""
        while self.state is not State.READY:
            if self.state is State.FAILED or (self._owner is not None and self._owner.done()):
                raise EngineFailed(self.reason or "the engine was stopped")
            self._changed.clear()
            await self._changed.wait()

    async def until_failed(self) -> None:
        """Wait until it isn't ready any more."""
        while self.state is State.READY:
            self._changed.clear()
            await self._changed.wait()

    async def drain(self, seconds: float) -> None:
        """Let leased requests finish for at most `seconds`, then end the process. Returns when it is gone."""
        self._ask(Asked.END, seconds)
        if self._owner is not None:
            await asyncio.wait([self._owner])

    async def rest(self, seconds: float, *, asleep: bool = False) -> None:
        """Let leased requests finish for at most `seconds`, then give the memory back until `wake`.

        Returns when it is given back. `asleep`: keep the process, where it was started so that it can sleep.
        """
        if self._asked is Asked.END:
            return
        asked = Asked.SLEEP if asleep and self.can_sleep else Asked.REST
        self._ask(asked, seconds)
        # one that sleeps already, and is to end, has its process still
        given_back = {State.IDLE, State.STOPPED, *([State.ASLEEP] if asked is Asked.SLEEP else [])}
        while self.resting and self.state not in given_back:
            self._changed.clear()
            await self._changed.wait()

    def begin_rest(self, *, asleep: bool = False) -> None:
        """As `rest`, but returns at once. For one that has no requests."""
        if self._asked is Asked.RUN:
            self._ask(Asked.SLEEP if asleep and self.can_sleep else Asked.REST, self.spec.settings.drain_seconds)

    def object(self, why: str | None) -> None:
        """It can't come back now, for that reason; None: it is no more so."""
        self.obstacle = why
        self._tell()

    def wake(self) -> None:
        """Have it run again after `rest`; returns at once. Does nothing when it is to run already, or to end."""
        if self.resting:
            self._ask(Asked.RUN, 0)

    def _ask(self, asked: Asked, seconds: float) -> None:
        if self._asked is not Asked.END:
            self._asked = asked
        self._drain_seconds = seconds
        self._news.set()

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
        while self._asked is not Asked.END:
            if self._asked is not Asked.RUN:
                self.reason, self.stage = None, ""  # whatever it was, nobody waits for it
                self._become(State.IDLE)
                await self._while_asked(Asked.REST, Asked.SLEEP)
                self.comebacks += not self.resting
                continue
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
            if self._asked is Asked.RUN and self.state is State.FAILED:
                delay = min(self.backoff * 2.0 ** min(failures, _MOST_DOUBLINGS), _LONGEST_BACKOFF)
                failures += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._while_asked(Asked.RUN), delay)
        self._become(State.STOPPED)

    async def _while_asked(self, *still: Asked) -> None:
        """Wait until it is asked for something else than `still`."""
        while self._asked in still:
            self._news.clear()
            await self._news.wait()

    async def _command(self) -> Launch | None:
        """The command for the next start; None when told otherwise before all weights were read."""
        launching = asyncio.ensure_future(self._launch())
        ended = asyncio.create_task(self._while_asked(Asked.RUN))
        try:
            await asyncio.wait({launching, ended}, return_when=asyncio.FIRST_COMPLETED)
            return launching.result() if launching.done() else None
        finally:
            for each in (launching, ended):
                each.cancel()
            await asyncio.gather(launching, ended, return_exceptions=True)

    async def _start(self, launch: Launch) -> None:
        """Spawn the process and wait for its first token. Raises `ApplianceError`, or returns when told otherwise."""
        self.stage = "starting"
        launch.socket.unlink(missing_ok=True)
        self.can_sleep = SLEEP_MODE in launch.argv
        patience = self.spec.settings.startup_seconds
        self.process = process = await self._spawn(replace(launch, gives_way=self.gives_way))
        # where others leave nothing at all it has to be ready in time all the same
        hurrying = asyncio.get_running_loop().call_later(patience / 4, self._hurry, process)
        upstream = Upstream(launch.socket)
        answered = asyncio.create_task(self._first_answer(upstream, launch))
        try:
            first = await self._first(answered, patience)
        finally:
            hurrying.cancel()
        if first is answered:
            answered.result()
            self._hurry(process)
            self.upstream = upstream
            if not await self._vetted():
                return
            self._quiet_since = self._clock()
            self._become(State.READY)
        elif self._asked is Asked.RUN:
            raise EngineFailed(
                f"no answer within startup_seconds ({self.spec.settings.startup_seconds:g} s); see {launch.log}"
            )

    async def _vetted(self) -> bool:
        """Whether it may answer; False when told otherwise meanwhile. Raises `EngineFailed` when it may not."""
        if self.vet is None:
            return True
        self._busy_with("passing its gate")
        looking = asyncio.create_task(self.vet(self))
        if await self._first(looking, None) is not looking:
            return False
        looking.result()
        self.vet = None
        return True

    def _hurry(self, process: EngineProcess) -> None:
        if self.gives_way:
            self.gives_way = False
            process.hurry()

    async def _first(
        self, task: asyncio.Task[None] | None, patience: float | None, asked: Asked = Asked.RUN
    ) -> asyncio.Task[None] | None:
        """`task` if it ends first; None at the timeout or when something else than `asked` is asked for.

        A dead process raises `EngineFailed`.
        """
        assert self.process is not None  # noqa: S101 - only called between spawn and clear
        died = asyncio.create_task(self.process.wait())
        ended = asyncio.create_task(self._while_asked(asked))
        waits = {died, ended} if task is None else {task, died, ended}
        try:
            await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if died.done():
                raise EngineFailed(progress.last_words(self._current_log, died.result()))
            return task if task is not None and task.done() else None
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _first_answer(self, upstream: Upstream, launch: Launch) -> None:
        self._current_log = launch.log
        while True:
            self._busy_with(progress.stage(launch.log))
            if launch.socket.exists():
                with contextlib.suppress(UpstreamFailed, TimeoutError):
                    async with asyncio.timeout(_PROBE_PATIENCE):
                        if await health.generates(upstream, self.spec):
                            return
            await asyncio.sleep(_PROBE_EVERY)

    async def _watch(self) -> None:
        """Stay until told otherwise, then drain, and sleep if told to.

        Raises `EngineFailed` when the process dies or its tokens stall.
        """
        if self.upstream is None or self.process is None:
            return
        control = Upstream(Path(self.upstream.socket))
        stall = Stall(control, self.spec, lambda: self._leases > 0, self._take, self._clock)
        try:
            while True:
                stalled = asyncio.create_task(stall.comes())
                if await self._first(stalled, None) is stalled:
                    raise EngineFailed(
                        f"no token moved for {self.spec.settings.stall_seconds:g} s though there was work (stalled)"
                    )
                self._become(State.DRAINING)
                await self._until_unleased()
                if self._asked is Asked.SLEEP:
                    await self._sleep(control)
                if self._asked is not Asked.RUN:
                    return
                self._become(State.READY)  # woken before all had left, or from its sleep
        finally:
            control.close()

    async def _sleep(self, control: Upstream) -> None:
        """Give the GPU's memory back until told otherwise. Raises `EngineFailed`."""
        await health.order(control, "/sleep?level=1", self.spec.settings.startup_seconds)
        self._become(State.ASLEEP)
        await self._first(None, None, Asked.SLEEP)
        if self._asked is Asked.RUN:
            self._become(State.STARTING)
            self._busy_with("waking")
            await health.order(control, "/wake_up", self.spec.settings.startup_seconds)
            if not await health.generates(control, self.spec):
                raise EngineFailed("the engine woke, and doesn't answer")

    def _take(self, load: Load) -> None:
        self.load = load
        self._tell()

    async def _until_unleased(self) -> None:
        """Wait until no request holds it, its process has died, its time is over, or it is to run on."""
        began = self._clock()
        assert self.process is not None  # noqa: S101 - draining begins from ready
        died = asyncio.create_task(self.process.wait())
        while self._leases and not died.done() and self._asked is not Asked.RUN:
            self._news.clear()
            if (left := began + self._drain_seconds - self._clock()) <= 0:
                self._log.warning(
                    "engine %s: %d requests are cut off, since they took longer than drain_seconds (%g s)",
                    self.spec.name, self._leases, self._drain_seconds,
                )  # fmt: skip
                break
            news = asyncio.ensure_future(self._news.wait())
            await asyncio.wait({died, news}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
        died.cancel()

    async def _clear(self, launch: Launch | None) -> None:
        """Leave nothing behind: no connection, no process, no socket."""
        upstream, self.upstream = self.upstream, None
        process, self.process = self.process, None
        self.load = Load()
        if process is not None:
            # where people wait for its memory there is nothing left for it to do, and vLLM takes seconds to see that
            if self.state is State.FAILED or self._asked is Asked.REST:
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
    yield "weights", engine.spec.fingerprint
    yield "device", engine.spec.device
    yield "reason", engine.obstacle or engine.reason
    yield "stage", engine.stage if engine.state in (State.STARTING, State.IDLE) and engine.stage else None
    yield "starts", engine.starts
    yield "requests", engine.leases
    yield "pid", engine.process.pid if engine.process else None
    yield "seal_missing", engine.process.seal.missing if engine.process else ()
