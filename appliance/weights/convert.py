"""Turns a GGUF file or an unquantized checkpoint into safetensors, quantized if asked for.

A program of its own, run by the Python of the preparation environment: it imports nothing of the appliance,
and the appliance imports nothing of it.

    python convert.py SOURCE OUT {none,int8,w4a16}

SOURCE is a .gguf file or a folder with config.json and safetensors, OUT a folder to fill. Standard output
holds one JSON object per line: `{"progress": "what is being done"}`, and as the last one
`{"tools": {"torch": "2.13.0+cpu", ...}}`. Any failure is a traceback on standard error and exit status 1.
"""

# mypy: disable-error-code="import-not-found"
# (what it imports is only in the preparation environment)

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
TELL_FD = 9
GROUP = 64  # of W4A16 weights; 128 doesn't divide the 576 columns of the smallest model shipped


def tell(line: dict[str, Any]) -> None:
    """Write one line of the protocol."""
    os.write(TELL_FD, json.dumps(line).encode() + b"\n")


def load(source: Path) -> tuple[Any, Any]:
    """Model in bfloat16 and tokenizer, from a .gguf file or a folder."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    if source.suffix != ".gguf":
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.bfloat16, use_safetensors=True, trust_remote_code=False
        )
        return model, AutoTokenizer.from_pretrained(source)
    # transformers parses the header four times in pure Python; once is 10 s less
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    # without `dequantize` the weights stay packed, and packed ones can't be saved
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    return model, AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Write a checkpoint: config.json, safetensors, tokenizer."""
    tell({"progress": "writing safetensors"})
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        file.chmod(0o644)  # safetensors are written 0600, and an engine may be another user


def quantize(model: Any, scheme: str) -> None:
    """Quantize all linear layers but the last in place; needs no calibration data."""
    from compressed_tensors.quantization import preset_name_to_scheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    tell({"progress": f"quantizing to {scheme}"})
    if scheme == "int8":
        recipe = QuantizationModifier(targets="Linear", scheme="INT8", ignore=["lm_head"])
    else:
        groups = preset_name_to_scheme("W4A16", ["Linear"])
        groups.weights.group_size = GROUP
        recipe = QuantizationModifier(config_groups={"linear": groups}, ignore=["lm_head"])
    oneshot(model=model, recipe=recipe)


def main(source: Path, out: Path, quantization: str) -> None:
    """Read `source`, quantize, write `out`."""
    tell({"progress": f"reading {source.name}"})
    used = ["torch", "transformers"]
    with tempfile.TemporaryDirectory(dir=out.parent) as plain:
        if source.suffix == ".gguf":
            used.append("gguf")
            # llmcompressor reads config.json again from where the model was loaded, which a GGUF has not
            source = source if quantization == "none" else unpack(source, Path(plain))
        model, tokenizer = load(source)
        if quantization != "none":
            used += ["llmcompressor", "compressed-tensors"]
            quantize(model, quantization)
        save(model, tokenizer, out)
    tell({"tools": {name: importlib.metadata.version(name) for name in used}})


def unpack(gguf: Path, folder: Path) -> Path:
    """Write a GGUF as a bfloat16 checkpoint into `folder`."""
    save(*load(gguf), folder)
    return folder


if __name__ == "__main__":
    # a killed preparation must not leave this one writing into a folder that the next one clears
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # libraries print and log to standard output too, some from C: only `tell` keeps the real one
    os.dup2(1, TELL_FD)
    os.dup2(2, 1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
