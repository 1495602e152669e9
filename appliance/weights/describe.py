"""Reads from a checkpoint what a card says of a model: task, context, number format, languages, licence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from appliance import plain
from appliance.errors import PreparationFailed
from appliance.weights.card import Quantization
from appliance.weights.conversion import format_of
from appliance.weights.length import longest

_MOST_BYTES = 8 << 20
_LONGEST_SANE = 10_000_000
"""Tokenizers write 10^30 where they know no bound."""
_DTYPES = frozenset({"bfloat16", "float16", "float32"})
_NOBODYS = frozenset({"other", "unknown", "license", ""})
_SPDX = {
    "apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause",
    "cc0-1.0": "CC0-1.0", "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-4.0": "CC-BY-SA-4.0", "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0", "gpl-3.0": "GPL-3.0-only", "agpl-3.0": "AGPL-3.0-only",
    "lgpl-3.0": "LGPL-3.0-only", "mpl-2.0": "MPL-2.0", "unlicense": "Unlicense", "isc": "ISC",
}  # fmt: skip
_HEADINGS = (
    (r"Apache License\s+Version 2\.0", "Apache-2.0"),
    (r"MIT License|Permission is hereby granted, free of charge", "MIT"),
    (r"Creative Commons Attribution 4\.0", "CC-BY-4.0"),
)


def facts(checkpoint: Path) -> dict[str, Any]:
    """What can be read: any of `task`, `context_length`, `dtype`, `quantization`, `languages`, `licence`, `chat`.

    config.json and what lies beside it are read, no weights. Raises `PreparationFailed` for a config.json that can't
    be understood, or a quantization that nothing here can serve.
    """
    config = _read(checkpoint / "config.json")
    tokenizer = _read(checkpoint / "tokenizer_config.json", needed=False)
    front = front_matter(checkpoint / "README.md")
    found: dict[str, Any] = {
        "task": _task(config, checkpoint),
        "context_length": _length(config, tokenizer, checkpoint),
        "dtype": _dtype(config),
        "quantization": _quantization(config, checkpoint),
        "languages": languages(front.get("language")),
        "licence": spdx(front.get("license_name") or front.get("license")) or _of_text(checkpoint),
        "chat": _chat(checkpoint),
        "has_template": bool(tokenizer.get("chat_template")) or (checkpoint / "chat_template.jinja").is_file(),
    }
    return {name: value for name, value in found.items() if value is not None}


def front_matter(readme: Path) -> Mapping[str, Any]:
    """What a model's README says of it in YAML between two lines of `---` at its head; empty where it doesn't."""
    try:
        match = re.match(r"---\n(.*?)\n---", plain.read(readme, 100_000).decode(errors="replace"), re.DOTALL)
        found = yaml.safe_load(match[1]) if match else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def spdx(word: object) -> str | None:
    """The SPDX identifier for a hub's word for a licence; None for one that says nothing."""
    if not isinstance(word, str) or word.strip().lower() in _NOBODYS:
        return None
    known = _SPDX.get(word.strip().lower())
    return known or "LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", word.strip())[:60].strip("-")


def _of_text(checkpoint: Path) -> str | None:
    for file in sorted(checkpoint.glob("LICEN[SC]E*")):
        try:
            text = plain.read(file, 5000).decode(errors="replace")
        except OSError:
            continue
        for pattern, licence in _HEADINGS:
            if re.search(pattern, text):
                return licence
    return None


def _task(config: Mapping[str, Any], checkpoint: Path) -> str | None:
    said = config.get("architectures")
    kinds = " ".join(each for each in said if isinstance(each, str)) if isinstance(said, list) else ""
    if (checkpoint / "modules.json").is_file():
        return "embedding"
    if "ForSequenceClassification" in kinds:
        return "rerank"
    if "ForCausalLM" in kinds or "ForConditionalGeneration" in kinds:
        return "chat"
    return "embedding" if re.search(r"(Bert|Roberta|MPNet)\w*Model", kinds) else None


def _length(config: dict[str, Any], tokenizer: Mapping[str, Any], checkpoint: Path) -> int | None:
    sentences = _read(checkpoint / "sentence_bert_config.json", needed=False).get("max_seq_length")
    try:
        most = longest(config)
    except ValueError as cause:
        raise PreparationFailed(f"{checkpoint / 'config.json'} can't be understood: {cause}.") from cause
    given = [most, tokenizer.get("model_max_length"), sentences]
    known = [int(each) for each in given if isinstance(each, int | float) and 0 < each < _LONGEST_SANE]
    return min(known, default=None)


def _dtype(config: Mapping[str, Any]) -> str:
    said = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return said if said in _DTYPES else "auto"


def _quantization(config: Mapping[str, Any], checkpoint: Path) -> Quantization:
    found = config.get("quantization_config")
    if not found:
        return "none"
    fitting = format_of(found) if isinstance(found, dict) else None
    if fitting is None:
        raise PreparationFailed(
            f"{checkpoint.name} is quantized in a way that isn't served here "
            f"({str(found.get('quant_method') if isinstance(found, dict) else found)[:40]}). Take an unquantized "
            "version, or one in AWQ, GPTQ, FP8 or compressed-tensors."
        )
    return fitting


def languages(said: object) -> list[str] | None:
    """BCP 47 tags out of what a README or a hub says: a tag or a list of them; None where it says none."""
    given = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    tags = [each for each in given if isinstance(each, str)]  # another kind may be immense when written out
    return [each for each in tags if re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", each)] or None


def _chat(checkpoint: Path) -> dict[str, float] | None:
    """Sampling as the model's makers advise it."""
    said = _read(checkpoint / "generation_config.json", needed=False)
    bounds = {"temperature": (0, 2), "top_p": (0.01, 1)}
    chat = {
        name: float(said[name])
        for name, (least, most) in bounds.items()
        if isinstance(said.get(name), int | float) and least <= said[name] <= most
    }
    return chat or None


def _read(file: Path, *, needed: bool = True) -> dict[str, Any]:
    try:
        found = json.loads(plain.read(file, _MOST_BYTES))
    except FileNotFoundError:
        if not needed:
            return {}
        raise PreparationFailed(f"{file.parent} holds no {file.name}; is it the folder of a checkpoint?") from None
    except (OSError, ValueError, RecursionError) as cause:
        raise PreparationFailed(f"{file} can't be understood; bring the file again.") from cause
    if not isinstance(found, dict):
        raise PreparationFailed(f"{file} can't be understood; bring the file again.")
    return found
