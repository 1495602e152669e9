"""Model cards: what a model is, where its weights come from, what it may be used for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from appliance import strict_yaml
from appliance.errors import CardInvalid, Problem

Quantization = Literal["none", "bitsandbytes-4bit", "int8", "int8-weight-only", "w4a16", "awq", "gptq", "fp8"]
Device = Literal["cpu", "cuda"]

CONVERTED: frozenset[Quantization] = frozenset({"int8", "w4a16", "awq", "gptq", "fp8"})
"""Quantizations that `models prepare` can compute itself from unquantized weights."""
CALIBRATED: frozenset[Quantization] = frozenset({"awq", "gptq"})
"""Those of them that need texts to be computed with."""


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise ValueError("must be a relative path without `..`")
    return name


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
InnerPath = Annotated[str, AfterValidator(_inside)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]


_REMOTE_CODE = re.compile(
    r"(.*(remote|custom|dynamic)_?code.*)|(auto_?map(ping)?)|(allow_?)?(pickles?|unsafe)(_.*)?|load_?format|"
    r"hf_?overrides|(vllm|engine|extra)_?(args|arguments|options)|(custom_?)?(pipelines?|modeling)|plugins?",
    re.IGNORECASE,
)
"""What people try, to have code of a model run or a pickle loaded, in any spelling."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _no_remote_code(cls, given: object) -> object:
        for key in given if isinstance(given, dict) else ():
            if _REMOTE_CODE.fullmatch(str(key).replace("-", "_")):
                raise ValueError(
                    f"`{key}` isn't offered: code that comes with a model is never run and only safetensors are "
                    "loaded, because either could do all that an engine can. Remove it; a model that vLLM doesn't "
                    "know by itself can't be served."
                )
        return given


_Address = Annotated[str, Field(pattern=r"^https?://[^\s?#@/]+(/[^\s?#]*)?$")]
"""Without a login: cards are shown and kept."""


class Package(_Part):
    """Weights inside a Python package of the hash-locked preparation environment."""

    requirement: str = Field(
        pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+$",
        description="The package and its exact version, as in configs/locks/prepare.in.",
    )
    file: InnerPath = Field(
        description="The weights inside the installed package: a .gguf file, or a .safetensors file whose "
        "folder also holds config.json and the tokenizer."
    )
    sha256: Sha256 = Field(description="Checksum of that file.")


class Mirror(_Part):
    """A plain static file server that holds the checkpoint beside a SHA256SUMS file."""

    url: _Address = Field(
        description="Base URL; `http:` only for addresses of a private network. No hub and no login: the "
        "files named in SHA256SUMS are fetched from below it.",
    )
    sha256sums: Sha256 | None = Field(
        None, description="Checksum of SHA256SUMS itself; with it the server need not be trusted."
    )


class Hub(_Part):
    """A repository of the Hugging Face hub, or of a server that speaks its protocol, at one commit."""

    repo: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", description="Owner and name, `owner/name`.")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$", description="The commit; a branch would be another one tomorrow.")
    endpoint: _Address = Field(
        "https://huggingface.co",
        description="Base URL of the hub; `http:` only for addresses of a private network.",
    )


class Source(_Part):
    """Where the weights come from: exactly one of the four."""

    package: Package | None = Field(None, description="A Python package that carries the weights.")
    folder: str | None = Field(
        None,
        min_length=1,
        description="A folder with a checkpoint that somebody brought; a relative path starts at the card's folder.",
    )
    mirror: Mirror | None = Field(None, description="A static file server on the site's own network.")
    hub: Hub | None = Field(None, description="A repository of a model hub, for machines that may fetch from one.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if [self.package, self.folder, self.mirror, self.hub].count(None) != 3:
            raise ValueError("give exactly one of `package`, `folder`, `mirror` and `hub`")
        return self


class Calibration(_Part):
    """Texts that weights are quantized with, so that the numbers which matter for such texts lose least."""

    file: InnerPath = Field(description="Beside the card: JSON lines with `text`, or plain text, a text in each line.")
    sha256: Sha256 = Field(description="Checksum of that file: other texts would make other weights.")


class Chat(_Part):
    """What a chat request gets where it doesn't say otherwise."""

    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature; 0 takes the likeliest token.")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample among the likeliest tokens of this total share.")
    max_tokens: int = Field(1024, ge=1, description="Longest answer in tokens.")
    tool_call_parser: str | None = Field(
        None,
        pattern=r"^[a-z0-9_]+$",
        description="vLLM's name of the parser for the model's tool calls; none: the model can't call tools.",
    )
    reasoning_parser: str | None = Field(
        None,
        pattern=r"^[a-z0-9_]+$",
        description="vLLM's name of the parser that parts thoughts from the answer; none: the model has none.",
    )


class Hardware(_Part):
    """What a machine needs to serve the model."""

    devices: Annotated[tuple[Device, ...], Field(strict=False, min_length=1)] = Field(
        description="What it runs on: `cpu`, `cuda` or both."
    )
    memory_gib: float = Field(gt=0, description="Main memory for the engine with a small KV cache, in GiB.")
    gpu_memory_gib: float | None = Field(None, gt=0, description="GPU memory for weights and a small KV cache, in GiB.")
    compute_capability: float | None = Field(
        None, ge=5, description="Lowest CUDA compute capability that has the kernels, such as 7.5."
    )

    @model_validator(mode="after")
    def _gpu_figures_go_with_a_gpu(self) -> Self:
        if "cuda" not in self.devices and (self.gpu_memory_gib or self.compute_capability):
            raise ValueError("gpu_memory_gib and compute_capability need `cuda` among the devices")
        return self


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as cause:
        raise ValueError(f"isn't a regular expression: {cause}") from None
    return text


class Smoke(_Part):
    """A first question, asked as callers ask theirs."""

    prompt: str = Field("Say hello in one short sentence.", min_length=1, max_length=4000, description="The question.")
    expect: Annotated[str, Field(max_length=200), AfterValidator(_pattern)] | None = Field(
        None, description="Regular expression that the answer must hold. Empty: any answer will do that isn't empty."
    )
    max_tokens: int = Field(
        32, ge=1, le=4096, description="Longest answer; with `expect`, leave a model that thinks room for that, too."
    )


class Acceptance(_Part):
    """What a new engine with this model has to pass before anybody is answered by it. See docs/models.md."""

    seconds: float = Field(120, gt=0, le=3600, description="Longest that all of it may take; slower has failed.")
    smoke: Smoke = Field(Smoke(), description="See `Smoke`.")
    nats_per_token: float = Field(
        6.0,
        gt=0,
        description="Highest mean negative log likelihood of a plain text in the card's languages. Weights that are "
        "broken give about the logarithm of the vocabulary's size, such as 10.8; right ones 2 to 5.",
    )
    same_percent: float = Field(
        85,
        ge=0,
        le=100,
        description="How much of the answers with a fixed seed must be what they were when these weights passed first. "
        "Not 100, since sums come out a little differently in another batch.",
    )
    golden_percent: float | None = Field(
        None, ge=0, le=100, description="Least part of the golden cases for the gate to pass. Empty: any."
    )
    golden_less: float = Field(
        25, ge=0, le=100, description="Percentage points by which less of them may pass than with the model before it."
    )
    slower_times: float = Field(
        2.0, ge=1, description="How many times as long as the model before it, it may take for a token."
    )


class Card(_Part):
    """One model: models/<name>/card.yaml. The folder's name is the model's."""

    title: str = Field(min_length=1, description="The name people know it by.")
    description: str = Field(min_length=1, description="One or two sentences: what it is, and from whom.")
    task: Literal["chat", "embedding", "rerank"] = Field(
        description="What it is asked for: `rerank` is a cross-encoder, which reads a query and a document together "
        "and says how well they fit; an `embedding` model answers such requests, too, by comparing vectors."
    )
    source: Source = Field(description="Where the weights come from.")
    licence: str = Field(min_length=1, description="SPDX identifier of the weights' licence.")
    quantization: Quantization = Field(
        description="Number format it is served in. `int8` (weights and activations), `w4a16`, `awq`, `gptq` and "
        "`fp8` are computed at preparation if the source isn't quantized; `bitsandbytes-4bit` and "
        "`int8-weight-only` while loading."
    )
    calibration: Calibration | None = Field(
        None, description="The texts that `awq` and `gptq` are computed with, if the source isn't quantized."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Number format of what isn't quantized."
    )
    context_length: int = Field(ge=1, description="Longest prompt and answer together, in tokens.")
    languages: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        description="Languages it is meant for, as BCP 47 tags (`en`, `de`)."
    )
    chat: Chat = Field(Chat(), description="Defaults of chat requests.")
    hardware: Hardware = Field(description="What a machine needs to serve it.")
    gate: Acceptance = Field(Acceptance(), description="See `Acceptance`.")
    checksums: Mapping[InnerPath, Sha256] = Field(
        {}, description="Files of the source and the checksum each must have; others are only recorded."
    )
    intended_use: str = Field(min_length=1, description="What it is meant for, for the model factsheet.")
    out_of_scope: Texts = Field((), description="What it must not be used for.")
    limits: Texts = Field((), description="What is known to go wrong.")

    @model_validator(mode="after")
    def _only_what_can_be_served(self) -> Self:
        if self.task != "chat" and self.quantization != "none":
            raise ValueError(f"quantization of a model for {self.task} must be `none`")
        if self.calibration and self.quantization not in CALIBRATED:
            raise ValueError(f"quantization {self.quantization} is computed without `calibration`; leave it out")
        return self


def load_card(folder: Path) -> Card:
    """The card of the model in `folder`.

    Raises `CardInvalid` with every finding and its line.
    """
    return strict_yaml.read(folder / "card.yaml", Card, CardInvalid)


def named(models: Path, name: str) -> Path:
    """The folder of model `name` below `models`; raises `CardInvalid` with the names there are."""
    folder = models / name
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) and (folder / "card.yaml").is_file():
        return folder
    known = sorted(card.parent.name for card in models.glob("*/card.yaml"))
    near = "".join(f"did you mean {each!r}? " for each in difflib.get_close_matches(name, known, n=1))
    what = f"there is no model {name!r}; {near}there are: {', '.join(known) or 'none'}"
    raise CardInvalid(str(models), [Problem("", what)])
