"""LoRA adapters on the real engine: made here by hand, strong enough that answers differ from the base's."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.weights import adapters
from tests.real.house import ROOT, Appliance, card

pytestmark = pytest.mark.long
CARD = "smollm2-135m-int8"
QUESTIONS = ["What is the capital of France?", "Name three fruits.", "Why is the sky blue?"]
MADE = """
import sys, torch
from safetensors.torch import save_file
chance = torch.Generator().manual_seed(int(sys.argv[2]))
tensors = {}
for layer in range(30):
    for module, width, height in (("q_proj", 576, 576), ("v_proj", 576, 192)):
        place = f"base_model.model.model.layers.{layer}.self_attn.{module}"
        tensors[f"{place}.lora_A.weight"] = torch.randn(4, width, generator=chance) / width**0.5
        tensors[f"{place}.lora_B.weight"] = torch.randn(height, 4, generator=chance) / 2
save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, sys.argv[1])
"""


def adapter(folder: Path, seed: int) -> Path:
    """A rank-4 adapter of random numbers, as PEFT would save one."""
    folder.mkdir()
    python = ROOT / ".venvs" / "prepare" / "bin" / "python"
    subprocess.run([python, "-c", MADE, folder / adapters.TENSORS, str(seed)], check=True, timeout=120)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 4, "lora_dropout": 0.0}
    more = {"bias": "none", "base_model_name_or_path": "SmolLM2-135M", "target_modules": ["q_proj", "v_proj"]}
    (folder / adapters.CONFIG).write_text(json.dumps(config | more))
    return folder


@pytest.fixture(scope="module")
def models() -> Iterator[Path]:
    """A models folder of this test's own, with two adapters added as a person adds them."""
    with tempfile.TemporaryDirectory(prefix="real-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "models" / CARD, folder / "models" / CARD)
        for seed, each in enumerate(("legal", "medical")):
            adapters.add(adapter(folder / each, seed), folder / "models", CARD, each)
        yield folder / "models"


def answers(appliance: Appliance, model: str) -> list[str]:
    """What it says when it always takes the likeliest token."""
    with appliance.openai() as client:
        found: list[Any] = [
            client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], max_tokens=24, temperature=0
            )
            for question in QUESTIONS
        ]
    assert {each.model for each in found} == {model}
    return [each.choices[0].message.content for each in found]


def test_base_and_adapters_answer_differently_and_each_as_before(models: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="real-") as folder:
        served = card(CARD) | {"adapters": {"chat-legal": "legal", "chat-medical": "medical"}}
        running = Appliance(Path(folder), {"chat": served}, models)
        try:
            running.ready()
            first = {name: answers(running, name) for name in ("chat", "chat-legal", "chat-medical")}
            again = {name: answers(running, name) for name in ("chat-medical", "chat", "chat-legal")}
            with running.http() as http:
                listed = {each["id"]: each.get("parent") for each in http.get("/v1/models").json()["data"]}
            assert len(running.engine("chat")) >= 3
        finally:
            running.stop()
        with_none = Appliance(Path(folder), {"chat": card(CARD)}, models)
        try:
            alone = answers(with_none.ready(), "chat")
        finally:
            with_none.stop()
    assert again == first
    assert first["chat"] == alone
    # all of what each says: to one of the questions two may well say the same
    assert len({tuple(said) for said in first.values()}) == 3, first
    assert listed == {"chat": None, "chat-legal": "chat", "chat-medical": "chat"}
