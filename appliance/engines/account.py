"""The account of memory: what engines need, what they take, and what is left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.config import Engines
from appliance.engines import capacity
from appliance.engines.capacity import GIB, Gpu, Memory, Need
from appliance.engines.command import Spec
from appliance.engines.engine import Engine, State
from appliance.engines.measured import Measured
from appliance.engines.memory import Kernel
from appliance.errors import DoesNotFit, WeightsInvalid
from appliance.weights import manifest

_RESTS = (State.STOPPED, State.IDLE)


class Account:
    """Who knows how much memory there is, and how much engines take. One per appliance.

    Without GPUs it is about main memory, with them about theirs.
    """

    def __init__(
        self, state: Path, settings: Engines, gpus: Sequence[Gpu] = (), kernel: Kernel | None = None,
        measured: Measured | None = None,
    ) -> None:  # fmt: skip
        """`gpus` are those that engines run on; none where they run without."""
        self._state = state
        self._settings = settings
        self._gpus = tuple(gpus)
        self._kernel = kernel or Kernel()
        self._measured = measured or Measured(state)
        self._held: dict[Engine, float] = {}
        self._most: dict[Engine, float] = {}
        """What each has held so far at its most, also while it was loading."""
        self._places: dict[Engine, tuple[int, ...]] = {}
        self._sizes: dict[str, float | None] = {}

    def under(self, settings: Engines) -> Account:
        """The same, where the administrator sets other limits."""
        if settings == self._settings:
            return self
        other = Account(self._state, settings, self._gpus, self._kernel, self._measured)
        other._held, other._most, other._places, other._sizes = self._held, self._most, self._places, self._sizes
        return other

    def need(self, spec: Spec) -> Need:
        """What an engine for `spec` takes."""
        gpu = min(self._gpus, key=lambda gpu: gpu.total) if self._gpus else None
        return capacity.need(spec, self.weights(spec), self._measured.of(spec), gpu)

    def weights(self, spec: Spec) -> float | None:
        """GiB of the files that are loaded; None while they aren't prepared."""
        if spec.fingerprint not in self._sizes:
            self._sizes[spec.fingerprint] = size(spec.weights)
        return self._sizes[spec.fingerprint]

    def taken(self, engine: Engine) -> float:
        """GiB that an engine takes or was promised; 0 for one that rests."""
        # one that was just woken has its memory, whatever its state still is
        if engine.resting and (engine.state in _RESTS or (engine.state is State.ASLEEP and self._gpus)):
            return 0.0
        need = self.need(engine.spec).gib
        return need if self._gpus else max(need, self.held(engine))

    def place(self, engine: Engine) -> tuple[int, ...]:
        """The GPUs that an engine is to be started on, by their numbers; none where there are none.

        Raises `DoesNotFit` where its share isn't free on enough of them.
        """
        if not self._gpus:
            return ()
        need = self.need(engine.spec)
        for other in [other for other in self._places if other is engine or other.state is State.STOPPED]:
            del self._places[other]
        taken = [(on, self.need(other.spec).share) for other, on in self._places.items() if self.taken(other)]
        if (numbers := capacity.place_beside(need, taken, self._gpus)) is None:
            gpus = "GPU" if need.gpus == 1 else f"{need.gpus} GPUs"
            raise DoesNotFit(f"{engine.spec.name} needs {need.words}, and no {gpus} has so much free now")
        self._places[engine] = numbers
        return numbers

    def held(self, engine: Engine) -> float:
        """GiB of main memory that its processes held when they were last looked at; 0 where none runs."""
        return self._held.get(engine, 0.0) if engine.process is not None else 0.0

    def memory(self) -> Memory:
        """What there is now."""
        return Memory.of_engines(self._settings, self._kernel.total(), self._kernel.free(), self._gpus)

    def room(self, taken: float) -> float:
        """GiB that may be taken anew while engines take `taken` together; under 0 where it is too much already."""
        return self.memory().room(taken, 0.0 if self._gpus else self._all_held())

    def _all_held(self) -> float:
        return sum(map(self.held, self._held))

    def objection(self, needs: Mapping[str, Need]) -> str | None:
        """Why engines with these needs can't be served together here, with the numbers; None where they can."""
        return capacity.objection(needs, self.memory(), self._all_held())

    def look(self, engines: Iterable[Engine]) -> None:
        """Read what engines hold now, and remember the highest. About a tenth of a millisecond for each process."""
        running = {engine: engine.process.pid for engine in engines if engine.process is not None}
        for engine in self._held.keys() - running.keys():
            del self._held[engine], self._most[engine]
        for engine, pid in running.items():
            self._held[engine] = self._kernel.held(pid)
            self._most[engine] = max(self._most.get(engine, 0.0), self._held[engine])
            if engine.state is State.READY and not self._gpus:
                self._measured.note(engine.spec, self._most[engine])

    def describe(self, engines: Mapping[str, Engine]) -> dict[str, Any]:
        """For status: what there is, and what each engine holds and was promised, in GiB."""
        memory = self.memory()
        models = {
            slot: {"holds": round(self.held(engine), 3), "needs": asdict(self.need(engine.spec)), "state": engine.state}
            for slot, engine in engines.items()
        }
        return {**asdict(memory), "of": memory.of, "models": models}

    def described(self) -> Iterator[tuple[str, str, float]]:
        """For metrics: (model, version, bytes of main memory) of each engine that runs."""
        for engine in self._held:
            yield engine.spec.name, engine.spec.version, self.held(engine) * GIB


def size(weights: Path) -> float | None:
    """GiB of the files in a folder of weights, by their record; None where there is none."""
    with contextlib.suppress(WeightsInvalid):
        files = manifest.read(weights).files
        return sum(each.bytes for name, each in files.items() if name.endswith(".safetensors")) / GIB
    return None
