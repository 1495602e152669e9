from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import PreparationFailed
from appliance.weights import manifest
from appliance.weights.card import load_card
from appliance.weights.prepare import DOWNLOAD, STAGING, prepare
from tests.weights.conftest import PREPARE, ROOT, write_card, write_checkpoint

AWQ = {"quant_method": "awq", "bits": 4}
PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized"}


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_brought_checkpoint_is_linked_checked_and_recorded(models: Path) -> None:
    folder = models / "tiny"
    source = write_checkpoint(folder / "incoming", quantization=AWQ)
    (source / "README.md").write_text("hello")
    digest = hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    write_card(folder, quantization="awq", checksums={"model.safetensors": digest})
    weights = prepare("tiny", models, PREPARE, print)
    assert (weights / "model.safetensors").samefile(source / "model.safetensors")
    assert left(weights) == ["config.json", manifest.NAME, "model.safetensors", "tokenizer.json"]
    assert manifest.verify(weights).files["model.safetensors"].sha256 == digest
    assert left(folder) == ["card.yaml", "incoming", "weights"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "a.PTH", "a.pkl", "a.ckpt", "modeling.py"])
def test_a_file_that_can_run_code_is_refused_by_name(models: Path, name: str) -> None:
    source = write_checkpoint(write_card(models / "tiny") / "incoming")
    (source / name).write_bytes(b"")
    with pytest.raises(PreparationFailed, match=rf"{name} can run code"):
        prepare("tiny", models, PREPARE, print)
    assert left(models / "tiny") == ["card.yaml", "incoming"]


@pytest.mark.parametrize(
    ("said", "found", "advice"),
    [
        ("gptq", AWQ, "quantized with awq.*Set `quantization: awq`"),
        ("none", AWQ, "Set `quantization: awq`"),
        ("int8", PACKED, "Set `quantization: w4a16`"),
        ("awq", None, "isn't quantized.*with texts: `appliance models quantize NAME --to awq`"),
        ("fp8", AWQ, "Set `quantization: awq`"),
        ("awq", {"quant_method": "exotic"}, "quantized with exotic.*Bring a checkpoint"),
        ("awq", {"bits": 4}, "can't be understood"),
    ],
)
def test_a_checkpoint_of_another_quantization_says_what_to_change(
    models: Path, said: str, found: dict[str, Any] | None, advice: str
) -> None:
    write_checkpoint(write_card(models / "tiny", quantization=said) / "incoming", quantization=found)
    with pytest.raises(PreparationFailed, match=advice):
        prepare("tiny", models, PREPARE, print)
    assert left(models / "tiny") == ["card.yaml", "incoming"]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("awq", AWQ),
        ("gptq", {"quant_method": "gptq"}),
        ("fp8", {"quant_method": "fp8"}),
        ("fp8", {"quant_method": "compressed-tensors", "format": "float-quantized"}),
        ("w4a16", PACKED),
        ("int8-weight-only", None),
        ("bitsandbytes-4bit", None),
        ("bitsandbytes-4bit", {"quant_method": "bitsandbytes"}),
    ],
)
def test_a_checkpoint_that_fits_its_card_is_taken(models: Path, said: str, found: dict[str, Any] | None) -> None:
    write_checkpoint(write_card(models / "tiny", quantization=said) / "incoming", quantization=found)
    assert manifest.verify(prepare("tiny", models, PREPARE, print)).quantization == said


def test_a_missing_folder_says_where_to_put_what(models: Path) -> None:
    write_card(models / "tiny")
    with pytest.raises(PreparationFailed, match=r"tiny/incoming isn't there\. Put the checkpoint of Tiny"):
        prepare("tiny", models, PREPARE, print)


@pytest.mark.parametrize("what", ["checksum", "missing", "config", "safetensors"])
def test_an_incomplete_or_wrong_source_is_named(models: Path, what: str) -> None:
    sums = {"checksum": {"tokenizer.json": "0" * 64}, "missing": {"vocab.txt": "0" * 64}}.get(what, {})
    source = write_checkpoint(write_card(models / "tiny", checksums=sums) / "incoming")
    if what == "config":
        (source / "config.json").unlink()
    if what == "safetensors":
        (source / "model.safetensors").unlink()
    said = {"checksum": "tokenizer.json isn't", "missing": "vocab.txt is missing"}.get(what, f"no .?{what}")
    with pytest.raises(PreparationFailed, match=said):
        prepare("tiny", models, PREPARE, print)


def test_prepared_weights_are_left_alone_until_card_or_file_changes(models: Path) -> None:
    folder = write_card(models / "tiny")
    source = write_checkpoint(folder / "incoming")
    weights = prepare("tiny", models, PREPARE, print)
    made = weights.stat().st_ino
    write_card(folder, title="Another title")
    assert prepare("tiny", models, PREPARE, print).stat().st_ino == made

    write_card(folder, quantization="int8-weight-only")
    assert prepare("tiny", models, PREPARE, print).stat().st_ino != made
    assert manifest.read(weights).quantization == "int8-weight-only"

    (weights / "tokenizer.json").unlink()
    told: list[str] = []
    prepare("tiny", models, PREPARE, told.append)
    assert "tokenizer.json is missing" in told[0]
    assert manifest.verify(weights)
    assert source.is_dir()


def test_a_failed_preparation_leaves_the_former_weights(models: Path) -> None:
    folder = write_card(models / "tiny")
    write_checkpoint(folder / "incoming")
    weights = prepare("tiny", models, PREPARE, print)
    write_card(folder, quantization="awq")
    with pytest.raises(PreparationFailed):
        prepare("tiny", models, PREPARE, print)
    assert manifest.verify(weights).quantization == "none"
    assert left(folder) == ["card.yaml", "incoming", "weights"]


def test_weights_moved_aside_by_a_crash_come_back(models: Path) -> None:
    folder = write_card(models / "tiny")
    write_checkpoint(folder / "incoming")
    weights = prepare("tiny", models, PREPARE, print)
    made = weights.stat().st_ino
    (folder / STAGING).mkdir()
    weights.rename(folder / STAGING / "replaced")
    assert prepare("tiny", models, PREPARE, print).stat().st_ino == made


def test_a_package_that_is_not_installed_says_how_to_get_it(models: Path) -> None:
    package = {"requirement": "no-such-model==1.0", "file": "a/b.gguf", "sha256": "0" * 64}
    write_card(models / "tiny", source={"package": package})
    with pytest.raises(PreparationFailed, match=r"no-such-model==1\.0 .*make lock"):
        prepare("tiny", models, PREPARE, print)


def test_a_package_with_another_checksum_is_refused(models: Path) -> None:
    real = load_card(ROOT / "models" / "smollm2-135m-int8").source.package
    assert real is not None
    write_card(models / "tiny", source={"package": real.model_dump() | {"sha256": "0" * 64}})
    with pytest.raises(PreparationFailed, match=r"\.gguf isn't the file that the card expects"):
        prepare("tiny", models, PREPARE, print)


def test_a_killed_preparation_takes_its_converter_along_and_the_next_one_cleans_up(models: Path) -> None:
    folder = models / "tiny"
    real = load_card(ROOT / "models" / "smollm2-135m-int8").source.package
    assert real is not None
    write_card(folder, quantization="int8", source={"package": real.model_dump()})
    program = (
        "import sys; from pathlib import Path; from appliance.weights.prepare import prepare\n"
        "prepare('tiny', Path(sys.argv[1]), Path(sys.argv[2]), lambda text: print(text, flush=True))"
    )
    command = [sys.executable, "-c", program, str(models), str(PREPARE)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as preparing:
        assert preparing.stdout is not None
        for line in preparing.stdout:
            if line.startswith("reading"):
                break
        children = Path(f"/proc/{preparing.pid}/task/{preparing.pid}/children").read_text().split()
        pidfd = os.pidfd_open(int(children[0]))
        preparing.kill()
    signalled, _, _ = select.select([pidfd], [], [], 10)
    assert signalled, "the converter outlived the preparation"
    os.close(pidfd)
    assert preparing.returncode == -signal.SIGKILL
    assert left(folder) == [STAGING, "card.yaml"]

    write_checkpoint(folder / "incoming")
    write_card(folder)
    assert manifest.verify(prepare("tiny", models, PREPARE, print))
    assert left(folder) == ["card.yaml", "incoming", "weights"]


@pytest.mark.parametrize("name", ["smollm2-135m-int8", "smollm2-135m-bnb4", "minilm-l6"])
def test_the_prepared_models_fit_their_cards(name: str) -> None:
    folder = ROOT / "models" / name
    card = load_card(folder)
    found = manifest.verify(folder / "weights")
    assert found.fits(card)
    config = json.loads((folder / "weights" / "config.json").read_text())
    assert config.get("quantization_config", {}).get("format") == (
        "int-quantized" if card.quantization == "int8" else None
    )
    assert not (folder / DOWNLOAD).exists()
