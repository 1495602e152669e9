"""How requests wait for an engine."""

from __future__ import annotations

from pydantic import Field

from appliance.config.section import Section


class Waits(Section):
    """How long a request of each service class may be expected to wait; beyond that it is shed at once."""

    interactive_seconds: float = Field(10, ge=0, description="Somebody sits and waits.")
    standard_seconds: float = Field(60, ge=0, description="The class of keys that name none.")
    batch_seconds: float = Field(900, ge=0, description="Nobody waits.")


class Queue(Section):
    """The queue in front of each engine: first by service class, then fair between teams by weight."""

    longest: int = Field(1024, ge=1, le=100_000, description="Requests that may wait for one engine at most.")
    waits: Waits = Field(Waits(), description="See `Waits`.")
    engine_waiting: int = Field(
        4, ge=1, le=1024, description="Requests that may wait inside the engine itself for their first token: enough "
        "to keep it busy, and no more, since order is kept in front of it. More of them where their prompts together "
        "are less than it reads in one step (`max_batched_tokens`)."
    )  # fmt: skip
    kv_cache_share: float = Field(
        0.95, gt=0, le=1, description="Fill of the engine's KV cache from which on it gets no further request."
    )
    headroom: float = Field(
        0.125, ge=0, lt=1, description="Share of an engine's places that a team doesn't take beyond its own share, so "
        "that another finds one at once."
    )  # fmt: skip
    first_token_factor: float | None = Field(
        2, ge=1, description="While others come and go, a team with many requests gets only so much of an engine that "
        "the first token of others takes at most so many times what it takes on an idle one. That costs throughput "
        "where steps grow long with the number of requests, as without a GPU. Empty: a team may fill the engine."
    )  # fmt: skip
