"""What answers for a public name: an engine or an endpoint, alone or beside a candidate, now or before long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from appliance.config import RemoteModel
from appliance.core import Task
from appliance.engines.engine import Engine, State, describe
from appliance.engines.upstream import Upstream

Tell = Callable[[str], None]
"""Takes a line of progress for whoever waits."""

Accept = Callable[[Engine, Engine | None, Tell], Awaitable[None]]
"""Is given a new engine that has answered, the one that it replaces (which may rest by then) or None, and a `Tell`.

Returns if the new one may take over; raises `EngineFailed` with the reason in plain words.
"""


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


class Coming:
    """A promise that something will answer for a name before long: whoever asks for it meanwhile waits."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        """How long a request waits at most."""
        self.listeners: list[Callable[[], None]] = []
        """Called once, when it has come, or won't: `Fleet.find` tells what answers now, if anything does."""

    def over(self) -> None:
        """It has come, or it won't."""
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            listener()


class Served:
    """What answers under one public name."""

    __slots__ = (
        "_coming", "_waits", "adapters", "base", "context_length", "default_tokens", "engine", "hold", "name", "remote",
        "task", "title", "trouble", "upstream_name", "version",
    )  # fmt: skip

    def __init__(self, name: str, source: Engine | tuple[RemoteModel, Upstream], base: Served | None = None) -> None:
        """`base` is what the engine's own model is served as; without it, `name` is that."""
        self.name = name
        self.base = base
        """Of an adapter; it shares the base's engine, queue and fate."""
        self.adapters: dict[str, Served] = {}
        """Adapters beside it, by their public names."""
        self.engine: Engine | None = None
        self.remote: RemoteHold | None = None
        self.version = "endpoint"
        """Card and weights, such as `smollm2-135m-int8@1a2b3c4d`; `endpoint` for an endpoint."""
        self.trouble: str | None = None
        """Why the last change of it was given up, in a line for the administrator; None since one went well."""
        self._coming: Coming | None = None
        self._waits = True
        if isinstance(source, Engine):
            self.engine = source
            card = source.spec.card
            self.task = Task(card.task)
            self.title = card.title
            self.version = source.spec.version
            if base is not None:
                adapter = source.spec.adapters[name]
                self.title = f"{card.title}, {adapter.folder.name}"
                self.version += f"+{adapter.folder.name}@{adapter.fingerprint[:8]}"
            else:
                self.adapters = {each: Served(each, source, self) for each in source.spec.adapters}
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

    @property
    def coming(self) -> Coming | None:
        """What a request that finds it not ready waits for; None: for nothing. An engine that idles is woken by it."""
        if self.base is not None:
            return self.base.coming
        engine = self.engine
        if self._coming is None and self._waits and engine is not None and engine.resting and not engine.obstacle:
            self._coming = coming = Coming(engine.spec.settings.wait_seconds)
            engine.listeners.append(self._heard)
            engine.call()
            return coming
        return self._coming

    def describe(self) -> dict[str, object]:
        """What `appliance status` shows of it."""
        if self.engine is None:
            return {"state": "endpoint"}
        return {**dict(describe(self.engine)), "awaited": self.awaited, "well": self.well, "trouble": self.trouble}

    @property
    def well(self) -> bool:
        """Whether a request is answered, be it after a while: it is ready, idles, or is on its way for who waits."""
        resting = self.engine is not None and self.engine.resting and not self.engine.obstacle
        return self.ready or resting or self.awaited

    @property
    def awaited(self) -> bool:
        """Whether requests wait for it."""
        return self._coming is not None

    def promise(self, coming: Coming) -> None:
        """It is being replaced: from now on requests wait for `coming`, until `keep`."""
        if self._waits and self._coming is None:  # else they wait already, for it to come back from idling
            self._coming = coming

    def refuse_waiting(self) -> None:
        """Nobody is to wait for it any more."""
        self._waits = False
        self.keep()

    def keep(self) -> None:
        """What was promised has come, or won't."""
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.over()

    def _heard(self) -> None:
        engine = self.engine
        if engine is not None and (engine.obstacle or engine.state in (State.READY, State.FAILED, State.STOPPED)):
            engine.listeners.remove(self._heard)
            self.keep()


@dataclass(frozen=True, slots=True)
class Split:
    """A share of the requests for a name, drawn by a stable hash."""

    percent: float
    by: Literal["user", "team", "request"]
    salt: str
    """Names the rollout, so that another one draws anew."""


@dataclass(frozen=True, slots=True)
class Arms:
    """All that may answer for one public name."""

    stable: Served
    candidate: Served | None = None
    """Another card that is being tried. When it isn't ready, everything goes to the stable one."""
    split: Split | None = None
    """The requests that the candidate answers."""
    mirror: Split | None = None
    """Those of which it gets a copy, whose answers nobody is shown."""
