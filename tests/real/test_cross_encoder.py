"""A reranker on the real engine. Its head is random: its order means nothing, that it answers, and the same, does."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.weights import manifest
from appliance.weights.card import load_card
from tests.real.house import ROOT, Appliance, card

pytestmark = pytest.mark.long
ENCODER = ROOT / "models" / "minilm-l6"
DOCUMENTS = ["Bananas are yellow.", "Paris is the capital of France.", "The invoice is overdue."]
MADE = """
import sys, torch
from safetensors.torch import load_file, save_file
tensors = {f"bert.{name}": tensor for name, tensor in load_file(sys.argv[1]).items() if "position_ids" not in name}
tensors["classifier.weight"] = torch.randn(1, 384, generator=torch.Generator().manual_seed(1))
tensors["classifier.bias"] = torch.zeros(1)
save_file(tensors, sys.argv[2])
"""


def cross_encoder(models: Path) -> str:
    """Prepared weights of the embedding model with a head that gives one number."""
    folder = models / "order"
    weights = folder / "weights"
    weights.mkdir(parents=True)
    told: dict[str, Any] = yaml.safe_load((ENCODER / "card.yaml").read_text())
    told |= {"task": "rerank", "source": {"folder": "incoming"}, "checksums": {}}
    (folder / "card.yaml").write_text(yaml.safe_dump(told))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(ENCODER / "weights" / name, weights)
    config = json.loads((ENCODER / "weights" / "config.json").read_text())
    config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "fits"}, "label2id": {"fits": 0}}
    (weights / "config.json").write_text(json.dumps(config))
    python = ROOT / ".venvs" / "prepare" / "bin" / "python"
    files = ENCODER / "weights" / "model.safetensors", weights / "model.safetensors"
    subprocess.run([python, "-c", MADE, *files], check=True, timeout=120)
    manifest.write(weights, load_card(folder), {})
    return folder.name


def test_a_cross_encoder_beside_a_chat_and_an_embedding_model() -> None:
    with tempfile.TemporaryDirectory(prefix="real-") as name:
        models = Path(name) / "models"
        for each in ("smollm2-135m-int8", "minilm-l6"):
            shutil.copytree(ROOT / "models" / each, models / each)
        served = {"chat": card("smollm2-135m-int8"), "embed": card("minilm-l6"), "order": card(cross_encoder(models))}
        running = Appliance(Path(name), served, models)
        try:
            with running.ready().http() as http:
                asked = {"model": "order", "query": "What is the capital?", "documents": DOCUMENTS}
                first, again = (http.post("/v1/rerank", json=asked).json()["results"] for _ in range(2))
                pairs = {"model": "order", "text_1": "What is the capital?", "text_2": DOCUMENTS}
                scores = {each["index"]: each["score"] for each in http.post("/v1/score", json=pairs).json()["data"]}
                refused = http.post("/v1/embeddings", json={"model": "order", "input": "x"})
                vectors = http.post("/v1/embeddings", json={"model": "embed", "input": "x"})
                said = http.post("/v1/completions", json={"model": "chat", "prompt": "Once", "max_tokens": 2})
        finally:
            running.stop()
    assert (vectors.status_code, said.status_code) == (200, 200)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_not_suitable")
    ranked = {each["index"]: each["relevance_score"] for each in first}
    assert ranked == pytest.approx({each["index"]: each["relevance_score"] for each in again}, abs=1e-4)
    assert ranked == pytest.approx(scores, abs=1e-4)
    assert [each["relevance_score"] for each in first] == sorted(ranked.values(), reverse=True)
    assert len({round(score, 4) for score in ranked.values()}) == 3
