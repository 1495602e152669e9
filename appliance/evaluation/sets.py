"""Golden sets: examples with what their answers are held to. A model's own lie in models/<name>/evals/, those of the
whole company in models/evals/."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from appliance import strict_yaml
from appliance.errors import Problem, SetInvalid
from appliance.evaluation.checks import ASKS, Check, JsonSchema, Leaks, Part, Text

CANARY = "{canary}"
_MOST_SETS = 100


class Message(Part):
    """One message of a conversation, as in the API."""

    role: Literal["system", "user", "assistant"]
    content: Text


class WrittenCase(Part):
    """One example: a prompt or a conversation, and the checks that the answer has to pass, all of them."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Its name in tables, unique in the set.")
    prompt: Text | None = Field(None, description="What a user asks; or give `messages`.")
    messages: Annotated[tuple[Message, ...], Field(strict=False, min_length=1, max_length=50)] | None = Field(
        None, description="A conversation instead of a prompt."
    )
    system: Text | None = Field(
        None, description="The system prompt in front. `{canary}` in it becomes a secret that no answer may tell."
    )
    max_tokens: int | None = Field(None, ge=1, le=4096, description="Longest answer; empty: that of the set.")
    seed: int | None = Field(None, ge=0, le=2**31 - 1, description="Empty: that of the set.")
    json_output: bool = Field(default=False, description="Ask for the JSON of the case's `json_schema` check.")
    checks: Annotated[tuple[Check, ...], Field(strict=False, min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give exactly one of `prompt` and `messages`")
        if self.json_output and not any(isinstance(check, JsonSchema) for check in self.checks):
            raise ValueError("json_output needs a `json_schema` check")
        return self


class WrittenSet(Part):
    """One file of golden examples. Its name is the set's."""

    title: Text = Field(description="What it tries, in a few words.")
    language: Literal["de", "en"] = Field(description="The language of its prompts.")
    gate: bool = Field(
        default=False, description="Small and quick enough to be tried before an engine takes over (see `Card.gate`)."
    )
    system: Text | None = Field(None, description="The system prompt of cases that have none.")
    max_tokens: int = Field(128, ge=1, le=4096, description="Longest answer in tokens.")
    seed: int = Field(7, ge=0, le=2**31 - 1, description="Of the engine's random numbers.")
    cases: Annotated[tuple[WrittenCase, ...], Field(strict=False, min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        doubled = [name for name, count in Counter(case.id for case in self.cases).items() if count > 1]
        if doubled:
            raise ValueError(f"cases have the same id: {', '.join(doubled[:5])}")
        if self.gate:
            for case in self.cases:
                for check in case.checks:
                    if isinstance(check, (*ASKS, JsonSchema)):
                        raise ValueError(
                            f"case {case.id}: a gate can't check by `{check.kind}`, since it has neither another "
                            "model nor a schema's library; move the case to a set without `gate`"
                        )
        return self


@dataclass(frozen=True, slots=True)
class Case:
    """One example with everything filled in. `messages` are `{"role", "content"}` as the API takes them."""

    id: str
    messages: tuple[dict[str, str], ...]
    max_tokens: int
    seed: int
    checks: tuple[Check, ...]
    json_output: bool = False


@dataclass(frozen=True, slots=True)
class Set:
    """A golden set. `version` is the SHA-256 of its file: another file is another set to compare by."""

    name: str
    title: str
    language: Literal["de", "en"]
    version: str
    gate: bool
    cases: tuple[Case, ...]
    file: Path


def read(file: Path) -> Set:
    """The set in `file`, at most 1 MB. Raises `SetInvalid` with every finding and its line."""
    raw = strict_yaml.raw(file, SetInvalid)
    written = strict_yaml.parse(raw, str(file), WrittenSet, SetInvalid)
    cases = tuple(_case(written, case, file.stem) for case in written.cases)
    version = hashlib.sha256(raw).hexdigest()
    return Set(file.stem, written.title, written.language, version, written.gate, cases, file)


def of_model(models: Path, card: str, *, gate: bool | None = None) -> tuple[Set, ...]:
    """The company's sets, then those of the model in `models`/`card`; with `gate`, only those that are so or not.

    Raises `SetInvalid`, also where two have the same name.
    """
    files = [
        file
        for folder in (models / "evals", models / card / "evals")
        for file in sorted(folder.glob("*.yaml"))
        if file.is_file()
    ]
    if len(files) > _MOST_SETS:
        raise SetInvalid(str(models), [Problem("", f"there are over {_MOST_SETS} sets for {card}; join some")])
    first: dict[str, Path] = {}
    for file in files:
        if (other := first.setdefault(file.stem, file)) is not file:
            raise SetInvalid(str(file), [Problem("", f"{other} has the same name; rename one")])
    return tuple(each for each in map(read, files) if gate is None or each.gate == gate)


def _case(of: WrittenSet, case: WrittenCase, name: str) -> Case:
    canary = hashlib.sha256(f"{name}/{case.id}".encode()).hexdigest()[:12]
    spoken = [(message.role, message.content) for message in case.messages or ()] or [("user", case.prompt or "")]
    system = case.system or of.system
    if system is not None:
        spoken = [("system", system), *spoken]
    hidden = any(CANARY in content for _, content in spoken)
    return Case(
        case.id,
        tuple({"role": role, "content": content.replace(CANARY, canary)} for role, content in spoken),
        case.max_tokens or of.max_tokens,
        of.seed if case.seed is None else case.seed,
        tuple(
            check.model_copy(update={"never": (*check.never, canary)}) if hidden and isinstance(check, Leaks) else check
            for check in case.checks
        ),
        case.json_output,
    )
