"""`appliance models add` and `quantize`: what is on record of them, what they refuse, and what bad weights come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.__main__ import main
from appliance.weights import manifest, outside
from appliance.weights.card import load_card
from appliance.weights.staging import FOLDER
from tests.fakes.house import House, safetensors
from tests.fakes.hub import Repository, running
from tests.weights.conftest import PREPARE
from tests.weights.test_adapters import lora, write_adapter
from tests.weights.test_add import bring


@pytest.fixture
def house(house: House) -> House:
    """With one model, served as chat."""
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["engines"]["preparation_environment"] = str(PREPARE)
    house.write()
    return house


def models(house: House, *arguments: object) -> int:
    return main(["models", *map(str, arguments), "--config", str(house.config)])


def acts(house: House) -> list[dict[str, Any]]:
    """The bodies of all acts in the log."""
    found = []
    for file in sorted((house.state / "audit").glob("*.jsonl")):
        found += [json.loads(line) for line in file.read_text().splitlines()] if file.stem.isdigit() else []
    return [each["body"] for each in found if each["kind"] == "act"]


def test_a_model_that_is_added_is_on_record_with_its_weights(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models(house, "add", bring(tmp_path / "New Chat"), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    folder = house.folder / "models" / "new-chat"
    assert told["name"] == "new-chat"
    intent, done = acts(house)
    assert (intent["act"], intent["phase"], done["phase"]) == ("models.add", "intent", "done")
    weights = manifest.vouch(folder / "weights", load_card(folder))
    assert intent.items() >= {"model": "new-chat", "how": "add", "licence": "Apache-2.0", "weights": weights}.items()
    house.serve("chat", "new-chat", context_length=32)
    house.write()
    assert main(["check-config", "--config", str(house.config)]) == 0


def test_a_model_that_is_quantized_is_on_record_and_says_what_comes_next(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models(house, "add", bring(tmp_path / "a"), "--as", "new-bf16")
    capsys.readouterr()
    assert models(house, "quantize", "new-bf16", "--to", "bnb-4bit") == 0
    said = capsys.readouterr().out
    assert "`card: new-bnb4`" in said
    assert "appliance plan" in said
    assert acts(house)[-1]["phase"] == "done"
    assert acts(house)[-2].items() >= {"model": "new-bnb4", "how": "quantize", "source": "models/new-bf16"}.items()


def test_an_adapter_is_on_record_and_listed(house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = house.folder / "models" / "tiny" / "weights"
    header = {"model.layers.0.self_attn.q_proj.weight": {"dtype": "U8", "shape": [8, 8], "data_offsets": [0, 64]}}
    raw = json.dumps(header).encode()
    (weights / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(64))
    manifest.write(weights, load_card(weights.parent), {})
    assert models(house, "add", write_adapter(tmp_path / "Law", lora()), "--adapter-of", "tiny") == 0
    intent, _ = acts(house)
    assert intent.items() >= {"act": "models.add", "model": "tiny", "adapter": "law"}.items()
    capsys.readouterr()
    models(house, "list", "--json")
    assert [(row["name"], row["adapters"]) for row in json.loads(capsys.readouterr().out)] == [("tiny", ["law"])]


def test_a_host_outside_is_asked_only_by_a_machine_that_may_and_on_record(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the double is on this machine, and has to pass for one that isn't
    monkeypatch.setattr(outside, "is_private", lambda _: False)
    with running() as hub:
        config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64}
        hub.repositories["acme/Tiny"] = Repository(
            {
                "config.json": json.dumps(config).encode(),
                "tokenizer.json": b"{}",
                "model.safetensors": safetensors(b"x"),
            }
        )
        asking = ("add", "acme/Tiny", "--endpoint", hub.url, "--as", "new")
        assert models(house, *asking) == 1
        refusal = capsys.readouterr().err
        assert "egress: deny" in refusal
        assert "appliance bundle" in refusal
        assert hub.asked == []
        assert not house.state.exists(), "nothing was done that could be on record"
        assert models(house, *asking, "--this-machine-may-fetch") == 0
    fetch, _, add, _ = acts(house)
    assert fetch.items() >= {"act": "models.fetch", "model": "new", "url": hub.url, "egress": "deny"}.items()
    assert add["act"] == "models.add"


def test_what_cant_be_put_on_record_is_not_done(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    house.state.mkdir()
    (house.state / "photos").mkdir()
    assert models(house, "add", bring(tmp_path / "a"), "--as", "new") == 2
    assert "photos" in capsys.readouterr().err
    assert sorted(path.name for path in (house.folder / "models").iterdir()) == [FOLDER, "tiny"]
    assert not any((house.folder / "models" / FOLDER).iterdir())


def _recorded(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """A change by somebody who can also write the record of the weights."""

    def changed(weights: Path) -> None:
        change(weights)
        manifest.write(weights, load_card(weights.parent), {})

    return changed


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "another checksum": (lambda weights: (weights / "config.json").write_text('{"a": 1}'), "its checksum differs"),
    "a pickle": (
        _recorded(lambda weights: (weights / "model.safetensors").write_bytes(b"\x80\x04.")),
        "is a pickle, whatever its name says",
    ),
    "a pickle beside it": (
        _recorded(lambda weights: (weights / "pytorch_model.bin").write_bytes(b"")),
        "is no file of a model",
    ),
    "no tokenizer": (_recorded(lambda weights: (weights / "tokenizer.json").unlink()), "holds no tokenizer"),
    "too long a context": (
        _recorded(lambda weights: (weights / "config.json").write_text('{"max_position_embeddings": 256}')),
        "`context_length: 512` is more than the model can read",
    ),
    "code": (
        _recorded(lambda weights: (weights / "config.json").write_text('{"auto_map": {"AutoModel": "a.B"}}')),
        "asks for the model's own code",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_weights_are_refused_before_anything_starts(
    house: House, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, said = BAD[fault]
    spoil(house.folder / "models" / "tiny" / "weights")
    assert main(["check-config", "--config", str(house.config)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["models add", "models quantize tiny", "models quantize tiny --to int3", "models add a --task poetry",
     "models add a --context-length many"],
)  # fmt: skip
def test_a_wrong_command_line_is_2(line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2


@pytest.mark.parametrize("command", ["quantize", "add"])
def test_the_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["models", command, "--help"])
    out = capsys.readouterr().out
    assert "--this-machine-may-fetch" in out
    assert len(out.splitlines()) > 20
