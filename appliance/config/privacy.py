"""How sensitive requests are, which of them may leave the house, and how what is personal in them is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from appliance.config.accounts import UseCase, UseCaseName
from appliance.config.egress import Egress, Provider
from appliance.config.section import FilePath, Section
from appliance.core import DataClass

Region = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,31}$")]
ClassName = Annotated[DataClass, Field(strict=False)]


class Rule(Section):
    """One row of the policy: requests of this class and use case may leave, in this way. What no rule names stays."""

    data_class: ClassName = Field(description="`public`, `internal`, `confidential` or `personal`, after detection.")
    use_case: UseCaseName | Literal["*"] = Field(
        "*", description="A use case of `accounts.use_cases`; `*`: all, and requests that name none."
    )
    may: Literal["pseudonymise", "send"] = Field(
        description="`pseudonymise`: once every find is replaced by a placeholder. `send`: as it is, for `public` "
        "only; it is looked through all the same, and what is found raises the class."
    )
    purpose: Annotated[str, Field(min_length=3, max_length=200)] = Field(
        description="What for, in the words of the record of processing activities."
    )
    regions: list[Region] = Field(min_length=1, description="Only providers in one of these regions, such as `eu`.")
    agreement: Annotated[str, Field(min_length=3, max_length=200)] = Field(
        description="Reference of the data-processing agreement; only providers with the same `agreement`."
    )

    @model_validator(mode="after")
    def _as_it_is_only_what_is_public(self) -> Self:
        if self.may == "send" and self.data_class is not DataClass.PUBLIC:
            raise ValueError(f"may: send is for data_class: public; for {self.data_class} use may: pseudonymise")
        return self

    @property
    def title(self) -> str:
        """Class and use case, such as `personal, use case letters`."""
        return f"{self.data_class}, {'any use case' if self.use_case == '*' else f'use case {self.use_case}'}"

    def admits(self, provider: Provider) -> bool:
        """Whether `provider` has the region and the agreement that this rule demands."""
        return provider.region in self.regions and provider.agreement == self.agreement


class Detectors(Section):
    """The processes that find what is personal. They are sealed, and see texts and their own models only."""

    processes: int = Field(1, ge=1, le=64, description="How many look at the same time.")
    seconds: float = Field(10, gt=0, le=120, description="Time for one request; what takes longer stays in the house.")
    rampart: FilePath | None = Field(
        None,
        description="Folder of a bigger token-classification model in Rampart's form (`model.onnx`, `tokenizer.json`, "
        "`config.json`), in place of the one that comes along.",
    )


class Gate(Section):
    """What a request must be like to leave, beside what is found in it."""

    most_kib: int = Field(64, ge=1, le=1024, description="Larger ones stay in the house.")
    languages: list[Literal["de", "en"]] = Field(
        ["de", "en"], min_length=1, description="Languages that may leave; text in others stays."
    )
    words: Literal["any", "known"] = Field(
        "any", description="`known`: only text whose every word is known and ordinary may leave. For strict tenants."
    )


class Privacy(Section):
    """See docs/privacy.md. All of it holds from the next start on."""

    floor: ClassName = Field(
        DataClass.INTERNAL,
        description="The least class of every request; key, use case and `X-Data-Class` can only raise it.",
    )
    policy: list[Rule] = Field(
        [], description="What may leave, see `Rule`; the first that fits decides. Empty: nothing."
    )
    generalise: list[Literal["age", "date_of_birth", "postcode"]] = Field(
        [],
        description="What is sent coarser rather than as a placeholder: an age as a band of ten years, a date of birth "
        "as its year, a postcode as its first two digits. The model knows more then, and the answer has it so, too: "
        "only placeholders come back as what they stand for.",
    )
    lists: FilePath | None = Field(
        None, description="Folder of the site's own lists (`appliance lists`), encrypted; empty: `lists` in `state`."
    )
    detectors: Detectors = Field(Detectors(), description="See `Detectors`.")
    gate: Gate = Field(Gate(), description="See `Gate`.")

    @model_validator(mode="after")
    def _each_rule_can_decide(self) -> Self:
        for number, rule in enumerate(self.policy, 1):
            if rule.data_class.rank < self.floor.rank:
                raise ValueError(
                    f"policy: rule {number} ({rule.title}) never decides, since floor: {self.floor} makes every "
                    f"request at least that: set floor: {rule.data_class}, or leave the rule out"
                )
            for earlier, other in enumerate(self.policy[: number - 1], 1):
                if other.data_class is rule.data_class and other.use_case in ("*", rule.use_case):
                    raise ValueError(
                        f"policy: rule {number} ({rule.title}) never decides, since rule {earlier} ({other.title}) "
                        "does before it: put it first, or leave it out"
                    )
        return self

    def check(self, egress: Egress, use_cases: Mapping[str, UseCase]) -> None:
        """Hold the policy to the rest of the config. Raises `ValueError` that names the field and what to do."""
        if self.policy and egress.mode == "deny":
            raise ValueError(
                "privacy.policy lets requests out, and egress.mode: deny lets nothing out: use egress.mode: "
                "anonymized, or leave the rules out"
            )
        for number, rule in enumerate(self.policy, 1):
            what = f"privacy.policy: rule {number} ({rule.title})"
            if rule.use_case != "*" and rule.use_case not in use_cases:
                raise ValueError(f"{what}: there is no {rule.use_case!r} in `accounts.use_cases`: add it there")
            least = use_cases[rule.use_case].data_class if rule.use_case != "*" else None
            if least is not None and rule.data_class.rank < least.rank:
                raise ValueError(
                    f"{what} never decides, since accounts.use_cases.{rule.use_case}.data_class: {least} makes every "
                    f"request of it at least that: write a rule for {least}, or leave this one out"
                )
            if not any(rule.admits(provider) for provider in egress.providers.values()):
                raise ValueError(
                    f"{what}: no provider of egress.providers has region: {' or '.join(rule.regions)} together with "
                    f"agreement: {rule.agreement}: write both at a provider, or change the rule"
                )
        if self.policy and not egress.euros_per_day and any(each.models for each in egress.providers.values()):
            raise ValueError(
                "egress.euros_per_day must be more than 0 for privacy.policy to let anything out: say how many euros "
                "all providers together may cost in a day"
            )
