"""What an edited config would change, told before anything does. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from appliance.api.wire import WireLimits
from appliance.config import Config, RemoteModel, Settings
from appliance.engines.planning import Plan
from appliance.errors import ApplianceError, ConfigInvalid, Problem

_KEPT_BY_RESTART = (
    "listen", "egress", "privacy", "state", "models_folder", "engines.environment",
    "accounts.store", "accounts.identity.keys_url", "accounts.identity.ca", "audit.timestamps", "audit.shipping",
    "audit.works_council",
)  # fmt: skip
_TAKEN_OVER = ("limits", "objectives", "engines", "watch", "accounts", "queue", "audit")
_WAITING = ("replace", "sleep")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What would come of a config that is right in itself."""

    old: Config
    new: Config
    restart: list[Problem]
    """What would change only with a restart; so all of it is refused."""
    plan: Plan | ApplianceError | None
    """What would become of the models, or why nothing can; None where all is refused without a look at them."""
    notes: Sequence[str] = ()
    """What was decided by hand or by rule since the config was written, and what to write into it."""
    memory: Mapping[str, Any] | None = None
    """What there is of memory, in GiB: `total`, `free`, and `of` (main memory or GPUs); None where nobody looked."""

    @property
    def settings(self) -> list[str]:
        """The sections that would be taken over."""
        old, new = self.old.settings, self.new.settings
        return [name for name in _TAKEN_OVER if getattr(new, name) != getattr(old, name)]

    def told(self) -> dict[str, Any]:
        """For people and scripts: `models`, one for each step; `settings`, `restart`, `refused`, `notes`,
        `memory` (in GiB), `diff`."""
        plan = self.plan if isinstance(self.plan, Plan) else None
        return {
            "models": [asdict(step) | {"waits": step.action in _WAITING} for step in plan.steps] if plan else [],
            "settings": self.settings,
            "restart": [asdict(problem) for problem in self.restart],
            "refused": str(self.refusal) if self.refusal else None,
            "notes": list(self.notes),
            "memory": self.memory and {name: self.memory[name] for name in ("of", "total", "free", "reserve")},
            "diff": diff(self.old.text, self.new.text, self.new.file.name),
        }

    @property
    def refusal(self) -> ApplianceError | None:
        """Why an apply would change nothing."""
        if self.restart:
            return ConfigInvalid(str(self.new.file), self.restart)
        return self.plan if isinstance(self.plan, ApplianceError) else None


def diff(before: bytes, after: bytes, name: str) -> str:
    """What was edited, as a unified diff; `before` is in effect."""
    old, new = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in (before, after))
    lines = difflib.unified_diff(old, new, f"{name} (in effect)", name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def restarts(old: Settings, new: Settings, endpoints: Mapping[str, RemoteModel]) -> list[Problem]:
    """What of `new` a running appliance can't take over from `old`. `endpoints` are those that it can reach."""
    problems = [
        Problem(name, "changes only with a restart: stop the appliance and start it again")
        for name in _KEPT_BY_RESTART
        if _at(name, old) != _at(name, new)
    ]
    if WireLimits.of(old.limits) != WireLimits.of(new.limits):
        what = "those on headers, bodies, idle time and connections change only with a restart"
        problems.append(Problem("limits", what))
    problems += [
        Problem(
            f"models.{name}.endpoint",
            "a running appliance can't be made to reach another address; restart it to add or change an endpoint",
        )
        for name, model in new.models.items()
        if isinstance(model, RemoteModel) and endpoints.get(name) != model
    ]
    return problems


def _at(name: str, settings: Settings) -> object:
    """The setting called `name`; None below a section that isn't there."""
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
