"""What may leave the house."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from appliance.config.models import ModelName
from appliance.config.section import FilePath, Secret, Section, refuse_extras


class Verify(Section):
    """How often the appliance proves its own seal, and what follows when it can't."""

    every_seconds: float = Field(
        300, ge=0, description="Time between two verifications; 0: only when `appliance egress verify` is run."
    )
    on_failure: Literal["alert", "stop"] = Field(
        "alert",
        description="`alert`: log it and raise the metric. `stop`: also answer every request with 503 until a "
        "verification holds again.",
    )

    @model_validator(mode="after")
    def _stop_needs_a_timer(self) -> Self:
        if self.on_failure == "stop" and not self.every_seconds:
            raise ValueError("on_failure: stop needs verifications: set every_seconds to more than 0")
        return self


class CloudModel(Section):
    """A provider's model, which may answer in place of one of ours."""

    model: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="Its name there; of Azure OpenAI, the deployment."
    )
    context_length: int = Field(ge=256, description="Tokens of prompt and answer that it takes.")
    prompt_euros_per_million: float = Field(ge=0, le=10**5, description="Euros for a million prompt tokens.")
    completion_euros_per_million: float = Field(ge=0, le=10**5, description="Euros for a million tokens of answers.")


class Provider(Section):
    """A service outside the house to which cleared requests may go."""

    api: Literal["openai", "azure", "anthropic"] = Field(
        "openai",
        description="What it speaks. `openai`: OpenAI, Mistral, Cohere, Together, Google and all that are compatible; "
        "`azure`: Azure OpenAI; `anthropic`: Anthropic.",
    )
    region: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,31}$")] | None = Field(
        None, description="Where it processes what it gets, such as `eu`; rules of the policy ask for it."
    )
    agreement: Annotated[str, Field(min_length=3, max_length=200)] | None = Field(
        None, description="Reference of the data-processing agreement with it; rules of the policy ask for it."
    )
    api_version: Annotated[str, Field(pattern=r"^[0-9a-z.-]{1,40}$")] | None = Field(
        None, description="Of Azure OpenAI, such as `2024-10-21`."
    )
    models: dict[ModelName, CloudModel] = Field(
        {}, description="Public model name to the model there that may answer in its place."
    )
    first_token_seconds: float = Field(30, gt=0, le=600, description="For its first token; then the next is asked.")

    url: str = Field(
        description="Base URL, such as `https://api.mistral.ai/v1`: always `https`, and a name that leads to public "
        "addresses only."
    )
    key: Secret | None = Field(None, description="Its API key, by reference: `env.NAME` or `file:/path`.")
    ca: FilePath | None = Field(
        None, description="PEM file of the authority that signed its certificate; empty: those of the system."
    )

    @model_validator(mode="after")
    def _url(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme != "https":
            raise ValueError("url must start with https://, since the way there is a public one")
        if not _PUBLIC_NAME.fullmatch(parts.hostname or ""):
            raise ValueError("url must hold a public DNS name, such as api.mistral.ai; for a server in the house use "
                             "`models: {NAME: {endpoint: ...}}`")  # fmt: skip
        refuse_extras("url", self.url)
        return self

    @model_validator(mode="after")
    def _azure_has_versions(self) -> Self:
        if (self.api == "azure") != (self.api_version is not None):
            raise ValueError("api: azure and api_version: such as 2024-10-21 go together")
        return self


# The last label has a letter: 127.1 and 0x7f.1 are addresses to a resolver.
_PUBLIC_NAME = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])")


ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


class Egress(Section):
    """What may leave the house. A bare word, `egress: deny`, means `{mode: deny}`."""

    mode: Literal["deny", "anonymized"] = Field(
        "deny",
        description="`deny`: nothing in the appliance can call out. `anonymized`: one way out opens, to the "
        "`providers` only and for requests only that were cleared of what is personal; all else stays sealed.",
    )
    providers: dict[ProviderName, Provider] = Field(
        {}, description="With `anonymized`: the services that may be called, each under a name of yours."
    )
    euros_per_day: float = Field(
        0, ge=0, le=10**9, description="What all providers together may cost in a day of `accounts.time_zone`."
    )
    seal: Literal["required", "best-effort"] = Field(
        "required",
        description="`required`: refuse to start when the kernel can't hold a part of the seal. "
        "`best-effort`: start all the same, and show what is missing.",
    )
    verify: Verify = Field(Verify(), description="See `Verify`.")

    @model_validator(mode="after")
    def _providers_as_the_mode_says(self) -> Self:
        if self.mode == "anonymized" and not self.providers:
            raise ValueError(
                "mode: anonymized needs `providers: {NAME: {url: https://...}}`, at least one; or use mode: deny"
            )
        if self.mode == "deny" and self.providers:
            raise ValueError("mode: deny allows no `providers`: leave them out, or use mode: anonymized")
        return self


def from_word(value: object) -> object:
    """`deny` for `{mode: deny}`."""
    return {"mode": value} if isinstance(value, str) else value
