"""A card and its settings as vLLM's command line: each named setting is a flag, and nothing comes from a caller."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from appliance.config import Limits, LocalModel
from appliance.engines.command import Launch, Spec, launch
from appliance.telemetry import SILENT
from appliance.weights.adapters import Adapter
from appliance.weights.card import Card

HOUSE = Path("/house")


def spec(*, card: dict[str, Any] | None = None, device: Literal["cpu", "cuda"] = "cpu", **settings: Any) -> Spec:
    plain = {
        "title": "T", "description": "d", "task": "chat", "source": {"folder": "x"}, "licence": "MIT",
        "quantization": "none", "context_length": 512, "languages": ["en"],
        "hardware": {"devices": ["cpu", "cuda"], "memory_gib": 1}, "intended_use": "tests", **(card or {}),
    }  # fmt: skip
    model = LocalModel.model_validate({"card": "t", **settings})
    return Spec("chat", Card.model_validate(plain), model, HOUSE / "w", HOUSE / "env/bin/python", device, "f")


def of(spec: Spec) -> Launch:
    return launch(spec, HOUSE / "run/e1", HOUSE / "cache", HOUSE / "log")


def flags(launch: Launch) -> dict[str, str | None]:
    """Flag to value; None for a switch."""
    found: dict[str, str | None] = {}
    rest = list(launch.argv[3:])
    while rest:
        name = rest.pop(0)
        assert name.startswith("--")
        assert name not in found, f"{name} is given twice"
        found[name] = rest.pop(0) if rest and not rest[0].startswith("--") else None
    return found


def test_the_least_command_is_this() -> None:
    made = of(spec())
    assert made.argv[:3] == ("/house/env/bin/python", "-m", "vllm.entrypoints.openai.api_server")
    assert flags(made) == flags(made) | {
        "--uds": "/house/run/e1/engine.sock",
        "--model": "/house/w",
        "--served-model-name": "chat",
        "--load-format": "safetensors",
        "--max-model-len": "512",
        "--generation-config": "vllm",
        "--disable-fastapi-docs": None,
        "--disable-uvicorn-access-log": None,
    }


def test_an_engine_never_listens_on_the_network_and_never_runs_code_of_a_model() -> None:
    for device in ("cpu", "cuda"):
        made = flags(of(spec(device=device)))
        assert not {"--host", "--port", "--trust-remote-code", "--api-key", "--allowed-media-domains"} & set(made)
        assert made["--load-format"] == "safetensors"


CASES: list[tuple[dict[str, Any], dict[str, str | None]]] = [
    ({"batching": {"max_sequences": 7}}, {"--max-num-seqs": "7"}),
    ({"batching": {"max_batched_tokens": 999}}, {"--max-num-batched-tokens": "999"}),
    ({"batching": {"chunked_prefill": False}}, {"--no-enable-chunked-prefill": None}),
    ({"batching": {"chunked_prefill": True}}, {"--enable-chunked-prefill": None}),
    ({}, {"--scheduling-policy": "priority"}),
    ({"batching": {"scheduling": "fcfs"}}, {"--scheduling-policy": "fcfs"}),
    ({"kv_cache": {"type": "fp8"}}, {"--kv-cache-dtype": "fp8"}),
    ({"kv_cache": {"prefix_caching": False}}, {"--no-enable-prefix-caching": None}),
    ({"kv_cache": {"prefix_caching": True}}, {"--enable-prefix-caching": None}),
    ({"kv_cache": {"block_size": 32}}, {"--block-size": "32"}),
    ({"kv_cache": {"space_gib": 1.5}}, {"--kv-cache-memory-bytes": str(3 * 2**29)}),
    ({"device": "cuda", "kv_cache": {"gpu_memory_share": 0.5}}, {"--gpu-memory-utilization": "0.5"}),
    ({"context_length": 128}, {"--max-model-len": "128"}),
    ({"context_length": 4096}, {"--max-model-len": "512"}),
    ({"tensor_parallel": 2}, {"--tensor-parallel-size": "2"}),
    ({"compile": False}, {"--enforce-eager": None}),
    (
        {"card": {"quantization": "bitsandbytes-4bit"}},
        {"--quantization": "bitsandbytes", "--load-format": "bitsandbytes"},
    ),
    ({"card": {"quantization": "int8-weight-only"}}, {"--quantization": "int8_per_channel_weight_only"}),
    ({"card": {"dtype": "float32"}}, {"--dtype": "float32"}),
    ({"card": {"task": "embedding"}}, {"--runner": "pooling"}),
    ({"card": {"task": "rerank"}}, {"--runner": "pooling"}),
    (
        {"card": {"chat": {"tool_call_parser": "hermes"}}},
        {"--enable-auto-tool-choice": None, "--tool-call-parser": "hermes"},
    ),
    ({"card": {"chat": {"reasoning_parser": "qwen3"}}}, {"--reasoning-parser": "qwen3"}),
]


@pytest.mark.parametrize(("settings", "expected"), CASES, ids=[str(settings) for settings, _ in CASES])
def test_each_setting_is_its_flag(settings: dict[str, Any], expected: dict[str, str | None]) -> None:
    made = flags(of(spec(**settings)))
    assert made == made | expected


@pytest.mark.parametrize("quantization", ["none", "int8", "w4a16", "awq", "gptq", "fp8"])
def test_a_checkpoint_that_says_how_it_is_quantized_needs_no_flag(quantization: str) -> None:
    assert "--quantization" not in flags(of(spec(card={"quantization": quantization})))


def beside(**ranks: int) -> Launch:
    """The command of a model with adapters of these ranks, `name` in the folder `of-name`."""
    adapters = {name: Adapter(HOUSE / "a" / f"of-{name}", rank, "f" * 64) for name, rank in ranks.items()}
    return of(replace(spec(), adapters=adapters))


def test_adapters_are_served_by_their_public_names_and_are_in_sight_of_the_sealed_engine() -> None:
    made = beside(legal=8, medical=4)
    at = made.argv.index("--lora-modules")
    assert [json.loads(each) for each in made.argv[at + 1 : at + 3]] == [
        {"name": "legal", "path": "/house/a/of-legal"},
        {"name": "medical", "path": "/house/a/of-medical"},
    ]
    assert made.argv[at + 3].startswith("--")
    assert {HOUSE / "a/of-legal", HOUSE / "a/of-medical"} <= set(made.readable)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in made.env
    assert not {"--enable-lora", "--lora-modules"} & set(of(spec()).argv)


@pytest.mark.parametrize(
    ("ranks", "room", "together", "kept"),
    [
        ({"one": 1}, "1", "1", "1"),
        ({"one": 4}, "8", "1", "1"),
        ({"one": 64, "two": 65}, "128", "2", "2"),
        ({"one": 512}, "512", "1", "1"),
        ({f"a{number}": 16 for number in range(20)}, "16", "8", "20"),
    ],
)
def test_there_is_room_for_the_highest_rank_and_for_a_handful_at_once(
    ranks: dict[str, int], room: str, together: str, kept: str
) -> None:
    argv = beside(**ranks).argv
    found = [argv[argv.index(flag) + 1] for flag in ("--max-lora-rank", "--max-loras", "--max-cpu-loras")]
    assert found == [room, together, kept]


def test_a_compiled_model_is_not_run_eagerly() -> None:
    assert "--enforce-eager" not in flags(of(spec(compile=True)))


def test_a_gpu_and_a_cpu_each_get_their_own_memory_flag() -> None:
    cpu, cuda = flags(of(spec())), flags(of(spec(device="cuda")))
    assert ("--kv-cache-memory-bytes" in cpu, "--gpu-memory-utilization" in cpu) == (True, False)
    assert ("--kv-cache-memory-bytes" in cuda, "--gpu-memory-utilization" in cuda) == (False, True)


def test_the_cards_defaults_are_the_engines() -> None:
    made = flags(of(spec(card={"chat": {"temperature": 0.1, "top_p": 0.9}})))
    assert json.loads(made["--override-generation-config"] or "") == {"temperature": 0.1, "top_p": 0.9}


def test_the_engine_is_bound_to_the_most_that_limits_can_be_raised_to_while_it_runs() -> None:
    made = of(spec())
    for field, told in (("logprobs", flags(made)["--max-logprobs"]), ("choices", made.env["VLLM_MAX_N_SEQUENCES"])):
        Limits.model_validate({field: int(told or "")})
        with pytest.raises(ValidationError):
            Limits.model_validate({field: int(told or "") + 1})


def test_the_environment_is_made_and_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", "sk-canary")
    env = of(spec()).env
    assert "sk-canary" not in str(env)
    assert env["HOME"] == "/house/cache"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_switch_that_silences_a_dependency_is_set(device: Literal["cpu", "cuda"]) -> None:
    env = of(spec(device=device)).env
    assert SILENT.items() <= env.items()
    assert {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}.items() <= SILENT.items()
    assert env["VLLM_USAGE_STATS_SERVER"] == env["FLASHINFER_CUBINS_REPOSITORY"] == ""
    assert env["VLLM_PLUGINS"] == "bitsandbytes"
    assert not Path(env["SAGEMAKER_MODEL_PATH"]).exists()


def test_it_may_read_its_weights_and_environment_and_write_its_own_folders_only() -> None:
    made = of(spec())
    assert set(made.readable) == {HOUSE / "w", HOUSE / "env"}
    assert set(made.writable) == {HOUSE / "run/e1", HOUSE / "cache"}


def test_equal_specs_need_no_swap_and_other_weights_do() -> None:
    assert spec() == spec()
    assert spec() != spec(batching={"max_sequences": 7})
    assert spec() != spec(card={"quantization": "int8"})
