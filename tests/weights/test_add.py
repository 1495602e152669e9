from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import PreparationFailed
from appliance.weights import describe
from appliance.weights.add import Wish, add, kind, name_for
from appliance.weights.card import load_card
from appliance.weights.manifest import vouch
from appliance.weights.prepare import DOWNLOAD, prepare
from appliance.weights.staging import FOLDER, stage
from tests.weights.conftest import PREPARE, FileServer, write_checkpoint

CHAT: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64, "torch_dtype": "bfloat16"}


def bring(folder: Path, readme: str = "---\nlicense: apache-2.0\nlanguage: [de, en]\n---\n", **changed: Any) -> Path:
    """A checkpoint as somebody would bring it."""
    write_checkpoint(folder, **(CHAT | changed))
    (folder / "README.md").write_text(readme)
    return folder


def pipe(folder: Path) -> None:
    """Put a pipe in the place of config.json."""
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def write_sums(server: FileServer) -> str:
    """SHA256SUMS of what the server holds now; returns its own checksum."""
    files = sorted(path for path in server.folder.iterdir() if path.name != "SHA256SUMS")
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (server.folder / "SHA256SUMS").write_text(sums)
    return hashlib.sha256(sums.encode()).hexdigest()


def run(source: object, models: Path, name: str = "tiny", **wish: Any) -> Path:
    return add(Wish(str(source), **wish), name, models, PREPARE, print)


def test_a_folder_becomes_a_model_that_needs_it_no_more(models: Path, tmp_path: Path) -> None:
    source = bring(tmp_path / "Tiny Chat", quantization={"quant_method": "awq"})
    (source / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_p": 0.9, "top_k": 20}))
    (source / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30, "chat_template": "{{ x }}"}))
    folder = run(source, models)
    card = load_card(folder)
    assert (card.task, card.licence, card.quantization, card.dtype) == ("chat", "Apache-2.0", "awq", "bfloat16")
    assert (card.languages, card.context_length) == (("de", "en"), 64)
    assert (card.chat.temperature, card.chat.top_p) == (0.6, 0.9)
    assert not any("chat template" in limit for limit in card.limits)
    for file in source.iterdir():
        file.unlink()
    assert vouch(prepare("tiny", models, PREPARE, print), card)
    assert not any((models / FOLDER).iterdir())
    assert (folder / "card.yaml").read_text().startswith("# Made by `appliance models add ")


def test_what_a_checkpoint_doesnt_say_is_asked_for_by_its_option(models: Path, tmp_path: Path) -> None:
    source = bring(tmp_path / "a", readme="no front matter", architectures=["Strange"], max_position_embeddings=None)
    wishes: dict[str, dict[str, Any]] = {
        "--licence": {},
        "--task": {"licence": "MIT"},
        "--context-length": {"licence": "MIT", "task": "chat"},
    }
    for option, wish in wishes.items():
        with pytest.raises(PreparationFailed, match=f"Say it with {option}"):
            run(source, models, **wish)
        assert not any((models / FOLDER).iterdir())
    card = load_card(run(source, models, licence="MIT", task="chat", context_length=32))
    assert (card.languages, card.context_length) == (("und",), 32)
    assert any("chat template" in limit for limit in card.limits)


@pytest.mark.parametrize(
    ("config", "wish", "said"),
    [
        ({}, {"context_length": 65}, r"its config\.json says 64"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, {}, "asks for the model's own code"),
        ({"quantization": {"quant_method": "exotic"}}, {}, "isn't served here.*exotic"),
        ({"architectures": ["BertModel"], "quantization": {"quant_method": "awq"}}, {}, "No right card can be made"),
        ({}, {"licence": "   ", "languages": ("",)}, None),
    ],
)
def test_what_cant_be_served_is_refused_and_nothing_is_left(
    models: Path, tmp_path: Path, config: dict[str, Any], wish: dict[str, Any], said: str | None
) -> None:
    source = bring(tmp_path / "a", **config)
    if said is None:
        assert run(source, models, **wish)
        return
    with pytest.raises(PreparationFailed, match=said):
        run(source, models, **wish)
    assert [path.name for path in models.iterdir()] == [FOLDER]
    assert not any((models / FOLDER).iterdir())


def test_pickles_links_and_missing_parts_of_a_folder_are_refused(models: Path, tmp_path: Path) -> None:
    faults: list[tuple[Callable[[Path], object], str]] = [
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b""), "can run code"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"holds no \.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json"),
        (lambda folder: (folder / "vocab.json").symlink_to("/etc/hostname"), "link that leads out"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04."), "is a pickle"),
        (pipe, r"holds no config\.json"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "is nested too deeply"),
        (lambda folder: (folder / "config.json").write_text('{"architectures": 7}'), "Say it with --task"),
    ]
    for number, (spoil, said) in enumerate(faults):
        source = bring(tmp_path / str(number))
        spoil(source)
        with pytest.raises(PreparationFailed, match=said):
            run(source, models)
    assert not any((models / FOLDER).iterdir())


def test_a_mirror_is_pinned_by_the_checksum_of_its_checksums(models: Path, server: FileServer) -> None:
    bring(server.folder, size=300_000)
    pinned = write_sums(server)
    server.cut = [100_000]
    card = load_card(run(server.url, models, licence="MIT"))
    assert card.source.mirror is not None
    assert card.source.mirror.sha256sums == pinned
    assert set(card.checksums) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert ("model.safetensors", "bytes=100000-") in server.asked


def test_a_login_in_an_address_is_refused_and_not_repeated(models: Path) -> None:
    for wish in (Wish("http://me:canary@127.0.0.1/m"), Wish("acme/m", endpoint="http://me:canary@127.0.0.1")):
        with pytest.raises(PreparationFailed, match=r"127\.0\.0\.1 can't be fetched from.*no login") as refused:
            add(wish, "tiny", models, PREPARE, print)
        assert "canary" not in str(refused.value)


def test_a_mirror_that_changes_between_is_noticed(models: Path, server: FileServer) -> None:
    bring(server.folder)
    write_sums(server)
    (server.folder / "model.safetensors").write_bytes(b"another")
    with pytest.raises(PreparationFailed, match="isn't the file that SHA256SUMS describes"):
        run(server.url, models, licence="MIT")
    assert not (models / "tiny").exists()


def test_a_killed_download_is_taken_up(models: Path, server: FileServer) -> None:
    bring(server.folder, size=300_000)
    write_sums(server)
    server.cut = [100_000, 0]
    with pytest.raises(PreparationFailed, match="What has arrived is kept"):
        run(server.url, models, licence="MIT")
    left = models / FOLDER / "tiny"
    assert (left / DOWNLOAD / "model.safetensors.part").stat().st_size == 100_000
    (left / ".preparing").mkdir()  # as a kill in the middle of the next step leaves it
    (left / "weights").mkdir()
    (left / "weights" / "old.json").write_text("{}")
    folder = run(server.url, models, licence="MIT")
    assert ("model.safetensors", "bytes=100000-") in server.asked
    assert not (folder / "weights" / "old.json").exists()


def test_a_name_that_is_taken_or_none_is_refused(models: Path, tmp_path: Path) -> None:
    source = bring(tmp_path / "a")
    run(source, models)
    with pytest.raises(PreparationFailed, match=r"is there already\. Give another name by --as"):
        run(source, models)
    for name in ("../tiny", ".adding", "Tiny", "a" * 65):
        with pytest.raises(PreparationFailed, match="is no name for a model"):
            run(source, models, name)


def test_two_at_once_go_one_after_the_other(models: Path, tmp_path: Path) -> None:
    source = bring(tmp_path / "a")
    told: list[str] = []
    waiting = threading.Event()

    def say(text: str) -> None:
        told.append(text)
        waiting.set()

    with stage(models, "other", print):
        second = threading.Thread(target=add, args=(Wish(str(source)), "tiny", models, PREPARE, say))
        second.start()
        assert waiting.wait(10)
        assert told == ["waiting for another that works on this model"]
        assert not (models / "tiny").exists()
    second.join()
    assert load_card(models / "tiny")


def test_nothing_stands_where_it_cant_be_put_on_record(models: Path, tmp_path: Path) -> None:
    def refuse(name: str, weights: Path) -> None:
        assert vouch(weights, load_card(weights.parent))
        raise PreparationFailed(f"no record of {name}")

    with pytest.raises(PreparationFailed, match="no record of tiny"):
        add(Wish(str(bring(tmp_path / "a"))), "tiny", models, PREPARE, print, record=refuse)
    assert not (models / "tiny").exists()
    assert not any((models / FOLDER).iterdir())


@pytest.mark.parametrize(
    ("source", "what", "name"),
    [
        ("https://models.example/llama", "mirror", "llama"),
        ("http://10.0.0.1/a/Big_Model/", "mirror", "big_model"),
        ("Qwen/Qwen3-8B-AWQ", "hub", "qwen3-8b-awq"),
        ("https://huggingface.co/Qwen/Qwen3-8B", "hub", "qwen3-8b"),
        ("/", "folder", "model"),
    ],
)
def test_a_source_tells_what_it_is(source: str, what: str, name: str) -> None:
    assert (kind(source), name_for(source)) == (what, name)


def test_a_source_that_is_nothing_is_refused(models: Path) -> None:
    for source in ("nowhere", "a/b/c", "ftp://host/model", "https://huggingface.co/only-one"):
        with pytest.raises(PreparationFailed):
            run(source, models)


@pytest.mark.parametrize(
    ("word", "licence"),
    [("apache-2.0", "Apache-2.0"), ("MIT", "MIT"), ("other", None), (None, None), (["mit"], None),
     ("llama3.1", "LicenseRef-llama3.1"), ("My own/terms", "LicenseRef-My-own-terms")],
)  # fmt: skip
def test_a_hubs_word_for_a_licence_becomes_spdx(word: object, licence: str | None) -> None:
    assert describe.spdx(word) == licence


def test_a_licence_is_read_from_its_text(tmp_path: Path) -> None:
    folder = bring(tmp_path / "a", readme="")
    assert "licence" not in describe.facts(folder)
    (folder / "LICENSE").write_text("\n      Apache License\n   Version 2.0, January 2004\n")
    assert describe.facts(folder)["licence"] == "Apache-2.0"


def test_front_matter_that_isnt_yaml_says_nothing(tmp_path: Path) -> None:
    for text in ("---\n: [\n---\n", "---\n- a\n---\n", "license: mit", "---\n!!python/object:os.system {}\n---\n"):
        (tmp_path / "README.md").write_text(text)
        assert describe.front_matter(tmp_path / "README.md") == {}


def test_what_lies_beside_the_weights_is_neither_waited_for_nor_believed(models: Path, tmp_path: Path) -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    for readme in (f"---\n{laughs}language: [*a8]\n---\n", f"---\n{'[' * 50_000}\n---\n", "---\na: 2026-99-99\n---\n"):
        source = bring(tmp_path / str(len(readme)), readme)
        assert "languages" not in describe.facts(source)
    for name in ("README.md", "LICENSE"):
        (source / name).unlink(missing_ok=True)
        os.mkfifo(source / name)
    assert load_card(run(source, models, licence="MIT")).languages == ("und",)


def test_no_model_takes_the_place_of_the_companys_golden_sets(models: Path, tmp_path: Path) -> None:
    with pytest.raises(PreparationFailed, match="evals"):
        run(bring(tmp_path / "a"), models, "evals")


def test_tasks_are_told_apart(tmp_path: Path) -> None:
    for kinds, task in ((["BertModel"], "embedding"), (["BertForSequenceClassification"], "rerank"), ([], None)):
        folder = bring(tmp_path / str(task), architectures=kinds)
        assert describe.facts(folder).get("task") == task
    (folder / "modules.json").write_text("[]")
    assert describe.facts(folder)["task"] == "embedding"
