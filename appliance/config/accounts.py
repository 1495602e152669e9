"""Who may use how much: the store of keys and books, allowances, use cases, prices, and the identity provider."""

from __future__ import annotations

import zoneinfo
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from appliance import names
from appliance.config.section import FilePath, Secret, Section, may_be_private, refuse_extras
from appliance.core import DataClass, Role, ServiceClass


def printable(text: str) -> str:
    """Raise `ValueError` for what would move a terminal's cursor, or show a name as another."""
    if not text.isprintable():
        raise ValueError("must hold printable characters only")
    return text


def _of_a_person(name: str) -> str:
    if names.INVISIBLE.search(name):
        raise ValueError("must hold no character that can't be seen")
    if names.PSEUDONYM.fullmatch(name):
        raise ValueError("must not look like a pseudonym of the audit log")
    if (proper := names.proper(name)) != name:
        raise ValueError(f"must be written {proper!r}: letters composed (NFC), single spaces, and none at the ends")
    return name


PersonName = Annotated[
    str, Field(pattern=r"^[^\x00-\x1f\x7f/:]{1,128}$"), AfterValidator(printable), AfterValidator(_of_a_person)
]
"""A user or a team: whatever the company writes, if it can be seen, but no slash or colon, and in one way only.

Where names come from outside, `names.proper` makes them so first.
"""
UseCaseName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
_Count = Annotated[int, Field(ge=1, le=10**15)]
_Euros = Annotated[float, Field(gt=0, le=10**9)]
_Price = Annotated[float, Field(ge=0, le=10**5)]
"""Sums of the books are whole numbers of 64 bits, those of euros in billionths; what minutes count are floats."""


class Allowance(Section):
    """How much one key, user, team or use case may use. What is left out is not limited."""

    requests_per_minute: _Count | None = Field(None, description="Requests in a minute.")
    tokens_per_minute: _Count | None = Field(None, description="Tokens of prompts and answers in a minute.")
    euros_per_minute: _Euros | None = Field(None, description="Euros in a minute.")
    parallel_requests: _Count | None = Field(None, description="Requests at the same time.")
    tokens_per_day: _Count | None = Field(None, description="Tokens in a day of `accounts.time_zone`.")
    euros_per_day: _Euros | None = Field(None, description="Euros in a day.")
    tokens_per_month: _Count | None = Field(None, description="Tokens in a month.")
    euros_per_month: _Euros | None = Field(None, description="Euros in a month.")
    at_limit: Literal["reject", "step_down", "warn"] = Field(
        "reject",
        description="What follows when a day or a month is used up. `reject`: 429 `budget_exceeded`. `step_down`: the "
        "model `step_down_to` answers instead. `warn`: only the events at 70, 90 and 100 %.",
    )
    step_down_to: str | None = Field(None, description="Public name of the smaller model, with `step_down`.")

    @model_validator(mode="after")
    def _step_down_names_a_model(self) -> Self:
        if (self.at_limit == "step_down") != (self.step_down_to is not None):
            raise ValueError("at_limit: step_down and step_down_to: MODEL go together")
        return self

    @property
    def limits_euros(self) -> bool:
        """Whether a model without a price would slip through."""
        return any((self.euros_per_minute, self.euros_per_day, self.euros_per_month))


class Team(Allowance):
    """What a team may use together, and its share of the engines when there is not enough for all."""

    weight: float = Field(1, gt=0, le=1000, description="Share of an engine beside other teams that wait.")


class UseCase(Allowance):
    """What apps name in the header `X-Use-Case`; a key says which of them it may name."""

    service_class: Annotated[ServiceClass, Field(strict=False)] | None = Field(
        None, description="`interactive`, `standard` or `batch`; empty: the key's own class."
    )
    data_class: Annotated[DataClass, Field(strict=False)] | None = Field(
        None, description="The least class of what is asked for it: `public`, `internal`, `confidential`, `personal`."
    )
    purpose: Annotated[str, Field(max_length=200)] | None = Field(
        None, description="What it is for, in the words of the record of processing activities; stands in every record."
    )
    store_content: bool = Field(
        default=False,
        description="Keep what is asked and answered in the audit log, encrypted under the person's own key, for "
        "`audit.retention.content_days`. Off unless there is a legal ground for it.",
    )


class ModelPrice(Section):
    """What a model's tokens cost: by the machine's time, or by a price list."""

    tokens_per_second: float | None = Field(
        None,
        ge=0.01,
        description="Measured throughput of the engine (`make bench` shows it); with `machine_hour_euros`.",
    )
    prompt_euros_per_million: _Price | None = Field(None, description="Euros for a million prompt tokens.")
    completion_euros_per_million: _Price | None = Field(None, description="Euros for a million tokens of answers.")

    @model_validator(mode="after")
    def _one_way_or_the_other(self) -> Self:
        listed = [
            each for each in (self.prompt_euros_per_million, self.completion_euros_per_million) if each is not None
        ]
        if len(listed) == 1 or (self.tokens_per_second is None) == (not listed):
            raise ValueError(
                "give either tokens_per_second, or both prompt_euros_per_million and completion_euros_per_million"
            )
        return self


class Prices(Section):
    """What is booked for tokens. A model without a price costs nothing, and counts in tokens only."""

    machine_hour_euros: _Price | None = Field(
        None, description="What an hour of one engine's share of this host costs: depreciation, power, care."
    )
    models: dict[str, ModelPrice] = Field({}, description="By public model name, see `ModelPrice`.")

    @model_validator(mode="after")
    def _hours_have_a_price(self) -> Self:
        timed = [name for name, price in self.models.items() if price.tokens_per_second is not None]
        if timed and self.machine_hour_euros is None:
            raise ValueError(f"models.{timed[0]}.tokens_per_second needs machine_hour_euros beside `models`")
        return self


class Postgresql(Section):
    """A PostgreSQL in the house, for several appliances that share one set of keys and books."""

    host: str = Field(
        min_length=1,
        description="Name or private address of the server, or the absolute path of its socket's folder, in which "
        "nothing else may listen.",
    )
    port: int = Field(5432, ge=1, le=65535, description="Its port.")
    database: str = Field(min_length=1, description="The database.")
    user: str = Field(min_length=1, description="The role that owns its tables.")
    password: Secret | None = Field(None, description="By reference: `env.NAME` or `file:/path`.")
    tls: bool = Field(
        default=True, description="False: in clear text, for a server on this very host; it has to ask for SCRAM then."
    )
    ca: FilePath | None = Field(
        None, description="PEM file of the authority that signed its certificate; empty: those of the system."
    )

    @model_validator(mode="after")
    def _in_the_house(self) -> Self:
        if not self.host.startswith("/") and not may_be_private(self.host):
            raise ValueError("host must be a private address, a name that leads to one, or a folder such as "
                             "/run/postgresql")  # fmt: skip
        return self

    @property
    def folder(self) -> Path | None:
        """The folder of the server's own Unix socket on this host; None where it is reached by TCP."""
        return Path(self.host) if self.host.startswith("/") else None


class Store(Section):
    """Where keys and books are kept. Empty: SQLite in `state`, for one appliance."""

    postgresql: Postgresql | None = Field(None, description="See `Postgresql`.")
    pepper: Secret | None = Field(
        None,
        description="With PostgreSQL: the secret by which keys are hashed, 64 hexadecimal digits, the same for all "
        "appliances on it. With SQLite the appliance makes its own.",
    )

    @model_validator(mode="after")
    def _shared_books_need_a_shared_pepper(self) -> Self:
        if (self.postgresql is None) != (self.pepper is None):
            raise ValueError("postgresql and pepper go together: appliances that share keys hash them alike")
        return self


class Claims(Section):
    """Which claims of a token say who somebody is. A dot leads into a claim: `realm_access.roles`."""

    user: str = Field("preferred_username", description="Claim that names the user.")
    team: str | None = Field(None, description="Claim that names the team; of a list, the first that is known here.")
    role: str | None = Field(None, description="Claim that holds the role or a list of them; empty: all are `user`.")


class Identity(Section):
    """The company's own identity provider (OpenID Connect), whose tokens open the appliance beside keys."""

    issuer: str = Field(description="The `iss` of its tokens, as it writes it.")
    audience: str = Field(min_length=1, description="The `aud` that its tokens must hold: this appliance.")
    keys_url: str = Field(
        description="Where it publishes its keys (`jwks_uri`): https, on a host in the house. Nothing else is fetched."
    )
    ca: FilePath | None = Field(None, description="PEM file of the authority that signed its certificate.")
    claims: Claims = Field(Claims(), description="See `Claims`.")
    roles: dict[str, Annotated[Role, Field(strict=False)]] = Field(
        {},
        description="What the role claim's words mean here, such as `llm-admins: admin`; others mean `user`. Of "
        "several, the mightiest counts: `super_admin`, `admin`, `auditor`, `power_user`, `user`.",
    )
    refresh_seconds: float = Field(
        300, ge=1, le=86400, description="Time after which its keys are fetched again; one that it took back is "
        "refused after that, or after three times that where it can't be reached."
    )  # fmt: skip
    longest_seconds: float = Field(3600, gt=0, description="A token that was issued to live longer is refused.")
    use_cases: list[UseCaseName] = Field([], description="Use cases that people with a token may name.")

    @model_validator(mode="after")
    def _url(self) -> Self:
        parts = urlsplit(self.keys_url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError("keys_url must start with https:// and name a host")
        if not may_be_private(parts.hostname):
            raise ValueError("keys_url must lead to a host in the house, by a private address or by name")
        refuse_extras("keys_url", self.keys_url)
        return self


def _known_zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be a time zone such as Europe/Berlin") from None
    return name


class Accounts(Section):
    """Who may use how much."""

    time_zone: Annotated[str, AfterValidator(_known_zone)] = Field(
        "Europe/Berlin", description="In which days and months begin."
    )
    store: Store = Field(Store(), description="See `Store`.")
    each_key: Allowance = Field(Allowance(), description="For every key that has no allowance of its own.")
    each_user: Allowance = Field(Allowance(), description="For every user that `users` doesn't name.")
    each_team: Team = Field(Team(), description="For every team that `teams` doesn't name.")
    users: dict[PersonName, Allowance] = Field({}, description="By user, see `Allowance`.")
    teams: dict[PersonName, Team] = Field({}, description="By team, see `Team`.")
    use_cases: dict[UseCaseName, UseCase] = Field({}, description="By use case, see `UseCase`.")
    prices: Prices = Field(Prices(), description="See `Prices`.")
    identity: Identity | None = Field(None, description="See `Identity`.")

    @model_validator(mode="after")
    def _people_name_use_cases_that_are_known(self) -> Self:
        unknown = sorted(set(self.identity.use_cases) - self.use_cases.keys()) if self.identity else []
        if unknown:
            raise ValueError(f"identity.use_cases: there is no {unknown[0]!r} in `use_cases`")
        return self

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The time zone in which days and months begin."""
        return zoneinfo.ZoneInfo(self.time_zone)
