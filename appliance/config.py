"""The typed, frozen form of configs/appliance.yaml.

Every field carries the sentence that docs/configuration.md prints for it, so that the reference can't
drift from the code. Units stand in the names: `_seconds`, `_bytes`, `_gib`, `_ms`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from appliance import strict_yaml
from appliance.addresses import is_private
from appliance.errors import ConfigInvalid, Problem


class Section(BaseModel):
    """A part of the config: frozen, and refusing keys that it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _as_path(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) and value else value


FilePath = Annotated[Path, BeforeValidator(_as_path, json_schema_input_type=str)]


@dataclass(frozen=True, slots=True, repr=False)
class SecretReference:
    """Where a secret is, never what it is: `env.NAME` or `file:/path`."""

    text: str

    def __repr__(self) -> str:
        return f"SecretReference({self.text!r})"

    def read(self, base: Path) -> str:
        """The secret itself, stripped; a relative `file:` path starts at `base`.

        Raises `ConfigInvalid` naming the reference when nothing is there.
        """
        kind, _, name = self.text.partition(":" if self.text.startswith("file:") else ".")
        try:
            value = os.environ[name] if kind == "env" else (base / name).read_text().strip()
        except (KeyError, OSError) as cause:
            raise ConfigInvalid("secret", [Problem(self.text, "nothing is there; set it, then try again")]) from cause
        if not value or not (value.isascii() and value.isprintable()):
            raise ConfigInvalid("secret", [Problem(self.text, "must be one line of printable ASCII")])
        return value


def _secret(value: object) -> object:
    if isinstance(value, SecretReference):
        return value
    if isinstance(value, str) and re.fullmatch(r"env\.[A-Za-z_][A-Za-z0-9_]*|file:.+", value):
        return SecretReference(value)
    raise ValueError("must be a reference, `env.NAME` or `file:/path`, never the secret itself")


Secret = Annotated[SecretReference, BeforeValidator(_secret, json_schema_input_type=str)]


class Tls(Section):
    """Files of the TLS certificate; a renewed one is picked up without a restart."""

    certificate: FilePath = Field(description="PEM file with the certificate and its chain.")
    key: FilePath = Field(description="PEM file with the private key.")


class Listen(Section):
    """Where internal apps reach the appliance. A socket that systemd passes takes the place of the first three."""

    host: str = Field("127.0.0.1", description="Address to listen on. Any but loopback needs `tls` or `behind_proxy`.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one and prints it.")
    socket: FilePath | None = Field(
        None,
        description="Unix socket to listen on instead of `host` and `port`, such as `/run/appliance/api.sock`. "
        "The appliance's user and group may connect (mode 0660).",
    )
    tls: Tls | None = Field(None, description="Serve HTTPS with these files.")
    behind_proxy: bool = Field(
        default=False,
        description="True says: a proxy of yours in front does TLS, so plain HTTP on a non-loopback address is meant.",
    )
    shutdown_seconds: float = Field(
        30, ge=0, description="How long requests in flight may go on after a stop was asked for."
    )

    @model_validator(mode="after")
    def _one_place_without_clear_text_on_the_network(self) -> Self:
        if self.socket is not None and self.model_fields_set & {"host", "port"}:
            raise ValueError("`socket` takes the place of `host` and `port`; leave them out, or leave out `socket`")
        problem = self.objection(None if self.socket is not None else self.host)
        if problem:
            raise ValueError(problem)
        return self

    def objection(self, host: str | None) -> str | None:
        """Why these settings forbid to listen on `host`, an IP address, or on a Unix socket (None); None if not."""
        if host is None:
            return None if self.tls is None else "a Unix socket takes no `tls`: nothing on it leaves this host"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return "host must be an IP address, such as 127.0.0.1 or 0.0.0.0, not a name"
        if address.is_loopback or self.tls is not None or self.behind_proxy:
            return None
        return (
            f"host {host} is reachable from the network: add `tls: {{certificate: ..., key: ...}}`, "
            "or set `behind_proxy: true` if a proxy of yours does TLS in front"
        )


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


class Provider(Section):
    """A service outside the house to which cleared requests may go."""

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
        _refuse_extras("url", self.url)
        return self


# The last label has a letter: 127.1 and 0x7f.1 are addresses to a resolver.
_PUBLIC_NAME = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])")


def _refuse_extras(field: str, url: str) -> None:
    """Raise `ValueError` when `url` holds what a base URL may not."""
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"{field}: the port must be a number up to 65535") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"{field} may hold no credentials, query or fragment; use `key: env.NAME`")


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


def _egress(value: object) -> object:
    return {"mode": value} if isinstance(value, str) else value


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
        "fcfs", description="Order of waiting requests: first come first served, or by the priority the appliance sets."
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


def may_be_private(host: str) -> bool:
    """Whether an address is one of the house, or a name might lead to one: that shows only when it is looked up."""
    try:
        return is_private(host)
    except ValueError:
        return True


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
    task: Literal["chat", "embedding"] = Field("chat", description="What the model is for.")
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
        _refuse_extras("endpoint", self.endpoint)
        return self


def _kind_of_model(value: Any) -> str:
    if isinstance(value, dict):
        return "tagged-endpoint" if "endpoint" in value else "tagged-card"
    return "tagged-endpoint" if isinstance(value, RemoteModel) else "tagged-card"


Model = Annotated[
    Annotated[LocalModel, Tag("tagged-card")] | Annotated[RemoteModel, Tag("tagged-endpoint")],
    Discriminator(_kind_of_model),
]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]


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


class Settings(Section):
    """configs/appliance.yaml."""

    listen: Listen = Field(Listen(), description="See `Listen`.")
    egress: Annotated[Egress, BeforeValidator(_egress, json_schema_input_type=Egress | Literal["deny"])] = Field(
        Egress(), description="See `Egress`."
    )
    state: FilePath = Field(
        Path("../state"), description="Private folder for keys, sockets and logs; made with mode 0700."
    )
    models_folder: FilePath = Field(
        Path("../models"),
        description="Folder that holds one folder per model card. It may be a symbolic link, but hold none that an "
        "engine would have to follow: mount another disk there instead. It may not lie in `state`.",
    )
    models: dict[ModelName, Model] = Field(
        min_length=1, description="Public model name, as apps send it, to the card or endpoint that serves it."
    )
    engines: Engines = Field(Engines(), description="See `Engines`.")
    limits: Limits = Field(Limits(), description="See `Limits`.")
    objectives: Objectives = Field(Objectives(), description="See `Objectives`.")


@dataclass(frozen=True, slots=True)
class Config:
    """Settings together with the file they came from."""

    settings: Settings
    file: Path

    def path(self, path: Path) -> Path:
        """`path` made absolute: relative paths in a config start at the config file's folder."""
        return (self.file.parent / path).resolve()

    @property
    def state(self) -> Path:
        """The private state folder, absolute."""
        return self.path(self.settings.state)

    @property
    def models_folder(self) -> Path:
        """The folder of model cards, absolute."""
        return self.path(self.settings.models_folder)


def load(file: Path) -> Config:
    """Read a config file. Raises `ConfigInvalid` with every problem, its line and a suggestion."""
    file = file.expanduser().resolve()
    return Config(strict_yaml.read(file, Settings, ConfigInvalid), file)
