"""Engines' environment, bounds on requests, and objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from appliance.config.section import FilePath, Section


class Engines(Section):
    """The programs that run models."""

    environment: FilePath = Field(
        Path("../.venvs/engine"),
        description="Python environment that holds vLLM. Another path tries another version, gateway untouched; "
        "it takes a restart.",
    )
    preparation_environment: FilePath = Field(
        Path("../.venvs/prepare"),
        description="Python environment that `appliance models prepare` converts weights in; serving doesn't need it.",
    )
    evaluation_environment: FilePath = Field(
        Path("../.venvs/evaluate"),
        description="Python environment that `appliance eval` runs in; serving doesn't need it.",
    )
    memory_gib: float | None = Field(
        None, gt=0, description="Memory that all engines may take together. Empty: what the host, or its GPUs, have."
    )
    reserve_gib: float = Field(1, ge=0, description="Memory that is left free when it is asked whether an engine fits.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes the GPU where there is one.")
    restart_backoff_seconds: float = Field(
        1, gt=0, description="Wait before the first restart of a crashed engine; doubles with each, up to a minute."
    )


class Limits(Section):
    """Bounds on what a request may ask for; beyond them it is refused and the engine never hears of it."""

    body_bytes: int = Field(4 * 2**20, ge=1024, description="Size of a request's body.")
    header_bytes: int = Field(32 * 2**10, ge=1024, description="Request line and headers together.")
    header_count: int = Field(100, ge=8, description="Number of headers.")
    header_seconds: float = Field(10, gt=0, description="Time for all headers to arrive.")
    body_seconds: float = Field(30, gt=0, description="Time for the body to arrive, on top of its minimum rate.")
    body_bytes_per_second: int = Field(64 * 2**10, ge=1, description="Minimum rate at which a body must arrive.")
    write_seconds: float = Field(60, gt=0, description="A client that reads nothing for so long is dropped.")
    idle_seconds: float = Field(75, gt=0, description="How long an idle connection is kept.")
    connections: int = Field(2048, ge=1, description="Open connections at once.")
    json_depth: int = Field(32, ge=4, le=150, description="Nesting of JSON in schemas, tool parameters and arguments.")
    json_values: int = Field(20_000, ge=100, description="Values in one schema, tool or argument object.")
    messages: int = Field(2048, ge=1, description="Messages in one conversation.")
    tools: int = Field(128, ge=1, description="Tools in one request.")
    choices: int = Field(16, ge=1, le=1024, description="`n` and `best_of`.")
    logprobs: int = Field(20, ge=0, le=1024, description="`logprobs` and `top_logprobs`.")
    stop_sequences: int = Field(16, ge=1, description="Entries of `stop` or `stop_sequences`.")
    inputs: int = Field(2048, ge=1, description="Texts in one embedding, rerank or score request.")
    pattern_length: int = Field(2048, ge=1, description="Characters of a regular expression or grammar.")


class Objectives(Section):
    """What `make bench` holds the appliance to (service level objectives)."""

    time_to_first_token_ms: float = Field(2000, gt=0, description="From sending a request to its first token.")
    inter_token_latency_ms: float = Field(250, gt=0, description="Mean gap between a request's tokens.")
    end_to_end_ms: float = Field(30_000, gt=0, description="From sending a request to its last token.")
    share: float = Field(0.95, gt=0, le=1, description="Share of requests that must meet all three (goodput).")
    tokens_per_second: float = Field(0, ge=0, description="Output tokens a second over the whole run, at least.")
