"""What fits onto this host: the models of a config, and each card that it does not serve. Nothing is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from appliance.config import Config, Idle, LocalModel
from appliance.engines.account import size
from appliance.engines.capacity import Gpu, Memory, Need, need, objection
from appliance.engines.command import Spec
from appliance.engines.measured import Measured
from appliance.engines.specs import candidate
from appliance.errors import ApplianceError, WeightsInvalid
from appliance.weights import manifest
from appliance.weights.card import Card, load_card, named

_LEAST_CACHE_GIB = 0.25
"""Below which nobody is told to shrink a KV cache to."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model of the config, or its candidate."""

    card: str
    task: str
    need: Need
    cache_gib: float
    """Of its need, what the config gives the KV cache; 0 where it has none of its own."""


@dataclass(frozen=True, slots=True)
class Unserved:
    """A card that the config doesn't name."""

    card: str
    task: str
    need: Need | None
    """None where it can't run here."""
    besides: bool
    """Whether it fits besides all that is served: also, for as long as it would take to start in somebody's place."""
    instead_of: tuple[str, ...]
    """Models of its task in whose place it fits."""
    why: str
    """Why not, where it doesn't fit besides."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """What `appliance plan` says."""

    wanted: Mapping[str, Wanted]
    why: str | None
    """Why not all of it fits; None where it does."""
    advice: tuple[str, ...]
    """What to change, if not."""
    unserved: tuple[Unserved, ...]


def fitting(config: Config, on: Literal["cpu", "cuda"], memory: Memory, held: float, measured: Measured) -> Fitting:
    """What fits into `memory`, of which engines hold `held` GiB by now.

    Weights are taken to be what their records say; nothing of them is read. Raises `CardInvalid`.
    """
    gpu = min(memory.gpus, key=lambda gpu: gpu.total) if memory.gpus else None
    wanted: dict[str, Wanted] = {}
    for name, model in config.settings.models.items():
        if isinstance(model, LocalModel):
            wanted[name] = _wanted(config, name, model, on, measured, gpu)
            if model.rollout is not None:
                tried = model.model_copy(update={"card": model.rollout.card, "rollout": None, "idle": Idle()})
                wanted[candidate(name)] = _wanted(config, name, tried, on, measured, gpu)
    needs = {slot: each.need for slot, each in wanted.items()}
    why = objection(needs, memory, held)
    served = {each.card for each in wanted.values()}
    others = sorted(file.parent.name for file in config.models_folder.glob("*/card.yaml"))
    unserved = tuple(
        _unserved(config, card, on, measured, gpu, wanted, memory, held) for card in others if card not in served
    )
    advice = _advice(wanted, unserved, memory, held) if why is not None else ()
    return Fitting(wanted, why, advice, unserved)


def _wanted(
    config: Config, name: str, model: LocalModel, on: Literal["cpu", "cuda"], measured: Measured, gpu: Gpu | None
) -> Wanted:
    found = _need(config, name, model, load_card(named(config.models_folder, model.card)), on, measured, gpu)
    card = load_card(named(config.models_folder, model.card))
    cache = model.kv_cache.space_gib if card.task == "chat" and on == "cpu" and model.memory_gib is None else 0.0
    return Wanted(model.card, card.task, found, cache)


def _need(
    config: Config, name: str, model: LocalModel, card: Card, on: Literal["cpu", "cuda"], measured: Measured,
    gpu: Gpu | None,
) -> Need:  # fmt: skip
    weights = config.models_folder / model.card / "weights"
    try:
        fingerprint = manifest.fingerprint(manifest.read(weights))
    except WeightsInvalid:
        fingerprint = ""
    python = config.path(config.settings.engines.environment)
    spec = Spec(name, card, model, weights, python, on, fingerprint)
    return need(spec, size(weights), measured.of(spec), gpu)


def _unserved(
    config: Config, name: str, on: Literal["cpu", "cuda"], measured: Measured, gpu: Gpu | None,
    wanted: Mapping[str, Wanted], memory: Memory, held: float,
) -> Unserved:  # fmt: skip
    try:
        card = load_card(config.models_folder / name)
    except ApplianceError:
        return Unserved(name, "?", None, besides=False, instead_of=(), why="its card has mistakes")
    if on not in card.hardware.devices:
        why = f"it runs on {' or '.join(card.hardware.devices)} only"
        return Unserved(name, card.task, None, besides=False, instead_of=(), why=why)
    found = _need(config, name, LocalModel(card=name), card, on, measured, gpu)
    needs = {slot: each.need for slot, each in wanted.items()}
    why_not = objection(needs | {f"{name} (besides)": found}, memory, held)
    instead = []
    for slot, each in wanted.items():
        if each.task == card.task:
            # with the settings that the model has now, as after an edit of its `card` alone
            model = config.settings.models[slot.partition("@")[0]]
            assert isinstance(model, LocalModel)  # noqa: S101 - endpoints are not among those wanted
            edited = model.model_copy(update={"card": name, "rollout": None, "adapters": {}})
            there = _need(config, slot, edited, card, on, measured, gpu)
            if objection(needs | {slot: there}, memory, held) is None:
                instead.append(slot)
    return Unserved(name, card.task, found, why_not is None, tuple(instead), "" if why_not is None else "no room")


def _advice(
    wanted: Mapping[str, Wanted], unserved: tuple[Unserved, ...], memory: Memory, held: float
) -> tuple[str, ...]:
    """What would make it fit, each by itself."""
    said: list[str] = []
    needs = {slot: each.need for slot, each in wanted.items()}
    if memory.gpus:
        share = {slot: round(each.share / 2, 2) for slot, each in needs.items()}
        said.append(
            "lower the shares: " + ", ".join(f"`models.{slot}.kv_cache.gpu_memory_share: {to:g}`"
            for slot, to in share.items())
        )  # fmt: skip
    over = -memory.room(sum(each.gib for each in needs.values()), held)
    for slot, each in sorted(wanted.items(), key=lambda item: -item[1].cache_gib):
        smaller = int((each.cache_gib - over) * 10) / 10
        if smaller >= _LEAST_CACHE_GIB and not memory.gpus:
            said.append(
                f"a smaller KV cache: `models.{slot}.kv_cache.space_gib: {smaller:g}` (now {each.cache_gib:g}); "
                "fewer or shorter conversations at once go into it"
            )
            break
    idle = {slot: replace(each, may_idle=True) for slot, each in needs.items() if "@" not in slot}
    if len(needs) > 1 and not all(needs[slot].may_idle for slot in idle) and not objection(needs | idle, memory, held):
        said.append(
            "let models take turns: `idle: {after_seconds: 600}` for each; whoever asks for one that idles waits for "
            "its start"
        )
    for other in sorted(unserved, key=lambda other: other.need.gib if other.need else 0):
        if other.instead_of:
            said.append(f"a smaller card: `models.{other.instead_of[0]}.card: {other.card}`")
            break
    if memory.most is not None and memory.most < memory.free + held - memory.reserve:
        said.append("a higher `engines.memory_gib`: this host has more")
    return tuple(said) or ("serve fewer models, or give this host more memory",)
