"""Brings a model's weights into models/<name>/weights: found, checked, converted, recorded, put in place."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from appliance.errors import PreparationFailed, WeightsInvalid
from appliance.weights import length, manifest
from appliance.weights.admission import admitted
from appliance.weights.card import CALIBRATED, Card, Package, load_card, named
from appliance.weights.conversion import convert, needed
from appliance.weights.hub import fetch
from appliance.weights.mirror import download
from appliance.weights.outside import Ask, address, refuse_outside
from appliance.weights.places import alone

Progress = Callable[[str], None]

STAGING = ".preparing"  # beside `weights`, so that a rename puts the finished folder in place
DOWNLOAD = ".download"


def prepare(name: str, models: Path, environment: Path, progress: Progress, *, ask: Ask = refuse_outside) -> Path:
    """Make `models`/`name`/weights what its card says, and return that folder.

    `environment` is the virtual environment of configs/locks/prepare.txt. Weights that fit the card and their
    checksums are left alone. A failed or killed preparation leaves the former weights as they were; only what
    was downloaded is kept, for the next try. A second preparation of the same model waits. A host that
    weights are fetched from is asked after `ask` has let it.

    Raises `CardInvalid`, and `PreparationFailed` saying what to do.
    """
    folder = named(models.absolute(), name)  # the converter runs in another working directory
    with alone(folder, progress):
        return fill(folder, folder, environment, progress, ask=ask)


def fill(folder: Path, home: Path, environment: Path, progress: Progress, *, ask: Ask) -> Path:
    """As `prepare`, for the card in `folder`, where nobody else is at work; `home` is where that will have its place.

    A relative `source.folder` starts at `home`, which may not be there yet.
    """
    environment = environment.absolute()
    card = load_card(folder)
    weights = folder / "weights"
    _clear(folder)
    if _ready(weights, card, progress):
        return weights
    if (url := address(card.source)) is not None:
        ask(url)
    staging = folder / STAGING
    try:
        staging.mkdir()
        _build(card, folder, home, environment, progress)
        if weights.exists():
            weights.rename(staging / "replaced")
        (staging / "weights").rename(weights)
        shutil.rmtree(folder / DOWNLOAD, ignore_errors=True)
    except OSError as cause:
        raise PreparationFailed(
            f"{cause.filename or folder}: {cause.strerror or cause}. "
            f"Mend that, then run `appliance models prepare {home.name}` again."
        ) from cause
    finally:
        _clear(folder)
    return weights


def _clear(folder: Path) -> None:
    """Remove what an unfinished preparation left, putting back weights that it had moved aside."""
    staging, weights = folder / STAGING, folder / "weights"
    if (staging / "replaced").is_dir() and not weights.exists():
        (staging / "replaced").rename(weights)
    shutil.rmtree(staging, ignore_errors=True)


def _ready(weights: Path, card: Card, progress: Progress) -> bool:
    if not weights.exists():
        return False
    try:
        if manifest.read(weights).fits(card):
            manifest.verify(weights)
            return True
        progress("the card has changed, preparing again")
    except WeightsInvalid as damage:
        progress(f"preparing again: {damage}")
    return False


def _build(card: Card, folder: Path, home: Path, environment: Path, progress: Progress) -> None:
    """Fill the staging folder's `weights`."""
    staging = folder / STAGING
    weights = staging / "weights"
    weights.mkdir()
    source = _find(card, folder, home, environment, progress)
    root = source.parent if source.is_file() else source
    for name, digest in card.checksums.items():
        _check(root / name, digest)
    # what isn't let in isn't handed to the converter either
    names = [] if source.suffix == ".gguf" else [name for name in admitted(source) if name != manifest.NAME]
    tools: Mapping[str, str] = {}
    if source.suffix == ".gguf" or needed(source, card):
        converted = staging / "converted"
        converted.mkdir()
        texts = _texts(card, folder)
        tools = convert(source, converted, card, texts, environment, progress)
        take(converted, admitted(converted), weights, linked=True)
    else:
        progress(f"taking over {root.name}")
        # a package's files are shared with the installer's cache, so these are copied
        take(root, names, weights, linked=card.source.package is None)
    if too_long := length.objection(weights / "config.json", card):
        raise PreparationFailed(too_long)
    progress("recording checksums")
    manifest.write(weights, card, tools)


def _find(card: Card, folder: Path, home: Path, environment: Path, progress: Progress) -> Path:
    """The source: a .gguf file or the folder of a checkpoint."""
    if card.source.package is not None:
        file = _in_package(card.source.package, environment)
        progress(f"checking {file.name}")
        _check(file, card.source.package.sha256)
        return file if file.suffix == ".gguf" else file.parent
    if card.source.mirror is not None:
        download(card.source.mirror, folder / DOWNLOAD, progress)
        return folder / DOWNLOAD
    if card.source.hub is not None:
        fetch(card.source.hub, folder / DOWNLOAD, environment, progress)
        return folder / DOWNLOAD
    source = Path(os.path.normpath(home / Path(card.source.folder or "").expanduser()))
    if folder != home and source.is_relative_to(home):
        source = folder / source.relative_to(home)
    if not source.is_dir():
        raise PreparationFailed(
            f"{source} isn't there. Put the checkpoint of {card.title} into that folder (config.json, "
            f"tokenizer and *.safetensors), or name its place as `source.folder` in {folder / 'card.yaml'}."
        )
    return source


def _texts(card: Card, folder: Path) -> Path | None:
    """What the card's quantization is calibrated with; None where it needs no texts."""
    if card.quantization not in CALIBRATED:
        return None
    if card.calibration is None:
        raise PreparationFailed(
            f"The source isn't quantized, and {card.quantization} is computed with texts; the card names none. "
            "Bring a checkpoint that is quantized already, or have the card made, with texts: `appliance models "
            f"quantize NAME --to {card.quantization}`."
        )
    _check(folder / card.calibration.file, card.calibration.sha256)
    return folder / card.calibration.file


def _in_package(package: Package, environment: Path) -> Path:
    distribution, version = package.requirement.split("==")
    record = f"{re.sub(r'[-_.]+', '_', distribution).lower()}-{version}.dist-info"
    for site in environment.glob("lib/python3*/site-packages"):
        if (site / record).is_dir() and (site / package.file).is_file():
            return site / package.file
    raise PreparationFailed(
        f"{package.requirement} with {package.file} isn't installed in {environment}. Name it in "
        f"configs/locks/prepare.in, then run `make lock` and `make {environment.name}`."
    )


def _check(file: Path, digest: str) -> None:
    if not file.is_file():
        raise PreparationFailed(f"{file} is missing, but the card has a checksum for it. Bring the file.")
    if manifest.sha256(file) != digest:
        raise PreparationFailed(
            f"{file} isn't the file that the card expects: its checksum differs. Bring the file again; if it "
            "was changed on purpose, put the new checksum into the card."
        )


def take(checkpoint: Path, names: list[str], weights: Path, *, linked: bool) -> None:
    """Bring the files `names` of `checkpoint` into `weights`, as hard links where that is possible."""
    for name in names:
        target = weights / name
        target.parent.mkdir(parents=True, exist_ok=True)
        original = (checkpoint / name).resolve()
        if linked:
            with contextlib.suppress(OSError):  # another file system, or somebody else's file
                target.hardlink_to(original)
                continue
        shutil.copyfile(original, target)
