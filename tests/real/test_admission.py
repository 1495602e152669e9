"""The wall behind the admission: started on files that it would never have let in, vLLM itself refuses them."""

from __future__ import annotations

import json
import pickle
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.config import LocalModel
from appliance.engines.command import Spec, launch
from appliance.weights.card import load_card
from appliance.weights.content import objection
from tests.real.house import ROOT, START

MODEL = ROOT / "models" / "smollm2-135m-int8"


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A copy of a real model's files."""
    return shutil.copytree(MODEL / "weights", tmp_path / "weights")


def start(weights: Path, folder: Path) -> str:
    """Start vLLM on `weights` as the appliance would, without asking what they are; what it said when it ended."""
    settings = LocalModel.model_validate({"card": MODEL.name, "kv_cache": {"space_gib": 0.1}})
    spec = Spec("x", load_card(MODEL), settings, weights, ROOT / ".venvs/engine/bin/python", "cpu", "")
    made = launch(spec, folder, folder / "cache", folder / "log")
    done = subprocess.run(
        made.argv, env=made.env, capture_output=True, text=True, timeout=START, check=False, cwd=folder
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_a_models_own_code_is_not_run(weights: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (weights / "modeling_evil.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    config = json.loads((weights / "config.json").read_text())
    own = {name: f"modeling_evil.Evil{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")}
    changed = config | {"model_type": "evil", "architectures": ["EvilForCausalLM"], "auto_map": own}
    (weights / "config.json").write_text(json.dumps(changed))
    assert "asks for the model's own code by `auto_map`" in (objection(weights / "config.json") or "")
    assert "trust_remote_code" in start(weights, tmp_path)
    assert not mark.exists()
    runpy.run_path(str(weights / "modeling_evil.py"))
    assert mark.exists(), "it would have left no mark if it had run"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.safetensors", "can't decode byte"),
        # a minute: vLLM finds out only when all else is loaded
        pytest.param("pytorch_model.bin", "Cannot find any model weights", marks=pytest.mark.long),
    ],
)
def test_a_pickle_is_not_loaded(weights: Path, tmp_path: Path, name: str, said: str) -> None:
    mark = tmp_path / "ran"
    (weights / "model.safetensors").unlink()
    (weights / name).write_bytes(pickle.dumps(Payload(mark)))
    assert said in start(weights, tmp_path)
    assert not mark.exists()
    pickle.loads((weights / name).read_bytes())  # noqa: S301 - the control
    assert mark.exists(), "it would have left no mark if it had been loaded"
