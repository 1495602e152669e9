"""How sensitive requests are, which of them may leave the house, and how what is personal in them is found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from appliance.config.accounts import UseCaseName
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
        DataClass.INTERNAL, description="The class of requests whose key and use case say nothing."
    )
    policy: list[Rule] = Field(
        [], description="What may leave, see `Rule`; the first that fits decides. Empty: nothing."
    )
    generalise: list[Literal["age", "date_of_birth", "postcode"]] = Field(
        ["age", "date_of_birth", "postcode"],
        description="What is sent coarser rather than as a placeholder: an age as a band of ten years, a date of birth "
        "as its year, a postcode as its first two digits.",
    )
    lists: FilePath = Field(
        Path("../state/lists"), description="Folder of the site's own lists (`appliance lists`), encrypted."
    )
    detectors: Detectors = Field(Detectors(), description="See `Detectors`.")
    gate: Gate = Field(Gate(), description="See `Gate`.")
