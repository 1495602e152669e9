"""How a card and its settings become the command that starts vLLM. Pure: no process, no file is touched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from appliance.config import LocalModel
from appliance.telemetry import SILENT
from appliance.weights.adapters import Adapter
from appliance.weights.card import Card

SLEEP_MODE = "--enable-sleep-mode"
_MOST = 1024
"""The engine's own bound on choices and logprobs: the highest that `limits` may be set to, without a restart."""

_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM can be told to make room for."""
_MOST_LORAS = 8
"""Adapters that one step computes with at most; of more, some wait for the next step."""

_QUANTIZATION_FLAGS = {
    "none": [],
    "bitsandbytes-4bit": ["--quantization", "bitsandbytes"],
    "int8-weight-only": ["--quantization", "int8_per_channel_weight_only"],
    # the checkpoint's own config.json says how it is quantized, and vLLM picks the kernel for the device
    "int8": [],
    "w4a16": [],
    "awq": [],
    "gptq": [],
    "fp8": [],
}


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that decides how an engine runs; two equal specs need no swap."""

    name: str
    card: Card
    settings: LocalModel
    weights: Path
    python: Path
    device: Literal["cpu", "cuda"]
    fingerprint: str
    """SHA-256 of the weights' manifest: other weights under the same name are another spec."""
    cores: int = 1
    """Cores to compute on when there is no GPU."""
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    """LoRA adapters by their public names."""

    @property
    def version(self) -> str:
        """Card and weights, such as `smollm2-135m-int8@1a2b3c4d`."""
        return f"{self.settings.card}@{self.fingerprint[:8]}"

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""
        return min(self.settings.context_length or self.card.context_length, self.card.context_length)


@dataclass(frozen=True, slots=True)
class Launch:
    """A command ready to be spawned, with its whole environment: nothing is inherited."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(repr=False)
    socket: Path
    log: Path
    readable: tuple[Path, ...]
    """What the engine must see of the house's private folders."""
    writable: tuple[Path, ...]
    gives_way: bool = False
    """Whether it takes only the processor time that others leave, until it has answered."""
    name: str | None = None
    """What it goes by where processes are listed."""


def launch(spec: Spec, folder: Path, cache: Path, log: Path, gpus: Sequence[int] = ()) -> Launch:
    """The command for `spec`. `folder` is private to this start and will hold the socket.

    `gpus` are those that it is to run on; where none are named, it takes the first.
    """
    settings, card = spec.settings, spec.card
    batching, cache_settings = settings.batching, settings.kv_cache
    socket = folder / "engine.sock"
    argv = [
        str(spec.python), "-m", "vllm.entrypoints.openai.api_server",
        "--uds", str(socket),
        "--model", str(spec.weights),
        "--served-model-name", spec.name,
        "--load-format", "bitsandbytes" if card.quantization == "bitsandbytes-4bit" else "safetensors",
        "--dtype", card.dtype,
        *_QUANTIZATION_FLAGS[card.quantization],
        "--max-model-len", str(spec.context_length),
        "--max-num-seqs", str(batching.max_sequences),
        "--max-num-batched-tokens", str(batching.max_batched_tokens),
        "--scheduling-policy", batching.scheduling,
        "--kv-cache-dtype", cache_settings.type,
        "--tensor-parallel-size", str(settings.tensor_parallel),
        "--max-logprobs", str(_MOST),
        "--generation-config", "vllm",
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
        "--limit-mm-per-prompt", json.dumps({"image": 8, "audio": 2, "video": 0}),
    ]  # fmt: skip
    if card.task == "chat":
        # a model that only reads in one go has no cache of prefixes, and vLLM fails when told to have one
        argv.append("--enable-prefix-caching" if cache_settings.prefix_caching else "--no-enable-prefix-caching")
        argv.append("--enable-chunked-prefill" if batching.chunked_prefill else "--no-enable-chunked-prefill")
        defaults = {"temperature": card.chat.temperature, "top_p": card.chat.top_p}
        argv += ["--override-generation-config", json.dumps(defaults)]
        if card.chat.tool_call_parser:
            argv += ["--enable-auto-tool-choice", "--tool-call-parser", card.chat.tool_call_parser]
        if card.chat.reasoning_parser:
            argv += ["--reasoning-parser", card.chat.reasoning_parser]
        argv += _adapter_flags(spec.adapters)
    else:  # whether it gives vectors or scores pairs, vLLM sees by the model's architecture
        argv += ["--runner", "pooling"]
    if cache_settings.block_size is not None:
        argv += ["--block-size", str(cache_settings.block_size)]
    if not settings.compile:
        argv.append("--enforce-eager")
    if sleeps := _sleeps(spec):
        argv.append(SLEEP_MODE)
    if spec.device == "cuda":
        argv += ["--gpu-memory-utilization", str(cache_settings.gpu_memory_share)]
    else:
        argv += ["--kv-cache-memory-bytes", str(int(cache_settings.space_gib * 2**30))]
    env = {
        "PATH": f"{spec.python.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(cache),
        "XDG_CACHE_HOME": str(cache),
        "TMPDIR": "/tmp",  # noqa: S108 - the engine's own, inside its mount namespace
        "LANG": "C.UTF-8",
        # where `make` puts a library of the engine's that the host lacks
        "LD_LIBRARY_PATH": str(spec.python.parent.parent / "lib"),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "VLLM_CONFIG_ROOT": str(cache / "vllm-config"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "HF_HOME": str(cache / "huggingface"),
        **SILENT,
        # a package that vLLM loads for clouds would run the file model.py from where those put models
        "SAGEMAKER_MODEL_PATH": "/nonexistent",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOGGING_COLOR": "0",
        # vLLM would pin every engine to the same cores, where beside a busy one a second doesn't even start;
        # and threads that spin for each other need a core each, or tokens come at a tenth of the speed
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(max(1, spec.cores // settings.tensor_parallel)),
        # --enforce-eager leaves out the sampler: the first request for logprobs would wait for a C++ compiler
        **({} if settings.compile else {"TORCHDYNAMO_DISABLE": "1"}),
        "VLLM_MAX_N_SEQUENCES": str(_MOST),
        # in the order in which nvidia-smi numbers them, which is not CUDA's own
        **({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))} if gpus else {}),
        # without it vLLM has no way to be told to sleep
        **({"VLLM_SERVER_DEV_MODE": "1"} if sleeps else {}),
        # an idle connection is dropped by us, not by the engine in the moment that we use it
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "86400",
    }
    return Launch(
        argv=tuple(argv),
        env=env,
        socket=socket,
        log=log,
        readable=(spec.weights, *(adapter.folder for adapter in spec.adapters.values()), spec.python.parent.parent),
        writable=(folder, cache),
        name=f"engine-{spec.name.replace('/', '_')}",
    )


def _sleeps(spec: Spec) -> bool:
    """Whether it is to be able to give a GPU's memory back without ending."""
    return spec.device == "cuda" and "sleep" in (spec.settings.swap, spec.settings.idle.then)


def _adapter_flags(adapters: Mapping[str, Adapter]) -> Iterator[str]:
    """All are loaded at the start; none can be added later, which would take VLLM_ALLOW_RUNTIME_LORA_UPDATING."""
    if not adapters:
        return
    highest = max(adapter.rank for adapter in adapters.values())
    yield "--enable-lora"
    yield from ("--max-lora-rank", str(min(rank for rank in _LORA_RANKS if rank >= highest)))
    yield from ("--max-loras", str(min(len(adapters), _MOST_LORAS)))
    yield from ("--max-cpu-loras", str(len(adapters)))
    yield "--lora-modules"
    for name, adapter in sorted(adapters.items()):
        yield json.dumps({"name": name, "path": str(adapter.folder)})
