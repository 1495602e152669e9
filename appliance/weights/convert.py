"""Turns a GGUF file or an unquantized checkpoint into safetensors, quantized if asked for.

A program of its own, run by the Python of the preparation environment: it imports nothing of the appliance,
and the appliance imports nothing of it.

    python convert.py SOURCE OUT {none,int8,w4a16,fp8}
    python convert.py SOURCE OUT {awq,gptq} TEXTS

SOURCE is a .gguf file or a folder with config.json and safetensors, OUT a folder to fill, TEXTS a file of JSON lines
with `text`, or of plain text. Standard output holds one JSON object per line: `{"progress": "what is being done"}`,
and as the last one `{"tools": {"torch": "2.13.0+cpu", ...}, "peak_gib": 1.9}`. Any failure is a traceback on standard
error and exit status 1. The same source, texts and versions give the same weights.
"""

# mypy: disable-error-code="import-not-found"
# (what it imports is only in the preparation environment)

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import json
import os
import random
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
TELL_FD = 9
GROUPS = (128, 64, 32)  # of 4-bit weights, the largest that divides all columns: the smallest model shipped has 576
SEED = 20260101
NARROW = 1024  # columns
MOST_TEXTS = 128
MOST_TOKENS = 512  # of each text


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


def quantize(model: Any, tokenizer: Any, scheme: str, texts: Path | None) -> None:
    """Quantize all linear layers but the last in place; `texts` are what awq and gptq are calibrated with."""
    import torch
    from compressed_tensors.quantization import preset_name_to_scheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    random.seed(SEED)
    torch.manual_seed(SEED)
    tell({"progress": f"quantizing to {scheme}"})
    keep = ["lm_head"]
    if scheme in ("int8", "fp8"):
        preset = {"int8": "INT8", "fp8": "FP8_DYNAMIC"}[scheme]
        oneshot(model=model, recipe=QuantizationModifier(targets="Linear", scheme=preset, ignore=keep))
        return
    linear = preset_name_to_scheme("W4A16_ASYM" if scheme == "awq" else "W4A16", ["Linear"])
    linear.weights.group_size = group_of(model)
    groups = {"linear": linear}
    if scheme == "w4a16":
        oneshot(model=model, recipe=QuantizationModifier(config_groups=groups, ignore=keep))
        return
    if texts is None:
        raise ValueError(f"{scheme} needs texts")
    if scheme == "awq":
        # the texts only move precision to where it matters; what is rounded is rounded after that
        recipe = [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=keep)]
    else:
        recipe = [GPTQModifier(config_groups=groups, ignore=keep)]
    if model.config.get_text_config().hidden_size < NARROW:
        # it goes column by column: threads would spend more time on waiting for each other than on columns
        torch.set_num_threads(1)
    if not torch.accelerator.is_available():
        # it pins memory for an accelerator without asking whether there is one
        IntermediatesCache.pin_memory = lambda *_: None
    recipe.append(progress_by_layer(model))
    oneshot(model=model, recipe=recipe, dataset=samples(tokenizer, texts), pipeline="sequential")


def group_of(model: Any) -> int:
    """The largest group of weights that shares a scale and divides all columns."""
    import torch

    columns = [
        module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    for size in GROUPS:
        if not any(count % size for count in columns):
            return size
    raise ValueError(f"this model's layers can't be parted into groups of {GROUPS[-1]}; take int8 or fp8")


def progress_by_layer(model: Any) -> Any:
    """A step of a recipe that changes nothing, and tells how far the others are."""
    from llmcompressor.modifiers import Modifier

    layers = model.config.get_text_config().num_hidden_layers
    done = iter(range(1, sys.maxsize))

    class Told(Modifier):  # type: ignore[misc]
        def on_initialize(self, *_: Any, **__: Any) -> bool:
            return True

        def on_sequential_epoch_end(self, *_: Any, **__: Any) -> None:
            # one more part comes after the last layer
            tell({"progress": f"quantizing, {100 * next(done) // (layers + 1)} %"})

    return Told()


def samples(tokenizer: Any, file: Path) -> Any:
    """The texts of `file` as a loader of single batches, in the file's order."""
    import torch

    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if file.suffix in (".jsonl", ".json"):
        lines = [json.loads(line)["text"] for line in lines]
    batches = [
        dict(tokenizer(line, truncation=True, max_length=MOST_TOKENS, return_tensors="pt"))
        for line in lines[:MOST_TEXTS]
    ]
    return torch.utils.data.DataLoader(batches, batch_size=None)


def main(source: Path, out: Path, quantization: str, texts: Path | None = None) -> None:
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
            quantize(model, tokenizer, quantization, texts)
        save(model, tokenizer, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    tell({"tools": {name: importlib.metadata.version(name) for name in used}, "peak_gib": round(peak, 2)})


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
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *map(Path, sys.argv[4:]))
