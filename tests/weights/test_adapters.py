from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import CardInvalid, PreparationFailed, WeightsInvalid
from appliance.weights import adapters as room
from appliance.weights.adapters import adapters, add
from appliance.weights.prepare import prepare
from tests.weights.conftest import PREPARE, write_card, write_checkpoint

WIDTH = 8
PROJECTION = "model.layers.0.self_attn.q_proj"


def tensors(**shapes: tuple[int, ...]) -> bytes:
    """A safetensors file of zeros with tensors of these shapes; `__` in a name stands for a dot."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * 2
        header[name.replace("__", ".")] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(end)


def lora(rank: int = 4, width: int = WIDTH, module: str = PROJECTION) -> bytes:
    prefix = f"base_model.model.{module}."
    return tensors(**{f"{prefix}lora_A.weight": (rank, width), f"{prefix}lora_B.weight": (width, rank)})


def write_adapter(folder: Path, body: bytes | None = None, **config: Any) -> Path:
    """An adapter as PEFT saves it."""
    folder.mkdir()
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "auto_mapping": None} | config
    (folder / "adapter_config.json").write_text(json.dumps(said))
    (folder / "adapter_model.safetensors").write_bytes(lora() if body is None else body)
    return folder


@pytest.fixture
def base(models: Path) -> Path:
    """A prepared model with one projection."""
    folder = write_card(models / "tiny")
    source = write_checkpoint(folder / "incoming")
    (source / "model.safetensors").write_bytes(tensors(**{f"{PROJECTION}.weight": (WIDTH, WIDTH)}))
    prepare("tiny", models, PREPARE, print)
    return folder


def test_an_adapter_is_put_beside_its_base_and_found_there(models: Path, base: Path, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "law", rank_pattern={"k_proj": 16})
    (source / "README.md").write_text("about it")
    told: list[str] = []
    made = add(source, models, "tiny", "law", told.append)
    assert adapters(base) == {"law": made}
    assert (made.folder, made.rank, told) == (base / "adapters" / "law", 16, [made.fingerprint])
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "manifest.json",
    ]  # fmt: skip
    second = add(source, models, "tiny", "law-2")
    assert second.fingerprint == made.fingerprint, "the same adapter by another name"


def test_a_model_without_adapters_has_none(base: Path) -> None:
    assert adapters(base) == {}


@pytest.mark.parametrize(
    ("config", "body", "said"),
    [
        ({"peft_type": "IA3"}, None, "doesn't say `peft_type: LORA`"),
        ({"r": 0}, None, r"no rank \(`r`\) from 1 to 512"),
        ({"r": 1024}, None, "no rank"),
        ({"r": True}, None, "no rank"),
        ({"use_dora": True}, None, "asks for `use_dora`"),
        ({"modules_to_save": ["lm_head"]}, None, "asks for `modules_to_save`"),
        ({"bias": "all"}, None, "biases of its own"),
        ({"init_lora_weights": "pissa"}, None, "changes the base"),
        ({"auto_mapping": {"base_model_class": "Evil"}}, None, "asks for the model's own code"),
        ({}, lora(width=WIDTH * 2), "doesn't fit tiny.*another size"),
        ({}, lora(rank=8), "at rank 4"),
        ({}, lora(module="model.layers.7.self_attn.q_proj"), "which tiny hasn't: it was made for another model"),
        ({}, tensors(**{f"{PROJECTION}.weight": (8, 8)}), "isn't a part of a LoRA adapter"),
        ({}, tensors(), "holds no tensor"),
        ({}, b"\x80\x04pickle", "is a pickle"),
    ],
)
def test_what_cant_be_served_is_refused_and_nothing_is_left(
    models: Path, base: Path, tmp_path: Path, config: dict[str, Any], body: bytes | None, said: str
) -> None:
    source = write_adapter(tmp_path / "law", body, **config)
    with pytest.raises(PreparationFailed, match=said):
        add(source, models, "tiny", "law")
    assert not (base / "adapters").exists()


@pytest.mark.parametrize(("form", "columns"), [("weight_packed", 1), ("weight", WIDTH)])
def test_a_packed_base_has_its_size_checked_too(
    models: Path, base: Path, tmp_path: Path, form: str, columns: int
) -> None:
    (base / "incoming" / "model.safetensors").write_bytes(tensors(**{f"{PROJECTION}.{form}": (WIDTH, columns)}))
    shutil.rmtree(base / "weights")
    prepare("tiny", models, PREPARE, print)
    assert add(write_adapter(tmp_path / "law"), models, "tiny", "law").rank == 4
    with pytest.raises(PreparationFailed, match="another size"):
        add(write_adapter(tmp_path / "wide", lora(width=WIDTH * 2)), models, "tiny", "wide")


def test_pickles_links_and_missing_files_are_refused(models: Path, base: Path, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "law")
    (source / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(PreparationFailed, match=r"adapter_model\.bin can run code"):
        add(source, models, "tiny", "law")
    (source / "adapter_model.bin").unlink()
    (source / "adapter_model.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(PreparationFailed, match=r"holds no adapter_model\.safetensors"):
        add(source, models, "tiny", "law")
    (source / "adapter_model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PreparationFailed, match="link that leads out"):
        add(source, models, "tiny", "law")
    with pytest.raises(PreparationFailed, match="isn't a folder"):
        add(tmp_path / "nowhere", models, "tiny", "law")
    assert not (base / "adapters").exists()


def test_a_base_that_is_unknown_or_not_prepared_is_named(models: Path, base: Path, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "law")
    with pytest.raises(CardInvalid, match="there is no model 'other'; there are: tiny"):
        add(source, models, "other", "law")
    shutil.rmtree(base / "weights")
    with pytest.raises(PreparationFailed, match=r"tiny isn't prepared.*models prepare tiny"):
        add(source, models, "tiny", "law")


def test_a_name_that_is_taken_or_none_is_refused(models: Path, base: Path, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "law")
    add(source, models, "tiny", "law")
    with pytest.raises(PreparationFailed, match="is there already"):
        add(source, models, "tiny", "law")
    for name in ("../law", ".law", "Law", ""):
        with pytest.raises(PreparationFailed, match="is no name for an adapter"):
            add(source, models, "tiny", name)


def test_a_place_that_cant_be_made_is_named(models: Path, base: Path, tmp_path: Path) -> None:
    (base / "adapters").write_text("in the way")
    with pytest.raises(PreparationFailed, match=r"adapters.*: (File exists|Not a directory)"):
        add(write_adapter(tmp_path / "law"), models, "tiny", "law")


def test_a_changed_adapter_is_not_served(models: Path, base: Path, tmp_path: Path) -> None:
    made = add(write_adapter(tmp_path / "law"), models, "tiny", "law")
    file = made.folder / "adapter_model.safetensors"
    file.write_bytes(lora(rank=3))
    with pytest.raises(WeightsInvalid, match=r"differs\. Remove the folder.*--adapter-of tiny --as law"):
        adapters(base)


def test_nothing_stands_where_it_cant_be_put_on_record(models: Path, base: Path, tmp_path: Path) -> None:
    def refuse(_: str) -> None:
        raise PreparationFailed("no record")

    with pytest.raises(PreparationFailed, match="no record"):
        add(write_adapter(tmp_path / "law"), models, "tiny", "law", refuse)
    assert not (base / "adapters").exists()


def test_what_a_killed_addition_left_is_no_adapter_and_goes_with_the_next(
    models: Path, base: Path, tmp_path: Path
) -> None:
    left = base / "adapters" / room.STAGING
    left.mkdir(parents=True)
    (left / "adapter_config.json").write_text("{}")
    assert adapters(base) == {}
    add(write_adapter(tmp_path / "law"), models, "tiny", "law")
    assert list(adapters(base)) == ["law"]
    assert not left.exists()
