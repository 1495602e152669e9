"""What was decided about candidates, on disk before it takes effect, so that a start finds it as it was decided."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from appliance import durable
from appliance.config import LocalModel, Settings
from appliance.errors import ConfigInvalid, Problem

What = Literal["promoted", "dropped", "weight"]

_FILE = "rollouts.json"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about the candidate of one rollout, as the config has it."""

    of: str
    """The digest of the rollout: an edited one is another, about which nothing was decided."""
    what: What
    by: str
    """`rule`, or who did it by hand: `host`, say. No name."""
    why: str
    at: float
    """Seconds since 1970."""
    percent: Annotated[float, Field(ge=0, le=100)] | None = None
    """The share that was set by hand."""


_READ = TypeAdapter(dict[str, Decision])


def digest(name: str, model: LocalModel) -> str:
    """What tells a rollout from any other: the public name, the card, and all of the section but defaults.

    So what was decided holds for an appliance that knows one setting more.
    """
    rollout = model.rollout.model_dump(mode="json", exclude_defaults=True) if model.rollout is not None else None
    return hashlib.sha256(json.dumps([name, model.card, rollout], sort_keys=True).encode()).hexdigest()


def standing(settings: Settings) -> dict[str, str]:
    """The digest of each rollout of a config, by public name."""
    return {
        name: digest(name, model)
        for name, model in settings.models.items()
        if isinstance(model, LocalModel) and model.rollout is not None
    }


def effective(settings: Settings, decisions: Mapping[str, Decision]) -> Settings:
    """`settings` as they are after what was decided: what is promoted serves alone, what is dropped is gone."""
    found = standing(settings)
    models = dict(settings.models)
    for name, decision in decisions.items():
        model = models.get(name)
        if isinstance(model, LocalModel) and model.rollout is not None and found.get(name) == decision.of:
            models[name] = model.model_copy(update=_update(model, decision))
    return settings.model_copy(update={"models": models})


def _update(model: LocalModel, decision: Decision) -> dict[str, Any]:
    rollout = model.rollout
    assert rollout is not None  # noqa: S101 - the only caller has looked
    if decision.what == "promoted":
        return {"card": rollout.card, "rollout": None}
    if decision.what == "dropped" or decision.percent is None:
        return {"rollout": None}
    return {"rollout": rollout.model_copy(update={"percent": decision.percent})}


class Decisions:
    """The decisions of a state folder."""

    def __init__(self, state: Path) -> None:
        """Raises `ConfigInvalid` when the file there can't be read: else what was dropped would serve again."""
        self._file = state / _FILE
        self.known: dict[str, Decision] = {}
        """By public name."""
        try:
            self.known = _READ.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as cause:
            what = "can't be read. Restore it from a backup, or remove it: then all rollouts of the config begin anew"
            raise ConfigInvalid(str(self._file), [Problem("", what)]) from cause

    def decide(self, name: str, decision: Decision) -> None:
        """Return once `decision` is on disk. Raises OSError; then nothing was decided."""
        self._write(self.known | {name: decision})

    def undo(self, name: str, before: Decision | None) -> None:
        """Put `before` in the place of what was decided. Raises OSError."""
        rest = {other: each for other, each in self.known.items() if other != name}
        self._write(rest if before is None else rest | {name: before})

    def prune(self, digests: Iterable[str]) -> None:
        """Forget what was decided about rollouts that are no more, so that one that comes again begins anew."""
        kept = set(digests)
        rest = {name: each for name, each in self.known.items() if each.of in kept}
        if rest != self.known:
            self._write(rest)

    def _write(self, known: dict[str, Decision]) -> None:
        told = {name: asdict(each) for name, each in known.items()}
        durable.replace(self._file, json.dumps(told, indent=1).encode())
        self.known = known
