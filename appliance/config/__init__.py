"""The typed, frozen form of configs/appliance.yaml.

Every field carries the sentence that docs/configuration.md prints for it, so that the reference can't
drift from the code. Units stand in the names: `_seconds`, `_bytes`, `_gib`, `_ms`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, model_validator

from appliance import plain, strict_yaml
from appliance.config.accounts import (
    Accounts,
    Allowance,
    Identity,
    ModelPrice,
    Postgresql,
    Prices,
    Store,
    Team,
    UseCase,
)
from appliance.config.audit import Audit, Retention, Shipping, Timestamps
from appliance.config.bounds import Engines, Limits, Objectives
from appliance.config.egress import CloudModel, Egress, Provider, Verify, from_word
from appliance.config.listen import Listen, Tls
from appliance.config.models import (
    Batching,
    Bounds,
    Idle,
    KvCache,
    LocalModel,
    Model,
    ModelName,
    RemoteModel,
    Rollout,
)
from appliance.config.privacy import Detectors, Gate, Privacy, Rule
from appliance.config.queue import Queue
from appliance.config.section import FilePath, Secret, SecretReference, Section, may_be_private
from appliance.errors import ConfigInvalid, Problem

__all__ = [
    "Accounts", "Allowance", "Audit", "Batching", "Bounds", "CloudModel", "Config", "Detectors", "Egress", "Engines",
    "FilePath", "Gate", "Identity", "Idle", "KvCache", "Limits", "Listen", "LocalModel", "Model", "ModelName",
    "Objectives", "Postgresql", "Prices", "Privacy", "Provider", "Queue", "RemoteModel", "Retention", "Rollout", "Rule",
    "Secret", "SecretReference", "Section", "Settings", "Shipping", "Store", "Team", "Timestamps", "Tls", "UseCase",
    "Verify", "load", "may_be_private", "of", "place", "state_of",
]  # fmt: skip


class Settings(Section):
    """configs/appliance.yaml."""

    listen: Listen = Field(Listen(), description="See `Listen`.")
    egress: Annotated[Egress, BeforeValidator(from_word, json_schema_input_type=Egress | Literal["deny"])] = Field(
        Egress(), description="See `Egress`."
    )
    state: FilePath = Field(
        Path("../state"), description="Private folder for keys, sockets and logs; made with mode 0700."
    )
    models_folder: FilePath = Field(
        Path("../models"),
        description="Folder that holds one folder per model card. It may be a symbolic link, but hold none that an "
        "engine would have to follow: mount another disk there instead. It may not lie in `state`.",
    )
    models: dict[ModelName, Model] = Field(
        min_length=1, description="Public model name, as apps send it, to the card or endpoint that serves it."
    )
    engines: Engines = Field(Engines(), description="See `Engines`.")
    watch: bool = Field(default=False, description="Apply the config by itself whenever its file has been changed.")
    limits: Limits = Field(Limits(), description="See `Limits`.")
    objectives: Objectives = Field(Objectives(), description="See `Objectives`.")
    accounts: Accounts = Field(Accounts(), description="See `Accounts`.")
    queue: Queue = Field(Queue(), description="See `Queue`.")
    audit: Audit = Field(Audit(), description="See `Audit`.")
    privacy: Privacy = Field(Privacy(), description="See `Privacy`.")

    @property
    def names(self) -> tuple[str, ...]:
        """All public names that apps may ask for: those of models and of their adapters."""
        adapters = (model.adapters for model in self.models.values() if model.kind == "card")
        return (*self.models, *(name for each in adapters for name in each))

    @model_validator(mode="after")
    def _each_name_stands_for_one_thing(self) -> Self:
        for name, count in Counter(self.names).items():
            if count > 1:
                raise ValueError(
                    f"models: {name!r} is the public name of {count} models or adapters; give each a name of its own"
                )
            if name.startswith("trial/"):
                raise ValueError(f"models: {name!r} begins with `trial/`, which is kept for evaluations; rename it")
        return self

    @model_validator(mode="after")
    def _accounts_speak_of_models_that_are_served(self) -> Self:
        accounts, names = self.accounts, self.names
        named = {"each_key": accounts.each_key, "each_user": accounts.each_user, "each_team": accounts.each_team}
        named |= {f"users.{name}": allowance for name, allowance in accounts.users.items()}
        named |= {f"teams.{name}": allowance for name, allowance in accounts.teams.items()}
        named |= {f"use_cases.{name}": allowance for name, allowance in accounts.use_cases.items()}
        for where, allowance in named.items():
            smaller = allowance.step_down_to
            if smaller is not None and smaller not in names:
                raise ValueError(f"accounts.{where}.step_down_to: there is no model {smaller!r} in `models`")
        prices = accounts.prices.models
        for model in prices:
            if model not in names:
                raise ValueError(f"accounts.prices.models.{model}: there is no such model in `models`")
        free = [model for model in names if model not in prices]
        for where, allowance in named.items():
            if free and allowance.limits_euros:
                raise ValueError(
                    f"accounts.{where} limits euros, and {free[0]!r} has no price: give it one in "
                    "accounts.prices.models, if only of 0"
                )
        return self

    @model_validator(mode="after")
    def _what_may_leave_fits_together(self) -> Self:
        for name, provider in self.egress.providers.items():
            for model in provider.models:
                if model not in self.names:
                    raise ValueError(
                        f"egress.providers.{name}.models.{model}: there is no such model in `models`: name the public "
                        "model that it may answer for"
                    )
        self.privacy.check(self.egress, self.accounts.use_cases)
        return self

    @property
    def bursts(self) -> bool:
        """Whether a request can leave the house at all: the mode, the policy and a provider allow it."""
        outside = any(provider.models for provider in self.egress.providers.values())
        return self.egress.mode == "anonymized" and bool(self.privacy.policy) and outside

    @property
    def priced(self) -> Accounts:
        """The accounts with the prices of the providers' models among those of our own, under `cloud_name`."""
        outside = {
            cloud_name(name, model): ModelPrice(
                prompt_euros_per_million=model.prompt_euros_per_million,
                completion_euros_per_million=model.completion_euros_per_million,
            )
            for name, provider in self.egress.providers.items()
            for model in provider.models.values()
        }
        prices = self.accounts.prices
        prices = prices.model_copy(update={"models": {**prices.models, **outside}})
        return self.accounts.model_copy(update={"prices": prices})


def cloud_name(provider: str, model: CloudModel) -> str:
    """What a provider's model is called in the books: with a space, which no model of ours has in its name."""
    return f"{provider} {model.model}"


def is_cloud_name(name: str) -> bool:
    """Whether a model of the books is a provider's."""
    return " " in name


@dataclass(frozen=True, slots=True)
class Config:
    """Settings together with the file they came from."""

    settings: Settings
    file: Path
    text: bytes = b""
    """What stood in it."""

    @property
    def version(self) -> str:
        """What tells this config from any other: the first 16 digits of the SHA-256 of its file."""
        return hashlib.sha256(self.text).hexdigest()[:16]

    def path(self, path: Path) -> Path:
        """`path` made absolute: relative paths in a config start at the config file's folder."""
        return (self.file.parent / path).resolve()

    def wrong(self, what: str, *at: str) -> ConfigInvalid:
        """That the setting `at`, or what it makes of the file, is wrong: with its line, where it is set."""
        return ConfigInvalid(str(self.file), [Problem(".".join(at), what, strict_yaml.line_of(self.text, at))])

    @property
    def state(self) -> Path:
        """The private state folder, absolute."""
        return self.path(self.settings.state)

    @property
    def lists(self) -> Path:
        """The folder of the site's own lists, absolute."""
        chosen = self.settings.privacy.lists
        return self.state / "lists" if chosen is None else self.path(chosen)

    @property
    def models_folder(self) -> Path:
        """The folder of model cards, absolute."""
        return self.path(self.settings.models_folder)


def load(file: Path) -> Config:
    """Read a config file. Raises `ConfigInvalid` with every problem, its line and a suggestion."""
    file = place(file)
    return of(file, strict_yaml.raw(file, ConfigInvalid))


def of(file: Path, text: bytes) -> Config:
    """The config that `text` would be as the content of `file`. Raises as `load` does."""
    return Config(strict_yaml.parse(text, str(file), Settings, ConfigInvalid), file, text)


def place(file: Path) -> Path:
    """The absolute path under which a config file is found again after it has changed.

    Links are followed, but for those that stay inside its folder: Kubernetes points them elsewhere at each change.
    """
    file = file.expanduser()
    folder = file.parent.resolve()
    target = (folder / file.name).resolve()
    return folder / file.name if target.is_relative_to(folder) else target


def state_of(file: Path) -> Path:
    """The state folder of a config of which anything else may be wrong, by the line that names it."""
    file = place(file)
    try:
        found = re.search(rb"^state:[ \t]*([^\r\n]*)", plain.read(file, strict_yaml.MOST_BYTES), re.MULTILINE)
        named = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, yaml.YAMLError):
        named = None
    state = Path(named) if isinstance(named, str) else Settings.model_fields["state"].get_default()
    return (file.parent / state).resolve()
