"""What may become part of a model's weights, and that it is asked again before they are loaded."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest

from appliance.errors import PreparationFailed, WeightsInvalid
from appliance.weights import manifest
from appliance.weights.admission import belongs
from appliance.weights.card import load_card
from appliance.weights.prepare import prepare
from tests.fakes.house import safetensors
from tests.weights.conftest import PREPARE, write_card, write_checkpoint


@pytest.fixture
def folder(models: Path) -> Path:
    """A model whose checkpoint was brought, and isn't prepared yet."""
    folder = write_card(models / "tiny")
    write_checkpoint(folder / "incoming")
    return folder


def test_a_pickle_renamed_to_safetensors_is_refused_by_name_and_kind(folder: Path) -> None:
    (folder / "incoming" / "model-2.safetensors").write_bytes(pickle.dumps([1]))
    with pytest.raises(PreparationFailed, match=r"incoming/model-2\.safetensors is a pickle"):
        prepare("tiny", folder.parent, PREPARE, print)
    assert not (folder / "weights").exists()


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_checkpoint_with_code_of_its_own_is_refused_before_anything_reads_it(folder: Path, quantization: str) -> None:
    write_card(folder, quantization=quantization)
    config = {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "far/away--modeling.Evil"}}
    (folder / "incoming" / "config.json").write_text(json.dumps(config))
    told: list[str] = []
    with pytest.raises(PreparationFailed, match=r"incoming/config\.json asks for the model's own code by `auto_map`"):
        prepare("tiny", folder.parent, PREPARE, told.append)
    assert not told, "the converter was started"


@pytest.mark.parametrize("target", ["/etc", "/etc/passwd", "../card.yaml", "/nowhere"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, target: str) -> None:
    (folder / "incoming" / "extra.txt").symlink_to(target)
    with pytest.raises(PreparationFailed, match=r"extra\.txt is a link that leads out of its folder.*cp -rL"):
        prepare("tiny", folder.parent, PREPARE, print)


def test_a_link_inside_the_folder_becomes_the_file_that_it_leads_to(folder: Path) -> None:
    (folder / "incoming" / "same.txt").symlink_to("tokenizer.json")
    copy = prepare("tiny", folder.parent, PREPARE, print) / "same.txt"
    assert copy.read_text() == "{}"
    assert not copy.is_symlink()


@pytest.mark.parametrize("name", ["modeling.py", "pytorch_model.bin", ".hidden.json", "a/b.so", "run.sh", "x"])
def test_what_was_dropped_beside_prepared_weights_is_not_loaded(folder: Path, name: str) -> None:
    """Neither unrecorded, nor recorded by whoever dropped it."""
    weights = prepare("tiny", folder.parent, PREPARE, print)
    (weights / name).parent.mkdir(exist_ok=True)
    (weights / name).write_bytes(b"x")
    with pytest.raises(WeightsInvalid, match="wasn't there when the model was prepared"):
        manifest.verify(weights)
    assert not belongs(name)
    manifest.write(weights, load_card(folder), {})
    with pytest.raises(WeightsInvalid, match="is no file of a model"):
        manifest.verify(weights)


def test_a_forged_record_does_not_let_a_pickle_in(folder: Path) -> None:
    weights = prepare("tiny", folder.parent, PREPARE, print)
    (weights / "model.safetensors").unlink()  # the source shares it
    (weights / "model.safetensors").write_bytes(pickle.dumps([1]))
    manifest.write(weights, load_card(folder), {})
    with pytest.raises(WeightsInvalid, match=r"model\.safetensors is a pickle.*It isn't loaded"):
        manifest.verify(weights)


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(folder: Path) -> None:
    weights = prepare("tiny", folder.parent, PREPARE, print)
    (weights / "config.json").unlink()
    os.mkfifo(weights / "config.json")
    with pytest.raises(WeightsInvalid, match=r"config\.json isn't the file that was prepared"):
        manifest.verify(weights)


def test_the_cards_checksums_hold_whatever_the_record_says(folder: Path) -> None:
    file = folder / "incoming" / "model.safetensors"
    write_card(folder, checksums={"model.safetensors": hashlib.sha256(file.read_bytes()).hexdigest()})
    weights = prepare("tiny", folder.parent, PREPARE, print)
    card = load_card(folder)
    assert manifest.vouch(weights, card)
    (weights / "model.safetensors").unlink()
    (weights / "model.safetensors").write_bytes(safetensors(b"poison"))
    manifest.write(weights, card, {"torch": "a lie: nothing was converted"})
    manifest.verify(weights)
    with pytest.raises(WeightsInvalid, match=r"isn't what the card describes.*models prepare tiny"):
        manifest.vouch(weights, card)


def test_weights_of_another_card_are_not_loaded(folder: Path) -> None:
    weights = prepare("tiny", folder.parent, PREPARE, print)
    write_card(folder, checksums={"config.json": "0" * 64})
    with pytest.raises(WeightsInvalid, match="isn't what the card describes"):
        manifest.vouch(weights, load_card(folder))


def test_the_fingerprint_is_of_the_files_and_not_of_their_order(folder: Path) -> None:
    card = load_card(folder)
    weights = prepare("tiny", folder.parent, PREPARE, print)
    before = manifest.vouch(weights, card)
    manifest.write(weights, card, {})
    assert manifest.vouch(weights, card) == before
    (weights / "tokenizer.json").unlink()
    (weights / "tokenizer.json").write_text("{} ")
    manifest.write(weights, card, {})
    assert manifest.vouch(weights, card) != before
