from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from appliance.errors import WeightsInvalid
from appliance.weights import manifest
from appliance.weights.card import load_card
from tests.weights.conftest import ROOT, write_card, write_checkpoint

DEFAULT = ROOT / "models" / "smollm2-135m-int8"


@pytest.fixture
def weights(models: Path) -> Path:
    folder = write_card(models / "tiny")
    checkpoint = write_checkpoint(folder / "weights")
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling" / "config.json").write_text("{}")
    manifest.write(checkpoint, load_card(folder), {"torch": "2"})
    return checkpoint


def test_what_was_recorded_is_verified_also_in_subfolders(weights: Path) -> None:
    found = manifest.verify(weights)
    assert set(found.files) == {"config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"}
    assert found.tools == {"torch": "2"}


def test_a_missing_file_is_named(weights: Path) -> None:
    (weights / "tokenizer.json").unlink()
    with pytest.raises(WeightsInvalid, match=r"tokenizer\.json is missing.*models prepare tiny"):
        manifest.verify(weights)


def test_a_foreign_file_is_named(weights: Path) -> None:
    (weights / "1_Pooling" / "extra.json").write_text("{}")
    with pytest.raises(WeightsInvalid, match=r"1_Pooling/extra\.json wasn't there"):
        manifest.verify(weights)


def test_a_link_in_place_of_a_file_is_refused_though_its_target_is_right(weights: Path, tmp_path: Path) -> None:
    shutil.move(weights / "tokenizer.json", tmp_path / "same")
    (weights / "tokenizer.json").symlink_to(tmp_path / "same")
    with pytest.raises(WeightsInvalid, match=r"tokenizer\.json"):
        manifest.verify(weights)


@pytest.mark.parametrize("record", [None, b"", b"{}", b'{"files": 1}', b"\xff"])
def test_weights_without_a_readable_record_are_not_prepared(weights: Path, record: bytes | None) -> None:
    (weights / manifest.NAME).unlink()
    if record is not None:
        (weights / manifest.NAME).write_bytes(record)
    with pytest.raises(WeightsInvalid, match="models prepare tiny"):
        manifest.verify(weights)


def test_one_flipped_bit_in_the_real_default_model_is_found_by_name(tmp_path: Path) -> None:
    assert manifest.verify(DEFAULT / "weights").fits(load_card(DEFAULT))
    copy = tmp_path / "smollm2-135m-int8" / "weights"
    shutil.copytree(DEFAULT / "weights", copy)
    manifest.verify(copy)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-12345, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(WeightsInvalid, match=r"model\.safetensors isn't the file that was prepared"):
        manifest.verify(copy)
