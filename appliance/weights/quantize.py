"""Makes a new model out of one that there is: the same weights in another number format, with a card of its own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from appliance.errors import CardInvalid, PreparationFailed, WeightsInvalid
from appliance.weights import manifest
from appliance.weights.card import CALIBRATED, CONVERTED, Card, Quantization, load_card, named
from appliance.weights.outside import Ask, refuse_outside
from appliance.weights.prepare import fill
from appliance.weights.staging import Progress, stage

TEXTS = Path(__file__).with_name("calibration.txt")
"""What is calibrated with, unless somebody brings texts of his own: short office texts, German and English."""

TARGETS: Mapping[str, tuple[Quantization, str, str]] = {
    "bnb-4bit": ("bitsandbytes-4bit", "bnb4", "bitsandbytes 4-bit"),
    "int8": ("int8", "int8", "INT8"),
    "awq": ("awq", "awq", "AWQ 4-bit"),
    "gptq": ("gptq", "gptq", "GPTQ 4-bit"),
    "fp8": ("fp8", "fp8", "FP8"),
    "w4a16": ("w4a16", "w4a16", "W4A16"),
}
"""What a person asks for, to the card's word, the word in a name, and the one in a title."""

_FORMATS = frozenset({"bf16", "fp16", "fp32", "none", "4bit", *(word for _, word, _ in TARGETS.values())})
_TITLES = ("bf16", "fp16", "fp32", "bfloat16", "float16", "float32", *(title for _, _, title in TARGETS.values()))
_OF_TITLES = re.compile(f", ({'|'.join(_TITLES)})$", re.IGNORECASE)
_FP8_CAPABILITY = 8.9
_SLOWER_WITHOUT_A_GPU = 5.0
"""How many times as slow as INT8 bitsandbytes may be there, for a gate to let it pass: three times is what it is."""


def name_for(base: str, to: str) -> str:
    """The name of `base` with its word for a number format replaced, or one appended."""
    parts = base.split("-")
    kept = parts[:-1] if parts[-1] in _FORMATS and len(parts) > 1 else parts
    return "-".join([*kept, TARGETS[to][1]])


def quantize(
    base: str,
    to: str,
    name: str,
    models: Path,
    environment: Path,
    progress: Progress,
    *,
    texts: Path | None = None,
    ask: Ask = refuse_outside,
    record: Callable[[str, Path], None] = lambda *_: None,
) -> Path:
    """Make the model `name` of the card `base` in the format `to` of `TARGETS`; returns its folder.

    `texts` is a file to calibrate with. `ask` is told a host before that is asked, and `record` card and weights just
    before the model stands in its place; if either raises, nothing does. A killed run leaves nothing but a hidden
    folder, which the next one clears. Raises `CardInvalid`, and `PreparationFailed` saying what to do.
    """
    origin = named(models.absolute(), base)
    card = load_card(origin)
    if card.task != "chat":
        raise PreparationFailed(f"{base} is for {card.task}; only models for chat can be quantized.")
    with stage(models, name, progress) as made:
        shutil.rmtree(made.folder)
        made.folder.mkdir()
        plain = _without_format(card, origin, base)
        plain |= _format(card, to)
        if TARGETS[to][0] in CALIBRATED:
            plain["calibration"] = _bring(texts or TEXTS, made.folder)
        elif texts is not None:
            raise PreparationFailed(f"{to} is computed without texts; leave --calibration out.")
        made.write_card(_comment(base, to, texts), plain)
        try:
            load_card(made.folder)
        except CardInvalid as cause:
            raise PreparationFailed(f"No right card can be made of {base}'s: {cause.problems[0]}.") from cause
        fill(made.folder, made.home, environment, progress, ask=ask)
        record(name, made.folder / "weights")
        return made.finish()


def _comment(base: str, to: str, texts: Path | None) -> str:
    with_texts = f" --calibration {texts.name}" if texts else ""
    return (
        f"Made by `appliance models quantize {base} --to {to}{with_texts}`: its source in another number format.\n"
        "`appliance models prepare` computes the same weights from this card on another machine, if the versions\n"
        "in the preparation environment are the same (weights/manifest.json has them). What it is used for, and its\n"
        f"limits, were taken over from {base}: read whether they still hold."
    )


def _without_format(card: Card, origin: Path, base: str) -> dict[str, Any]:
    """The card as plain data, with a source that holds from a neighbouring folder."""
    plain = card.model_dump(mode="json", exclude_unset=True, exclude={"calibration"})
    source = card.source
    if source.folder is not None and not Path(source.folder).expanduser().is_absolute():
        plain["source"] = {"folder": f"../{base}/{source.folder}"}
    elif source.package is None and source.folder is None and card.quantization not in CONVERTED:
        # what was fetched lies there already, and needn't be fetched again
        try:
            record = manifest.verify(origin / "weights")
        except WeightsInvalid:
            return plain
        if record.fits(card):
            plain["source"] = {"folder": f"../{base}/weights"}
            plain["checksums"] = {
                file: sum_.sha256 for file, sum_ in record.files.items() if file.endswith(".safetensors")
            }
    return plain


def _format(card: Card, to: str) -> dict[str, Any]:
    """What of the card is another for the format `to`."""
    quantization, _, word = TARGETS[to]
    changed: dict[str, Any] = {
        "title": f"{_OF_TITLES.sub('', card.title)}, {word}"[:200],
        "description": f"{card.description.strip()} Here quantized to {word} by the appliance.",
        "quantization": quantization,
        "limits": [*card.limits, f"Quantized to {word}, which costs accuracy; `appliance eval` measures how much."],
    }
    if quantization == "fp8":
        hardware = card.hardware.model_dump(mode="json", exclude_unset=True)
        capability = max(_FP8_CAPABILITY, card.hardware.compute_capability or 0)
        changed["hardware"] = hardware | {"devices": ["cuda"], "compute_capability": capability}
    if quantization == "bitsandbytes-4bit" and "cpu" in card.hardware.devices:
        gate = card.gate.model_dump(mode="json", exclude_unset=True)
        changed["gate"] = gate | {"slower_times": max(_SLOWER_WITHOUT_A_GPU, card.gate.slower_times)}
    return changed


def _bring(texts: Path, folder: Path) -> dict[str, str]:
    """Copy the texts beside the card; returns what the card says of them."""
    if not texts.is_file():
        raise PreparationFailed(f"{texts} isn't there. Name a file of JSON lines with `text`, or of plain text.")
    lines = texts.read_text(encoding="utf-8", errors="replace").splitlines()
    if not any(line.strip() for line in lines) or "\ufffd" in "".join(lines):
        raise PreparationFailed(f"{texts} holds no text in UTF-8.")
    target = folder / f"calibration{'.jsonl' if texts.suffix in ('.jsonl', '.json') else '.txt'}"
    shutil.copyfile(texts, target)
    return {"file": target.name, "sha256": manifest.sha256(target)}
