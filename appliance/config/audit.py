"""What is put on record, for how long, and who else is told."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from appliance.config.section import FilePath, Secret, Section, may_be_private, refuse_extras

_DAYS = 36_525


class Retention(Section):
    """For how many days records stay; a job removes older ones every day and leaves a signed stub in their place."""

    requests_days: int = Field(
        180, ge=1, le=_DAYS, description="Intents and outcomes of requests, and the counts of strangers' requests."
    )
    refusals_days: int = Field(90, ge=1, le=_DAYS, description="Requests that were refused before they ran.")
    content_days: int = Field(
        30, ge=1, le=_DAYS, description="What was asked and answered, where a use case stores it."
    )
    acts_days: int = Field(3653, ge=1, le=_DAYS, description="Administrative acts, erasures, reads of the log itself.")
    incidents_days: int = Field(1096, ge=1, le=_DAYS, description="Incidents.")


class Timestamps(Section):
    """An authority in the house that signs the time of checkpoints (RFC 3161)."""

    url: str = Field(description="Where it answers, such as `http://tsa.intern:3161/`; a host of the house.")
    certificate: FilePath = Field(description="The authority's certificate and those above it, PEM.")
    ca: FilePath | None = Field(None, description="With an `https:` URL: the house's own authority for TLS, PEM.")
    every_seconds: int = Field(3600, ge=10, le=86_400, description="At most so long between two timestamps.")

    @field_validator("url")
    @classmethod
    def _in_the_house(cls, url: str) -> str:
        return _internal("url", url)


class Shipping(Section):
    """A collector in the house that gets a copy of every record: OTLP logs over HTTP."""

    endpoint: str = Field(
        description="The collector's base URL, such as `https://collector.intern:4318`; a host of the house. Records "
        "go to `/v1/logs` below it."
    )
    key: Secret | None = Field(None, description="Sent as `Authorization: Bearer`; `env.NAME` or `file:/path`.")
    ca: FilePath | None = Field(None, description="With an `https:` URL: the house's own authority for TLS, PEM.")
    batch_records: int = Field(500, ge=1, le=5000, description="At most so many records in one delivery.")

    @field_validator("endpoint")
    @classmethod
    def _in_the_house(cls, url: str) -> str:
        return _internal("endpoint", url)


class Audit(Section):
    """The audit log: a chain of records in `state/audit`, signed at checkpoints."""

    checkpoint_records: int = Field(
        1000, ge=1, le=100_000, description="At most so many records between two checkpoints."
    )
    checkpoint_seconds: float = Field(10.0, gt=0, le=3600, description="At most so long until a record is under one.")
    segment_mib: int = Field(64, ge=1, le=1024, description="A file of the log is closed and compressed at this size.")
    retention: Retention = Field(Retention(), description="See `Retention`.")
    timestamps: Timestamps | None = Field(None, description="See `Timestamps`.")
    shipping: Shipping | None = Field(None, description="See `Shipping`; off unless it is there.")
    works_council: bool = Field(
        default=True,
        description="Show persons by pseudonym wherever use is shown: metrics, reports, usage, logs. To reveal one "
        "takes a `super_admin` and an `auditor`, and is put on record.",
    )

    @model_validator(mode="after")
    def _content_goes_no_later_than_the_rest(self) -> Self:
        if self.retention.content_days > self.retention.requests_days:
            raise ValueError("retention.content_days: what was said may not stay longer than that it was said")
        return self


def _internal(field: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{field}: must be an http:// or https:// URL")
    refuse_extras(field, url)
    if not may_be_private(parts.hostname):
        raise ValueError(f"{field}: {parts.hostname} is an address outside the house")
    return url
