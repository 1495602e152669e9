"""What the policy of the config says of a request, by its class and use case. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from appliance.config import Privacy, Provider
from appliance.core import DataClass
from appliance.privacy.verdict import Held


@dataclass(frozen=True, slots=True)
class Decision:
    """What may become of a request. `may: stay` and `held` go together, and then `providers` is empty."""

    may: Literal["stay", "pseudonymise", "send"]
    held: Held | None = None
    rule: str = ""
    """The rule that decided, such as `rule 2: personal, use case letters`; empty: none did."""
    purpose: str = ""
    providers: tuple[str, ...] = ()
    """Names of those that may get it, in the order of the config."""


def decide(
    privacy: Privacy, providers: Mapping[str, Provider], data_class: DataClass, use_case: str | None
) -> Decision:
    """What the first rule says that names this class and this use case, or all; where none does, it stays."""
    for number, rule in enumerate(privacy.policy, 1):
        if rule.data_class is data_class and rule.use_case in ("*", use_case):
            told = f"rule {number}: {rule.title}"
            fit = tuple(name for name, provider in providers.items() if rule.admits(provider))
            if not fit:
                return Decision("stay", Held.NO_PROVIDER, told, rule.purpose)
            return Decision(rule.may, None, told, rule.purpose, fit)
    return Decision("stay", Held.POLICY)
