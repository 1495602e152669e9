"""The models that are served, and how their engines are set."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, model_validator

from appliance.config.section import FilePath, Secret, Section, may_be_private, refuse_extras

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]


class Batching(Section):
    """How an engine batches requests (vLLM's continuous batching)."""

    max_sequences: int = Field(64, ge=1, le=4096, description="Requests decoded together in one step at most.")
    max_batched_tokens: int = Field(
        2048,
        ge=64,
        le=1_000_000,
        description="Tokens computed in one step at most: more favours throughput, fewer favours inter-token latency.",
    )
    chunked_prefill: bool = Field(
        default=True, description="Split long prompts over several steps, so that they don't stall running answers."
    )
    scheduling: Literal["fcfs", "priority"] = Field(
        "priority",
        description="Order of requests that wait inside the engine: by service class, or first come first served.",
    )


class KvCache(Section):
    """The engine's memory of the tokens it has read and written."""

    type: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"] = Field(
        "auto", description="Number format; `fp8` holds twice the tokens in the same space (on GPUs that have it)."
    )
    space_gib: float = Field(2, gt=0, le=4096, description="Memory for the KV cache without a GPU, in GiB.")
    gpu_memory_share: float = Field(
        0.9, gt=0, le=1, description="Share of the GPU's memory for weights and KV cache together."
    )
    prefix_caching: bool = Field(
        default=True, description="Reuse the work on prompts that begin alike, such as a shared system prompt."
    )
    block_size: int | None = Field(
        None, description="Tokens per block; empty leaves the choice to the engine (128 on CPU, 16 on CUDA)."
    )


class Idle(Section):
    """What becomes of a model that nobody asks for."""

    after_seconds: float | None = Field(
        None, gt=0, description="Without a request for so long, the model gives its memory back. Empty: never."
    )
    then: Literal["stop", "sleep"] = Field(
        "stop",
        description="`stop` ends its engine; `sleep` has it give the GPU's memory back and keep its weights in main "
        "memory, from where it wakes in seconds (on GPUs only).",
    )


class Bounds(Section):
    """When a rollout is promoted or rolled back by itself. Each compares the candidate with what serves now."""

    errors_percent_more: float = Field(
        1, ge=0, le=100, description="Percentage points by which more of the candidate's requests may fail."
    )
    first_token_times: float = Field(
        1.5,
        ge=1,
        description="How many times as long it may take to the first token, at the 95th percentile.",
    )
    token_times: float = Field(
        1.5, ge=1, description="How many times as long it may take for each token after it, at the 95th percentile."
    )
    feedback_percent_less: float = Field(
        10, ge=0, le=100, description="Percentage points by which less of its feedback may be good."
    )
    agreement_percent: float | None = Field(
        None, ge=0, le=100, description="For a shadow: how much of its answers must agree, at least. Empty: any."
    )


class Rollout(Section):
    """Another card for the same public name, tried with a part of the requests before it takes over."""

    card: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="The candidate: a folder under `models_folder`."
    )
    mode: Literal["canary", "shadow", "ab", "blue-green"] = Field(
        "canary",
        description="`canary` answers `percent` of the requests and is promoted or rolled back by `bounds`; `ab` does "
        "so for comparison, and a person decides; `shadow` gets copies, its answers are compared and shown to nobody; "
        "`blue-green` stands by with no requests until `appliance rollout promote`.",
    )
    percent: float = Field(10, ge=0, le=100, description="Share of requests, or of copies, that the candidate gets.")
    by: Literal["user", "team", "request"] = Field(
        "user", description="Who stays with one of the two: each user, each team, or nobody (each request by itself)."
    )
    window_seconds: float = Field(3600, gt=0, description="Time over which the two are compared.")
    least_requests: int = Field(100, ge=1, description="Requests that the candidate must have answered within it.")
    promote: Literal["automatic", "manual"] = Field(
        "automatic", description="Whether a candidate within `bounds` takes over by itself at the window's end."
    )
    bounds: Bounds = Field(Bounds(), description="See `Bounds`.")


_NOT_OF_THE_ENGINE = ("swap", "wait_seconds", "memory_gib", "idle", "rollout", "drain_seconds")


class LocalModel(Section):
    """A model that an engine of this appliance serves."""

    kind: ClassVar[Literal["card"]] = "card"

    card: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Folder under `models_folder` that holds the model's card."
    )
    context_length: int | None = Field(
        None, ge=16, description="Serve a shorter context than the card's, to save memory (tokens)."
    )
    batching: Batching = Field(Batching(), description="See `Batching`.")
    kv_cache: KvCache = Field(KvCache(), description="See `KvCache`.")
    compile: bool = Field(
        default=False,
        description="Compile the model at start: a third faster, but a start takes minutes and needs a C++ compiler.",
    )
    tensor_parallel: int = Field(1, ge=1, le=64, description="GPUs that share the model (vLLM's own distribution).")
    startup_seconds: float = Field(600, gt=0, description="A start that takes longer has failed.")
    stall_seconds: float = Field(
        60, gt=0, description="An engine whose tokens haven't moved for so long, though there is work, is restarted."
    )
    drain_seconds: float = Field(
        300, gt=0, description="How long an engine that was replaced may finish its requests before it is ended."
    )
    swap: Literal["auto", "beside", "replace", "sleep"] = Field(
        "auto",
        description="How another card takes over: `beside` starts it while the old one serves; `replace` ends the old "
        "one first, and requests wait; `sleep` has the old one give up its GPU memory meanwhile. `auto` takes the "
        "first that fits into memory.",
    )
    wait_seconds: float = Field(
        600,
        ge=0,
        description="How long a request waits for a model that is being replaced or comes back from idling: more than "
        "`drain_seconds` and a start together.",
    )
    memory_gib: float | None = Field(
        None, gt=0, description="Memory that the engine takes in all, where it is known better than from its weights."
    )
    idle: Idle = Field(Idle(), description="See `Idle`.")
    adapters: dict[ModelName, str] = Field(
        {},
        description="Public name to a LoRA adapter, a folder under the card's `adapters/`, served beside its base.",
    )
    rollout: Rollout | None = Field(None, description="See `Rollout`.")

    @property
    def of_engine(self) -> LocalModel:
        """What of it an engine has to be started anew for; the rest is as by default."""
        return self.model_copy(
            update={name: LocalModel.model_fields[name].get_default() for name in _NOT_OF_THE_ENGINE}
        )


class RemoteModel(Section):
    """A model on an OpenAI-compatible server that the company already runs."""

    kind: ClassVar[Literal["endpoint"]] = "endpoint"

    endpoint: str = Field(
        description="Base URL, such as `https://gpu2.example.internal/v1`, or `unix:/path/to.sock`. "
        "Only private addresses; plain `http` only there, too."
    )
    key: Secret | None = Field(None, description="Its API key, by reference: `env.NAME` or `file:/path`.")
    ca: FilePath | None = Field(None, description="PEM file of the authority that signed its certificate.")
    upstream_model: str | None = Field(None, description="The model's name there, where it differs from the name here.")
    task: Literal["chat", "embedding", "rerank"] = Field("chat", description="What the model is for.")
    context_length: int | None = Field(None, ge=16, description="Its context length in tokens, where known.")
    stall_seconds: float = Field(300, gt=0, description="A request to which it sends nothing for so long has failed.")

    @model_validator(mode="after")
    def _url(self) -> Self:
        parts = urlsplit(self.endpoint)
        if parts.scheme == "unix":
            if not parts.path.startswith("/"):
                raise ValueError("endpoint: a unix socket needs an absolute path, `unix:/path/to.sock`")
        elif parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("endpoint must start with https://, http:// or unix:/")
        elif not may_be_private(parts.hostname):
            raise ValueError("endpoint must be a private address, or a name that leads to one")
        refuse_extras("endpoint", self.endpoint)
        return self


def _kind_of_model(value: Any) -> str:
    if isinstance(value, dict):
        return "tagged-endpoint" if "endpoint" in value else "tagged-card"
    return "tagged-endpoint" if isinstance(value, RemoteModel) else "tagged-card"


Model = Annotated[
    Annotated[LocalModel, Tag("tagged-card")] | Annotated[RemoteModel, Tag("tagged-endpoint")],
    Discriminator(_kind_of_model),
]
