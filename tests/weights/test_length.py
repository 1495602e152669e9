from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import PreparationFailed, WeightsInvalid
from appliance.weights.card import load_card
from appliance.weights.length import longest
from appliance.weights.manifest import vouch
from appliance.weights.prepare import prepare
from tests.weights.conftest import PREPARE, write_card, write_checkpoint


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({}, None),
        ({"max_position_embeddings": 2048}, 2048),
        ({"max_position_embeddings": True}, None),
        ({"n_positions": 1024, "seq_length": 512}, 512),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 4096, "rope_scaling": None}, 4096),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 4096),
        ({"max_position_embeddings": 4096, "rope_parameters": {"full": {"rope_type": "dynamic", "factor": 2}}}, 8192),
        # of these, the config holds the scaled length already
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 131072),
    ],
)
def test_a_config_tells_how_much_its_model_reads(config: dict[str, Any], most: int | None) -> None:
    assert longest(config) == most


@pytest.mark.parametrize("factor", [math.inf, math.nan, 1e308])
def test_figures_that_cant_be_are_refused(models: Path, factor: float) -> None:
    folder = write_card(models / "tiny")
    scaling = {"type": "linear", "factor": factor}
    write_checkpoint(folder / "incoming", max_position_embeddings=2048, rope_scaling=scaling)
    with pytest.raises(PreparationFailed, match=r"config\.json can't be understood"):
        prepare("tiny", models, PREPARE, print)


def test_a_card_that_promises_more_than_its_model_can_is_refused_when_prepared_and_when_applied(models: Path) -> None:
    folder = write_card(models / "tiny", context_length=4096)
    write_checkpoint(folder / "incoming", max_position_embeddings=2048)
    with pytest.raises(PreparationFailed, match=r"its config\.json says 2048\. Set `context_length: 2048`"):
        prepare("tiny", models, PREPARE, print)
    assert not (folder / "weights").exists()
    write_card(folder, context_length=2048)
    weights = prepare("tiny", models, PREPARE, print)
    assert vouch(weights, load_card(folder))
    write_card(folder, context_length=2049)
    with pytest.raises(WeightsInvalid, match="`context_length: 2049` is more than the model can read"):
        vouch(weights, load_card(folder))
