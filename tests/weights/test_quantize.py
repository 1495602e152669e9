from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import CardInvalid, PreparationFailed
from appliance.weights import conversion, manifest
from appliance.weights.card import load_card
from appliance.weights.prepare import prepare
from appliance.weights.quantize import TARGETS, TEXTS, name_for, quantize
from appliance.weights.staging import FOLDER
from tests.weights.conftest import PREPARE, ROOT, FileServer, write_card, write_checkpoint
from tests.weights.test_add import write_sums

TOKENIZER = ROOT / "models" / "smollm2-135m-int8" / "weights"
MAKE_TINY = """
import sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(1)
LlamaForCausalLM(LlamaConfig(vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
)).to(torch.bfloat16).save_pretrained(sys.argv[1])
"""


@pytest.fixture
def base(models: Path) -> Path:
    """A model that isn't quantized, to prepare."""
    folder = write_card(models / "tiny-bf16", title="Tiny, bf16", limits=["It knows nothing."])
    write_checkpoint(folder / "incoming", hidden_size=576, intermediate_size=1536)
    return folder


def run(models: Path, to: str = "bnb-4bit", base: str = "tiny-bf16", **more: Any) -> Path:
    return quantize(base, to, name_for(base, to), models, PREPARE, print, **more)


@pytest.mark.parametrize(
    ("base", "to", "name"),
    [
        ("smollm2-135m-bf16", "awq", "smollm2-135m-awq"),
        ("qwen3-8b", "bnb-4bit", "qwen3-8b-bnb4"),
        ("qwen3-8b-int8", "fp8", "qwen3-8b-fp8"),
        ("bf16", "gptq", "bf16-gptq"),
    ],
)
def test_a_new_name_has_the_format_in_the_old_ones_place(base: str, to: str, name: str) -> None:
    assert name_for(base, to) == name


def test_a_new_card_says_where_it_came_from_and_keeps_licence_and_limits(models: Path, base: Path) -> None:
    folder = run(models)
    old, new = load_card(base), load_card(folder)
    assert folder == models / "tiny-bnb4"
    assert (new.title, new.quantization) == ("Tiny, bitsandbytes 4-bit", "bitsandbytes-4bit")
    assert (new.licence, new.intended_use, new.languages) == (old.licence, old.intended_use, old.languages)
    assert new.limits[0] == "It knows nothing."
    assert "costs accuracy" in new.limits[-1]
    assert new.gate.slower_times == 5, "it is slow without a GPU, and the gate has to let it pass"
    assert (
        (folder / "card.yaml").read_text().startswith("# Made by `appliance models quantize tiny-bf16 --to bnb-4bit`")
    )
    assert manifest.vouch(folder / "weights", new)
    assert not any((models / FOLDER).iterdir())


def test_a_new_card_is_prepared_again_from_the_old_ones_source(models: Path, base: Path) -> None:
    folder = run(models)
    assert load_card(folder).source.folder == "../tiny-bf16/incoming"
    shutil.rmtree(folder / "weights")
    assert manifest.vouch(prepare("tiny-bnb4", models, PREPARE, print), load_card(folder))


def test_what_was_fetched_for_the_base_isnt_fetched_again(models: Path, server: FileServer) -> None:
    write_checkpoint(server.folder)
    write_sums(server)
    base = write_card(models / "tiny-bf16", source={"mirror": {"url": server.url}})
    prepare("tiny-bf16", models, PREPARE, print)
    before = (base / "weights" / manifest.NAME).read_bytes()
    server.asked.clear()
    folder = run(models)
    assert server.asked == []
    assert load_card(folder).source.folder == "../tiny-bf16/weights"
    assert (base / "weights" / manifest.NAME).read_bytes() == before
    assert manifest.verify(base / "weights")


def test_an_unprepared_base_from_a_mirror_is_fetched(models: Path, server: FileServer) -> None:
    write_checkpoint(server.folder)
    write_sums(server)
    write_card(models / "tiny-bf16", source={"mirror": {"url": server.url}})
    assert load_card(run(models)).source.mirror is not None


@pytest.mark.parametrize(
    ("changed", "to", "said"),
    [
        ({"task": "embedding"}, "int8", "only models for chat"),
        ({"quantization": "awq"}, "int8", r"quantized with awq.*Bring|quantized with awq.*Set"),
        ({}, "int8 with texts", "computed without texts"),
    ],
)
def test_what_cant_be_quantized_is_refused_and_nothing_is_left(
    models: Path, changed: dict[str, Any], to: str, said: str
) -> None:
    folder = write_card(models / "tiny-bf16", **changed)
    write_checkpoint(folder / "incoming", quantization={"quant_method": "awq"} if "quantization" in changed else None)
    texts = TEXTS if " " in to else None
    with pytest.raises(PreparationFailed, match=said):
        run(models, to.split()[0], texts=texts)
    assert not (models / "tiny-int8").exists()


def test_names_that_are_taken_or_unknown_are_refused(models: Path, base: Path) -> None:
    run(models)
    with pytest.raises(PreparationFailed, match="is there already"):
        run(models)
    with pytest.raises(CardInvalid, match="there is no model 'other'"):
        run(models, base="other")


@pytest.mark.parametrize("body", [b"", b"\n \n", b"\xff\xfe"])
def test_texts_that_are_none_are_refused(models: Path, base: Path, tmp_path: Path, body: bytes) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_bytes(body)
    with pytest.raises(PreparationFailed, match="holds no text in UTF-8"):
        run(models, "awq", texts=texts)
    with pytest.raises(PreparationFailed, match="isn't there"):
        run(models, "awq", texts=tmp_path / "none")
    assert not any((models / FOLDER).iterdir())


def test_memory_and_disk_are_looked_at_before_anything_is_begun(
    models: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(conversion, "free_memory", lambda: 512 << 20)
        with pytest.raises(PreparationFailed, match=r"needs about 1\.5 GiB of memory, and 0\.5 GiB are free"):
            run(models, "gptq")
    usage = shutil.disk_usage(models)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(PreparationFailed, match=r"on the disk of .*, and 0\.0 GiB are free"):
        run(models, "int8")
    assert not any((models / FOLDER).iterdir())


def test_a_container_has_no_more_memory_than_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal: 100 kB\nMemAvailable:  8192 kB\n",
        "/sys/fs/cgroup/memory.max": "4194304\n",
        "/sys/fs/cgroup/memory.current": "2097152\n",
        "/sys/fs/cgroup/memory.stat": "anon 5\ninactive_file 1048576\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda self: files[str(self)])
    assert conversion.free_memory() == 3 << 20
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert conversion.free_memory() == 8 << 20


def test_nothing_stands_where_it_cant_be_put_on_record(models: Path, base: Path) -> None:
    def refuse(*_: object) -> None:
        raise PreparationFailed("no record")

    with pytest.raises(PreparationFailed, match="no record"):
        run(models, record=refuse)
    assert not (models / "tiny-bnb4").exists()


def test_a_killed_run_leaves_no_model_and_the_next_one_starts_over(models: Path) -> None:
    real = load_card(ROOT / "models" / "smollm2-135m-bf16").source.package
    assert real is not None
    write_card(models / "tiny-bf16", source={"package": real.model_dump()})
    program = (
        "import sys; from pathlib import Path; from appliance.weights.quantize import quantize\n"
        "quantize('tiny-bf16', 'gptq', 'tiny-gptq', Path(sys.argv[1]), Path(sys.argv[2]),"
        " lambda text: print(text, flush=True))"
    )
    command = [sys.executable, "-c", program, str(models), str(PREPARE)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("reading"):
                break
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        pidfd = os.pidfd_open(int(children[0]))
        running.kill()
    signalled, _, _ = select.select([pidfd], [], [], 10)
    assert signalled, "the converter outlived the command"
    os.close(pidfd)
    assert running.returncode == -signal.SIGKILL
    assert not (models / "tiny-gptq").exists()
    assert sorted(path.parent.name for path in models.glob("*/card.yaml")) == ["tiny-bf16"], "no half card is listed"

    write_card(models / "tiny-bf16")
    write_checkpoint(models / "tiny-bf16" / "incoming")
    run(models)
    quantize("tiny-bf16", "bnb-4bit", "tiny-gptq", models, PREPARE, print)
    assert sorted(path.name for path in (models / "tiny-gptq").iterdir()) == ["card.yaml", "weights"]
    assert not any((models / FOLDER).iterdir())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two layers with a real tokenizer, as transformers writes it."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    subprocess.run([PREPARE / "bin" / "python", "-c", MAKE_TINY, folder], check=True, capture_output=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / name, folder / name)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("to", "form"),
    [("int8", "int-quantized"), ("fp8", "float-quantized"), ("w4a16", "pack-quantized"), ("awq", "pack-quantized"),
     ("gptq", "pack-quantized"), ("bnb-4bit", None)],
)  # fmt: skip
def test_each_format_is_computed(models: Path, tiny: Path, to: str, form: str | None) -> None:
    shutil.copytree(tiny, write_card(models / "tiny-bf16") / "incoming")
    told: list[str] = []
    folder = quantize("tiny-bf16", to, "new", models, PREPARE, told.append)
    card = load_card(folder)
    config = json.loads((folder / "weights" / "config.json").read_text())
    assert config.get("quantization_config", {}).get("format") == form
    assert card.quantization == TARGETS[to][0]
    assert manifest.vouch(folder / "weights", card)
    if to in ("awq", "gptq"):
        assert card.calibration is not None
        assert card.calibration.sha256 == hashlib.sha256(TEXTS.read_bytes()).hexdigest()
        assert [line for line in told if line.endswith("%")] == [
            "quantizing, 33 %", "quantizing, 66 %", "quantizing, 100 %",
        ]  # fmt: skip
        weights = {name: file.sha256 for name, file in manifest.read(folder / "weights").files.items()}
        shutil.rmtree(folder / "weights")
        prepare("new", models, PREPARE, print)
        again = {name: file.sha256 for name, file in manifest.read(folder / "weights").files.items()}
        assert again["model.safetensors"] == weights["model.safetensors"], "the same texts make the same weights"
    if to == "fp8":
        assert (card.hardware.devices, card.hardware.compute_capability) == (("cuda",), 8.9)
