"""What was prepared: every file of a model's weights with its checksum, written once and verified often."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from appliance import plain
from appliance.errors import WeightsInvalid
from appliance.weights import length
from appliance.weights.admission import belongs, is_tokenizer
from appliance.weights.card import CONVERTED, Card
from appliance.weights.content import objection

NAME = "manifest.json"
_MOST_BYTES = 16 << 20


class File(BaseModel):
    """One file: its SHA-256 in lower-case hex, and its size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """manifest.json in a weights folder.

    `source` and `quantization` are the card's at preparation; `tools` maps each tool that had a hand in
    it to its version; `files` maps paths relative to the folder, with `/`, to what they must be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: Mapping[str, Any]
    quantization: str
    tools: Mapping[str, str]
    files: Mapping[str, File]

    def fits(self, card: Card) -> bool:
        """Whether these weights are the ones that `card` describes, by its own checksums where files are unchanged."""
        if self.source != recorded_source(card) or self.quantization != card.quantization:
            return False
        package = card.source.package
        pinned = dict(card.checksums)
        if package is not None:
            pinned[PurePosixPath(package.file).name] = package.sha256
        converted = self.tools and (card.quantization in CONVERTED or any(name.endswith(".gguf") for name in pinned))
        return bool(converted) or all(
            self.files[name].sha256 == digest for name, digest in pinned.items() if name in self.files
        )


def recorded_source(card: Card) -> dict[str, Any]:
    """What a manifest notes of the card's source, of the checksums that it demands, and of calibration texts."""
    source = {**card.source.model_dump(mode="json", exclude_none=True), "checksums": dict(card.checksums)}
    return source | ({"calibration": card.calibration.model_dump(mode="json")} if card.calibration else {})


def sha256(path: Path) -> str:
    """SHA-256 of a file, in lower-case hex; about a second per GB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(weights: Path, card: Card, tools: Mapping[str, str]) -> Manifest:
    """Record all files now in `weights`, as those of `card`."""
    return record(weights, recorded_source(card), card.quantization, tools)


def record(weights: Path, source: Mapping[str, Any], quantization: str, tools: Mapping[str, str]) -> Manifest:
    """Record all files now in the folder `weights`, and where they come from."""
    files = {
        name: File(sha256=sha256(weights / name), bytes=(weights / name).stat().st_size)
        for name in sorted(_present(weights))
    }
    manifest = Manifest(source=source, quantization=quantization, tools=dict(tools), files=files)
    (weights / NAME).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")
    return manifest


def read(weights: Path) -> Manifest:
    """The record of `weights`, without looking at the files; raises `WeightsInvalid` if there is none."""
    try:
        return Manifest.model_validate_json(plain.read(weights / NAME, _MOST_BYTES))
    except FileNotFoundError as cause:
        raise WeightsInvalid(f"{weights} isn't prepared. {remedy(weights)}") from cause
    except (OSError, ValidationError) as cause:
        raise WeightsInvalid(f"{weights / NAME} can't be read. {remedy(weights)}") from cause


def verify(weights: Path) -> Manifest:
    """Read every file and compare it with the record; about a second per GB.

    Raises `WeightsInvalid` naming the first file that is missing, differs, was never recorded, or that should not
    have been let in whatever the record says.
    """
    manifest = read(weights)
    present = _present(weights)
    if extra := sorted(present - manifest.files.keys()):
        raise WeightsInvalid(f"{weights / extra[0]} wasn't there when the model was prepared. {remedy(weights)}")
    for name, expected in sorted(manifest.files.items()):
        path = weights / name
        if name not in present:
            raise WeightsInvalid(f"{path} is missing. {remedy(weights)}")
        ours = path.is_file() and not path.is_symlink()
        if not ours or path.stat().st_size != expected.bytes or sha256(path) != expected.sha256:
            raise WeightsInvalid(f"{path} isn't the file that was prepared: its checksum differs. {remedy(weights)}")
        # whoever can write here can also write a record
        found = objection(path, tables=False) if belongs(name) else "is no file of a model"
        if found:
            raise WeightsInvalid(f"{path} {found}. It isn't loaded. {remedy(weights)}")
    return manifest


def vouch(weights: Path, card: Card) -> str:
    """Verify `weights` as those of `card` and return their fingerprint, the SHA-256 of the record.

    Raises `WeightsInvalid` as `verify` does, and when the card describes other weights.
    """
    manifest = verify(weights)
    if not manifest.fits(card):
        raise WeightsInvalid(f"{weights} isn't what the card describes: one of the two has changed. {remedy(weights)}")
    if not any(is_tokenizer(name) for name in manifest.files):
        raise WeightsInvalid(f"{weights} holds no tokenizer. {remedy(weights)}")
    if too_long := length.objection(weights / "config.json", card):
        raise WeightsInvalid(f"{weights.parent.name}: {too_long}")
    return fingerprint(manifest)


def fingerprint(manifest: Manifest) -> str:
    """SHA-256 of a record: other weights, from elsewhere or differently made, have another."""
    return hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()


def _present(weights: Path) -> set[str]:
    # a link counts as foreign: what it points to could change after the check
    return {
        path.relative_to(weights).as_posix() for path in weights.rglob("*") if path.is_symlink() or not path.is_dir()
    } - {NAME}


def remedy(weights: Path) -> str:
    """What to do about a damaged folder: a model's weights, or one of its adapters."""
    if weights.parent.name == "adapters":
        card = weights.parent.parent.name
        return f"Remove the folder, and `appliance models add PATH --adapter-of {card} --as {weights.name}` again."
    return f"Run `appliance models prepare {weights.parent.name}`."
