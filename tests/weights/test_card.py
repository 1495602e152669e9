from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.errors import CardInvalid
from appliance.weights.card import load_card, named
from tests.weights.conftest import ROOT, card, write_card

SHIPPED = sorted((ROOT / "models").glob("*/card.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_every_shipped_card_is_right_and_says_what_the_model_is_not_for(path: Path) -> None:
    card = load_card(path.parent)
    assert card.licence
    assert card.intended_use
    assert card.out_of_scope
    assert card.limits


@pytest.mark.parametrize("package", [load_card(path.parent).source.package for path in SHIPPED])
def test_shipped_packages_are_locked(package: Any) -> None:
    if package is not None:
        assert f"\n{package.requirement} " in (ROOT / "configs/locks/prepare.txt").read_text()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"quantisation": "none"}, "did you mean `quantization`"),
        ({"quantization": "int5"}, "quantization"),
        ({"source": {}}, "exactly one of"),
        ({"source": {"hub": {"repo": "a/b", "revision": "main"}}}, "revision"),
        ({"source": {"hub": {"repo": "../b", "revision": "0" * 40}}}, "repo"),
        ({"calibration": {"file": "texts.txt", "sha256": "0" * 64}}, "without `calibration`"),
        ({"source": {"folder": "a", "mirror": {"url": "https://a/b"}}}, "exactly one of"),
        ({"source": {"mirror": {"url": "ftp://a/b"}}}, "source.mirror.url"),
        ({"source": {"package": {"requirement": "a>=1", "file": "a.gguf", "sha256": "0" * 64}}}, "requirement"),
        ({"source": {"package": {"requirement": "a==1", "file": "../a.gguf", "sha256": "0" * 64}}}, "`..`"),
        ({"checksums": {"/etc/passwd": "0" * 64}}, "relative path"),
        ({"task": "embedding", "quantization": "int8"}, "embedding"),
        ({"hardware": {"devices": ["cpu"], "memory_gib": 1, "gpu_memory_gib": 8}}, "`cuda`"),
        ({"chat": {"temperature": "hot"}}, "chat.temperature"),
        ({"languages": []}, "languages"),
    ],
)
def test_a_wrong_card_is_refused_where_it_is_wrong(models: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(CardInvalid) as refusal:
        load_card(write_card(models / "tiny", **changed))
    assert said in str(refusal.value)
    assert "line " in str(refusal.value)


@pytest.mark.parametrize(
    "field",
    ["trust_remote_code", "trust-remote-code", "trustRemoteCode", "remote_code", "auto_map", "allow_pickle",
     "load_format", "custom_code", "hf_overrides", "vllm_args", "extra-args", "unsafe", "plugins"],
)  # fmt: skip
@pytest.mark.parametrize("section", [None, "chat", "hardware", "source"])
def test_a_card_that_asks_for_code_is_told_why_not(models: Path, section: str | None, field: str) -> None:
    whole = card()
    changed = {field: True} if section is None else {section: {**whole.get(section, {}), field: True}}
    with pytest.raises(
        CardInvalid, match=rf"line \d+: .*`{field}` isn't offered: code that comes with a model is never"
    ):
        load_card(write_card(models / "tiny", **changed))


def test_a_name_that_leads_out_of_the_folder_is_no_model(models: Path) -> None:
    write_card(models / "tiny")
    write_card(models.parent / "outside")
    with pytest.raises(CardInvalid, match="there are: tiny"):
        named(models, "../outside")
