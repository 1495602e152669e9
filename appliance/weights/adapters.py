"""LoRA adapters of a model, in models/<name>/adapters: checked when they are brought, verified before each load."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.errors import PreparationFailed, WeightsInvalid
from appliance.weights import manifest
from appliance.weights.admission import admits
from appliance.weights.card import named
from appliance.weights.content import objection, shapes
from appliance.weights.places import alone

FOLDER = "adapters"
STAGING = ".adding"
CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
MAX_RANK = 512
"""The highest that vLLM serves."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# PEFT's variants that vLLM would serve as if they were plain LoRA, or not at all
_VARIANTS = (
    "use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora",
    "modules_to_save", "trainable_token_indices", "megatron_config",
)  # fmt: skip
_PLAIN_BEGINNINGS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_TENSOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?:embedding_)?(?P<side>[AB])(?:\.weight)?")
_WEIGHT = re.compile(r"(?P<module>.+)\.(?P<form>weight|weight_packed|qweight)")
_PACKED = {"weight": 1, "weight_packed": 8}
"""How many numbers of a row lie in one; how `qweight` is packed differs between AWQ and GPTQ."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter. `rank` is the highest of its matrices', `fingerprint` the SHA-256 of the record of its files."""

    folder: Path
    rank: int
    fingerprint: str


def adapters(folder: Path) -> dict[str, Adapter]:
    """The adapters of the model in `folder` (models/<name>) by their names, every file compared with its record.

    Raises `WeightsInvalid` naming the first file that isn't what was added, and what to do.
    """
    found = {}
    for each in sorted((folder / FOLDER).glob("*/")):
        if each.name.startswith("."):
            continue
        record = manifest.verify(each)
        try:
            rank = _rank(json.loads((each / CONFIG).read_bytes()))
        except (OSError, ValueError, _Unfit) as cause:
            raise WeightsInvalid(f"{each / CONFIG} {cause}. {manifest.remedy(each)}") from cause
        found[each.name] = Adapter(each, rank, _fingerprint(record))
    return found


def _fingerprint(record: manifest.Manifest) -> str:
    return hashlib.sha256(record.model_dump_json().encode()).hexdigest()


def add(source: Path, models: Path, base: str, name: str, record: Callable[[str], None] = lambda _: None) -> Adapter:
    """Check the adapter in the folder `source` and put it beside the weights of card `base`, as `name`.

    Only its config and its tensors are taken; both are copied. `record` is told its fingerprint just before it stands
    there; if it raises, nothing does. What a killed addition left, the next one clears. Raises `CardInvalid` for an
    unknown `base`, and `PreparationFailed` saying what to do.
    """
    if not _NAME.fullmatch(name):
        raise PreparationFailed(f"{name[:64]!r} is no name for an adapter: a-z, 0-9 and .-_ only; give one by --as.")
    folder = named(models.absolute(), base)
    target = folder / FOLDER / name
    with alone(folder, lambda _: None):
        if target.exists():
            raise PreparationFailed(f"{target} is there already. Give another name by --as, or remove that folder.")
        staging = folder / FOLDER / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir(parents=True)
            _take(source, staging)
            _check(staging, folder / "weights", base)
            record(_fingerprint(manifest.record(staging, {"adapter_of": base}, "lora", {})))
            staging.rename(target)
        except OSError as cause:
            raise PreparationFailed(f"{cause.filename or folder}: {cause.strerror or cause}.") from cause
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            with contextlib.suppress(OSError):  # others lie there
                (folder / FOLDER).rmdir()
    return adapters(folder)[name]


class _Unfit(ValueError):
    """The end of a sentence that begins with the file's name."""


def _take(source: Path, staging: Path) -> None:
    if not source.is_dir():
        raise PreparationFailed(f"{source} isn't a folder. Name the folder that holds {CONFIG} and {TENSORS}.")
    for path in sorted(source.iterdir()):
        admits(path.name)
    for name in (CONFIG, TENSORS):
        path = source / name
        if not path.is_file():
            raise PreparationFailed(f"{source} holds no {name}. Bring the folder that PEFT's save_pretrained wrote.")
        if path.is_symlink() and not path.resolve().is_relative_to(source.resolve()):
            raise PreparationFailed(f"{path} is a link that leads out of its folder. Bring the file itself.")
        if reason := objection(path):
            raise PreparationFailed(f"{path} {reason}. It isn't let in; bring the right file.")
        shutil.copyfile(path, staging / name)


def _check(adapter: Path, weights: Path, base: str) -> None:
    """Raises `PreparationFailed` unless the adapter is plain LoRA, and fits the tensors of `base`."""
    try:
        rank = _rank(json.loads((adapter / CONFIG).read_bytes()))
    except (ValueError, _Unfit) as cause:
        raise PreparationFailed(f"{CONFIG} {cause}.") from cause
    sides = dict(_base(weights, base))
    fitted = 0
    for tensor, shape in shapes(adapter / TENSORS).items():
        match = _TENSOR.fullmatch(tensor)
        if match is None:
            raise PreparationFailed(f"{TENSORS} holds {tensor[:100]!r}, which isn't a part of a LoRA adapter.")
        module, first = match["module"], match["side"] == "A"
        if _tail(module) not in sides:
            raise PreparationFailed(
                f"{TENSORS} has a tensor for {module[:100]}, which {base} hasn't: it was made for another model. "
                "Name that one's card with --adapter-of."
            )
        wanted = sides[_tail(module)]
        own, outer = (shape[0], shape[-1]) if first else (shape[-1], shape[0])
        if len(shape) != 2 or own > rank or (wanted is not None and outer != wanted[1 if first else 0]):
            raise PreparationFailed(
                f"{TENSORS} doesn't fit {base}: {tensor[:100]} is {'x'.join(map(str, shape))}, and the model's is "
                f"{'x'.join(map(str, wanted or ()))} at rank {rank}. It was made for a model of another size."
            )
        fitted += 1
    if not fitted:
        raise PreparationFailed(f"{TENSORS} holds no tensor; bring the adapter again.")


def _rank(config: Any) -> int:
    """The highest rank of any matrix; raises `_Unfit`."""
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise _Unfit("doesn't say `peft_type: LORA`; only LoRA adapters are served")
    for variant in _VARIANTS:
        if config.get(variant):
            raise _Unfit(f"asks for `{variant}`, which can't be served; merge the adapter into its base with PEFT")
    if config.get("bias", "none") != "none":
        raise _Unfit("has biases of its own (`bias`), which can't be served; merge the adapter into its base with PEFT")
    begun = config.get("init_lora_weights", True)
    if isinstance(begun, str) and begun.lower() not in _PLAIN_BEGINNINGS:
        raise _Unfit(
            f"says `init_lora_weights: {begun[:32]}`, which changes the base; convert it to plain LoRA with PEFT"
        )
    pattern = config.get("rank_pattern") or {}
    given = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else [None])]
    ranks = [rank for rank in given if type(rank) is int and 1 <= rank <= MAX_RANK]
    if len(ranks) < len(given):
        raise _Unfit(f"has no rank (`r`) from 1 to {MAX_RANK}")
    return max(ranks)


def _base(weights: Path, base: str) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """The base's modules, and the size (out, in) where it can be told."""
    try:
        files = manifest.read(weights).files
    except WeightsInvalid as cause:
        raise PreparationFailed(
            f"{base} isn't prepared, and the adapter is held against its weights. Run `appliance models prepare "
            f"{base}` first."
        ) from cause
    for file in files:
        if not file.endswith(".safetensors"):
            continue
        for tensor, shape in shapes(weights / file).items():
            if match := _WEIGHT.fullmatch(tensor):
                in_one = _PACKED.get(match["form"], 0) if len(shape) == 2 else 0
                yield _tail(match["module"]), (shape[0], shape[1] * in_one) if in_one else None


def _tail(module: str) -> str:
    """The module's name from its layer on: what comes before differs between a model and its wrappers."""
    return module[max(0, module.find("layers.")) :]
