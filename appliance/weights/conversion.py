"""Has weights converted and quantized by convert.py, a program of its own in the preparation environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from appliance.errors import PreparationFailed
from appliance.telemetry import SILENT
from appliance.weights.card import CALIBRATED, CONVERTED, Card, Quantization

Progress = Callable[[str], None]

CONVERTER = Path(__file__).with_name("convert.py")
GIB = 2**30

_LIBRARIES_GIB = 1.0
"""Main memory that the converter takes beside weights: PyTorch and what goes with it."""
_CALIBRATION_TOKENS = 128 * 512
"""Of all texts. What passes between two layers is held for each of them."""
_ROWS = 4
"""And so many rows of the model's width, beside one of its layers' inner width."""
_WIDTHS = (4096, 16384)
"""Of a model that doesn't tell: rather more than less."""
_UNPACKED = 4
"""How many times its size a 4-bit GGUF has as bfloat16, at most."""
_SHARE: Mapping[str, float] = {"none": 1, "int8": 0.6, "fp8": 0.6, "w4a16": 0.5, "awq": 0.5, "gptq": 0.5}
"""How large weights are after quantization, at most: embeddings stay as they are, and small models have large ones."""

# What `quantization_config` of config.json may say, for each quantization of a card: (quant_method, format).
_METHODS: Mapping[Quantization, tuple[tuple[str, str | None], ...]] = {
    "none": (),
    "bitsandbytes-4bit": (("bitsandbytes", None),),
    "int8": (("compressed-tensors", "int-quantized"),),
    "int8-weight-only": (),
    "w4a16": (("compressed-tensors", "pack-quantized"),),
    "awq": (("awq", None), ("compressed-tensors", "pack-quantized")),
    "gptq": (("gptq", None), ("compressed-tensors", "pack-quantized")),
    "fp8": (("fp8", None), ("compressed-tensors", "float-quantized")),
}
# What may start from unquantized weights.
_PLAIN = frozenset({"none", "bitsandbytes-4bit", "int8-weight-only"}) | CONVERTED


def needed(checkpoint: Path, card: Card) -> bool:
    """Whether the checkpoint is still to be quantized; raises `PreparationFailed` if it never can be."""
    try:
        found = json.loads((checkpoint / "config.json").read_bytes()).get("quantization_config")
        method = (found["quant_method"], found.get("format")) if found else None
    except FileNotFoundError:
        raise PreparationFailed(f"{checkpoint} holds no config.json; is it the folder of a checkpoint?") from None
    except (ValueError, AttributeError, KeyError, TypeError) as cause:
        raise PreparationFailed(f"{checkpoint / 'config.json'} can't be understood; bring the file again.") from cause
    if method is None and card.quantization in _PLAIN:
        return card.quantization in CONVERTED
    if method is not None and _fits(method, card.quantization):
        return False
    if method is None:
        is_now, fitting = "isn't quantized", ["none"]
    else:
        is_now = f"is quantized with {method[0]}" + (f" ({method[1]})" if method[1] else "")
        fitting = [quantization for quantization in _METHODS if _fits(method, quantization)]
    change = f"Set `quantization: {fitting[0]}` in the card, or bring" if fitting else "Bring"
    raise PreparationFailed(
        f"{checkpoint} {is_now}, but the card says `quantization: {card.quantization}`. "
        f"{change} a checkpoint that fits."
    )


def format_of(quantization: Mapping[str, Any]) -> Quantization | None:
    """The card's word for the `quantization_config` of a config.json; None if it is served by none."""
    method = (str(quantization.get("quant_method")), quantization.get("format"))
    return next((word for word in _METHODS if _fits(method, word)), None)


def _fits(method: tuple[str, str | None], quantization: Quantization) -> bool:
    return any(method[0] == name and form in (None, method[1]) for name, form in _METHODS[quantization])


def convert(
    source: Path, out: Path, card: Card, texts: Path | None, environment: Path, progress: Progress
) -> Mapping[str, str]:
    """Run convert.py; returns the versions of the tools it used.

    `texts` are what the card's quantization is calibrated with. What it takes of memory and disk is looked at first.
    Raises `PreparationFailed`.
    """
    python = environment / "bin" / "python"
    if not python.is_file():
        raise PreparationFailed(f"{environment} isn't there. Run `make {environment.name}`, which sets it up.")
    quantization = card.quantization if card.quantization in CONVERTED else "none"
    require_room(source, out.parent, quantization)
    tools: Mapping[str, str] | None = None
    log = out.parent / "convert.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [str(python), str(CONVERTER), str(source), str(out), quantization, *([str(texts)] if texts else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=out.parent,
            env={
                "PATH": os.defpath,
                "HOME": str(out.parent),
                "TMPDIR": str(out.parent),
                **SILENT,
                "TOKENIZERS_PARALLELISM": "false",
            },
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                told = json.loads(line)
                if "tools" in told:
                    tools = told["tools"]
                    progress(f"converted; it took {told['peak_gib']:.1f} GiB of memory at most")
                if "progress" in told:
                    progress(told["progress"])
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0 and tools is not None:
        return tools
    if process.returncode == -9:
        raise PreparationFailed(
            "The conversion was killed, most likely for want of memory. Free memory, then try again."
        )
    last = log.read_text(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
    raise PreparationFailed(f"The conversion ended with status {process.returncode}: {last[:500]}")


def require_room(source: Path, folder: Path, quantization: str) -> None:
    """Raises `PreparationFailed` with the figures where memory, or the disk of `folder`, can't hold the conversion."""
    plain = plain_bytes(source)
    memory = plain * 2 / GIB + _LIBRARIES_GIB + (_calibration_bytes(source) / GIB if quantization in CALIBRATED else 0)
    unpacked = plain if source.suffix == ".gguf" and quantization != "none" else 0
    disk = (unpacked + plain * _SHARE[quantization]) / GIB
    free, room = free_memory() / GIB, shutil.disk_usage(folder).free / GIB
    if memory > free:
        raise PreparationFailed(
            f"Converting {source.name} needs about {memory:.1f} GiB of memory, and {free:.1f} GiB are free. End what "
            "else runs here, or prepare it on a larger machine and bring the model's folder."
        )
    if disk > room:
        raise PreparationFailed(
            f"Converting {source.name} needs about {disk:.1f} GiB on the disk of {folder}, and {room:.1f} GiB are "
            "free. Make room, then run this again."
        )


def _calibration_bytes(source: Path) -> int:
    """What of the texts is held at once, in bfloat16."""
    try:
        config = json.loads((source / "config.json").read_bytes())
        width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    except (OSError, ValueError, KeyError, TypeError):
        width, inner = _WIDTHS if source.suffix != ".gguf" else (1024, 4096)
    return _CALIBRATION_TOKENS * (width * _ROWS + inner) * 2


def plain_bytes(source: Path) -> int:
    """How large the weights of `source` (a .gguf file or the folder of a checkpoint) are, unpacked."""
    if source.suffix == ".gguf":
        return source.stat().st_size * _UNPACKED
    return sum(file.stat().st_size for file in source.rglob("*.safetensors"))


def free_memory() -> int:
    """Bytes of main memory that a process of ours could take: of the host, and of the container we are in."""
    meminfo = Path("/proc/meminfo").read_text()
    free = next(int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemAvailable"))
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        cache = next(
            int(line.split()[1])
            for line in (group / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):  # no such limit
        return free
    return min(free, limit - used + cache)
