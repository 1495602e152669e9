"""From a config to what its engines are to run: a spec for every model with a card, its weights verified."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from appliance.config import Config, Idle, LocalModel
from appliance.engines import memory
from appliance.engines.account import size
from appliance.engines.capacity import Gpu, Memory, need, objection, too_small
from appliance.engines.command import Spec
from appliance.errors import CardInvalid, ConfigInvalid, Problem, WeightsInvalid
from appliance.weights.adapters import adapters
from appliance.weights.card import Acceptance, load_card, named
from appliance.weights.manifest import vouch


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
        raise config.wrong("is cuda, but no NVIDIA driver is loaded on this host", "engines", "device")
    return "cuda" if wanted == "cuda" or (wanted == "auto" and machine.cuda) else "cpu"


def specs(config: Config, machine: Machine) -> dict[str, Spec]:
    """A spec for every model with a card, its weights verified; that of its candidate under `candidate(name)`.

    Reads all weights, so it takes seconds to minutes; call it in a thread. Raises `ConfigInvalid`,
    `CardInvalid` or `WeightsInvalid`; all three say what to do.
    """
    on = device(config, machine)
    found: dict[str, Spec] = {}
    for name, model in config.settings.models.items():
        if isinstance(model, LocalModel):
            found[name] = spec(config, name, model, on)
            if model.rollout is not None:
                tried = model.model_copy(update={"card": model.rollout.card, "rollout": None, "idle": Idle()})
                found[candidate(name)] = trial = spec(config, name, tried, on, "rollout")
                if (task := trial.card.task) != found[name].card.task:
                    what = f"is a card for {task}, and {model.card} is one for {found[name].card.task}"
                    raise config.wrong(what, "models", name, "rollout", "card")
    return found


def candidate(name: str) -> str:
    """Under what the spec, and the engine, of a name's candidate is kept. No public name holds an `@`."""
    return f"{name}@candidate"


def same(one: Spec, other: Spec) -> bool:
    """Whether one engine can run both: what else differs is taken over while it runs."""
    return _of_engine(one) == _of_engine(other)


def _of_engine(spec: Spec) -> Spec:
    """Without what an engine isn't started with: the gate is asked of it, by whichever card holds then."""
    card = spec.card.model_copy(update={"gate": Acceptance()})
    return replace(spec, settings=spec.settings.of_engine, card=card)


def spec(config: Config, name: str, model: LocalModel, on: Literal["cpu", "cuda"], *within: str) -> Spec:
    """The spec of one model; `within` is where below it the config names the card. Raises as `specs` does."""
    where = ("models", name)
    try:
        folder = named(config.models_folder, model.card)
    except CardInvalid as cause:
        raise config.wrong(cause.problems[0].what, *where, *within, "card") from cause
    card = load_card(folder)
    if on not in card.hardware.devices:
        what = f"card {model.card} runs on {' or '.join(card.hardware.devices)}, this host's engines on {on}"
        raise config.wrong(what, *where, *within, "card")
    if model.context_length is not None and model.context_length > card.context_length:
        raise config.wrong(f"is over the card's {card.context_length}", *where, "context_length")
    for setting, value, instead in ((("idle", "then"), model.idle.then, "stop"), (("swap",), model.swap, "replace")):
        if value == "sleep" and on == "cpu":
            what = f"sleep has an engine give back a GPU's memory, and engines run on the CPU here; take `{instead}`"
            raise config.wrong(what, *where, *setting)
    python = config.path(config.settings.engines.environment) / "bin" / "python"
    if not os.access(python, os.X_OK):
        what = f"{python} isn't there; `make serve` installs it, or name another environment"
        raise config.wrong(what, "engines", "environment")
    weights = folder / "weights"
    if model.adapters and card.task != "chat":
        raise config.wrong(f"only for chat, not for {card.task}", *where, "adapters")
    there = adapters(folder) if model.adapters else {}
    for public, adapter in model.adapters.items():
        if adapter not in there:
            what = f"card {model.card} has no adapter {adapter!r}; it has: {', '.join(there) or 'none'}"
            raise config.wrong(what, *where, "adapters", public)
    beside = {public: there[adapter] for public, adapter in model.adapters.items()}
    try:
        fingerprint = vouch(weights, card)
    except WeightsInvalid as cause:
        raise WeightsInvalid(f"{'.'.join((*where, *within, 'card'))}: {cause}") from cause
    return Spec(name, card, model, weights, python, on, fingerprint, spare_cores(), beside)


def unchanged(spec: Spec) -> bool:
    """Whether weights and adapters are still those of `spec`; reads them all. Raises `WeightsInvalid`."""
    folder = spec.weights.parent
    beside = adapters(folder) if spec.adapters else {}
    return vouch(spec.weights, spec.card) == spec.fingerprint and all(
        beside.get(adapter.folder.name) == adapter for adapter in spec.adapters.values()
    )


def spare_cores() -> int:
    """Physical cores that this process may use, less one for everything but a model's arithmetic; at least one."""
    topology = Path("/sys/devices/system/cpu")
    siblings = (topology / f"cpu{number}" / "topology" / "thread_siblings_list" for number in os.sched_getaffinity(0))
    return max(1, len({file.read_text() if file.exists() else str(file) for file in siblings}) - 1)


def require_shares(config: Config, specs: Mapping[str, Spec], gpus: Sequence[Gpu]) -> None:
    """See that all engines go onto these GPUs, each with the share that it was given. Raises `ConfigInvalid`."""
    if not gpus:
        return
    smallest = min(gpus, key=lambda gpu: gpu.total)
    problems = [
        Problem(f"models.{slot}.kv_cache.gpu_memory_share", why)
        for slot, spec in specs.items()
        if (why := too_small(spec, size(spec.weights), smallest)) is not None
    ]
    total = sum(gpu.total for gpu in gpus)
    needs = {slot: need(spec, None, gpu=smallest) for slot, spec in specs.items()}
    if (why := objection(needs, Memory(total, total, gpus=tuple(gpus)))) is not None:
        problems.append(Problem("models", why))
    if problems:
        raise ConfigInvalid(str(config.file), problems)


def check(config: Config) -> None:
    """All that can be known of a config without starting anything. Raises as `specs` does."""
    machine = Machine.here()
    found = specs(config, machine)
    if device(config, machine) == "cuda":
        require_shares(config, found, memory.gpus())
