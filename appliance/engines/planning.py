"""What a config would change of the models that run, and in which order, so that memory suffices. Pure.

Everything is counted per slot: a public name, or `candidate(name)` for the card that is tried beside it. What starts,
starts at once; what must make room for it ends before. So whatever fits in the end, fits on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from appliance.config import RemoteModel
from appliance.engines.capacity import Need
from appliance.engines.command import Spec
from appliance.engines.specs import candidate, same
from appliance.errors import DoesNotFit

Objection = Callable[[Mapping[str, Need]], str | None]
"""Why engines with these needs can't run together here; None where they can."""

Action = Literal["keep", "settings", "beside", "replace", "sleep", "start", "stop", "rollout", "drop"]


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one slot."""

    name: str
    action: Action
    old: str | None
    """Version of what answers now; None for nothing."""
    new: str | None
    needs_gib: float
    """Memory that is taken anew."""
    why: str
    """In words, for whoever asks for a plan."""


@dataclass(frozen=True, slots=True)
class Model:
    """What stands in a slot, or is wanted there."""

    what: Spec | RemoteModel
    need: Need | None = None
    """Memory that its engine takes; None where that isn't looked at."""
    can_sleep: bool = False
    """Whether its engine was started so that it can sleep."""

    @property
    def gib(self) -> float:
        """Memory that its engine takes."""
        return self.need.gib if self.need is not None else 0.0

    @property
    def version(self) -> str:
        """As `Served.version`."""
        return self.what.version if isinstance(self.what, Spec) else "endpoint"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in the order in which they come, what makes room first, and what goes on under another slot."""

    steps: tuple[Step, ...]
    early: Mapping[str, Literal["replace", "sleep"]] = field(default_factory=dict)
    """Standing slots whose engines give their memory back before anything starts."""
    takes: Mapping[str, str] = field(default_factory=dict)
    """Wanted slot to the standing one whose engine it takes over."""

    @property
    def idle(self) -> bool:
        """Whether nothing would change."""
        return all(step.action == "keep" for step in self.steps)


def name_of(slot: str) -> str:
    """The public name of a slot."""
    return slot.partition("@")[0]


def plan(
    standing: Mapping[str, Model], wanted: Mapping[str, Model], objection: Objection | None = None,
    others: Mapping[str, Need] | None = None,
) -> Plan:  # fmt: skip
    """How to come from `standing` to `wanted`.

    `objection` tells why engines can't run together; without it, all that are wanted can. `others` run as well, and
    stay. Raises `DoesNotFit`, with the numbers, when memory doesn't suffice for it.
    """
    takes = _taken_over(standing, wanted)
    starting = {slot: model for slot, model in wanted.items() if slot not in takes}
    going = {slot: model for slot, model in standing.items() if slot not in takes.values()}
    staying = {source: wanted[slot] for slot, source in takes.items()}
    if not starting and all(wanted[slot].gib <= standing[source].gib for slot, source in takes.items()):
        objection = None  # nothing takes more than before, whether it fits by now or not
    early = _early(starting, going, lambda left: _objection(objection, others or {}, staying, starting, left))
    steps = [
        _step(slot, standing, wanted, takes, early)
        for slot in sorted({*standing, *wanted}, key=lambda slot: (slot not in early, slot not in going, slot))
    ]
    return Plan(tuple(steps), early, takes)


def _objection(
    objection: Objection | None, others: Mapping[str, Need], staying: Mapping[str, Model],
    starting: Mapping[str, Model], left: Mapping[str, Model],
) -> str | None:  # fmt: skip
    """Why what is started can't run beside what is `left` of those that go, or not be served with those that stay."""
    if objection is None:
        return None
    stays, goes, comes = (
        {f"{slot} ({each.version})": each.need for slot, each in models.items() if each.need is not None}
        for models in (staying, left, starting)
    )
    # those that may idle make room meanwhile, but for those that the change is about
    at_once = {name: replace(need, may_idle=False) for name, need in (goes | comes).items()}
    at_once |= {name: need for name, need in stays.items() if not need.may_idle}
    return objection({**others, **at_once}) or objection(stays | comes)


def _taken_over(standing: Mapping[str, Model], wanted: Mapping[str, Model]) -> dict[str, str]:
    """Wanted slot to a standing one of the same name that an engine need not be started for."""
    takes: dict[str, str] = {}
    for slot, model in wanted.items():
        name = name_of(slot)
        for source in sorted((name, candidate(name)), key=lambda source: source != slot):
            if source in standing and source not in takes.values() and _same(standing[source].what, model.what):
                takes[slot] = source
                break
    return takes


def _same(one: Spec | RemoteModel, other: Spec | RemoteModel) -> bool:
    if isinstance(one, Spec) and isinstance(other, Spec):
        return same(one, other)
    return one == other


def _early(
    starting: Mapping[str, Model], going: Mapping[str, Model], objection: Callable[[Mapping[str, Model]], str | None]
) -> dict[str, Literal["replace", "sleep"]]:
    """Which of those that go have to go first. Raises `DoesNotFit`."""
    early: dict[str, Literal["replace", "sleep"]] = {}
    for slot in going:
        if (how := _told(starting.get(slot))) in ("replace", "sleep"):
            early[slot] = _way(how, going[slot])
    held = [slot for slot in going if _told(starting.get(slot)) == "beside"]
    ready = [slot for slot in going if slot not in early and slot not in held and isinstance(going[slot].what, Spec)]
    # first who is not waited for: what is no longer wanted, or is only tried; then whatever gives most, to hold up few
    ready.sort(key=lambda slot: (slot in starting and slot == name_of(slot), -going[slot].gib))
    while (why := objection({slot: each for slot, each in going.items() if slot not in early})) is not None:
        if not ready:
            raise DoesNotFit(_too_much(why, going, early, held))
        early[ready[0]] = _way(_told(starting.get(ready[0])), going[ready[0]])
        del ready[0]
    return early


def _told(model: Model | None) -> str:
    """What the config says of how a model takes over."""
    return model.what.settings.swap if model is not None and isinstance(model.what, Spec) else "auto"


def _way(told: str, standing: Model) -> Literal["replace", "sleep"]:
    return "sleep" if told in ("sleep", "auto") and standing.can_sleep else "replace"


def _too_much(why: str, going: Mapping[str, Model], early: Mapping[str, str], held: Sequence[str]) -> str:
    frees = " and ".join(f"{going[slot].version}, which frees {going[slot].gib:.1f} GiB" for slot in sorted(early))
    told = f"not enough memory{f', also without {frees}' if frees else ''}: {why}"
    if held:
        return f"{told}. `swap: beside` keeps {', '.join(held)} from making room; `swap: auto` would let it"
    return f"{told}. Take a smaller card, a smaller `kv_cache` or `context_length`, or serve fewer models"


def _step(
    slot: str,
    standing: Mapping[str, Model],
    wanted: Mapping[str, Model],
    takes: Mapping[str, str],
    early: Mapping[str, Literal["replace", "sleep"]],
) -> Step:
    name, tried = name_of(slot), slot != name_of(slot)
    before, after = standing.get(slot), wanted.get(slot)
    old = before.version if before is not None else None
    new = after.version if after is not None else None
    if after is None:
        if tried and slot in takes.values():
            return Step(name, "drop", old, None, 0, "it is the candidate no more, and takes over")
        why = "it is no longer tried" if tried else "it is no longer served"
        if slot in early:
            why += ", and makes room before"
        return Step(name, "drop" if tried else "stop", old, None, 0, why)
    if (source := takes.get(slot)) == slot:
        if before is not None and before.what != after.what:
            return Step(name, "settings", old, new, 0, "other settings are taken over while it runs")
        return Step(name, "keep", old, new, 0, "nothing of it changes")
    if source is not None:
        why = "the engine that runs already takes over" if not tried else "what has answered so far is the one tried"
        return Step(name, "rollout" if tried else "beside", old, new, 0, why)
    if tried:
        return Step(name, "rollout", old, new, after.gib, f"{_needs(after)} beside what answers")
    if before is None:
        return Step(name, "start", None, new, after.gib, _needs(after))
    if (how := early.get(slot)) is None:
        why = f"{_needs(after)} beside what runs, and there is room"
        return Step(name, "beside", old, new, after.gib, why + _other_task(before, after))
    if _told(after) in ("replace", "sleep"):
        why = f"`swap: {_told(after)}` says so"
    else:
        why = f"{_needs(after)}, and there is no room for that while {old} runs"
    return Step(name, how, old, new, after.gib, f"{why}; requests wait meanwhile" + _other_task(before, after))


def _other_task(before: Model, after: Model) -> str:
    """What callers lose where a name gets a model for something else."""
    if isinstance(before.what, Spec) and isinstance(after.what, Spec) and before.what.card.task != after.what.card.task:
        was, becomes = before.what.card.task, after.what.card.task
        return f". Mind: it is a model for {becomes}, and whoever asks this name for {was} is refused from then on"
    return ""


def _needs(model: Model) -> str:
    if not model.gib:
        return "it needs no memory here" if isinstance(model.what, RemoteModel) else "it needs memory"
    return f"it needs {model.gib:.1f} GiB"
