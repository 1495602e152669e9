"""Slots: a public name, or `candidate(name)` for the card that is tried beside it. What each is to hold, what answers
for a name then, and what that changes, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.config import Config, LocalModel, RemoteModel
from appliance.engines.command import Spec
from appliance.engines.served import Arms, Served, Split
from appliance.engines.specs import candidate


def wanted(config: Config, specs: Mapping[str, Spec]) -> dict[str, Spec | RemoteModel]:
    """What each slot of a config is to hold."""
    slots: dict[str, Spec | RemoteModel] = {}
    for name, model in config.settings.models.items():
        slots[name] = model if isinstance(model, RemoteModel) else specs[name]
        if isinstance(model, LocalModel) and model.rollout is not None:
            slots[candidate(name)] = specs[candidate(name)]
    return slots


def arms(config: Config, slots: Mapping[str, Served]) -> dict[str, Arms]:
    """What answers for each public name, with the shares that the config says."""
    found: dict[str, Arms] = {}
    for name, model in config.settings.models.items():
        tried = slots.get(candidate(name))
        found[name] = Arms(slots[name], tried)
        if tried is not None and isinstance(model, LocalModel) and model.rollout is not None:
            rollout = model.rollout
            split = Split(rollout.percent, rollout.by, salt(name, tried))
            if rollout.mode == "shadow":
                found[name] = Arms(slots[name], tried, mirror=split)
            elif rollout.mode != "blue-green":
                found[name] = Arms(slots[name], tried, split)
    return found


def salt(name: str, tried: Served) -> str:
    """What the requests for a candidate are drawn with."""
    return f"{name}/{tried.version}"


def changes(before: Mapping[str, Arms], after: Mapping[str, Arms]) -> list[str]:
    """What a change came to, in words."""
    said = []
    for name, arms in after.items():
        old = before.get(name)
        if old is None or old.stable is not arms.stable:
            said.append(f"{name}: now answered by {_words(arms.stable)}")
        if arms.candidate is not None and (old is None or old.candidate is not arms.candidate):
            said.append(f"{name}: {_words(arms.candidate)} is tried beside it")
    for name, arms in before.items():
        if name not in after:
            said.append(f"{name}: no longer served")
        elif arms.candidate is not None and arms.candidate not in (after[name].candidate, after[name].stable):
            said.append(f"{name}: {_words(arms.candidate)} is no longer tried")
    return said


def _words(served: Served) -> str:
    return served.engine.spec.settings.card if served.engine else f"the endpoint's {served.upstream_name}"
