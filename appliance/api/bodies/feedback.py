"""What /v1/feedback takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from appliance.api.bodies.base import Part, Text


class Feedback(Part):
    """POST /v1/feedback."""

    request_id: Annotated[Text, Field(min_length=1, max_length=128)] = Field(
        description="The `x-request-id` of an answer that this key, or another of the same user's, got in the last 24 "
        "hours."
    )
    rating: Literal["up", "down"] = Field(description="Whether the answer was good. Of several, the last one counts.")
