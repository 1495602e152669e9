"""The gate with the real engine: right weights pass in both quantizations, broken ones are refused."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import control
from appliance.weights import manifest
from appliance.weights.card import load_card
from tests.real.house import ROOT, Appliance, card

# four starts of the real engine; tests/acceptance and tests/journeys/test_gate.py show each check in each run
pytestmark = [pytest.mark.engine, pytest.mark.long]
INT8, BNB4, SHUFFLED = "smollm2-135m-int8", "smollm2-135m-bnb4", "shuffled"


@pytest.fixture
def appliance() -> Iterator[Appliance]:
    """Serves `chat` in INT8; beside it are the 4-bit form and one with its layers in another order."""
    with tempfile.TemporaryDirectory(prefix="real-") as folder:
        models = Path(folder) / "models"
        for name in (INT8, BNB4):
            shutil.copytree(ROOT / "models" / name, models / name)
        shutil.copytree(models / INT8, models / SHUFFLED)
        _shuffle(models / SHUFFLED / "weights" / "model.safetensors")
        manifest.write(models / SHUFFLED / "weights", load_card(models / SHUFFLED), {})
        running = Appliance(Path(folder), {"chat": card(INT8)}, models)
        try:
            yield running.ready()
        finally:
            running.stop()


def _shuffle(file: Path) -> None:
    """Turn the order of the layers around: each tensor is right, and none is where it belongs."""
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    names = [name for name in header if ".layers." in name]
    last = max(int(name.split(".layers.")[1].split(".")[0]) for name in names)

    def other(name: str) -> str:
        before, _, rest = name.partition(".layers.")
        number, _, part = rest.partition(".")
        return f"{before}.layers.{last - int(number)}.{part}"

    moved = {name: header[other(name)] if name in names else header[name] for name in header}
    text = json.dumps(moved).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])


def apply(appliance: Appliance, name: str) -> list[dict[str, Any]]:
    """Have `chat` answered by another card; the lines of the answer."""
    appliance.models["chat"] = card(name)
    appliance.write()
    return list(control.ask(appliance.state, "POST", "/apply"))


def test_right_weights_pass_and_shuffled_ones_are_refused(appliance: Appliance) -> None:
    first = appliance.status()["acceptance"]["chat"]
    assert first["passed"]
    assert first["nats_english"] < 4

    refused = apply(appliance, SHUFFLED)[-1]["error"]
    assert "shuffled did not pass its gate (no rubbish): it finds a plain English text as unlikely as" in refused
    tried, served = appliance.status()["acceptance"]["chat"], appliance.status()["models"]["chat"]
    assert tried["nats_english"] > 8
    assert (served["card"], served["state"]) == (INT8, "ready")

    assert "error" not in apply(appliance, BNB4)[-1]
    four_bits = appliance.status()["acceptance"]["chat"]
    assert four_bits["nats_english"] < 4.5
    assert four_bits["times_slower"] > 1

    assert "error" not in apply(appliance, INT8)[-1]
    again = appliance.status()["acceptance"]["chat"]
    assert again["same_percent"] >= 90
    for figures in (first, tried, four_bits, again):
        print(json.dumps(figures))  # noqa: T201 - what a run by hand is for
