"""How much memory an engine needs, how much there is, and whether the one goes into the other. Pure.

Without a GPU an engine takes main memory: its weights, its KV cache (touched as a whole at the start) and what vLLM's
three processes take for themselves. On GPUs it takes the share of each that the config gives it, whatever the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from appliance.config import Engines, LocalModel
from appliance.engines.command import Spec
from appliance.weights.card import Card, Quantization

GIB = 2**30
Of = Literal["main", "gpu"]

_ENGINE_GIB: Mapping[str, float] = {"chat": 1.8, "embedding": 1.5, "rerank": 1.5}
"""What vLLM 0.32 takes beside weights and KV cache, by task: server, core and worker together, as measured on a CPU
under load (docs/models.md). Once an engine has run here, what it took counts instead."""
_WHILE_LOADING: Mapping[Quantization, float] = {"bitsandbytes-4bit": 0.3, "int8-weight-only": 0.5}
"""What is quantized while it is loaded: share of the weights' files that is there in the new format as well, while
the old one is not given back yet. A measurement counts the moment at which both are there, too."""
_ON_GPU_GIB = 1.5
"""What CUDA, its graphs and activations take on a GPU beside weights and KV cache, at least."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Need:
    """What one engine takes."""

    parts: Mapping[str, float]
    """GiB, by what they are for."""
    of: Of = "main"
    share: float = 0.0
    """Of each of `gpus` GPUs; 0 without."""
    gpus: int = 0
    known: str = ""
    """Where the figure is from, where it isn't reckoned."""
    may_idle: bool = False
    """Whether it gives its memory back while nobody asks for it."""

    @property
    def gib(self) -> float:
        """All of it together."""
        return sum(self.parts.values())

    @property
    def words(self) -> str:
        """How that was reckoned, such as `weights 0.2, KV cache 2, engine 1.8`."""
        return self.known or ", ".join(f"{name} {_figure(gib)}" for name, gib in self.parts.items())


@dataclass(frozen=True, slots=True)
class Gpu:
    """One graphics card: GiB in all, and GiB that others than engines took when the appliance started."""

    total: float
    others: float = 0.0

    @property
    def share(self) -> float:
        """Of its memory, what engines may have."""
        return 1 - self.others / self.total


@dataclass(frozen=True, slots=True)
class Memory:
    """What there is for engines, in GiB."""

    total: float
    """All that this host, or the limits set to this process, or all GPUs together have."""
    free: float
    """What nobody takes now."""
    reserve: float = 0.0
    """What is to be left of that."""
    most: float | None = None
    """What the administrator lets all engines take together; None: all that there is."""
    gpus: tuple[Gpu, ...] = ()

    @classmethod
    def of_engines(cls, settings: Engines, total: float, free: float, gpus: Iterable[Gpu]) -> Memory:
        """What engines may have: main memory, of which there is `total` and `free`, or that of the GPUs.

        GPUs are taken as they were at the start, since nobody else is meant to use them.
        """
        if not (cards := tuple(gpus)):
            return cls(total, free, settings.reserve_gib, settings.memory_gib)
        total = sum(gpu.total for gpu in cards)
        return cls(total, total - sum(gpu.others for gpu in cards), 0.0, settings.memory_gib, cards)

    @property
    def of(self) -> Of:
        """What kind it is."""
        return "gpu" if self.gpus else "main"

    def room(self, taken: float, held: float) -> float:
        """What may be taken anew while engines were promised `taken` together, of which they hold `held` by now.

        Under 0 where it is too much already.
        """
        room = self.free + held - self.reserve - taken
        return room if self.most is None else min(room, self.most - taken)


def need(spec: Spec, weights_gib: float | None, measured: float | None = None, gpu: Gpu | None = None) -> Need:
    """What an engine for `spec` will take, at its most.

    `weights_gib` is the size of its files, None while they aren't there; `measured` what the same engine took before
    on this host; `gpu` the smallest of the GPUs that it would run on, for `spec.device` cuda.

    `memory_gib` of the config wins over a measurement, and that over reckoning. The card's `hardware.memory_gib` is its
    author's guess with a KV cache of unknown size, so it only stands in for weights that aren't there.
    """
    return replace(_need(spec, weights_gib, measured, gpu), may_idle=spec.settings.idle.after_seconds is not None)


def _need(spec: Spec, weights_gib: float | None, measured: float | None, gpu: Gpu | None) -> Need:
    settings = spec.settings
    if spec.device == "cuda":
        return _on_gpus(spec.card, settings, gpu)
    if settings.memory_gib is not None:
        return Need({"engine": settings.memory_gib}, known="as `memory_gib` says")
    if measured is not None:
        return Need({"engine": measured}, known="as it took before")
    if weights_gib is None:
        return Need({"engine": spec.card.hardware.memory_gib}, known="as its card says; its weights aren't here")
    loading = _WHILE_LOADING.get(spec.card.quantization, 0.0)
    parts = {"weights": weights_gib * (1 + loading)}
    if spec.card.task == "chat":
        parts["KV cache"] = settings.kv_cache.space_gib
    return Need(parts | {"engine": _ENGINE_GIB[spec.card.task]})


def _on_gpus(card: Card, settings: LocalModel, gpu: Gpu | None) -> Need:
    share, gpus = settings.kv_cache.gpu_memory_share, settings.tensor_parallel
    total = gpu.total if gpu is not None else (card.hardware.gpu_memory_gib or 0) / share / gpus
    gib = share * total * gpus
    each = "a GPU" if gpus == 1 else f"each of {gpus} GPUs"
    return Need({"engine": gib}, "gpu", share, gpus, known=f"{share:g} of {each}")


def too_small(spec: Spec, weights_gib: float | None, gpu: Gpu) -> str | None:
    """Why the model can't run with its share of GPUs like `gpu`, whatever else runs; None where it can."""
    settings = spec.settings
    share, gpus = settings.kv_cache.gpu_memory_share, settings.tensor_parallel
    has = share * gpu.total * gpus
    least = max(spec.card.hardware.gpu_memory_gib or 0, (weights_gib or 0) + _ON_GPU_GIB * gpus)
    if least <= has:
        return None
    cards = f"a GPU of {_figure(gpu.total)} GiB" if gpus == 1 else f"{gpus} GPUs of {_figure(gpu.total)} GiB"
    return f"{share:g} of {cards} is {_figure(has)} GiB, and {settings.card} needs {_figure(least)}"


def objection(needs: Mapping[str, Need], memory: Memory, held: float = 0.0) -> str | None:
    """Why engines with these needs can't be served together in `memory`, of which engines hold `held` GiB now.

    None where they can: those that never idle all at once, and beside them any one of those that may.
    """
    always = {name: each for name, each in needs.items() if not each.may_idle}
    idling = {name: each for name, each in needs.items() if each.may_idle}
    if memory.gpus:
        each_with_all = [always | {name: each} for name, each in idling.items()] or [always]
        return next(filter(None, (_does_not_place(together, memory.gpus) for together in each_with_all)), None)
    if idling:
        largest = max(idling, key=lambda name: idling[name].gib)
        always[largest] = idling[largest]
    taken = sum(each.gib for each in always.values())
    if memory.room(taken, held) >= 0:
        return None
    listed = "; ".join(f"{name} needs {_figure(each.gib)} GiB ({each.words})" for name, each in always.items())
    together = f", {_figure(taken)} together" if len(always) > 1 else ""
    if memory.most is not None and memory.most < memory.free + held - memory.reserve:
        return f"{listed}{together}; `engines.memory_gib` lets engines take {_figure(memory.most)}"
    return (
        f"{listed}{together}; {_figure(memory.free + held)} GiB are there for engines, "
        f"of which {memory.reserve:g} are kept in reserve"
    )


def place_beside(
    need: Need, taken: Iterable[tuple[tuple[int, ...], float]], gpus: Sequence[Gpu]
) -> tuple[int, ...] | None:
    """The GPUs for one more, where least is left; None where it has no place.

    `taken` are the GPUs of each that runs, by their numbers, and its share of each.
    """
    left = {number: gpu.share for number, gpu in enumerate(gpus)}
    for numbers, share in taken:
        for number in numbers:
            left[number] -= share
    fitting = sorted((free, number) for number, free in left.items() if free >= need.share - _ROUNDING)
    return tuple(sorted(number for _, number in fitting[: need.gpus])) if len(fitting) >= need.gpus else None


def place(needs: Mapping[str, Need], gpus: Sequence[Gpu]) -> dict[str, tuple[int, ...]] | None:
    """On which GPUs each runs, the largest shares first and each where least is left; None where one has no place."""
    placed: dict[str, tuple[int, ...]] = {}
    for name, each in sorted(needs.items(), key=lambda item: (-item[1].gpus, -item[1].share, item[0])):
        taken = ((numbers, needs[other].share) for other, numbers in placed.items())
        if (numbers := place_beside(each, taken, gpus)) is None:
            return None
        placed[name] = numbers
    return placed


def _does_not_place(needs: Mapping[str, Need], gpus: tuple[Gpu, ...]) -> str | None:
    if place(needs, gpus) is not None:
        return None
    listed = ", ".join(
        f"{name} {each.share:g}{f' of each of {each.gpus}' if each.gpus > 1 else ''}" for name, each in needs.items()
    )
    there = "1 GPU" if len(gpus) == 1 else f"{len(gpus)} GPUs"
    others = any(gpu.others for gpu in gpus)
    free = f" with {', '.join(f'{gpu.share:.2f}' for gpu in gpus)} free for engines" if others else ""
    return (
        f"the shares of GPU memory don't go onto {there}{free}: {listed}. Those on one GPU may be 1 together at most; "
        "lower `kv_cache.gpu_memory_share`"
    )


def _figure(gib: float) -> str:
    return f"{gib:.1f}".removesuffix(".0")
