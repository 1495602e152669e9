"""All models by their public names: which engine or endpoint answers for each, and how that changes.

A change starts the new engines beside the old ones, waits until each has answered, moves the names in one
step and only then drains what was replaced. Until that step nothing has changed for anyone.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from appliance.config import Config, LocalModel, RemoteModel
from appliance.core import Task
from appliance.engines import command
from appliance.engines.command import Launch, Spec
from appliance.engines.engine import Engine, Spawn, State
from appliance.engines.upstream import Upstream
from appliance.errors import ConfigInvalid, EngineFailed, NotFound, Problem, WeightsInvalid
from appliance.weights.card import load_card, named
from appliance.weights.manifest import vouch

Tell = Callable[[str], None]
"""Takes a line of progress for whoever waits."""


class Hold(Protocol):
    """A request's hold on whatever answers for a model."""

    def __enter__(self) -> Upstream: ...

    def __exit__(self, *_: object) -> None: ...


class RemoteHold:
    """All requests' hold on an endpoint: once retired, its upstream is closed after the last of them."""

    __slots__ = ("_held", "_retired", "upstream")

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self._held = 0
        self._retired = False

    def __enter__(self) -> Upstream:
        self._held += 1
        return self.upstream

    def __exit__(self, *_: object) -> None:
        self._held -= 1
        self._close_unused()

    def retire(self) -> None:
        """No new request will come: close the upstream when nobody holds it."""
        self._retired = True
        self._close_unused()

    def _close_unused(self) -> None:
        if self._retired and not self._held:
            self.upstream.close()


class Served:
    """What answers under one public name."""

    __slots__ = (
        "context_length", "default_tokens", "engine", "hold", "name", "remote", "task", "title", "upstream_name"
    )  # fmt: skip

    def __init__(self, name: str, source: Engine | tuple[RemoteModel, Upstream]) -> None:
        self.name = name
        self.engine: Engine | None = None
        self.remote: RemoteHold | None = None
        if isinstance(source, Engine):
            self.engine = source
            card = source.spec.card
            self.task = Task(card.task)
            self.title = card.title
            context_length = source.spec.context_length
            self.context_length: int | None = context_length
            # at most half: in a context shorter than the card's, the default would leave no room for a prompt
            most = min(card.chat.max_tokens, context_length // 2)
            self.default_tokens: int | None = most if card.task == "chat" else None
            self.upstream_name = name
            self.hold: Callable[[], Hold] = source.lease
        else:
            model, upstream = source
            self.task = Task(model.task)
            self.title = name
            self.context_length = model.context_length
            self.default_tokens = None
            self.upstream_name = model.upstream_model or name
            self.remote = remote = RemoteHold(upstream)
            self.hold = lambda: remote

    @property
    def ready(self) -> bool:
        """Whether a request could be answered now. Of an endpoint we learn it only by asking."""
        return self.engine is None or self.engine.state is State.READY


class Fleet:
    """The models that are served. One per appliance."""

    def __init__(
        self, config: Config, spawn: Spawn, connect: Callable[[str, RemoteModel], Awaitable[Upstream]]
    ) -> None:
        """`spawn` starts an engine's process; `connect` gives the upstream of an endpoint."""
        self._config = config
        self._spawn = spawn
        self._connect = connect
        self._served: dict[str, Served] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._number = itertools.count(1)

    @property
    def served(self) -> Mapping[str, Served]:
        """Public name to what answers for it."""
        return self._served

    def find(self, name: str) -> Served:
        """What answers for `name`. Raises `NotFound` naming the models there are."""
        served = self._served.get(name)
        if served is None:
            known = ", ".join(sorted(self._served))
            raise NotFound(
                f"there is no model {name[:64]!r}; there are: {known}", param="model", code="model_not_found"
            )
        return served

    async def start(self, specs: Mapping[str, Spec]) -> None:
        """Begin to serve all models of the config; returns before engines are ready."""
        for name, model in self._config.settings.models.items():
            if isinstance(model, RemoteModel):
                self._served[name] = Served(name, (model, await self._connect(name, model)))
            else:
                engine = self._engine(self._config, specs[name])
                engine.start()
                self._served[name] = Served(name, engine)

    async def change(self, config: Config, specs: Mapping[str, Spec], tell: Tell) -> list[str]:
        """Make the fleet what `config` says; return what changed, in words.

        Raises `EngineFailed` when a new engine doesn't answer: nothing has changed then. One change at a time:
        `Appliance.apply` sees to it, since what it reads before has to be of the same moment.
        """
        old = self._served
        new: dict[str, Served] = {}
        started: dict[str, Engine] = {}
        try:
            for name, model in config.settings.models.items():
                before = old.get(name)
                if isinstance(model, RemoteModel):
                    same = self._config.settings.models.get(name) == model
                    new[name] = before if same and before else Served(name, (model, await self._connect(name, model)))
                elif before and before.engine and before.engine.spec == specs[name]:
                    new[name] = before
                else:
                    started[name] = self._engine(config, specs[name])
                    new[name] = Served(name, started[name])
                    started[name].start()
                    tell(f"{name}: starting {specs[name].settings.card} beside what serves now")
            await self._until_ready(started, tell)
        except BaseException:
            await asyncio.gather(*(engine.drain(0) for engine in started.values()))
            raise
        self._served, self._config = new, config
        changes = [f"{name}: now answered by {_words(new[name])}" for name in new if new[name] is not old.get(name)]
        changes += [f"{name}: no longer served" for name in old if name not in new]
        for name, served in old.items():
            if served is new.get(name):
                if served.engine is not None:
                    served.engine.backoff = config.settings.engines.restart_backoff_seconds
            elif served.engine is not None:
                self._retire(served.engine)
            elif served.remote is not None:
                served.remote.retire()
        return changes

    async def stop(self, seconds: float) -> None:
        """Drain every engine for at most `seconds`; returns when all are gone."""
        engines = [served.engine for served in self._served.values() if served.engine is not None]
        await asyncio.gather(*(engine.drain(seconds) for engine in engines), *self._retiring)

    async def _until_ready(self, started: Mapping[str, Engine], tell: Tell) -> None:
        waits = {asyncio.create_task(engine.until_ready()): name for name, engine in started.items()}
        told: dict[str, str] = {}
        pending = set(waits)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    name = waits[task]
                    if (failure := task.exception()) is not None:
                        raise EngineFailed(f"{name}: {failure}") from failure
                    tell(f"{name}: the new engine has answered")
                for task in pending:
                    name = waits[task]
                    if told.get(name) != started[name].stage:
                        told[name] = started[name].stage
                        tell(f"{name}: {told[name]}")
        finally:
            for task in pending:
                task.cancel()

    def _retire(self, engine: Engine) -> None:
        task = asyncio.create_task(engine.drain(engine.spec.settings.drain_seconds))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _engine(self, config: Config, spec: Spec) -> Engine:
        verified = True  # by `specs`, just before: only a restart comes later

        async def launch() -> Launch:
            nonlocal verified
            if not verified and await asyncio.to_thread(vouch, spec.weights, spec.card) != spec.fingerprint:
                raise WeightsInvalid(f"{spec.weights} was prepared anew meanwhile. Run `appliance apply` to load it.")
            verified = False
            return self._launch(spec)

        return Engine(spec, launch, self._spawn, backoff=config.settings.engines.restart_backoff_seconds)

    def _launch(self, spec: Spec) -> Launch:
        state = self._config.state
        # short: the path of a Unix socket holds at most 107 bytes
        folder = state / "run" / f"e{next(self._number)}"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
        cache, logs = state / "cache", state / "logs"
        cache.mkdir(mode=0o700, exist_ok=True)
        logs.mkdir(mode=0o700, exist_ok=True)
        log = logs / f"engine-{spec.name.replace('/', '_')}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        return command.launch(spec, folder, cache, log)


def _words(served: Served) -> str:
    return served.engine.spec.settings.card if served.engine else f"the endpoint's {served.upstream_name}"


@dataclass(frozen=True, slots=True)
class Machine:
    """What this host offers to engines."""

    cuda: bool

    @classmethod
    def here(cls) -> Machine:
        """Look at the host."""
        return cls(cuda=Path("/proc/driver/nvidia/version").exists())


def device(config: Config, machine: Machine) -> Literal["cpu", "cuda"]:
    """What engines run on. Raises `ConfigInvalid` when the config asks for a GPU that isn't there."""
    wanted = config.settings.engines.device
    if wanted == "cuda" and not machine.cuda:
        raise ConfigInvalid(
            str(config.file), [Problem("engines.device", "is cuda, but no NVIDIA driver is loaded on this host")]
        )
    return "cuda" if wanted == "cuda" or (wanted == "auto" and machine.cuda) else "cpu"


def specs(config: Config, machine: Machine) -> dict[str, Spec]:
    """A spec for every model with a card, its weights verified.

    Reads all weights, so it takes seconds to minutes; call it in a thread. Raises `ConfigInvalid`,
    `CardInvalid` or `WeightsInvalid`; all three say what to do.
    """
    on = device(config, machine)
    return {
        name: spec(config, name, model, on)
        for name, model in config.settings.models.items()
        if isinstance(model, LocalModel)
    }


def spec(config: Config, name: str, model: LocalModel, on: Literal["cpu", "cuda"]) -> Spec:
    """The spec of one model. Raises as `specs` does."""
    folder = named(config.models_folder, model.card)
    card = load_card(folder)
    where = f"models.{name}"
    if on not in card.hardware.devices:
        what = f"card {model.card} runs on {' or '.join(card.hardware.devices)}, this host's engines on {on}"
        raise ConfigInvalid(str(config.file), [Problem(f"{where}.card", what)])
    if model.context_length is not None and model.context_length > card.context_length:
        what = f"is over the card's {card.context_length}"
        raise ConfigInvalid(str(config.file), [Problem(f"{where}.context_length", what)])
    python = config.path(config.settings.engines.environment) / "bin" / "python"
    if not os.access(python, os.X_OK):
        what = f"{python} isn't there; `make serve` installs it, or name another environment"
        raise ConfigInvalid(str(config.file), [Problem("engines.environment", what)])
    weights = folder / "weights"
    return Spec(name, card, model, weights, python, on, vouch(weights, card), spare_cores())


def spare_cores() -> int:
    """Physical cores that this process may use, less one for everything but a model's arithmetic; at least one."""
    topology = Path("/sys/devices/system/cpu")
    siblings = (topology / f"cpu{number}" / "topology" / "thread_siblings_list" for number in os.sched_getaffinity(0))
    return max(1, len({file.read_text() if file.exists() else str(file) for file in siblings}) - 1)


def check(config: Config) -> None:
    """All that can be known of a config without starting anything. Raises as `specs` does."""
    specs(config, Machine.here())
