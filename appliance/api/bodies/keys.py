"""What /admin/keys takes and shows. The command line takes and shows the same."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter, ValidationError, model_validator

from appliance.accounts.keys import KeyRecord
from appliance.accounts.registry import KeyOrder
from appliance.api.bodies.base import Items, Part, Text, refuse
from appliance.config import Allowance
from appliance.config.accounts import PersonName, UseCaseName, printable
from appliance.core import DataClass, Role, ServiceClass
from appliance.names import proper

_DAY = 86_400.0
_LONGEST_DAYS = 3660
_LONGEST_OVERLAP_HOURS = 24 * 90

_PERSON: TypeAdapter[str] = TypeAdapter(PersonName)


def _person(name: str) -> str:
    try:
        return _PERSON.validate_python(proper(name))
    except ValidationError:
        raise ValueError(
            "must be 1 to 128 characters that can be seen, none of them a slash or a colon, and no pseudonym"
        ) from None


Person = Annotated[Text, AfterValidator(_person)]
Days = Annotated[float, Field(gt=0, le=_LONGEST_DAYS)]


class Ending(Part):
    """When a key ends: one of both, or neither."""

    expires: AwareDatetime | None = Field(None, description="When it ends, such as `2027-03-31T18:00:00+02:00`.")
    expires_in_days: Days | None = Field(None, description=f"Or in how many days; at most {_LONGEST_DAYS}.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.expires is not None and self.expires_in_days is not None:
            raise ValueError("give either expires or expires_in_days")
        return self

    def ends(self, now: float) -> float | None:
        """Seconds since 1970. Raises `BadRequest` for a time that is over."""
        if self.expires_in_days is not None:
            return now + self.expires_in_days * _DAY
        if self.expires is None:
            return None
        if not now < self.expires.timestamp() <= now + _LONGEST_DAYS * _DAY:
            refuse("expires", f"expires must lie in the next {_LONGEST_DAYS} days")
        return self.expires.timestamp()


class NewKey(Ending):
    """POST /admin/keys."""

    name: Annotated[Text, Field(max_length=128), AfterValidator(printable)] = Field(
        "", description="What it is for, in your own words."
    )
    user: Person | None = Field(None, description="Whose it is; what the user may use counts over all their keys.")
    team: Person | None = Field(None, description="On which team's account.")
    role: Role = Field(Role.USER, description="See the table of roles.")
    use_cases: Items[UseCaseName] = Field([], description="What it may name in `X-Use-Case`, of `accounts.use_cases`.")
    service_class: ServiceClass = Field(ServiceClass.STANDARD, description="`interactive`, `standard` or `batch`.")
    data_class: DataClass | None = Field(
        None,
        description="The least class of what it asks: `public`, `internal`, `confidential`, `personal`; `null`: "
        "`privacy.floor` of the config.",
    )
    allowance: Allowance | None = Field(
        None, description="What it may use, instead of `accounts.each_key`; fields as in `Allowance` of the config."
    )

    def order(self, now: float) -> KeyOrder:
        """As the registry takes it. Raises `BadRequest`."""
        return KeyOrder(
            name=self.name,
            user=self.user,
            team=self.team,
            role=self.role,
            use_cases=frozenset(self.use_cases),
            service_class=self.service_class,
            data_class=self.data_class,
            allowance=self.allowance,
            expires=self.ends(now),
        )


class Rotation(Ending):
    """POST /admin/keys/{id}/rotate."""

    overlap_hours: Annotated[float, Field(ge=0, le=_LONGEST_OVERLAP_HOURS)] = Field(
        24, description="How long the old key opens beside the new one; 0: not any more."
    )


def described(record: KeyRecord) -> dict[str, Any]:
    """A key as administrators see it: never what opens, nor its digest. Times as RFC 3339 has them."""
    now = time.time()
    return {
        "id": record.id,
        "object": "key",
        "name": record.name,
        "state": record.state(now),
        "user": record.user,
        "team": record.team,
        "role": record.role,
        "use_cases": sorted(record.use_cases),
        "service_class": record.service_class,
        "data_class": record.data_class,
        "allowance": record.allowance.model_dump(exclude_none=True) if record.allowance is not None else None,
        "created": _written(record.created),
        "created_by": record.created_by,
        "issued": _written(record.issued),
        "issued_by": list(record.issuers),
        "expires": _written(record.expires),
        "revoked": _written(record.revoked),
        "previous_until": _written(record.previous_until),
    }


def terms(key: KeyOrder | KeyRecord) -> dict[str, Any]:
    """What a key lets its holder do, as it goes on record: nothing that says who that is, as its name could."""
    told: dict[str, Any] = {
        "role": str(key.role),
        "service_class": str(key.service_class),
        "data_class": key.data_class and str(key.data_class),
        "team": key.team,
        "use_cases": sorted(key.use_cases),
        "expires": _written(key.expires),
    }
    if key.allowance is not None:  # as text: records hold no fractions
        told["allowance"] = {name: str(value) for name, value in key.allowance.model_dump(exclude_none=True).items()}
    return {name: value for name, value in told.items() if value}


def _written(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
