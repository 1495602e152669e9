"""Adding from a hub, with the hub's own client library, from a double that speaks its protocol on this machine."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import PreparationFailed
from appliance.weights import hub as room
from appliance.weights.add import Wish, add
from appliance.weights.card import load_card
from appliance.weights.manifest import vouch
from appliance.weights.prepare import DOWNLOAD, prepare
from appliance.weights.staging import FOLDER
from tests.fakes.house import safetensors, until
from tests.fakes.hub import COMMIT, Hub, Repository, listed, running
from tests.weights.conftest import PREPARE, ROOT

REPO = "acme/Tiny-Chat"
MIB = 1 << 20
SIZE = 3 * MIB
CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64, "dtype": "bfloat16"}
WEIGHTS = f"/cdn/{REPO}/model.safetensors"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as found:
        found.repositories[REPO] = Repository(
            {
                "config.json": json.dumps(CONFIG).encode(),
                "tokenizer.json": b"{}",
                "README.md": b"about it",
                "model.safetensors": safetensors(bytes(index % 251 for index in range(SIZE))),
                "pytorch_model.bin": b"a pickle",
            }
        )
        yield found


def fetch(hub: Hub, models: Path, name: str = "tiny", **wish: Any) -> Path:
    return add(Wish(REPO, endpoint=hub.url, **wish), name, models, PREPARE, print)


def ranges(hub: Hub) -> list[str | None]:
    return [wanted for path, wanted in hub.asked if path == WEIGHTS]


def test_a_model_of_a_hub_is_pinned_checked_and_prepared(models: Path, hub: Hub) -> None:
    folder = fetch(hub, models)
    card = load_card(folder)
    assert card.source.hub is not None
    assert (card.source.hub.repo, card.source.hub.revision) == (REPO, COMMIT)
    assert (card.task, card.context_length, card.dtype, card.licence) == ("chat", 64, "bfloat16", "Apache-2.0")
    assert card.languages == ("en", "de")
    assert set(card.checksums) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert vouch(folder / "weights", card)
    assert sorted(path.name for path in folder.iterdir()) == ["card.yaml", "weights"]
    assert not any((models / FOLDER).iterdir())
    assert not any("pytorch_model.bin" in path for path, _ in hub.asked), "a pickle isn't even fetched"
    assert hub.tokens == {None}


@pytest.mark.long
def test_the_card_alone_brings_the_same_weights_elsewhere(models: Path, hub: Hub, tmp_path: Path) -> None:
    folder = fetch(hub, models)
    there = tmp_path / "there" / "tiny"
    there.mkdir(parents=True)
    (there / "card.yaml").write_bytes((folder / "card.yaml").read_bytes())
    weights = prepare("tiny", there.parent, PREPARE, print)
    assert vouch(weights, load_card(there)) == vouch(folder / "weights", load_card(folder))


def test_a_connection_that_breaks_is_taken_up_where_it_ended(models: Path, hub: Hub) -> None:
    hub.cut = [MIB + 1000, MIB]
    fetch(hub, models)
    assert ranges(hub) == [None, f"bytes={MIB}-", f"bytes={2 * MIB}-"]


def test_a_run_that_failed_is_taken_up_by_the_next(models: Path, hub: Hub) -> None:
    hub.cut, hub.deaf = [MIB], 1
    with pytest.raises(PreparationFailed, match="The hub answered 503"):
        fetch(hub, models)
    assert not (models / "tiny").exists()
    part = models / FOLDER / "tiny" / DOWNLOAD / "model.safetensors.part"
    assert part.stat().st_size == MIB
    hub.asked.clear()
    hub.cut = []
    fetch(hub, models)
    assert ranges(hub) == [f"bytes={MIB}-"]


def test_a_killed_run_ends_its_download_and_the_next_one_goes_on(models: Path, hub: Hub) -> None:
    hub.cut, hub.held = [MIB], threading.Event()
    program = (
        "import sys; from pathlib import Path; from appliance.weights.add import Wish, add\n"
        "add(Wish(sys.argv[3], endpoint=sys.argv[4]), 'tiny', Path(sys.argv[1]), Path(sys.argv[2]), print)"
    )
    part = models / FOLDER / "tiny" / DOWNLOAD / "model.safetensors.part"
    command = [sys.executable, "-c", program, str(models), str(PREPARE), REPO, hub.url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as adding:
        until(lambda: part.is_file() and part.stat().st_size == MIB, 30)
        children = Path(f"/proc/{adding.pid}/task/{adding.pid}/children").read_text().split()
        pidfd = os.pidfd_open(int(children[0]))
        adding.kill()
    signalled, _, _ = select.select([pidfd], [], [], 10)
    os.close(pidfd)
    hub.held.set()
    assert signalled, "the download outlived the command"
    assert not (models / "tiny").exists()
    hub.asked.clear()
    fetch(hub, models)
    assert ranges(hub) == [f"bytes={MIB}-"]


@pytest.mark.long
def test_a_part_of_another_version_is_fetched_anew(models: Path, hub: Hub) -> None:
    part = models / FOLDER / "tiny" / DOWNLOAD / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    (part.parent / "stale.json").write_text("{}")
    folder = fetch(hub, models)
    assert ranges(hub) == ["bytes=1000-", None]
    assert not (folder / "weights" / "stale.json").exists(), "what the hub doesn't hold is no part of the model"


@pytest.mark.parametrize("name", ["model.safetensors", pytest.param("tokenizer.json", marks=pytest.mark.long)])
def test_a_file_that_is_another_than_the_hub_lists_is_refused_and_removed(models: Path, hub: Hub, name: str) -> None:
    held = hub.repositories[REPO]
    body = held.files[name]
    held.listed = held.siblings()
    held.files[name] = bytes(len(body))
    with pytest.raises(PreparationFailed, match=f"{name} isn't the file that the hub lists"):
        fetch(hub, models)
    assert not (models / "tiny").exists()
    assert not list(models.rglob(f"{name}*"))


@pytest.mark.long
def test_a_longer_file_than_listed_doesnt_fill_the_disk(models: Path, hub: Hub) -> None:
    held = hub.repositories[REPO]
    held.listed = held.siblings()
    held.files["model.safetensors"] += bytes(10_000_000)
    with pytest.raises(PreparationFailed, match=r"model\.safetensors"):
        fetch(hub, models)
    assert sum(path.stat().st_size for path in models.rglob("*") if path.is_file()) < 2 * SIZE + 2_000_000


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (listed("../../etc/model.safetensors", b""), "would lie elsewhere"),
        (listed("/etc/model.safetensors", b""), "would lie elsewhere"),
        (listed("a\\..\\model.safetensors", b""), "would lie elsewhere"),
        (listed("a\nb.json", b""), "would lie elsewhere"),
        ({"rfilename": "a.json", "size": 3}, "no length or no checksum"),
        (listed("a.safetensors", b"") | {"lfs": {"sha256": "0" * 64, "size": 1 << 60, "pointerSize": 1},
                                         "size": 1 << 60}, "GB more on the disk"),
    ],
)  # fmt: skip
def test_a_hostile_list_is_refused_before_anything_is_fetched(
    models: Path, hub: Hub, file: dict[str, Any], said: str
) -> None:
    held = hub.repositories[REPO]
    held.listed = [*held.siblings(), file]
    with pytest.raises(PreparationFailed, match=said):
        fetch(hub, models)
    assert not any(path.startswith("/cdn/") for path, _ in hub.asked)
    assert not (models / "tiny").exists()


def test_a_hub_that_names_no_commit_is_refused(models: Path, hub: Hub) -> None:
    hub.commit = "main"
    with pytest.raises(PreparationFailed, match="names no commit"):
        fetch(hub, models)


def test_a_hub_of_the_house_leads_nobody_out_of_it(models: Path, hub: Hub) -> None:
    """The machine isn't to ask anything outside, and what it asks there would be on no record."""
    hub.elsewhere = "http://203.0.113.7"
    with pytest.raises(PreparationFailed, match=r"leads to 203\.0\.113\.7, which is outside the house"):
        fetch(hub, models)
    assert not (models / "tiny").exists()


def test_a_repository_of_pickles_alone_is_refused(models: Path, hub: Hub) -> None:
    del hub.repositories[REPO].files["model.safetensors"]
    with pytest.raises(PreparationFailed, match=r"holds no \.safetensors file"):
        fetch(hub, models)
    assert not any((models / FOLDER).iterdir())


def test_code_in_the_config_is_refused_before_the_weights_are_fetched(models: Path, hub: Hub) -> None:
    evil = CONFIG | {"auto_map": {"AutoModel": "modeling_evil.Evil"}}
    hub.repositories[REPO].files["config.json"] = json.dumps(evil).encode()
    with pytest.raises(PreparationFailed, match="asks for the model's own code by `auto_map`"):
        fetch(hub, models)
    assert ranges(hub) == []
    assert not (models / "tiny").exists()


@pytest.mark.parametrize(
    ("repo", "revision", "said"),
    [
        ("acme/nothing", "main", "There is no acme/nothing on this hub, or it is private.*HF_TOKEN"),
        (REPO, "v9", "has no such revision"),
    ],
)
def test_what_isnt_there_is_said_in_plain_words(models: Path, hub: Hub, repo: str, revision: str, said: str) -> None:
    with pytest.raises(PreparationFailed, match=said):
        add(Wish(repo, revision, hub.url), "tiny", models, PREPARE, print)
    assert not any((models / FOLDER).iterdir())


def test_a_gated_model_asks_for_a_token_which_is_shown_to_the_hub(
    models: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[REPO].gated = True
    with pytest.raises(PreparationFailed, match=r"accepted its terms.*Set HF_TOKEN"):
        fetch(hub, models)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PreparationFailed, match="The token in HF_TOKEN doesn't open it") as refused:
        fetch(hub, models)
    assert "hf_wrong" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    fetch(hub, models)
    assert "Bearer hf_right" in hub.tokens


def test_a_model_without_a_licence_is_refused_before_its_weights_are_fetched(models: Path, hub: Hub) -> None:
    hub.repositories[REPO].licence = None
    with pytest.raises(PreparationFailed, match="Say it with --licence"):
        fetch(hub, models)
    assert ranges(hub) == []
    assert load_card(fetch(hub, models, licence="LicenseRef-acme")).licence == "LicenseRef-acme"


def test_a_hub_that_nobody_reaches_is_named(models: Path) -> None:
    with pytest.raises(PreparationFailed, match="can't be reached"):
        add(Wish(REPO, endpoint="http://127.0.0.1:9"), "tiny", models, PREPARE, print)


def test_a_hub_outside_is_not_asked_unless_this_machine_may(models: Path) -> None:
    wish = Wish(REPO, endpoint="https://203.0.113.7")
    with pytest.raises(PreparationFailed, match=r"outside the house.*appliance bundle.*--this-machine-may-fetch"):
        add(wish, "tiny", models, PREPARE, print)
    assert not any((models / FOLDER).iterdir())


def test_plain_http_to_a_hub_outside_is_refused(models: Path) -> None:
    with pytest.raises(PreparationFailed, match="use `https:`"):
        room.look(REPO, "main", "http://203.0.113.7", PREPARE, print)
