"""What /admin/audit/reveals takes."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from appliance.api.bodies.base import Part, Text
from appliance.config.accounts import printable


def _stripped(text: str) -> str:
    if len(text.strip()) < 10:
        raise ValueError("say in at least 10 characters why, such as a file number and what it is about")
    return text.strip()


class NewReveal(Part):
    """POST /admin/audit/reveals."""

    subject: Annotated[Text, Field(pattern=r"^p_[0-9a-f]{24}$")] = Field(
        description="Who is to be revealed, as records have it: `p_` and 24 digits (0-9, a-f)."
    )
    reason: Annotated[Text, Field(max_length=500), AfterValidator(printable), AfterValidator(_stripped)] = Field(
        description="Why, in 10 to 500 characters. It stays in the log, readable: write nobody's name into it."
    )
